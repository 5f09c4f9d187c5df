"""Arithmetic and functions of one element: y[k] depends on x[k] alone (and on what broadcasting puts beside it)."""

import math

import numpy as np

from minidl.backend.layout import elementwise, empty, stored
from minidl.core.device import array_module, move
from minidl.core.dtypes import is_floating
from minidl.core.errors import ArgumentError, DTypeError, explained
from minidl.core.examples import nonzero, normal, positive
from minidl.core.later import require
from minidl.core.op import as_array, example, needs_grad, op
from minidl.core.tensor import Tensor
from minidl.ops.broadcast import floating, operands, sum_to
from minidl.ops.select import where

PAIRS = [example(normal(2, 3), normal(2, 3)), example(normal(2, 3, 1), normal(4)),
         example(normal(3), 2.5), example(2.5, normal(3, 1, 2, 2))]


def refuse_bool(call, array):
    """Arithmetic that has no meaning for truth values; NumPy and PyTorch refuse it too."""
    if array.dtype.kind == "b":
        raise explained(DTypeError, call, "booleans have no such arithmetic.", ["every operand is bool"],
                        "Use logical_not, logical_and or logical_xor, or convert to numbers first, as in x.long().")


def refuse_zero(call, array):
    """Integers have no infinity that a division by 0 could give."""
    def complain():
        raise explained(ArgumentError, call, "integers cannot be divided by 0.", [f"dtype: {array.dtype}", "a divisor is 0"],
                        "Convert to floats to get inf or NaN, or mask the zeros.")

    if not is_floating(array.dtype):
        require(array.all(), complain)


def refuse_negative_power():
    """Raise: 2 ** -1 is no integer."""
    raise explained(ArgumentError, "pow", "integers have no negative powers.", ["an exponent is below 0"],
                    "Convert to floats first, as in x.float() ** -1.")


def scaled(call, other, alpha):
    """alpha · other, in the dtype of other."""
    if not isinstance(other, Tensor):
        return other * alpha
    if isinstance(alpha, float) and not is_floating(other.dtype):
        raise explained(DTypeError, call, "alpha must be a whole number for integers.", [f"alpha: {alpha}", f"other: {other.dtype}"],
                        "Convert the tensor to floats first.")
    return Tensor(as_array(other.array * alpha))


@op("x other", examples=[*PAIRS, example(normal(2, 3), normal(3), alpha=0.5)], tex=r"y = x + \alpha\, o", method=True)
def add(x, other, alpha=1):
    """Add, element by element: y = x + alpha · other.

    Shapes:    x and other broadcast to y.
    Backward:  every element counts once: grad_x = grad_y, grad_other = alpha · grad_y, summed over broadcast axes.
    """
    a, b = operands("add", x, other if alpha == 1 else scaled("add", other, alpha))
    y = elementwise(np.add, a, b)
    x_shape, other_shape = a.shape, b.shape

    def backward(grad_y):
        return sum_to(grad_y, x_shape), sum_to(grad_y if alpha == 1 else grad_y * alpha, other_shape)

    return y, backward


@op("x other", examples=[*PAIRS, example(normal(2, 3), normal(3), alpha=0.5)], tex=r"y = x - \alpha\, o", method=True)
def sub(x, other, alpha=1):
    """Subtract, element by element: y = x − alpha · other.

    Shapes:    x and other broadcast to y.
    Backward:  grad_x = grad_y, grad_other = −alpha · grad_y, summed over broadcast axes.
    """
    a, b = operands("sub", x, other if alpha == 1 else scaled("sub", other, alpha))
    refuse_bool("sub", a)
    y = elementwise(np.subtract, a, b)
    x_shape, other_shape = a.shape, b.shape
    need_x, need_other = needs_grad(x, other)

    def backward(grad_y):
        grad_x = sum_to(grad_y, x_shape) if need_x else None
        grad_other = sum_to(-grad_y if alpha == 1 else grad_y * -alpha, other_shape) if need_other else None
        return grad_x, grad_other

    return y, backward


@op("x other", examples=PAIRS, tex=r"y = x \cdot o", method=True)
def mul(x, other):
    """Multiply, element by element: y = x · other.

    Shapes:    x and other broadcast to y.
    Backward:  product rule: grad_x = grad_y · other, grad_other = grad_y · x, summed over broadcast axes.
    """
    a, b = operands("mul", x, other)
    y = elementwise(np.multiply, a, b)
    x_shape, other_shape = a.shape, b.shape
    need_x, need_other = needs_grad(x, other)
    x_saved, other_saved = (x if need_other else None), (other if need_x else None)

    def backward(grad_y):
        grad_x = sum_to(grad_y * other_saved, x_shape) if need_x else None
        grad_other = sum_to(grad_y * x_saved, other_shape) if need_other else None
        return grad_x, grad_other

    return y, backward


