"""Reductions: many elements become one, over all axes or over the axes named in dim."""

import builtins
from collections import namedtuple

import numpy as np

from minidl.backend.generic import reduce
from minidl.backend.layout import stored
from minidl.core.device import array_module
from minidl.core.dtypes import as_dtype, float16, float32, int64, is_floating
from minidl.core.errors import DTypeError, ShapeError, explained
from minidl.core.examples import booleans, distinct, integers, normal
from minidl.core.op import as_array, example, op
from minidl.core.tensor import Tensor
from minidl.ops.axes import several_axes
from minidl.ops.select import maximum, minimum, where

ValuesAndIndices = namedtuple("ValuesAndIndices", "values indices")


def axes_of(call, ndim, dim):
    """The axes that dim names, as numbers ≥ 0; None and () name all of them."""
    return several_axes(call, None if dim == () else dim, ndim)


def kept_shape(shape, axes):
    """The shape with size 1 in place of the reduced axes."""
    return tuple(1 if k in axes else n for k, n in enumerate(shape))


def spread(grad_y, shape, axes):
    """Give every element of `shape` the gradient of the sum that it went into: the opposite of summing over axes."""
    kept = kept_shape(shape, axes)
    return (grad_y if grad_y.array.shape == kept else grad_y.reshape(kept)).expand(shape)


def add_up(array, axes, keepdim, dtype):
    """The sum over axes, in storage order; float16 adds up in float32."""
    wide = float32 if dtype == float16 else dtype
    return stored(as_array(reduce.add_up(array, axes, keepdim, wide))).astype(dtype, copy=False)


@op("x", examples=[example(normal(2, 3, 4)), example(normal(2, 3, 4), dim=1), example(normal(2, 3, 2, 2), dim=(0, 2, 3), keepdim=True)],
    tex=r"y = \sum_k x_k", method=True)
def sum(x, dim=None, keepdim=False, dtype=None):
    """Add up: y = Σ x over the axes in dim. Integers and booleans add up in int64.

    Shapes:    x -> y without the axes in dim (size 1 with keepdim).
    Backward:  every element counts once in its sum: grad_x repeats grad_y along the axes in dim.
    """
    array = x.array
    if dtype is not None or array.dtype.kind != "f":
        dtype = as_dtype(dtype) or int64
    axes = axes_of("sum", array.ndim, dim)
    y = add_up(array, axes, keepdim, dtype or array.dtype)
    x_shape = array.shape

    def backward(grad_y):
        return spread(grad_y, x_shape, axes)

    return y, backward if y.dtype.kind == "f" else None


@op("x", examples=[example(normal(2, 3, 4)), example(normal(2, 3, 4), dim=-1), example(normal(2, 3, 2, 2), dim=(2, 3), keepdim=True)],
    tex=r"y = \frac{1}{n} \sum_k x_k", method=True)
def mean(x, dim=None, keepdim=False, dtype=None):
    """Average: y = Σ x / n over the axes in dim, n elements going into each y.

    Shapes:    x -> y without the axes in dim (size 1 with keepdim).
    Backward:  every element counts 1/n: grad_x repeats grad_y / n along the axes in dim.
    """
    array = only_floating("mean", x, dtype)
    axes = axes_of("mean", array.ndim, dim)
    n = count(array.shape, axes)
    total = add_up(array, axes, keepdim, float32 if array.dtype == float16 else array.dtype)
    y = np.multiply(total, 1 / n if n else np.nan, out=total).astype(array.dtype, copy=False)
    x_shape = array.shape

    def backward(grad_y):
        return spread(grad_y / n if n else grad_y, x_shape, axes)

    return y, backward


def only_floating(call, x, dtype=None):
    """The array of x, cast to dtype; integers have no mean and no variance in their own type."""
    dtype = as_dtype(dtype) or x.array.dtype
    if not is_floating(dtype):
        raise explained(DTypeError, call, "only floating point numbers have it.", [f"x: shape {x.shape}, {dtype}"],
                        f"Convert it first: x.float().{call}().")
    return x.array.astype(dtype, copy=False)


def count(shape, axes):
    """How many elements go into one sum over these axes."""
    n = 1
    for axis in axes:
        n *= shape[axis]
    return n


@op("x", examples=[example(normal(2, 3, 4)), example(normal(2, 3, 4), dim=1, unbiased=False),
                   example(normal(2, 3, 2, 2), dim=(0, 2, 3), keepdim=True, correction=2)],
    tex=r"y = \frac{1}{n - c} \sum_k (x_k - \bar x)^2", method=True)
