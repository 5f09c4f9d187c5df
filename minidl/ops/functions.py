"""More functions of one element: roots, angles, rounding, erf. The everyday ones are in elementwise.py."""

import math

import numpy as np

from minidl.backend.erf import erf as erf_of_array
from minidl.backend.layout import elementwise, stored
from minidl.core.dtypes import is_floating
from minidl.core.errors import DTypeError, explained
from minidl.core.examples import nonzero, normal, positive
from minidl.core.op import as_array, example, needs_grad, op
from minidl.core.tensor import Tensor
from minidl.ops.broadcast import floating, operands, sum_to
from minidl.ops.elementwise import div, exp, refuse_bool, refuse_zero
from minidl.ops.select import where

SIGNED = [example(normal(2, 3)), example(normal(3, 1, 2, 2))]
POSITIVE = [example(positive(2, 3)), example(positive(3, 1, 2, 2))]
NONZERO = [example(nonzero(2, 3)), example(nonzero(3, 1, 2, 2))]


@op("x", examples=POSITIVE, tex=r"y = \frac{1}{\sqrt{x}}", uses_output=True, method=True)
def rsqrt(x):
    """One over the square root: y = 1 / √x; infinite at 0, NaN below.

    Shapes:    x -> y, the same.
    Backward:  the slope of x^(−1/2) is −x^(−3/2) / 2, so the output is all it needs: grad_x = −grad_y · y³ / 2.
    """
    def backward(grad_y, y):
        return grad_y * (y * y * y) * -0.5

    return elementwise(np.reciprocal, elementwise(np.sqrt, floating(x))), backward


@op("x", examples=NONZERO, tex=r"y = \frac{1}{x}", uses_output=True, method=True)
def reciprocal(x):
    """One over: y = 1 / x; infinite at 0.

    Shapes:    x -> y, the same.
    Backward:  the slope of 1/x is −1/x², so the output is all it needs: grad_x = −grad_y · y².
    """
    def backward(grad_y, y):
        return -(grad_y * (y * y))

    return elementwise(np.reciprocal, floating(x)), backward


@op("x", examples=SIGNED, tex=r"y = x^2", method=True)
def square(x):
    """The square: y = x².

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y · 2x.
    """
    if x.array.dtype.kind == "b":
        x = x.long()

    def backward(grad_y):
        return grad_y * (2 * x)

    return elementwise(np.multiply, x.array, x.array), backward


@op("x", examples=SIGNED, tex=r"y = \sin x", method=True)
def sin(x):
    """Sine of an angle in radians: y = sin x.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y · cos x.
    """
    def backward(grad_y):
        return grad_y * cos(x)

    return elementwise(np.sin, floating(x)), backward


@op("x", examples=SIGNED, tex=r"y = \cos x", method=True)
def cos(x):
    """Cosine of an angle in radians: y = cos x.

    Shapes:    x -> y, the same.
    Backward:  grad_x = −grad_y · sin x.
    """
    def backward(grad_y):
        return -(grad_y * sin(x))

    return elementwise(np.cos, floating(x)), backward


@op("x", examples=SIGNED, tex=r"y = \frac{2}{\sqrt{\pi}} \int_0^x e^{-t^2} dt", method=True)
def erf(x):
    """The error function: y = 2/√π ∫₀ˣ e^(−t²) dt, between −1 and 1.

    Shapes:    x -> y, the same.
    Backward:  the slope of an integral is its integrand: grad_x = grad_y · 2/√π · e^(−x²).
    """
    def backward(grad_y):
        return grad_y * exp(-(x * x)) * (2 / math.sqrt(math.pi))

    return stored(as_array(erf_of_array(floating(x)))), backward


@op("x", examples=POSITIVE, tex=r"y = \ln(1 + x)", method=True)
def log1p(x):
    """The logarithm of 1 + x, exact also where x is tiny: y = ln(1 + x); −∞ at −1, NaN below.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y / (1 + x).
    """
    def backward(grad_y):
        return grad_y / (1 + x)

    return elementwise(np.log1p, floating(x)), backward


@op("x", examples=SIGNED, tex=r"y = e^x - 1", uses_output=True, method=True)
def expm1(x):
    """The exponential less 1, exact also where x is tiny: y = eˣ − 1.

    Shapes:    x -> y, the same.
    Backward:  the slope is eˣ = y + 1, so the output is all it needs: grad_x = grad_y · (y + 1).
    """
    def backward(grad_y, y):
        return grad_y * (y + 1)

    return elementwise(np.expm1, floating(x)), backward


def in_steps(call, ufunc, x):
    """floor, ceil and trunc: integers are whole already, and the slope is 0 wherever there is one."""
    refuse_bool(call, x.array)

    def backward(grad_y):
        return grad_y * 0

    return elementwise(ufunc if is_floating(x.dtype) else np.positive, x.array), backward


@op("x", examples=SIGNED, tex=r"y = \lfloor x \rfloor", method=True)
def floor(x):
    """Round down to a whole number.

    Shapes:    x -> y, the same.
    Backward:  y is constant between its jumps: grad_x = 0, also at the jumps.
    """
    return in_steps("floor", np.floor, x)