@op("x other", tex=r"y = x / o", method=True,
    examples=[example(normal(2, 3), nonzero(2, 3)), example(normal(2, 3, 1), nonzero(4)), example(2.5, nonzero(3, 1, 2, 2)),
              example(normal(3), 4)])
def div(x, other, rounding_mode=None):
    """Divide, element by element: y = x / other; integers become floats. rounding_mode "trunc" rounds towards 0, "floor" down.

    Shapes:    x and other broadcast to y.
    Backward:  grad_x = grad_y / other, grad_other = −grad_y · x / other², summed over broadcast axes. A rounded y moves in
               jumps: it has no gradient.
    """
    if rounding_mode is not None:
        return rounded_quotient(x, other, rounding_mode), None
    a, b = operands("div", x, other, division=True)
    y = elementwise(np.divide, a, b)
    x_shape, other_shape = a.shape, b.shape
    need_x, need_other = needs_grad(x, other)
    x_saved = x if need_other else None

    def backward(grad_y):
        grad_x = grad_y / other
        grad_other = sum_to(-(grad_x * (x_saved / other)), other_shape) if need_other else None
        return sum_to(grad_x, x_shape) if need_x else None, grad_other

    return y, backward


def rounded_quotient(x, other, rounding_mode):
    """x / other rounded to a whole number; integers stay integers."""
    if rounding_mode not in ("trunc", "floor"):
        raise explained(ArgumentError, "div", f"{rounding_mode!r} is not a rounding mode.", ["rounding modes: None, 'trunc', 'floor'"],
                        "'trunc' rounds towards 0, 'floor' rounds down.")
    a, b = operands("div", x, other)
    refuse_bool("div", a)
    refuse_zero("div", b)
    if rounding_mode == "floor":
        return elementwise(np.floor_divide, a, b)
    if is_floating(a.dtype):
        return elementwise(np.trunc, stored(array_module(a).asarray(elementwise(np.divide, a, b))))
    # (a − remainder with the sign of a) / b leaves nothing to round
    return elementwise(np.floor_divide, elementwise(np.subtract, a, elementwise(np.fmod, a, b)), b)


@op("x other", examples=[example(normal(2, 3), nonzero(3)), example(normal(2, 3, 2, 2), 0.7)],
    tex=r"y = x - o \lfloor x / o \rfloor", method=True)
def remainder(x, other):
    """The remainder of a division that rounds down: y = x − other · floor(x / other), with the sign of other.

    Shapes:    x and other broadcast to y.
    Backward:  floor(x / other) is constant between its jumps: grad_x = grad_y, grad_other = −grad_y · floor(x / other).
    """
    a, b = operands("remainder", x, other)
    refuse_bool("remainder", a)
    refuse_zero("remainder", b)
    y = elementwise(np.remainder, a, b)
    x_shape, other_shape = a.shape, b.shape
    need_x, need_other = needs_grad(x, other)
    x_saved, other_saved = (x, other) if need_other else (None, None)

    def backward(grad_y):
        grad_x = sum_to(grad_y, x_shape) if need_x else None
        grad_other = sum_to(-(grad_y * div(x_saved, other_saved, rounding_mode="floor")), other_shape) if need_other else None
        return grad_x, grad_other

    return y, backward


@op("x other", tex=r"y = x^{o}", method=True,
    examples=[example(positive(2, 3), normal(2, 3)), example(normal(2, 3, 1), 3), example(2.5, normal(3, 1, 2, 2)),
              example(positive(3), -0.5)])
def pow(x, other):
    """Raise to a power: y = x ** other, element by element.

    Shapes:    x and other broadcast to y.
    Backward:  grad_x = grad_y · other · x^(other − 1), grad_other = grad_y · x^other · log x, summed over broadcast axes;
               where x = 0, the first is 0 for other = 0 and the second is 0 for other ≥ 0: y does not move there.
    """
    a, b = operands("pow", x, other)
    refuse_bool("pow", a)
    if a.dtype.kind in "iu":
        require((b >= 0).all(), refuse_negative_power)
    square = not isinstance(other, Tensor) and other == 2
    y = elementwise(np.multiply, a, a) if square else elementwise(np.power, a, b)  # np.power takes 20 times as long for a square
    x_shape, other_shape = a.shape, b.shape
    need_x, need_other = needs_grad(x, other)

    def backward(grad_y):
        grad_x = sum_to(grad_y * power_slope(x, other), x_shape) if need_x else None
        grad_other = sum_to(grad_y * exponent_slope(x, other), other_shape) if need_other else None
        return grad_x, grad_other

    return y, backward


