"""x[index]: ints, slices, ..., None, masks and integer arrays, with PyTorch's rules; and its gradient.

An index is worked out in two steps, as in PyTorch: first everything that only selects a view (ints, slices, None),
then the arrays. So x[0, :, [1, 2]] has the shape of x[0][:, [1, 2]], where NumPy would move an axis to the front.
"""

import numpy as np

from minidl.backend.generic.scatter import add_at_index
from minidl.backend.layout import empty, stored
from minidl.core.device import array_module, device_of, move
from minidl.core.dtypes import bool_
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError, describe, explained
from minidl.core.examples import booleans, integers, normal
from minidl.core.later import require
from minidl.core.op import example, op
from minidl.core.tensor import Tensor


class Index:
    """An index made plain for one shape: x[view][arrays], `arrays` being () if the view is all."""

    __slots__ = ("view", "arrays", "axes", "once")

    def __init__(self, view, arrays, axes, once):
        self.view = view      # a tuple of ints, slices and None, ending in ...
        self.arrays = arrays  # a tuple of integer arrays and slice(None), one per axis of the view
        self.axes = axes      # for every entry of arrays the axis of x, or None
        self.once = once      # does it name every element at most once?

    def __repr__(self):
        shown = [f"array{a.shape}" if hasattr(a, "shape") else ":" for a in self.arrays]
        parts = ["..." if i is ... else _slice_text(i) if isinstance(i, slice) else str(i) for i in self.view]
        return f"[{', '.join(parts)}]" + (f"[{', '.join(shown)}]" if shown else "")


@op("x", examples=[example(normal(4, 3, 2), (slice(1, None, 2), None, ..., 0)), example(normal(4, 3), (integers(0, 4, 5),)),
                   example(normal(4, 3), (booleans(4, 3),)),
                   example(normal(4, 3, 2), (integers(-4, 4, 2, 1), slice(None), integers(0, 2, 3)))],
    tex=r"y_k = x_{\mathrm{index}(k)}")
def getitem(x, index):
    """x[index]: the elements that an index names.

    Shapes:    ints drop an axis, None makes one, slices shorten one; arrays put their common shape in place of the axes they index.
    Backward:  an element that was named k times collects k gradients, one never named gets 0: grad_x = getitem_grad(grad_y).
    """
    index = resolve_index(x, index)
    y = x.array[index.view]
    if index.arrays:
        y = stored(y[index.arrays])
    x_shape = x.shape

    def backward(grad_y):
        return getitem_grad(grad_y, x_shape, index)

    return y, backward


@op("grad_y", examples=[example(normal(2, 2), (4, 2), (slice(0, 4, 2),)), example(normal(3, 2), (4, 2), ([1, 3, 1],)),
                        example(normal(2), (2, 3), ([0, 1], [2, 0]))],
    tex=r"g_j = \sum_{k:\ \mathrm{index}(k) = j} \bar y_k")
def getitem_grad(grad_y, x_shape, index):
    """The gradient of x[index]: zeros of x's shape, with every number of grad_y added where it was taken from.

    Shapes:    grad_y, the shape of x[index] -> grad_x of x_shape.
    Backward:  grad_x is linear in grad_y and puts element index(k) to use for k: the gradient is getitem with the same index.
    """
    grad_x = empty(x_shape, grad_y.dtype, grad_y.array)
    grad_x.fill(0)
    index = resolve_index(Tensor(grad_x), index)
    view = grad_x[index.view]
    if not index.arrays:
        view[...] = grad_y.array
    elif index.once:
        view[index.arrays] = grad_y.array
    else:  # plain assignment would keep only the last of several numbers for one element
        add_at_index(view, index.arrays, grad_y.array)

    def backward(grad_x2):  # the gradient of grad_x takes x's place
        return getitem(grad_x2, index)

    return grad_x, backward


def raw_index(x, index):
    """(view, rest): x.array[index] is view[rest], for writing: `view[rest] = value`."""
    index = resolve_index(x, index)
    return x.array[index.view], index.arrays or ...


