"""Other words for moving elements: t, movedim, repeat, tile, meshgrid, ... Plain functions made of the ops in shape.py."""

from math import prod

import numpy as np

from minidl.core.device import CPU, move
from minidl.core.errors import ArgumentError, ShapeError, explained
from minidl.core.tensor import Tensor
from minidl.ops.axes import one_axis, several_axes
from minidl.ops.broadcast import broadcast_shape
from minidl.ops.scatter import index_select
from minidl.ops.shape import expand, flatten, permute, reshape, transpose, unsqueeze


def one_list(values):
    """(2, 3) from f(2, 3), f((2, 3)) and f([2, 3])."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


def t(input):
    """A matrix with its two axes exchanged; vectors and single numbers as they are."""
    if input.ndim > 2:
        raise explained(ShapeError, "t", "x must have at most two axes.", [f"x: {input.shape}"],
                        "Did you mean x.mT (its last two axes exchanged)?")
    return transpose(input, 0, 1) if input.ndim == 2 else input


def swapaxes(input, axis0, axis1):
    """Exchange two axes: transpose() by NumPy's name."""
    return transpose(input, axis0, axis1)


def swapdims(input, dim0, dim1):
    """Exchange two axes: transpose() by another name."""
    return transpose(input, dim0, dim1)


def movedim(input, source, destination):
    """Move axes to other places; the axes that are not named keep their order."""
    sources, targets = several_axes("movedim", source, input.ndim), several_axes("movedim", destination, input.ndim)
    if len(sources) != len(targets):
        raise explained(ArgumentError, "movedim", "every axis needs one place to go.", [f"source: {source}", f"destination: {destination}"],
                        "Name as many axes in destination as in source.")
    rest = iter(k for k in range(input.ndim) if k not in sources)
    places = dict(zip(targets, sources, strict=True))
    return permute(input, tuple(places[k] if k in places else next(rest) for k in range(input.ndim)))


def moveaxis(input, source, destination):
    """Move axes to other places: movedim() by NumPy's name."""
    return movedim(input, source, destination)


def broadcast_to(input, size):
    """Repeat x along axes of size 1 and along new leading axes until it has this shape: expand()."""
    return expand(input, size)


def broadcast_tensors(*tensors):
    """All tensors repeated to their common shape, as a tuple."""
    tensors = one_list(tensors)
    shape = broadcast_shape("broadcast_tensors", *(x.shape for x in tensors))
    return tuple(expand(x, shape) for x in tensors)


def repeat(input, *sizes):
    """Lay copies of x side by side, sizes[k] of them along axis k; more sizes than axes make new leading axes."""
    sizes = one_list(sizes)
    lead = len(sizes) - input.ndim
    if lead < 0 or min(sizes, default=0) < 0:
        raise explained(ShapeError, "repeat", "there must be a size ≥ 0 for every axis of x, and there may be more.",
                        [f"x: {input.shape}", f"sizes: {sizes}"], "Write 1 for an axis that is not repeated; tile() fills in missing ones.")
    shape = (1,) * lead + input.shape
    if all(n == 1 for n in sizes):
        return reshape(input, shape)
    between = [n for k, size in enumerate(shape) for n in (sizes[k], size)]  # (copies, size) for every axis
    spaced = reshape(input, [n for size in shape for n in (1, size)])
    return reshape(expand(spaced, between), [n * size for n, size in zip(sizes, shape, strict=True)])


def tile(input, *dims):
    """repeat() with 1 for the leading axes that dims leaves out."""
    dims = one_list(dims)
    return repeat(input, (1,) * (input.ndim - len(dims)) + tuple(dims))


def repeat_interleave(input, repeats, dim=None):
    """Repeat every slice of an axis on the spot: [a, b] -> [a, a, b, b]; `repeats` is a number, or a tensor with one per slice."""
    if dim is None:
        input, dim = reshape(input, (input.array.size,)), 0
    axis = one_axis("repeat_interleave", dim, input.ndim)
    if isinstance(repeats, Tensor) and repeats.array.size == 1:
        repeats = int(repeats)
    if isinstance(repeats, Tensor):
        if repeats.shape != (input.shape[axis],):
            raise explained(ShapeError, "repeat_interleave", "repeats holds one number per slice.",
                            [f"x: {input.shape}, axis {axis} has size {input.shape[axis]}", f"repeats: {repeats.shape}"],
                            "Pass one number for all of them.")
        counts = move(repeats.array, CPU)  # CuPy repeats by one number only
        return index_select(input, axis, Tensor(np.repeat(np.arange(input.shape[axis]), counts)))
    sizes = list(input.shape)
    spread = expand(unsqueeze(input, axis + 1), (*sizes[:axis + 1], repeats, *sizes[axis + 1:]))
    sizes[axis] *= repeats
    return reshape(spread, sizes)


def unflatten(input, dim, sizes):
    """Split one axis into several, in row-major order; one size may be -1: whatever is left."""
    axis, sizes = one_axis("unflatten", dim, input.ndim), tuple(sizes)
    n, known = input.shape[axis], prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or (known == 0 or n % known if -1 in sizes else n != known):
        raise explained(ShapeError, "unflatten", f"the sizes must multiply to the size of axis {axis}.",
                        [f"x: {input.shape}, axis {axis} has size {n}", f"sizes: {sizes}"],
                        "Write -1 for one size that follows from the others.")
    return reshape(input, (*input.shape[:axis], *(n // known if size == -1 else size for size in sizes), *input.shape[axis + 1:]))


def ravel(input):
    """All elements in one axis, in row-major order."""
    return flatten(input)


def meshgrid(*tensors, indexing="ij"):
    """Coordinates of a grid: one tensor per vector, all of shape (N_0, N_1, ..), the k-th varying along axis k.

    indexing="xy" exchanges the first two axes, as for pictures.
    """
    tensors = one_list(tensors)
    if indexing not in ("ij", "xy"):
        raise explained(ArgumentError, "meshgrid", f"indexing {indexing!r} is not known.", ["indexing: 'ij', 'xy'"],
                        "'ij' keeps the order of the vectors.")
    if any(x.ndim > 1 for x in tensors):
        raise explained(ShapeError, "meshgrid", "the coordinates must be vectors.", [f"shapes: {', '.join(str(x.shape) for x in tensors)}"],
                        "Flatten them first.")
    order = list(range(len(tensors)))
    if indexing == "xy":
        order[:2] = order[1::-1] if len(order) > 1 else order
    sizes = [tensors[k].array.size for k in order]
    return tuple(expand(reshape(x, [-1 if order[k] == place else 1 for k in range(len(order))]), sizes) for place, x in enumerate(tensors))


for method in (t, swapaxes, swapdims, movedim, moveaxis, broadcast_to, repeat, tile, repeat_interleave, unflatten, ravel):
    setattr(Tensor, method.__name__, method)

__all__ = ["broadcast_tensors", "broadcast_to", "meshgrid", "moveaxis", "movedim", "ravel", "repeat_interleave", "swapaxes",
           "swapdims", "t", "tile", "unflatten"]
