"""Picking along one axis by an integer tensor, and the way back: gather and scatter; masked_fill, roll, index_select.

An index is an integer tensor and carries no gradient. gather and gather_grad are each other's gradient; the scatters
are plain functions made of them.
"""

import numpy as np

from minidl.backend.generic.scatter import add_at_index, flat_positions, last_of_each
from minidl.backend.layout import empty, stored
from minidl.core.device import array_module, device_of, move
from minidl.core.dtypes import category, is_floating, result_type
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError, describe, explained
from minidl.core.examples import booleans, integers, normal
from minidl.core.later import require
from minidl.core.op import example, needs_grad, op
from minidl.core.tensor import Tensor
from minidl.ops.axes import one_axis, several_axes
from minidl.ops.broadcast import broadcast_shape, same_device, sum_to
from minidl.ops.index import getitem, getitem_grad
from minidl.ops.select import where
from minidl.ops.shape import expand, reshape


def positions_in(call, index, like, size):
    """An index (a tensor or an array of integers) as an array on the device of `like`, every number between 0 and size − 1."""
    array = index.array if isinstance(index, Tensor) else index if hasattr(index, "dtype") else np.asarray(index)
    if array.dtype.kind not in "iu":
        raise explained(DTypeError, call, "an index is a tensor of integers.", [f"got {describe(index)}"], "Convert it: index.long().")
    array = move(array, device_of(like))
    if array.size:
        low, high = array.min(), array.max()

        def complain():
            worst = int(low if low < 0 else high)
            raise explained(RangeError, call, f"index {worst} lies outside the axis.", [f"the axis has size {size}"],
                            f"Indices go from 0 to {size - 1}; they do not count from the end here." if size else "The axis is empty.")

        require((low >= 0) & (high < size), complain)
    return array


def fitted_index(call, shape, axis, index, like):
    """The index of gather and scatter, checked: as many axes as x, none longer than x's but the one picked along."""
    size = shape[axis] if shape else 1
    array = positions_in(call, index, like, size)
    if array.size and max(array.ndim, 1) != max(len(shape), 1):
        raise explained(ShapeError, call, "index must have as many axes as x.", [f"x: {shape}", f"index: {array.shape}"],
                        "To pick whole slices with a 1-d index use index_select() or index_add().")
    if not array.size and array.ndim != len(shape):
        array = array.reshape((0,) * max(len(shape), 1))
    for k, (n, most) in enumerate(zip(array.shape, shape, strict=False)):
        if k != axis and n > most:
            raise explained(ShapeError, call, f"axis {k} of index is longer than x's.",
                            [f"x: {shape}", f"index: {array.shape}, picked along axis {axis}"],
                            "Every axis but the one picked along must fit into x.")
    return array


def grid(array, axis):
    """An open mesh of index arrays: the index itself along one axis, 0, 1, 2, ... along the others."""
    mesh = [array_module(array).arange(n).reshape((-1,) + (1,) * (array.ndim - 1 - k)) for k, n in enumerate(array.shape)]
    mesh[axis] = array
    return tuple(mesh)


@op("x", examples=[example(normal(4, 3), 0, integers(0, 4, 2, 3)), example(normal(2, 3, 2, 2), 1, integers(0, 3, 2, 5, 1, 2)),
                   example(normal(5), 0, integers(0, 5, 3))],
    tex=r"y_{i j k} = x_{\mathrm{index}(i, j, k),\, j,\, k}", method=True)
def gather(x, dim, index):
    """Pick along one axis: y[i, j, k] = x[index[i, j, k], j, k] for dim = 0, and so on.

    Shapes:    index has the axes of x, none longer but dim; y has the shape of index.
    Backward:  an element that was picked k times collects k gradients: grad_x = gather_grad(grad_y).
    """
    axis = one_axis("gather", dim, x.ndim)
    array = fitted_index("gather", x.shape, axis, index, x.array)
    x_shape = x.shape
    y = stored(x.array.reshape(x_shape or (1,))[grid(array, axis)] if array.ndim else x.array.copy())

    def backward(grad_y):
        return gather_grad(grad_y, x_shape, axis, array)

    return y, backward


@op("grad_y", examples=[example(normal(2, 3), (4, 3), 0, integers(0, 4, 2, 3)),
                   example(normal(2, 5, 1, 2), (2, 3, 2, 2), 1, integers(0, 3, 2, 5, 1, 2))],
    tex=r"g_{a j k} = \sum_{i:\ \mathrm{index}(i, j, k) = a} \bar y_{i j k}")
