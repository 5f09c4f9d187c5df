"""Ops that move elements and compute nothing: reshape, permute, cat, pad and their like.

A result may be a view of its input or a copy; none of them promises either. No op here keeps a tensor alive.
"""

import math

from minidl.backend.layout import empty, join, stored
from minidl.core.device import array_module
from minidl.core.dtypes import result_type
from minidl.core.errors import ArgumentError, RangeError, ShapeError, explained
from minidl.core.examples import normal
from minidl.core.op import example, op
from minidl.ops.axes import one_axis, several_axes
from minidl.ops.broadcast import same_device, sum_to


@op("x", examples=[example(normal(2, 3, 4), (4, 6)), example(normal(2, 3, 4), (3, -1, 2, 1))], tex=r"y = x")
def reshape(x, shape):
    """The same elements, in row-major order, under another shape; one size may be -1: whatever is left.

    Shapes:    x -> y of the given shape, with as many elements.
    Backward:  the gradient goes back under the old shape: grad_x = grad_y.reshape(x.shape).
    """
    shape = _inferred(x.array.size, x.shape, shape if isinstance(shape, (tuple, list)) else (shape,))
    y = x.array.reshape(shape)
    if y.ndim == 4 and not x.array.flags.c_contiguous:  # NumPy had to copy, or might have
        y = stored(y)
    x_shape = x.shape

    def backward(grad_y):
        return reshape(grad_y, x_shape)

    return y, backward


view = reshape


