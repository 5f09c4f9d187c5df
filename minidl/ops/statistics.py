"""Products, running sums and products, norms, standard deviations. Order statistics (sort, topk, median) are in order.py."""

import math

import numpy as np

from minidl.backend.layout import stored
from minidl.core.device import array_module
from minidl.core.dtypes import as_dtype, float16, float32, int64, is_floating
from minidl.core.errors import ArgumentError, ShapeError, explained
from minidl.core.examples import distinct, nonzero, normal
from minidl.core.op import as_array, example, op
from minidl.core.tensor import Tensor
from minidl.ops.axes import one_axis
from minidl.ops.elementwise import abs, exp, sign
from minidl.ops.functions import reciprocal_or_zero
from minidl.ops.reduce import axes_of, count, kept_shape, mean, only_floating, spread, var, variance
from minidl.ops.select import where
from minidl.ops.shape import flip, narrow, pad, reshape, transpose

INFINITY = math.inf


@op("x", examples=[example(normal(2, 3, 4)), example(normal(2, 3, 4), dim=1, unbiased=False),
                   example(normal(2, 3, 2, 2), dim=(0, 2, 3), keepdim=True, correction=2)],
    tex=r"y = \sqrt{\frac{1}{n - c} \sum_k (x_k - \bar x)^2}", uses_output=True, method=True)
def std(x, dim=None, unbiased=True, keepdim=False, correction=None):
    """Standard deviation: y = √(Σ (x − mean)² / (n − correction)); correction is 1, or 0 with unbiased=False.

    Shapes:    x -> y without the axes in dim (size 1 with keepdim).
    Backward:  var's gradient times 1 / (2y): grad_x = grad_y · (x − mean) / ((n − correction) · y), and 0 where y = 0.
    """
    if isinstance(dim, bool):  # std(x, False): the second argument may be unbiased, as in PyTorch
        dim, unbiased = None, dim
    array = only_floating("std", x)
    axes = axes_of("std", array.ndim, dim)
    freedom = max(count(array.shape, axes) - (int(unbiased) if correction is None else correction), 0)
    y = np.sqrt(variance(array, axes, keepdim, freedom))
    x_shape, scale = array.shape, 1 / freedom if freedom else np.nan

    def backward(grad_y, y):
        grad_y = grad_y * reciprocal_or_zero(y)
        return spread(grad_y, x_shape, axes) * (x - x.mean(axes, True)) * scale if axes else grad_y * np.nan

    return y, backward


def var_mean(input, dim=None, unbiased=True, keepdim=False, correction=None):
    """The pair (var, mean) over the axes in dim."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return var(input, dim, unbiased, keepdim, correction), mean(input, dim, keepdim)


def std_mean(input, dim=None, unbiased=True, keepdim=False, correction=None):
    """The pair (std, mean) over the axes in dim."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return std(input, dim, unbiased, keepdim, correction), mean(input, dim, keepdim)


# --- products ------------------------------------------------------------------------------------------------------

def whole_dtype(array, dtype):
    """The dtype that sums and products of this array have: integers and booleans add up in int64."""
    return as_dtype(dtype) or (array.dtype if is_floating(array.dtype) else int64)


def accumulate(call, array, axis, dtype):
    """cumsum or cumprod of an array, in storage order; narrow floats add up in float64, or a long sum would lose its digits."""
    if not array.ndim:
        return array.astype(dtype)
    wide = np.dtype(np.float64) if is_floating(dtype) else dtype
    with np.errstate(all="ignore"):  # what grows too big becomes inf or NaN without a word, as in PyTorch
        return stored(getattr(array_module(array), call)(array, axis, dtype=wide).astype(dtype, copy=False))


@op("x", examples=[example(normal(5)), example(normal(2, 3, 4), dim=1), example(normal(2, 3, 2, 2), dim=-1, keepdim=True)],
    tex=r"y = \prod_k x_k", method=True)
def prod(x, dim=None, keepdim=False, dtype=None):
    """Multiply up: y = Π x over one axis, or over all of them. Integers and booleans multiply up in int64.

    Shapes:    x -> y without axis dim (size 1 with keepdim).
    Backward:  an element's slope is the product of all the others, found without dividing by x, which may be 0:
               grad_x_i = grad_y · Π_{k ≠ i} x_k.
    """
    array = x.array
    axes = axes_of("prod", array.ndim, dim)
    y_dtype = whole_dtype(array, dtype)
    with np.errstate(all="ignore"):
        y = array.prod(axes, dtype=float32 if y_dtype == float16 else y_dtype, keepdims=keepdim)
        y = stored(as_array(y)).astype(y_dtype, copy=False)

    def backward(grad_y):
        wide = x.to(y_dtype)
        if len(axes) == 1:
            rest = transpose(product_of_others(transpose(wide, axes[0], -1)), axes[0], -1)
        else:
            rest = reshape(product_of_others(reshape(wide, (-1,) if wide.array.size else (0,))), wide.shape)
        return spread(grad_y, wide.shape, axes) * rest

    return y, backward if is_floating(y_dtype) else None