def var(x, dim=None, unbiased=True, keepdim=False, correction=None):
    """Variance: y = Σ (x − mean)² / (n − correction); correction is 1, or 0 with unbiased=False.

    Shapes:    x -> y without the axes in dim (size 1 with keepdim).
    Backward:  the mean moves with x, but Σ (x − mean) = 0 cancels that: grad_x = grad_y · 2 (x − mean) / (n − correction).
    """
    if isinstance(dim, bool):  # var(x, False): the second argument may be unbiased, as in PyTorch
        dim, unbiased = None, dim
    array = only_floating("var", x)
    axes = axes_of("var", array.ndim, dim)
    freedom = builtins.max(count(array.shape, axes) - (int(unbiased) if correction is None else correction), 0)
    y = variance(array, axes, keepdim, freedom)
    x_shape, scale = array.shape, 2 / freedom if freedom else np.nan

    def backward(grad_y):
        return spread(grad_y, x_shape, axes) * (x - x.mean(axes, True)) * scale

    return y, backward


def variance(array, axes, keepdim, freedom):
    """Two passes, the mean first: the one-pass form Σx² − n·mean² loses every digit where the mean is large."""
    wide = array.astype(float32) if array.dtype == float16 else array
    n = count(array.shape, axes)
    centre = add_up(wide, axes, True, wide.dtype)
    np.multiply(centre, 1 / n if n else np.nan, out=centre)
    centred = as_array(wide - centre)
    total = add_up(np.multiply(centred, centred, out=centred), axes, keepdim, wide.dtype)
    # n = correction is 0/0 where all deviations are 0, and infinite where they are not
    with np.errstate(all="ignore"):
        return np.divide(total, freedom, out=total).astype(array.dtype, copy=False)


def extreme(call, array, axes, keepdim):
    """The largest (call = "max") or smallest elements over some axes."""
    if not count(array.shape, axes):
        raise explained(ShapeError, f"a{call}", f"no elements have no {call}imum.", [f"shape: {array.shape}", f"axes: {axes}"],
                        "Reduce over axes that are not empty.")
    return stored(as_array(reduce.furthest(array, axes, keepdim, 1 if call == "max" else -1)))


def extreme_backward(x, axes):
    """The backward of amax and amin: among equal extremes the gradient is shared evenly."""
    shape = x.array.shape

    def backward(grad_y, y):
        kept = kept_shape(shape, axes)
        attained = (x == y.reshape(kept)).to(grad_y.dtype)
        return spread(grad_y, shape, axes) * (attained / attained.sum(axes, True)) if axes else grad_y

    return backward


@op("x", examples=[example(distinct(2, 3, 4)), example(distinct(2, 3, 4), dim=1), example(distinct(2, 3, 2, 2), dim=(1, 3), keepdim=True)],
    tex=r"y = \max_k x_k", uses_output=True, method=True)
def amax(x, dim=None, keepdim=False):
    """The largest element over the axes in dim.

    Shapes:    x -> y without the axes in dim (size 1 with keepdim).
    Backward:  only the largest elements move y: grad_y goes to them, shared evenly among equal ones.
    """
    axes = axes_of("amax", x.array.ndim, dim)
    return extreme("max", x.array, axes, keepdim), extreme_backward(x, axes)


@op("x", examples=[example(distinct(2, 3, 4)), example(distinct(2, 3, 4), dim=1), example(distinct(2, 3, 2, 2), dim=(1, 3), keepdim=True)],
    tex=r"y = \min_k x_k", uses_output=True, method=True)
def amin(x, dim=None, keepdim=False):
    """The smallest element over the axes in dim.

    Shapes:    x -> y without the axes in dim (size 1 with keepdim).
    Backward:  only the smallest elements move y: grad_y goes to them, shared evenly among equal ones.
    """
    axes = axes_of("amin", x.array.ndim, dim)
    return extreme("min", x.array, axes, keepdim), extreme_backward(x, axes)


def pick(call, x, dim, keepdim):
    """The extreme element along one axis and its position: the backward of max and min along dim."""
    array = x.array
    axis, = axes_of(call, array.ndim, int(dim)) or (None,)
    shape, xp = array.shape, array_module(array)
    indices = first_position(call, array, axis, True, call)
    if axis is None:
        return array.copy(), indices, lambda grad_y, _: grad_y
    values = stored(xp.take_along_axis(array, indices, axis))
    line = [1] * array.ndim
    line[axis] = shape[axis]

    def backward(grad_y, _):
        chosen = Tensor(xp.arange(shape[axis]).reshape(line) == indices)
        return where(chosen, spread(grad_y, shape, (axis,)), 0)

    if not keepdim:
        return stored(values.squeeze(axis)), stored(indices.squeeze(axis)), backward
    return values, indices, backward


def first_position(call, array, axis, keepdim, caller):
    """The position of the first largest or smallest element, along one axis or in the flattened array."""
    if not (array.size if axis is None else array.shape[axis]):
        raise explained(ShapeError, caller, f"no elements have no {call}imum.", [f"shape: {array.shape}"],
                        "Reduce over an axis that is not empty.")
    found = reduce.first_furthest(array, axis, keepdim, 1 if call == "max" else -1)
    return stored(as_array(found)).astype(int64, copy=False)