def resolve_index(x, index):
    """Make an index plain for the shape of x, or raise with the axis, the index and the size."""
    if type(index) is Index:
        return index
    shape, array = x.shape, x.array
    items = [_plain(item, array) for item in (index if isinstance(index, tuple) else (index,))]
    used = sum(_axes_used(item) for item in items)
    if used > len(shape) or sum(item is ... for item in items) > 1:
        raise explained(RangeError, "x[...]", "an index names every axis at most once, and has at most one '...'.",
                        [f"x: {shape}, {len(shape)} axes", f"the index names {used}"], "Drop the extra indices.")
    view, arrays, axes, axis, once = [], [], [], 0, True
    for item in items:
        if item is None:
            view.append(None), arrays.append(slice(None)), axes.append(None)
        elif item is ...:
            skipped = len(shape) - used
            view += [slice(None)] * skipped
            arrays += [slice(None)] * skipped
            axes += range(axis, axis + skipped)
            axis += skipped
        elif isinstance(item, int):
            view.append(_inside(item, axis, shape))
            axis += 1
        elif isinstance(item, slice):
            view.append(_forward(item, axis)), arrays.append(slice(None)), axes.append(axis)
            axis += 1
        elif item.ndim == 0:  # x[True] and x[False]: a new axis of size 1 or 0
            view.append(None), arrays.append(array_module(array).zeros(int(item), np.int64)), axes.append(None)
        elif item.dtype == bool:
            view += [slice(None)] * item.ndim
            arrays += _mask(item, axis, shape)
            axes += range(axis, axis + item.ndim)
            axis += item.ndim
        else:
            once = False
            view.append(slice(None)), arrays.append(_bounded(item, axis, shape)), axes.append(axis)
            axis += 1
    if all(isinstance(item, slice) for item in arrays):
        arrays = ()
    else:
        _broadcastable(arrays, axes, shape)
    return Index((*view, ...), tuple(arrays), axes, once)


def _plain(item, array):
    """One item of an index as None, ..., int, slice, or an array on the device of the tensor."""
    if item is None or item is ... or isinstance(item, slice):
        return item
    if type(item) is int:
        return item
    if isinstance(item, (list, range)):
        item = np.asarray([v.array if isinstance(v, Tensor) else v for v in item])
        item = item if item.size else item.astype(np.int64)
    if isinstance(item, np.ndarray):
        item = item.copy()  # the caller may write into his array before the backward has used it; a Tensor is guarded
    item = item.array if isinstance(item, Tensor) else np.asarray(item) if isinstance(item, (bool, np.generic)) else item
    if getattr(item, "dtype", None) is None or item.dtype.kind not in "bi" and (item.dtype.kind != "u" or item.dtype.itemsize == 1):
        raise explained(DTypeError, "x[...]", "an index is made of ints, slices, None, ..., integer arrays and boolean masks.",
                        [f"got {describe(item)}"], "Convert it: .long() for positions, .bool() for a mask.")
    return int(item) if item.ndim == 0 and item.dtype != bool else move(item, device_of(array))


def _axes_used(item):
    if item is None or item is ...:
        return 0
    return item.ndim if getattr(item, "dtype", None) == bool_ else 1


def _inside(index, axis, shape):
    """An int that lies inside its axis."""
    if -shape[axis] <= index < shape[axis]:
        return index
    raise _outside(index, axis, shape)


def _outside(index, axis, shape):
    size = shape[axis]
    return explained(RangeError, "x[...]", f"index {index} lies outside axis {axis}.", [f"x: {shape}, axis {axis} has size {size}"],
                     f"Indices go from {-size} to {size - 1}." if size else "The axis is empty.")


def _forward(item, axis):
    """A slice that steps forward."""
    step = 1 if item.step is None else item.step.__index__()
    if step < 1:
        raise explained(ArgumentError, "x[...]", "the step of a slice must be positive.", [f"axis {axis}: {_slice_text(item)}"],
                        f"Did you mean x.flip({axis})?" if step else "Use a step of 1 or more.")
    return item


def _slice_text(item):
    parts = ["" if v is None else str(v) for v in (item.start, item.stop, item.step)]
    return ":".join(parts if parts[2] else parts[:2])


def _mask(mask, axis, shape):
    """The positions of a mask's True elements, one array per axis."""
    for k, size in enumerate(mask.shape):
        if size != shape[axis + k]:
            raise explained(ShapeError, "x[...]", "a mask must have the size of every axis it covers.",
                            [f"x: {shape}, axis {axis + k} has size {shape[axis + k]}", f"mask: {mask.shape}, axis {k} has size {size}"],
                            "Compute the mask from x itself, as in x > 0.")
    return mask.nonzero()


def _bounded(positions, axis, shape):
    """An integer array inside its axis. CuPy would wrap it around silently, and so NumPy's check does not do."""
    size = shape[axis]
    if positions.size:
        low, high = positions.min(), positions.max()

        def complain():
            raise _outside(int(low) if low < -size else int(high), axis, shape)

        require((low >= -size) & (high < size), complain)
    return positions


def _broadcastable(arrays, axes, shape):
    """The arrays of an index must have one common shape."""
    try:
        np.broadcast_shapes(*(a.shape for a in arrays if not isinstance(a, slice)))
    except ValueError:
        facts = [f"axis {axis}: {a.shape}" for a, axis in zip(arrays, axes, strict=True) if not isinstance(a, slice)]
        raise explained(ShapeError, "x[...]", "the arrays of an index must broadcast to one shape.", [f"x: {shape}", *facts],
                        "For every pair of rows and columns give them shapes (n, 1) and (m,).") from None


__all__ = ["getitem", "getitem_grad", "raw_index"]
