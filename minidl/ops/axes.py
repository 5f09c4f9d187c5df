"""Axis numbers as people write them (negative, several, all) made plain, with errors that name the axis."""

from minidl.core.errors import ArgumentError, DTypeError, RangeError, describe, explained


def one_axis(call, dim, ndim):
    """An axis number between 0 and ndim - 1. A 0-d tensor counts as having one axis, as in PyTorch."""
    try:
        axis = dim.__index__()
    except AttributeError:
        raise explained(DTypeError, call, "an axis is an integer.",
                        [f"dim: {describe(dim)}"], "Count axes from 0, or from -1 at the end.") from None
    count = ndim or 1
    if not -count <= axis < count:
        raise explained(RangeError, call, f"there is no axis {axis}.", [f"the tensor has {ndim} axes: {-count} to {count - 1} exist"],
                        "Count axes from 0, or from -1 at the end.")
    return axis % count


def several_axes(call, dims, ndim):
    """Axis numbers from one number or a sequence of them, in the order given; None means all."""
    if dims is None:
        return tuple(range(ndim))
    axes = tuple(one_axis(call, d, ndim) for d in (dims if isinstance(dims, (tuple, list)) else (dims,)))
    if len(set(axes)) < len(axes):
        raise explained(ArgumentError, call, "an axis is named twice.", [f"dim: {tuple(dims)} of {ndim} axes"], "Name each axis once.")
    return axes if ndim else ()