def _inferred(count, x_shape, shape):
    """The shape with its -1 filled in, checked against the number of elements."""
    shape = tuple([n.__index__() for n in shape])
    if math.prod(shape) == count and min(shape, default=0) >= 0:
        return shape
    known = math.prod(n for n in shape if n != -1)
    if min(shape, default=0) < -1 or shape.count(-1) > 1:
        raise explained(ShapeError, "reshape", "sizes are not negative, and only one of them may be -1.", [f"shape: {shape}"],
                        "Write -1 for one unknown size.")
    if -1 in shape and known == 0:
        raise explained(ShapeError, "reshape", "-1 cannot be worked out beside a size of 0: any size would fit.",
                        [f"x: {x_shape}", f"wanted: {shape}"], "Write the size instead of -1.")
    if count % known if -1 in shape else count != known:
        raise explained(ShapeError, "reshape", "the number of elements must stay the same.",
                        [f"x: {x_shape} has {count} elements", f"wanted: {shape} has {'a multiple of ' if -1 in shape else ''}{known}"],
                        "Did you mean to leave one size open with -1?")
    return tuple(count // known if n == -1 else n for n in shape)


@op("x", examples=[example(normal(2, 3, 2, 2), 1), example(normal(2, 3, 4), end_dim=1)], tex=r"y = x", method=True)
def flatten(x, start_dim=0, end_dim=-1):
    """Join the axes start_dim to end_dim into one, in row-major order.

    Shapes:    x (.., D1, .., Dk, ..) -> y (.., D1·…·Dk, ..); a 0-d x becomes (1,).
    Backward:  the gradient goes back under the old shape: grad_x = grad_y.reshape(x.shape).
    """
    start, end = one_axis("flatten", start_dim, x.ndim), one_axis("flatten", end_dim, x.ndim)
    if start > end:
        raise explained(ArgumentError, "flatten", "start_dim must not come after end_dim.",
                        [f"start_dim {start_dim}, end_dim {end_dim}, {x.ndim} axes"],
                        "Exchange the two.")
    return reshape.op.forward(x, (*x.shape[:start], math.prod(x.shape[start:end + 1]), *x.shape[end + 1:]))


@op("x", examples=[example(normal(2, 3, 4), (2, 0, 1)), example(normal(2, 3, 4, 2), (0, 2, 3, -3))],
    tex=r"y_{i_{d_0} i_{d_1} \ldots} = x_{i_0 i_1 \ldots}")
def permute(x, dims):
    """Put the axes in another order: axis k of y is axis dims[k] of x.

    Shapes:    y.shape[k] = x.shape[dims[k]].
    Backward:  the inverse order brings every element back: grad_x = grad_y.permute(inverse of dims).
    """
    dims = several_axes("permute", tuple(dims), x.ndim)
    if len(dims) != x.ndim:
        raise explained(ArgumentError, "permute", "every axis must be named once.",
                        [f"x has {x.ndim} axes, shape {x.shape}", f"dims: {dims}"],
                        "To exchange two axes use transpose().")
    inverse = tuple(sorted(range(len(dims)), key=dims.__getitem__))

    def backward(grad_y):
        return permute(grad_y, inverse)

    return x.array.transpose(dims), backward


@op("x", examples=[example(normal(2, 3, 4), 0, 1), example(normal(2, 3), -1, -2)],
    tex=r"y_{\ldots j \ldots i \ldots} = x_{\ldots i \ldots j \ldots}",
    method=True)
def transpose(x, dim0, dim1):
    """Exchange two axes.

    Shapes:    x (.., A, .., B, ..) -> y (.., B, .., A, ..).
    Backward:  exchange them again: grad_x = grad_y.transpose(dim0, dim1).
    """
    first, second = one_axis("transpose", dim0, x.ndim), one_axis("transpose", dim1, x.ndim)
    y = x.array.swapaxes(first, second) if x.ndim else x.array

    def backward(grad_y):
        return transpose(grad_y, first, second)

    return y, backward


@op("x", examples=[example(normal(2, 1, 3, 1)), example(normal(2, 1, 3, 1), 1)], tex=r"y = x", method=True)
def squeeze(x, dim=None):
    """Drop the axes of size 1: all of them, or those among `dim` (one axis or several; others stay).

    Shapes:    x (.., 1, ..) -> y (.., ..).
    Backward:  the gradient goes back under the old shape: grad_x = grad_y.reshape(x.shape).
    """
    axes = several_axes("squeeze", dim, x.ndim)
    return reshape.op.forward(x, tuple(n for axis, n in enumerate(x.shape) if n != 1 or axis not in axes))


@op("x", examples=[example(normal(2, 3), 1), example(normal(2, 3), -1)], tex=r"y = x", method=True)
def unsqueeze(x, dim):
    """Insert an axis of size 1 so that it becomes axis `dim` of y.

    Shapes:    x (.., ..) -> y (.., 1, ..).
    Backward:  the gradient goes back under the old shape: grad_x = grad_y.reshape(x.shape).
    """
    axis = one_axis("unsqueeze", dim, x.ndim + 1)
    x_shape = x.shape
    y = x.array.reshape((*x_shape[:axis], 1, *x_shape[axis:]))

    def backward(grad_y):
        return reshape(grad_y, x_shape)

    return y, backward


@op("x", examples=[example(normal(2, 1, 3), (2, 4, 3)), example(normal(3), (2, -1))], tex=r"y_{\ldots i \ldots} = x_{\ldots 0 \ldots}")
def expand(x, sizes):
    """Repeat x along axes of size 1 and along new leading axes, without a copy; -1 keeps a size.

    Shapes:    x (.., 1, ..) -> y (.., N, ..).
    Backward:  an element that was repeated collects every gradient: grad_x = grad_y summed over the repeated axes.
    """
    sizes = tuple(n.__index__() for n in (sizes if isinstance(sizes, (tuple, list)) else (sizes,)))
    lead = len(sizes) - x.ndim
    wanted = tuple(x.shape[k - lead] if n == -1 and k >= lead else n for k, n in enumerate(sizes))
    if lead < 0 or min(wanted, default=0) < 0 or any(n not in (1, w) for n, w in zip(x.shape, wanted[max(lead, 0):], strict=False)):
        raise explained(ShapeError, "expand", "only axes of size 1, and new axes in front, can be repeated.",
                        [f"x: {x.shape}", f"sizes: {sizes}"],
                        "Use -1 to keep a size; unsqueeze() makes an axis of size 1.")
    y = array_module(x.array).broadcast_to(x.array, wanted)
    x_shape = x.shape

    def backward(grad_y):
        return sum_to(grad_y, x_shape)

    return y, backward


def _joinable(call, tensors):
    """The arrays of a list of tensors in one dtype, on one device."""
    if not tensors:
        raise explained(ArgumentError, call, "there must be at least one tensor.",
                        ["the list is empty"], "Pass a list or tuple of tensors.")
    same_device(call, *tensors)
    dtype = result_type(*(t.array for t in tensors))
    return [t.array.astype(dtype, copy=False) for t in tensors]


@op("[tensors]", examples=[example([normal(2, 3), normal(4, 3)]), example([normal(2, 3), normal(2, 1), normal(2, 2)], dim=-1)],
    tex=r"y = \begin{bmatrix} x_0 & x_1 & \cdots \end{bmatrix}")
def cat(tensors, dim=0):
    """Join tensors end to end along an axis that they have.

    Shapes:    x_k (.., N_k, ..) -> y (.., Σ N_k, ..); all other sizes agree.
    Backward:  each tensor gets its own stretch back: grad_x_k = grad_y.narrow(dim, where x_k began, N_k).
    """
    arrays = _joinable("cat", tensors)
    ndim, shape = arrays[0].ndim, arrays[0].shape
    axis = one_axis("cat", dim, ndim)
    if not ndim:
        raise explained(ShapeError, "cat", "0-d tensors have no axis to be joined along.", ["tensors[0]: ()"],
                        "Did you mean stack()? It makes a new axis.")
    for number, array in enumerate(arrays):
        if array.ndim != ndim or any(k != axis and n != m for k, (n, m) in enumerate(zip(array.shape, shape, strict=True))):
            raise explained(ShapeError, "cat", f"shapes must agree in every axis but axis {axis}, the one they are joined along.",
                            [f"tensors[0]: {shape}", f"tensors[{number}]: {array.shape}"],
                            "Did you mean another dim=?")
    sizes = [array.shape[axis] for array in arrays]
    y = join(arrays, axis, empty((*shape[:axis], sum(sizes), *shape[axis + 1:]), arrays[0].dtype, arrays[0]))
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    needs = [t.requires_grad for t in tensors]

    def backward(grad_y):
        return tuple(narrow(grad_y, axis, start, size) if need else None for need, start, size in zip(needs, starts, sizes, strict=True))

    return y, backward


@op("[tensors]", examples=[example([normal(2, 3), normal(2, 3)]), example([normal(2, 3), normal(2, 3), normal(2, 3)], dim=-1)],
    tex=r"y_{\ldots k \ldots} = (x_k)_{\ldots}")
def stack(tensors, dim=0):
    """Join tensors of one shape along a new axis: the k-th tensor stands at index k of axis `dim`.

    Shapes:    K tensors (.., ..) -> y (.., K, ..).
    Backward:  each tensor gets its slice back: grad_x_k = grad_y.select(dim, k).
    """
    arrays = _joinable("stack", tensors)
    shape = arrays[0].shape
    axis = one_axis("stack", dim, len(shape) + 1)
    for number, array in enumerate(arrays):
        if array.shape != shape:
            raise explained(ShapeError, "stack", "all tensors must have one shape.",
                            [f"tensors[0]: {shape}", f"tensors[{number}]: {array.shape}"],
                            "Did you mean cat()? It joins along an axis that exists.")
    y = empty((*shape[:axis], len(arrays), *shape[axis:]), arrays[0].dtype, arrays[0])
    array_module(y).stack(arrays, axis, out=y)
    needs = [t.requires_grad for t in tensors]

    def backward(grad_y):
        return tuple(select(grad_y, axis, k) if need else None for k, need in enumerate(needs))

    return y, backward


@op("x", examples=[example(normal(4, 3), 0, 1, 2), example(normal(2, 5), -1, 2, 3)],
    tex=r"y_{\ldots i \ldots} = x_{\ldots,\, i + \mathrm{start},\, \ldots}",
    method=True)
def narrow(x, dim, start, length):
    """The stretch of `length` elements from `start` along one axis.

    Shapes:    x (.., N, ..) -> y (.., length, ..).
    Backward:  what was cut away had no part in y: grad_x = grad_y with zeros in its place (pad).
    """
    axis, size = one_axis("narrow", dim, x.ndim), x.shape[dim] if x.ndim else 0
    start = start.__index__()
    first = start + size if start < 0 else start
    if not x.ndim or length < 0 or first < 0 or first + length > size:
        raise explained(RangeError, "narrow", "the stretch must lie inside the axis.",
                        [f"x: {x.shape}, axis {axis} has size {size}", f"start {start}, length {length}"],
                        "start + length is at most the size.")
    y = x.array[(slice(None),) * axis + (slice(first, first + length),)]
    cut = _one_axis_pad(x.ndim, axis, first, size - first - length)

    def backward(grad_y):
        return pad(grad_y, cut)

    return y, backward


@op("x", examples=[example(normal(4, 3), 0, 2), example(normal(2, 3, 2), -2, -1)],
    tex=r"y_{\ldots} = x_{\ldots,\, \mathrm{index},\, \ldots}", method=True)
def select(x, dim, index):
    """One slice of an axis, without that axis.

    Shapes:    x (.., N, ..) -> y (.., ..).
    Backward:  the other slices had no part in y: grad_x is grad_y at `index`, zeros elsewhere.
    """
    axis = one_axis("select", dim, x.ndim)
    index, size = index.__index__(), x.shape[axis] if x.ndim else 0
    if not -size <= index < size:
        raise explained(RangeError, "select", f"index {index} lies outside axis {axis}.", [f"x: {x.shape}, axis {axis} has size {size}"],
                        f"Indices go from {-size} to {size - 1}." if size else "The axis is empty.")
    index %= size
    y = x.array[(slice(None),) * axis + (index, ...)]
    cut = _one_axis_pad(x.ndim, axis, index, size - index - 1)

    def backward(grad_y):
        return pad(unsqueeze(grad_y, axis), cut)

    return y, backward


def _one_axis_pad(ndim, axis, before, after):
    """pad()'s list for one axis: pairs from the last axis to the first."""
    return (0, 0) * (ndim - 1 - axis) + (before, after)


@op("x", examples=[example(normal(2, 3), (1, 2)), example(normal(1, 2, 3, 2), (1, 0, -1, 2), value=0.5)],
    tex=r"y_{\ldots,\, i + \mathrm{before},\, \ldots} = x_{\ldots i \ldots},\quad \mathrm{value\ elsewhere}")
def pad(x, pad, mode="constant", value=None):
    """Put `value` (0) around x. `pad` is (before, after) for the last axis, then for the one in front of it, ...;
    a negative number cuts off instead.

    Shapes:    x (.., N, ..) -> y (.., before + N + after, ..).
    Backward:  the rim is constant, so it is cut off again: grad_x = grad_y padded with (-before, -after).
    """
    pairs = _pad_pairs(x.shape, pad, mode)
    y = empty(tuple(n + before + after for n, (before, after) in zip(x.shape, pairs, strict=True)), x.dtype, x.array)
    y.fill(0 if value is None else value)
    inner = tuple(slice(max(before, 0), y.shape[k] - max(after, 0)) for k, (before, after) in enumerate(pairs))
    y[inner] = x.array[tuple(slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape, pairs, strict=True))]
    back = tuple(-n for n in pad)

    def backward(grad_y):
        return _pad_back(grad_y, back)

    return y, backward