def power_slope(x, other):
    """∂(x^o)/∂x = o · x^(o − 1). At x = 0 and o = 0 that is 0 · ∞: there x is replaced by 1, which gives 0."""
    if isinstance(other, Tensor):
        return other * where((x == 0) & (other == 0), 1, x) ** (other - 1)
    return 0.0 if other == 0 else 2 * x if other == 2 else other * x ** (other - 1)


def exponent_slope(x, other):
    """∂(x^o)/∂o = x^o · log x. At x = 0 and o ≥ 0 that is 0 · −∞: there x is replaced by 1, which gives 0."""
    if not isinstance(x, Tensor):
        return where(other >= 0, 0.0, -np.inf) if x == 0 else x ** other * (math.log(x) if x > 0 else math.nan)
    base = where((x == 0) & (other >= 0), 1, x)
    return base ** other * base.log()


@op("x", examples=[example(normal(2, 3)), example(normal(3, 1, 2, 2))], tex=r"y = -x", method=True)
def neg(x):
    """The negative: y = −x.

    Shapes:    x -> y, the same.
    Backward:  grad_x = −grad_y.
    """
    refuse_bool("neg", x.array)

    def backward(grad_y):
        return -grad_y

    return elementwise(np.negative, x.array), backward


@op("x", examples=[example(nonzero(2, 3)), example(nonzero(3, 1, 2, 2))], tex=r"y = |x|", method=True)
def abs(x):
    """The absolute value: y = x where x ≥ 0, else −x.

    Shapes:    x -> y, the same.
    Backward:  the slope is the sign of x: grad_x = grad_y · sign(x), and 0 at x = 0.
    """
    refuse_bool("abs", x.array)

    def backward(grad_y):
        return grad_y * sign(x)

    return elementwise(np.abs, x.array), backward


@op("x", examples=[example(nonzero(2, 3)), example(nonzero(3, 1, 2, 2))], tex=r"y = \operatorname{sign} x", method=True)
def sign(x):
    """The sign: y = 1 where x > 0, −1 where x < 0, 0 at 0.

    Shapes:    x -> y, the same.
    Backward:  y is constant on either side of 0: grad_x = 0.
    """
    refuse_bool("sign", x.array)

    def backward(grad_y):
        return grad_y * 0

    return elementwise(np.sign, x.array), backward


@op("x", examples=[example(normal(2, 3)), example(normal(3, 1, 2, 2))], tex=r"y = e^x", uses_output=True, method=True)
def exp(x):
    """The exponential: y = eˣ.

    Shapes:    x -> y, the same.
    Backward:  eˣ is its own derivative, so the output is all it needs: grad_x = grad_y · y.
    """
    def backward(grad_y, y):
        return grad_y * y

    return elementwise(np.exp, floating(x)), backward


@op("x", examples=[example(positive(2, 3)), example(positive(3, 1, 2, 2))], tex=r"y = \ln x", method=True)
def log(x):
    """The natural logarithm: y = ln x; −∞ at 0, NaN below.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y / x.
    """
    def backward(grad_y):
        return grad_y / x

    return elementwise(np.log, floating(x)), backward


@op("x", examples=[example(positive(2, 3)), example(positive(3, 1, 2, 2))], tex=r"y = \sqrt{x}", uses_output=True, method=True)
def sqrt(x):
    """The square root: y = √x; NaN below 0.

    Shapes:    x -> y, the same.
    Backward:  the slope of √x is 1 / (2 √x), so the output is all it needs: grad_x = grad_y / (2 y), infinite at 0.
    """
    def backward(grad_y, y):
        return grad_y / (2 * y)

    return elementwise(np.sqrt, floating(x)), backward


@op("x", examples=[example(normal(2, 3)), example(normal(2, 3, 2, 2))], tex=r"y = x")
def clone(x):
    """Copy: y = x, in memory of its own.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y.
    """
    y = empty(x.array.shape, x.array.dtype, x.array)
    y[...] = x.array

    def backward(grad_y):
        return grad_y

    return y, backward


@op("x", examples=[example(normal(2, 3), dtype="float64"), example(normal(2, 3, 2, 2), dtype="float64")], tex=r"y = x")
def to(x, dtype=None, device=None, non_blocking=False):
    """Convert: the same values in another dtype, on another device; non_blocking: on the CPU they arrive by cuda.synchronize() only.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y, converted back. A conversion to integers has no gradient.
    """
    before, home = x.dtype, x.device
    with np.errstate(all="ignore"):  # a number too big for the new dtype becomes inf without a word, as in PyTorch
        y = move(x.array, device or home, wait=not non_blocking)
        y = y if non_blocking and y is not x.array and dtype in (None, before) else stored(y.astype(dtype or before))

    def backward(grad_y):
        return grad_y.to(dtype=before, device=home)

    return y, backward if is_floating(y.dtype) else None


__all__ = ["abs", "add", "clone", "div", "exp", "log", "mul", "neg", "pow", "remainder", "sign", "sqrt", "sub", "to"]