@op("x", examples=[example(distinct(2, 3, 4), 1), example(distinct(2, 3), -1, keepdim=True)],
    tex=r"y = \max_k x_k", non_differentiable=(1,))
def max_along(x, dim, keepdim=False):
    """The largest element along one axis, and its position: what max(x, dim) calls.

    Shapes:    x -> values and indices, both without axis dim (size 1 with keepdim).
    Backward:  grad_y goes to the element at the returned index, the first of equal ones.
    """
    values, indices, backward = pick("max", x, dim, keepdim)
    return (values, indices), backward


@op("x", examples=[example(distinct(2, 3, 4), 1), example(distinct(2, 3), -1, keepdim=True)],
    tex=r"y = \min_k x_k", non_differentiable=(1,))
def min_along(x, dim, keepdim=False):
    """The smallest element along one axis, and its position: what min(x, dim) calls.

    Shapes:    x -> values and indices, both without axis dim (size 1 with keepdim).
    Backward:  grad_y goes to the element at the returned index, the first of equal ones.
    """
    values, indices, backward = pick("min", x, dim, keepdim)
    return (values, indices), backward


def max(x, dim=None, keepdim=False, other=None, axis=None, keepdims=False):
    """max(x): the largest element (amax). max(x, dim): a pair (values, indices). max(x, other): maximum."""
    return _three_ways(amax, max_along, maximum, x, dim if axis is None else axis, keepdim or keepdims, other)


def min(x, dim=None, keepdim=False, other=None, axis=None, keepdims=False):
    """min(x): the smallest element (amin). min(x, dim): a pair (values, indices). min(x, other): minimum."""
    return _three_ways(amin, min_along, minimum, x, dim if axis is None else axis, keepdim or keepdims, other)


def _three_ways(of_all, along, of_two, x, dim, keepdim, other):
    if isinstance(dim, Tensor) or other is not None:
        return of_two(x, dim if other is None else other)
    return of_all(x) if dim is None else ValuesAndIndices(*along(x, dim, keepdim))


@op("x", examples=[example(distinct(2, 3, 4)), example(distinct(2, 3, 4), dim=1, keepdim=True)],
    tex=r"y = \operatorname{argmax}_k x_k", method=True)
def argmax(x, dim=None, keepdim=False):
    """The position of the largest element along dim, of the first one among equals; without dim in the flattened tensor.

    Shapes:    x -> y (int64) without axis dim (size 1 with keepdim).
    Backward:  none: positions are whole numbers.
    """
    return position("max", x, dim, keepdim), None


@op("x", examples=[example(distinct(2, 3, 4)), example(distinct(2, 3, 4), dim=1, keepdim=True)],
    tex=r"y = \operatorname{argmin}_k x_k", method=True)
def argmin(x, dim=None, keepdim=False):
    """The position of the smallest element along dim, of the first one among equals; without dim in the flattened tensor.

    Shapes:    x -> y (int64) without axis dim (size 1 with keepdim).
    Backward:  none: positions are whole numbers.
    """
    return position("min", x, dim, keepdim), None


def position(call, x, dim, keepdim):
    """argmax and argmin of a tensor."""
    axes = () if dim is None else axes_of(f"arg{call}", x.array.ndim, int(dim))
    return first_position(call, x.array, axes[0] if axes else None, keepdim, f"arg{call}")


@op("x", examples=[example(booleans(2, 3)), example(integers(0, 2, 2, 3), dim=1, keepdim=True)],
    tex=r"y = \forall_k\, x_k \neq 0", method=True)
def all(x, dim=None, keepdim=False):
    """Are all elements over the axes in dim true (not zero)? y = (x ≠ 0 for every one of them).

    Shapes:    x -> y (bool) without the axes in dim (size 1 with keepdim).
    Backward:  none: truth is not continuous.
    """
    return stored(as_array(x.array.all(axes_of("all", x.array.ndim, dim), keepdims=keepdim))), None


@op("x", examples=[example(booleans(2, 3)), example(integers(0, 2, 2, 3), dim=1, keepdim=True)],
    tex=r"y = \exists_k\, x_k \neq 0", method=True)
def any(x, dim=None, keepdim=False):
    """Is any element over the axes in dim true (not zero)? y = (x ≠ 0 for at least one of them).

    Shapes:    x -> y (bool) without the axes in dim (size 1 with keepdim).
    Backward:  none: truth is not continuous.
    """
    return stored(as_array(x.array.any(axes_of("any", x.array.ndim, dim), keepdims=keepdim))), None


__all__ = ["all", "amax", "amin", "any", "argmax", "argmin", "max", "mean", "min", "sum", "var"]