@op("x", examples=SIGNED, tex=r"y = \lceil x \rceil", method=True)
def ceil(x):
    """Round up to a whole number.

    Shapes:    x -> y, the same.
    Backward:  y is constant between its jumps: grad_x = 0, also at the jumps.
    """
    return in_steps("ceil", np.ceil, x)


@op("x", examples=SIGNED, tex=r"y = \operatorname{sign}(x) \lfloor |x| \rfloor", method=True)
def trunc(x):
    """Round towards 0 to a whole number.

    Shapes:    x -> y, the same.
    Backward:  y is constant between its jumps: grad_x = 0, also at the jumps.
    """
    return in_steps("trunc", np.trunc, x)


@op("x", examples=[*SIGNED, example(normal(2, 3), decimals=1)], tex=r"y = 10^{-d} \lfloor 10^d x + 1/2 \rfloor", method=True)
def round(x, decimals=0):
    """Round to the nearest whole number, or to so many decimals; a half goes to the even neighbour.

    Shapes:    x -> y, the same.
    Backward:  y is constant between its jumps: grad_x = 0, also at the jumps.
    """
    if decimals and not is_floating(x.dtype):
        raise explained(DTypeError, "round", "integers have no decimals.", [f"dtype: {x.dtype}", f"decimals: {decimals}"],
                        "Leave decimals out.")
    if not decimals:
        return in_steps("round", np.rint, x)
    scale = 10.0 ** abs(decimals)
    scaled = elementwise(np.multiply if decimals > 0 else np.divide, x.array, x.dtype.type(scale))
    y, backward = in_steps("round", np.rint, Tensor(as_array(scaled)))
    return elementwise(np.divide if decimals > 0 else np.multiply, as_array(y), x.dtype.type(scale)), backward


@op("x other", examples=[example(normal(2, 3), nonzero(3)), example(normal(2, 3, 2, 2), 0.7), example(2.5, nonzero(4))],
    tex=r"y = x - o \operatorname{trunc}(x / o)", method=True)
def fmod(x, other):
    """The remainder of a division that rounds towards 0: y = x − other · trunc(x / other), with the sign of x.

    Shapes:    x and other broadcast to y.
    Backward:  trunc(x / other) is constant between its jumps: grad_x = grad_y, grad_other = −grad_y · trunc(x / other).
    """
    a, b = operands("fmod", x, other)
    refuse_bool("fmod", a)
    refuse_zero("fmod", b)
    y = elementwise(np.fmod, a, b)
    x_shape, other_shape = a.shape, b.shape
    need_x, need_other = needs_grad(x, other)
    x_saved, other_saved = (x, other) if need_other else (None, None)

    def backward(grad_y):
        grad_x = sum_to(grad_y, x_shape) if need_x else None
        grad_other = sum_to(-(grad_y * div(x_saved, other_saved, rounding_mode="trunc")), other_shape) if need_other else None
        return grad_x, grad_other

    return y, backward


PLANE = [example(nonzero(2, 3), nonzero(2, 3)), example(nonzero(2, 3, 1), nonzero(4)), example(nonzero(3, 1, 2, 2), nonzero(2))]


def reciprocal_or_zero(y):
    """1 / y, and 0 where y = 0: the slope that a length takes at its corner, where it points nowhere."""
    return where(y == 0, 0, 1 / where(y == 0, 1, y))


@op("x other", examples=PLANE, tex=r"y = \operatorname{atan2}(x, o)", method=True)
def atan2(x, other):
    """The angle, between −π and π, of the point whose height is x and whose horizontal position is other.

    Shapes:    x and other broadcast to y.
    Backward:  grad_x = grad_y · other / (x² + other²), grad_other = −grad_y · x / (x² + other²); both 0 at the origin,
               which has no angle.
    """
    a, b = operands("atan2", x, other, division=True)
    y = elementwise(np.arctan2, a, b)
    x_shape, other_shape = a.shape, b.shape
    need_x, need_other = needs_grad(x, other)

    def backward(grad_y):
        part = grad_y * reciprocal_or_zero(x * x + other * other)
        return sum_to(part * other, x_shape) if need_x else None, sum_to(-(part * x), other_shape) if need_other else None

    return y, backward


@op("x other", examples=PLANE, tex=r"y = \sqrt{x^2 + o^2}", uses_output=True, method=True)
def hypot(x, other):
    """The length of the hypotenuse: y = √(x² + other²), without overflow on the way.

    Shapes:    x and other broadcast to y.
    Backward:  grad_x = grad_y · x / y, grad_other = grad_y · other / y; both 0 where y = 0, as for norm().
    """
    a, b = operands("hypot", x, other, division=True)
    x_shape, other_shape = a.shape, b.shape
    need_x, need_other = needs_grad(x, other)

    def backward(grad_y, y):
        part = grad_y * reciprocal_or_zero(y)
        return sum_to(part * x, x_shape) if need_x else None, sum_to(part * other, other_shape) if need_other else None

    return elementwise(np.hypot, a, b), backward


__all__ = ["atan2", "ceil", "cos", "erf", "expm1", "floor", "fmod", "hypot", "log1p", "reciprocal", "round", "rsqrt", "sin", "square",
           "trunc"]