def _pad_back(grad_y, back):
    return pad(grad_y, back)  # out here, because inside the op its own name is its argument


def _pad_pairs(shape, pad, mode):
    """(before, after) for every axis, the first one first."""
    if mode != "constant":
        raise explained(ArgumentError, "pad", f"mode {mode!r} is not one of minidl's.", ["modes: 'constant'"],
                        "Pad with constants, or build the rim with cat() and flip().")
    if len(pad) % 2 or len(pad) > 2 * len(shape):
        raise explained(ArgumentError, "pad", "pad is a pair (before, after) per axis, for the last axes of x.",
                        [f"pad: {tuple(pad)}, {len(pad)} numbers", f"x: {shape}, {len(shape)} axes"],
                        "Name the last axis first: (left, right, top, bottom).")
    given = [(pad[2 * k], pad[2 * k + 1]) for k in range(len(pad) // 2)][::-1]
    pairs = [(0, 0)] * (len(shape) - len(given)) + given
    for axis, (n, (before, after)) in enumerate(zip(shape, pairs, strict=True)):
        if n + before + after < 0 or n + min(before, 0) + min(after, 0) < 0:
            raise explained(ShapeError, "pad", f"axis {axis} is shorter than what is to be cut off.",
                            [f"x: {shape}", f"axis {axis}: size {n}, pad ({before}, {after})"],
                            "Negative numbers in pad cut off; use smaller ones.")
    return pairs


@op("x", examples=[example(normal(2, 3), (0,)), example(normal(2, 3, 2), (1, -1))],
    tex=r"y_{\ldots i \ldots} = x_{\ldots,\, N - 1 - i,\, \ldots}")
def flip(x, dims):
    """Reverse the order of the elements along the axes `dims`.

    Shapes:    x -> y, the same.
    Backward:  reverse again: grad_x = grad_y.flip(dims).
    """
    axes = several_axes("flip", dims, x.ndim)
    y = x.array[tuple(slice(None, None, -1) if axis in axes else slice(None) for axis in range(x.ndim))]

    def backward(grad_y):
        return flip(grad_y, axes)

    return y, backward


# --- several results: plain functions made of the ops above -----------------------------------------------------

def split(tensor, split_size_or_sections, dim=0):
    """Cut an axis into pieces: of one size (the last may be smaller), or of the sizes in a list. A tuple of tensors."""
    axis = one_axis("split", dim, tensor.ndim)
    total = tensor.shape[axis] if tensor.ndim else 0
    sizes = split_size_or_sections
    if not isinstance(sizes, (tuple, list)):
        if sizes < 0 or not tensor.ndim or sizes == 0 and total:
            raise explained(ArgumentError, "split", "a piece must have at least one element, and x at least one axis.",
                            [f"x: {tensor.shape}", f"size: {sizes}"], "Pass a size, or a list of sizes.")
        sizes = [min(sizes, total - start) for start in range(0, total, sizes or 1)] or [total]
    elif sum(sizes) != total or min(sizes, default=0) < 0:
        raise explained(ShapeError, "split", f"the sizes must add up to the size of axis {axis}.",
                        [f"x: {tensor.shape}, axis {axis} has size {total}", f"sizes: {list(sizes)}, together {sum(sizes)}"],
                        "Change one of the sizes.")
    return tuple(narrow(tensor, axis, sum(sizes[:k]), size) for k, size in enumerate(sizes))


def chunk(input, chunks, dim=0):
    """Cut an axis into `chunks` pieces of nearly one size (the last may be smaller, and there may be fewer)."""
    if chunks < 1:
        raise explained(ArgumentError, "chunk", "there must be at least one piece.", [f"chunks: {chunks}"], "Pass a positive number.")
    total = input.shape[one_axis("chunk", dim, input.ndim)] if input.ndim else 0
    return split(input, -(-total // chunks), dim) if total else (input,) * chunks if input.ndim else split(input, 1, dim)


def unbind(input, dim=0):
    """The slices of an axis as a tuple of tensors, each without that axis."""
    axis = one_axis("unbind", dim, input.ndim)
    return tuple(select(input, axis, k) for k in range(input.shape[axis] if input.ndim else 0))


__all__ = ["cat", "chunk", "expand", "flatten", "flip", "narrow", "pad", "permute", "reshape", "select", "split", "squeeze", "stack",
           "transpose", "unbind", "unsqueeze", "view"]