def gather_grad(grad_y, x_shape, dim, index):
    """The gradient of gather: zeros of x's shape, with every number of grad_y added where it was picked from.

    Shapes:    grad_y, the shape of index -> grad_x of x_shape.
    Backward:  grad_x is linear in grad_y and puts each number to one place: the gradient is gather with the same index.
    """
    axis = one_axis("gather_grad", dim, len(x_shape))
    array = fitted_index("gather_grad", x_shape, axis, index, grad_y.array)
    grad_x = empty(x_shape, grad_y.dtype, grad_y.array)
    grad_x.fill(0)
    if array.ndim:
        add_at_index(grad_x, grid(array, axis), grad_y.array)
    else:
        grad_x += grad_y.array

    def backward(grad_x2):  # the gradient of grad_x takes x's place
        return gather(grad_x2, axis, array)

    return grad_x, backward


def sources(call, x, dim, index, src):
    """(axis, index, src) of a scatter: src a tensor with the shape of index, in the dtype of x."""
    axis = one_axis(call, dim, x.ndim)
    array = fitted_index(call, x.shape, axis, index, x.array)
    if not isinstance(src, Tensor):
        src = Tensor(array_module(x.array).full(array.shape, src, x.dtype))
    if src.dtype != x.dtype:
        raise explained(DTypeError, call, "src and x must have one dtype.", [f"x: {x.dtype}", f"src: {src.dtype}"],
                        f"Convert one: src.to({x.dtype}).")
    if any(n > most for n, most in zip(array.shape, src.shape, strict=False)) or array.ndim != src.ndim:
        raise explained(ShapeError, call, "src must be at least as long as index along every axis.",
                        [f"src: {src.shape}", f"index: {array.shape}"],
                        "Only the part of src that index covers is used.")
    return axis, array, src if src.shape == array.shape else getitem(src, tuple(slice(n) for n in array.shape))


def scatter(input, dim, index, src=None, value=None, reduce=None):
    """Write src (a tensor or a number) along one axis: y = x, but y[index[i, j, k], j, k] = src[i, j, k] for dim = 0.

    Where several elements go to one place the last one wins, and it alone gets the gradient.
    """
    if reduce not in (None, "add"):
        raise explained(ArgumentError, "scatter", f"reduce = {reduce!r} is not one of minidl's.", ["reduce: None, 'add'"],
                        "Use None or 'add'.")
    axis, array, src = sources("scatter", input, dim, index, value if src is None else src)
    if reduce == "add":
        return input + gather_grad(src, input.shape, axis, array)
    xp, mesh = array_module(array), grid(array, axis) if array.ndim else (0,)
    winners = Tensor(last_of_each(flat_positions(input.shape or (1,), mesh, xp).reshape(-1)).reshape(array.shape))
    reached = xp.zeros(input.shape or (1,), bool)
    reached[mesh] = True
    return where(Tensor(reached.reshape(input.shape)), gather_grad(where(winners, src, False), input.shape, axis, array), input)


def scatter_add(input, dim, index, src):
    """Add src along one axis: y = x, then y[index[i, j, k], j, k] += src[i, j, k] for dim = 0. Repeated places add up."""
    axis, array, src = sources("scatter_add", input, dim, index, src)
    return input + gather_grad(src, input.shape, axis, array)


def take_along_dim(input, indices, dim=None):
    """Pick along one axis by an index that broadcasts against x in the other axes; without dim from the flattened x."""
    if dim is None:
        return gather(reshape(input, (-1,)), 0, reshape(indices, (-1,)))
    axis = one_axis("take_along_dim", dim, input.ndim)
    if indices.ndim != input.ndim:
        raise explained(ShapeError, "take_along_dim", "indices must have as many axes as x.",
                        [f"x: {input.shape}", f"indices: {indices.shape}"],
                        "Insert axes of size 1 with unsqueeze().")
    others = [list(t.shape) for t in (input, indices)]
    for shape in others:
        shape[axis] = 1
    shape = list(broadcast_shape("take_along_dim", *others))
    sizes = [(*shape[:axis], t.shape[axis], *shape[axis + 1:]) for t in (input, indices)]
    return gather(expand(input, sizes[0]), axis, expand(indices, sizes[1]))


def slices_at(call, shape, dim, index, like):
    """(axis, an index expression) for a 1-d index of whole slices."""
    axis = one_axis(call, dim, len(shape))
    array = positions_in(call, index, like, shape[axis] if shape else 1)
    if array.ndim > 1:
        raise explained(ShapeError, call, "index must have one axis.", [f"index: {array.shape}"],
                        "To pick element by element use gather().")
    return axis, (slice(None),) * axis + (array.reshape(-1),)


def index_select(input, dim, index):
    """The slices of one axis that a 1-d index names, in its order."""
    _, where_to = slices_at("index_select", input.shape, dim, index, input.array)
    return getitem(input, where_to) if input.ndim else reshape(getitem(reshape(input, (1,)), where_to), ())