def product_of_others(x):
    """y[.., i] = Π_{k ≠ i} x[.., k] by a tree: what all the other pairs give, times the partner in one's own pair."""
    n, half = x.shape[-1], (x.shape[-1] + 1) // 2
    if n < 2:
        return Tensor(array_module(x.array).ones(x.shape, x.dtype))
    even = pad(x, (0, 1), value=1) if n % 2 else x
    pairs = reshape(even, (*x.shape[:-1], half, 2))                                     # (.., N/2, 2)
    other_pairs = product_of_others(narrow(pairs, -1, 0, 1).squeeze(-1) * narrow(pairs, -1, 1, 1).squeeze(-1))
    return narrow(reshape(other_pairs.unsqueeze(-1) * flip(pairs, -1), even.shape), -1, 0, n)


# --- running sums and products -------------------------------------------------------------------------------------

@op("x", examples=[example(normal(4), 0), example(normal(2, 3, 2), dim=1), example(normal(2, 1, 3, 2), dim=-2)],
    tex=r"y_k = \sum_{j \le k} x_j", method=True)
def cumsum(x, dim, dtype=None):
    """The running sum along one axis: y_k = x_0 + ... + x_k. Integers and booleans add up in int64.

    Shapes:    x -> y, the same.
    Backward:  x_j is part of y_j and of all that follow: grad_x_j = Σ_{k ≥ j} grad_y_k, a running sum from the end.
    """
    axis = one_axis("cumsum", dim, x.ndim)
    y = accumulate("cumsum", x.array, axis, whole_dtype(x.array, dtype))

    def backward(grad_y):
        return flip(cumsum(flip(grad_y, axis), axis), axis) if grad_y.ndim else grad_y

    return y, backward if is_floating(y.dtype) else None


@op("x", examples=[example(normal(5), 0), example(normal(2, 3, 2), dim=1), example(normal(2, 1, 3, 2), dim=-2)],
    tex=r"y_k = \prod_{j \le k} x_j", method=True)
def cumprod(x, dim, dtype=None):
    """The running product along one axis: y_k = x_0 · ... · x_k. Integers and booleans multiply up in int64.

    Shapes:    x -> y, the same.
    Backward:  x_i stands in y_k for every k ≥ i, beside all x_j with j ≤ k, j ≠ i. Taking out what precedes i:
               grad_x_i = (Π_{j < i} x_j) · s_i with s_i = grad_y_i + x_{i+1} · s_{i+1}; nothing is divided by x, which may be 0.
    """
    axis = one_axis("cumprod", dim, x.ndim)
    y = accumulate("cumprod", x.array, axis, whole_dtype(x.array, dtype))
    y_dtype = y.dtype

    def backward(grad_y):
        n = grad_y.shape[axis] if grad_y.ndim else 0
        if n < 2:
            return grad_y
        wide = x.to(y_dtype)
        before = padded(cumprod(narrow(wide, axis, 0, n - 1), axis), axis, 1, 0, 1)
        return before * from_the_end(grad_y, padded(narrow(wide, axis, 1, n - 1), axis, 0, 1), axis)

    return y, backward if is_floating(y_dtype) else None


def padded(x, axis, before, after, value=0):
    """x with so many times `value` before and after it along one axis."""
    return pad(x, (0, 0) * (x.ndim - 1 - axis) + (before, after), value=value)


def from_the_end(b, a, axis):
    """s_i = b_i + a_i · s_{i+1} with s_n = 0, in log n steps: after each, s_i is known but for a_i · s_{i+step}."""
    n, step = b.shape[axis], 1
    while step < n:
        later_b, later_a = (padded(narrow(t, axis, step, n - step), axis, 0, step) for t in (b, a))
        b, a, step = b + a * later_b, a * later_a, 2 * step
    return b


@op("x", examples=[example(normal(5), 0), example(normal(2, 3, 2), dim=1), example(normal(2, 1, 3, 2), dim=-2)],
    tex=r"y_k = \ln \sum_{j \le k} e^{x_j}", uses_output=True, method=True)
def logcumsumexp(x, dim):
    """The logarithm of the running sum of exponentials, without overflow: y_k = ln(exp x_0 + ... + exp x_k).

    Shapes:    x -> y, the same.
    Backward:  ∂y_k/∂x_i = exp(x_i − y_k) for k ≥ i, so grad_x_i = exp(x_i − y_i) · s_i with
               s_i = grad_y_i + exp(y_i − y_{i+1}) · s_{i+1}: every exponent is at most 0.
    """
    array = only_floating("logcumsumexp", x)
    axis, xp = one_axis("logcumsumexp", dim, x.ndim), array_module(array)
    n = array.shape[axis] if array.ndim else 0
    y, step = stored(array.copy()), 1
    with np.errstate(invalid="ignore"):  # infinities of two signs meet
        while step < n:
            head, tail = (slice(None),) * axis + (slice(n - step),), (slice(None),) * axis + (slice(step, n),)
            y[tail] = xp.logaddexp(y[tail], y[head])
            step *= 2

    def backward(grad_y, y):
        if n < 2:
            return grad_y
        finite = where(y == -INFINITY, 0, y)  # exp(−∞ − (−∞)) would be NaN; such an element takes no part
        later = padded(narrow(finite, axis, 1, n - 1), axis, 0, 1, INFINITY)  # nothing follows the last: ratio 0
        taken = where(x == -INFINITY, 0, exp(where(x == -INFINITY, 0, x - finite)))
        ratio = where(y == -INFINITY, 0, exp(where(y == -INFINITY, 0, finite - later)))
        return taken * from_the_end(grad_y, ratio, axis)

    return y, backward


# --- norms ---------------------------------------------------------------------------------------------------------

@op("x", examples=[example(normal(2, 3)), example(nonzero(2, 3), 1, dim=1), example(normal(2, 3, 2, 2), 3, dim=(0, 2), keepdim=True),
                   example(nonzero(2, 3), 0.5, dim=0), example(distinct(2, 3), INFINITY, dim=1), example(nonzero(4), -INFINITY),
                   example(nonzero(4), 0), example(nonzero(2, 3), -1)],
    tex=r"y = \Bigl(\sum_k |x_k|^p\Bigr)^{1/p}", uses_output=True, method=True)
def norm(x, p="fro", dim=None, keepdim=False, dtype=None):
    """The length of a vector: y = (Σ |x|^p)^(1/p). p = 2 ("fro", the default) is the usual one; inf and −inf give the
    largest and smallest |x|, 0 counts what is not 0.

    Shapes:    x -> y without the axes in dim (all of them by default; size 1 with keepdim).
    Backward:  grad_x = grad_y · sign(x) · (|x| / y)^(p − 1), and 0 where x or y is 0; for ±inf grad_y · sign(x) goes to the
               elements that attain y, shared evenly; for p = 0 it is 0.
    """
    array = only_floating("norm", x, dtype)
    axes, power = axes_of("norm", array.ndim, dim), power_of(p)
    wide = array.astype(float32) if array.dtype == float16 else array
    y = stored(as_array(length(wide, power, axes, keepdim))).astype(array.dtype, copy=False)

    def backward(grad_y, y):
        kept = kept_shape(x.shape, axes)
        return norm_slope(x.to(y.dtype), reshape(grad_y, kept), reshape(y, kept), power, axes)

    return y, backward


def power_of(p):
    """p as a number; matrix norms other than Frobenius's need singular values, which minidl does not have."""
    if p is None or p == "fro":
        return 2.0
    if isinstance(p, str):
        raise explained(ArgumentError, "norm", f"p = {p!r} is not one of minidl's norms.", ["p: a number, inf, -inf or 'fro'"],
                        "For all elements together use 'fro', which is p = 2.")
    return float(p)


def length(array, power, axes, keepdim):
    """The p-norm of an array."""
    xp = array_module(array)
    size = xp.abs(array)
    if power in (INFINITY, -INFINITY):
        if not count(array.shape, axes):
            raise explained(ShapeError, "norm", "no elements have no extreme.", [f"shape: {array.shape}", f"axes: {axes}", f"p: {power}"],
                            "Reduce over axes that are not empty.")
        return (size.max if power > 0 else size.min)(axes, keepdims=keepdim)
    if power == 0:
        return (size != 0).sum(axes, dtype=array.dtype, keepdims=keepdim)
    with np.errstate(all="ignore"):  # 0 to a negative power is infinite
        if power == 1:
            return size.sum(axes, keepdims=keepdim)
        if power == 2:
            return xp.sqrt((size * size).sum(axes, keepdims=keepdim))
        return (size ** power).sum(axes, keepdims=keepdim) ** (1 / power)


def norm_slope(x, grad_y, y, power, axes):
    """The gradient of norm(); grad_y and y have size 1 in the reduced axes."""
    if power == 0:
        return x * 0 * grad_y
    if power == 1:
        return sign(x) * grad_y
    if power == 2:
        return x * (grad_y * reciprocal_or_zero(y))
    if power in (INFINITY, -INFINITY):
        attained = (abs(x) == y).to(x.dtype)
        return sign(x) * (attained / attained.sum(axes, True) if axes else attained) * grad_y
    corner = (x == 0) | (y == 0)
    part = where(corner, 1, abs(x)) / where(y == 0, 1, y)
    return where(corner, 0, sign(x) * part ** (power - 1)) * grad_y


__all__ = ["cumprod", "cumsum", "logcumsumexp", "norm", "prod", "std", "std_mean", "var_mean"]