def index_add(input, dim, index, source, alpha=1):
    """y = x, with alpha · source[k] added to the slice index[k] of one axis. Repeated slices add up."""
    axis, where_to = slices_at("index_add", input.shape, dim, index, input.array)
    count = where_to[-1].size
    expected = (*input.shape[:axis], count, *input.shape[axis + 1:])
    if source.shape != expected and input.ndim:
        raise explained(ShapeError, "index_add", "source must have the shape of the slices that index names.",
                        [f"x: {input.shape}, index names {count} slices of axis {axis}", f"source: {source.shape}, not {expected}"],
                        "source[k] is added to slice index[k].")
    if not input.ndim:
        return input + reshape(source, (-1,)).sum() * alpha
    return input + getitem_grad(source if alpha == 1 else source * alpha, input.shape, where_to)


@op("x mask value", examples=[example(normal(2, 3), booleans(2, 3), -2.0), example(normal(2, 3, 2, 2), booleans(2, 1, 2, 2), 0.5),
                              example(normal(3), booleans(2, 3), normal())],
    tex=r"y = \begin{cases} v & m \\ x & \lnot m \end{cases}", method=True)
def masked_fill(x, mask, value):
    """Overwrite where a mask is true: y = value where mask, else x.

    Shapes:    x and mask broadcast to y; value is one number.
    Backward:  grad_x = grad_y where it was kept, 0 where overwritten; grad_value = Σ grad_y where overwritten.
    """
    number = value.array if isinstance(value, Tensor) else value
    if not isinstance(mask, Tensor) or mask.dtype.kind != "b":
        raise explained(DTypeError, "masked_fill", "mask must be a Tensor of booleans.", [f"it is {describe(mask)}"],
                        "Did you mean mask != 0?")
    same_device("masked_fill", x, mask)
    if isinstance(value, Tensor) and value.ndim:
        raise explained(ShapeError, "masked_fill", "value must be one number.", [f"value: {describe(value)}"], "Use where(mask, value, x).")
    if category(result_type(number)) > category(x.dtype):
        raise explained(DTypeError, "masked_fill", f"{x.dtype} cannot hold the value.", [f"value: {describe(value)}"],
                        "Convert x first: x.float().")
    y = empty(broadcast_shape("masked_fill", x.shape, mask.shape), x.dtype, x.array)
    y[...] = x.array
    array_module(y).copyto(y, y.dtype.type(number) if not hasattr(number, "astype") else number.astype(y.dtype), where=mask.array)
    x_shape = x.shape
    need_x, _, need_value = needs_grad(x, mask, value)

    def backward(grad_y):
        grad_x = sum_to(where(mask, 0, grad_y), x_shape) if need_x else None
        return grad_x, None, where(mask, grad_y, 0).sum() if need_value else None

    return y, backward if is_floating(y.dtype) else None


def masked_select(input, mask):
    """The elements where a mask is true, in row-major order, as a 1-d tensor; x and mask broadcast."""
    shape = broadcast_shape("masked_select", input.shape, mask.shape)
    return getitem(expand(input, shape), (expand(mask, shape),)) if shape else getitem(reshape(input, (1,)), (reshape(mask, (1,)),))


@op("x", examples=[example(normal(5), 2), example(normal(2, 3), (1, -1), (0, 1)), example(normal(2, 3, 2, 2), 1, dims=1),
                   example(normal(2, 3), -4)],
    tex=r"y_{(k + s) \bmod N} = x_k", method=True)
def roll(x, shifts, dims=None):
    """Shift the elements along axes; what leaves at the end comes in at the front. Without dims in the flattened x.

    Shapes:    x -> y, the same.
    Backward:  shift back: grad_x = roll(grad_y, −shifts).
    """
    shifts = tuple(shifts) if isinstance(shifts, (tuple, list)) else (shifts,)
    axes = None if dims is None or dims == () else several_axes("roll", dims, x.ndim)
    if len(shifts) != (1 if axes is None else len(axes)):
        raise explained(ArgumentError, "roll", "there must be one shift per axis.", [f"shifts: {shifts}", f"dims: {dims}"],
                        "Name an axis for every shift.")
    y = stored(array_module(x.array).roll(x.array, shifts if axes else shifts[0], axes or None))
    back = tuple(-s for s in shifts)

    def backward(grad_y):
        return roll(grad_y, back, axes)

    return y, backward


for method in (index_add, index_select, masked_select, scatter, scatter_add, take_along_dim):
    setattr(Tensor, method.__name__, method)

__all__ = ["gather", "gather_grad", "index_add", "index_select", "masked_fill", "masked_select", "roll", "scatter", "scatter_add",
           "take_along_dim"]
