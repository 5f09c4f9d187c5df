"""Activation functions beyond relu, sigmoid and tanh (elementwise.py) and softmax (softmax.py).

Where y has a kink, the slope there is one of the two beside it, PyTorch's choice, and the docstring says which.
`inplace` is accepted as in PyTorch and changes nothing: no op writes into its input.
"""

import math

import numpy as np

from minidl.backend.erf import erf as erf_of_array
from minidl.backend.layout import stored
from minidl.core.device import array_module
from minidl.core.dtypes import is_floating
from minidl.core.errors import ArgumentError, DTypeError, ShapeError, explained
from minidl.core.examples import nonzero, normal, positive
from minidl.core.op import as_array, example, needs_grad, op
from minidl.ops.axes import one_axis
from minidl.ops.broadcast import same_device, sum_to
from minidl.ops.elementwise import exp
from minidl.ops.functions import erf
from minidl.ops.nonlinear import sigmoid, tanh
from minidl.ops.select import clamp, where
from minidl.ops.shape import narrow
from minidl.ops.softmax import softmax

SIGNED = [example(nonzero(2, 3)), example(nonzero(3, 1, 2, 2))]  # away from the kink at 0
SMOOTH = [example(normal(2, 3)), example(normal(3, 1, 2, 2))]


def floats(call, x):
    """The array of x, which must be floating point."""
    if not is_floating(x.dtype):
        raise explained(DTypeError, call, "only floating point numbers have it.", [f"x: shape {x.shape}, {x.dtype}"],
                        "Convert it first: x.float().")
    return x.array


def chosen(condition, a, b):
    """Arrays: a where condition holds, else b; in storage order."""
    return stored(array_module(a).where(condition, a, b))


def grow(xp, a):
    """log(1 + eᵃ) without overflow: max(a, 0) + log(1 + e^(−|a|))."""
    return xp.maximum(a, 0) + xp.log1p(xp.exp(-xp.abs(a)))


@np.errstate(over="ignore")
def logistic(xp, a):
    """1 / (1 + e⁻ᵃ); where e⁻ᵃ overflows to inf the result, 0, is right."""
    return 1 / (1 + xp.exp(-a))


@op("x", examples=[*SIGNED, example(nonzero(4), negative_slope=0.2)], tex=r"y = \max(x, 0) + s \min(x, 0)")
def leaky_relu(x, negative_slope=0.01, inplace=False):
    """Rectify, but let a little through: y = x where x > 0, else negative_slope · x.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y where x > 0, else grad_y · negative_slope (also at x = 0).
    """
    array = floats("leaky_relu", x)
    y = chosen(array > 0, array, array * negative_slope)

    def backward(grad_y):
        return where(x > 0, grad_y, grad_y * negative_slope)

    return y, backward


@op("x weight", examples=[example(nonzero(2, 3), normal(3)), example(nonzero(2, 3, 2, 2), normal(3)), example(nonzero(4), normal(1))],
    tex=r"y_{nc} = \max(x_{nc}, 0) + w_c \min(x_{nc}, 0)", method=True)
def prelu(x, weight):
    """Leaky relu with a learnt slope: y = x where x > 0, else weight · x; one weight, or one per channel (axis 1).

    Shapes:    x (N, C, ..),  weight (1,) or (C,)  ->  y (N, C, ..).
    Backward:  grad_x = grad_y where x > 0, else grad_y · weight (also at x = 0);
               grad_weight = Σ grad_y · x over the elements that are not above 0.
    """
    array = floats("prelu", x)
    same_device("prelu", x, weight)
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.ndim > 1 or weight.array.size not in (1, channels):
        raise explained(ShapeError, "prelu", "weight has one element, or one per channel of x.",
                        [f"x: {x.shape}, {channels} channels", f"weight: {weight.shape}"],
                        "Make weight of shape (1,) or (C,), C being axis 1 of x.")
    per_channel = x.ndim > 1 and weight.array.size == channels
    shape = (channels, *[1] * (x.ndim - 2)) if per_channel else (1,) * min(x.ndim, 1)  # beside x (N, C, ..)
    y = chosen(array > 0, array, array * weight.array.reshape(shape).astype(array.dtype, copy=False))
    need_x, need_weight = needs_grad(x, weight)

    def backward(grad_y):
        grad_x = where(x > 0, grad_y, grad_y * weight.reshape(shape)) if need_x else None
        grad_weight = sum_to(grad_y * where(x > 0, 0, x), shape).reshape(weight.shape) if need_weight else None
        return grad_x, grad_weight

    return y, backward


@op("x", examples=[*SIGNED, example(nonzero(4), alpha=0.5)], tex=r"y = \max(x, 0) + \min(\alpha (e^x - 1), 0)")
def elu(x, alpha=1.0, inplace=False):
    """Rectify with a soft floor: y = x where x > 0, else alpha · (eˣ − 1).

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y where x > 0, else grad_y · alpha · eˣ (also at x = 0).
    """
    array = floats("elu", x)
    y = chosen(array > 0, array, array_module(array).expm1(array.clip(None, 0)) * alpha)

    def backward(grad_y):
        return where(x > 0, grad_y, grad_y * (exp(clamp(x, max=0)) * alpha))

    return y, backward


@op("x", examples=[*SIGNED, example(nonzero(4), alpha=0.5)], tex=r"y = \max(x, 0) + \min(\alpha (e^{x / \alpha} - 1), 0)")
def celu(x, alpha=1.0, inplace=False):
    """elu with a slope that has no jump: y = x where x > 0, else alpha · (e^(x / alpha) − 1).

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y where x > 0, else grad_y · e^(x / alpha).
    """
    array = floats("celu", x)
    if alpha == 0:
        raise explained(ArgumentError, "celu", "alpha must not be 0.", ["x is divided by alpha"], "Use relu() for a sharp corner.")
    y = chosen(array > 0, array, array_module(array).expm1(array.clip(None, 0) / alpha) * alpha)

    def backward(grad_y):
        return where(x > 0, grad_y, grad_y * exp(clamp(x, max=0) / alpha))

    return y, backward


def selu(input, inplace=False):
    """The elu that keeps mean 0 and variance 1 through many layers: y = scale · elu(x, alpha) with two fixed numbers."""
    return elu(input, 1.6732632423543772848170429916717) * 1.0507009873554804934193349852946


@op("x", examples=[*SMOOTH, example(normal(2, 3), approximate="tanh")], tex=r"y = x \, \Phi(x)")
def gelu(x, approximate="none"):
    """Let x through with the probability that a normal number is below it: y = x · Φ(x), Φ(x) = (1 + erf(x/√2)) / 2.

    approximate="tanh" takes Φ(x) ≈ (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2.

    Shapes:    x -> y, the same.
    Backward:  product rule: grad_x = grad_y · (Φ(x) + x · Φ'(x)), where Φ'(x) = e^(−x²/2) / √(2π); the approximation has
               Φ' = (1 − tanh²) · √(2/π) · (1 + 3 · 0.044715 x²) / 2.
    """
    array = floats("gelu", x)
    xp, root = array_module(array), math.sqrt(2 / math.pi)
    if approximate == "tanh":
        y = array * 0.5 * (1 + xp.tanh(root * (array + 0.044715 * (array * array * array))))
    elif approximate == "none":
        y = array * 0.5 * (1 + erf_of_array(as_array(array * math.sqrt(0.5))))
    else:
        raise explained(ArgumentError, "gelu", f"approximate {approximate!r} is not known.", ["approximate: 'none', 'tanh'"],
                        "Leave it out for the exact one.")

    def backward(grad_y):
        squares = x * x
        if approximate == "tanh":
            t = tanh((x * squares * 0.044715 + x) * root)
            below, density = t * 0.5 + 0.5, (1 - t * t) * (squares * (3 * 0.044715) + 1) * (root / 2)
        else:
            below, density = erf(x * math.sqrt(0.5)) * 0.5 + 0.5, exp(squares * -0.5) * (root / 2)
        return grad_y * (below + x * density)

    return stored(as_array(y)), backward


@op("x", examples=SMOOTH, tex=r"y = x \, \sigma(x)")
def silu(x, inplace=False):
    """Let x through in proportion to its sigmoid: y = x · σ(x), also called swish.

    Shapes:    x -> y, the same.
    Backward:  product rule with σ' = σ (1 − σ): grad_x = grad_y · σ(x) · (1 + x · (1 − σ(x))).
    """
    array = floats("silu", x)
    y = array * logistic(array_module(array), array)

    def backward(grad_y):
        s = sigmoid(x)
        return grad_y * (s * (x * (1 - s) + 1))

    return stored(as_array(y)), backward


@op("x", examples=[*SMOOTH, example(normal(4), beta=2.0), example(normal(6), beta=2.0, threshold=1.0)],
    tex=r"y = \frac{1}{\beta} \ln(1 + e^{\beta x})")
def softplus(x, beta=1.0, threshold=20.0):
    """A smooth relu: y = ln(1 + e^(beta · x)) / beta; y = x where beta · x > threshold.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y · σ(beta · x), or grad_y where beta · x > threshold.
    """
    array = floats("softplus", x)
    y = chosen(array * beta > threshold, array, grow(array_module(array), array * beta) / beta)

    def backward(grad_y):
        scaled = x * beta
        return where(scaled > threshold, grad_y, grad_y * sigmoid(scaled))

    return y, backward


@op("x", examples=SMOOTH, tex=r"y = \ln \sigma(x)")
def logsigmoid(x):
    """The logarithm of the sigmoid, without overflow: y = ln σ(x) = −ln(1 + e⁻ˣ).

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y · (1 − σ(x)) = grad_y · σ(−x).
    """
    array = floats("logsigmoid", x)
    y = -grow(array_module(array), -array)

    def backward(grad_y):
        return grad_y * sigmoid(-x)

    return stored(as_array(y)), backward


@op("x", examples=SMOOTH, tex=r"y = x \tanh \ln(1 + e^x)")
def mish(x, inplace=False):
    """A smooth relu with a dip below 0: y = x · tanh(softplus(x)).

    Shapes:    x -> y, the same.
    Backward:  with t = tanh(softplus(x)) and softplus' = σ: grad_x = grad_y · (t + x · (1 − t²) · σ(x)).
    """
    array = floats("mish", x)
    y = array * array_module(array).tanh(grow(array_module(array), array))

    def backward(grad_y):
        t = tanh(softplus(x))
        return grad_y * (t + x * (1 - t * t) * sigmoid(x))

    return stored(as_array(y)), backward


@op("x", examples=[example(nonzero(2, 3)), example(nonzero(3, 1, 2, 2), -0.3, 0.8)], tex=r"y = \min(\max(x, a), b)", uses_output=True)
def hardtanh(x, min_val=-1.0, max_val=1.0, inplace=False):
    """Limit to the range from min_val to max_val.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y strictly inside the range, 0 outside and on its bounds (clamp() has 1 on its bounds).
    """
    if min_val > max_val:
        raise explained(ArgumentError, "hardtanh", "min_val must not be above max_val.", [f"min_val {min_val}, max_val {max_val}"],
                        "Exchange the two.")
    lower, upper = (x.dtype.type(bound) for bound in (min_val, max_val))

    def backward(grad_y, y):
        return where((y <= min_val) | (y >= max_val), 0, grad_y)

    return stored(as_array(x.array.clip(lower, upper))), backward


def relu6(input, inplace=False):
    """relu with a ceiling: y = min(max(x, 0), 6). The slope at 0 and at 6 is 0."""
    return hardtanh(input, 0.0, 6.0)


def hardsigmoid(input, inplace=False):
    """The sigmoid in straight lines: y = x/6 + 1/2 between −3 and 3, 0 below, 1 above. The slope at ±3 is 0."""
    floats("hardsigmoid", input)
    return hardtanh(input, -3.0, 3.0) / 6 + 0.5


@op("x", examples=[*SIGNED, example(positive(3))], tex=r"y = \frac{x}{6} \min(\max(x + 3, 0), 6)")
def hardswish(x, inplace=False):
    """silu in straight lines and one parabola: y = x · min(max(x + 3, 0), 6) / 6.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y · (x/3 + 1/2) between −3 and 3, 0 at −3 and below, grad_y at 3 and above.
    """
    array = floats("hardswish", x)
    y = array * (array + 3).clip(0, 6) / 6

    def backward(grad_y):
        return where(x >= 3, grad_y, where(x <= -3, 0, grad_y * (x / 3 + 0.5)))

    return stored(as_array(y)), backward


# --- plain functions made of the ops above: their gradients are right by composition -----------------------------

def softsign(input):
    """Squash into −1 .. 1: y = x / (1 + |x|)."""
    return input / (input.abs() + 1)


def threshold(input, threshold, value, inplace=False):
    """y = x where x > threshold, else value. The slope at the threshold is 0."""
    return where(input <= threshold, value, input)


def hardshrink(input, lambd=0.5):
    """y = x, but 0 where |x| ≤ lambd. The slope at ±lambd is 0."""
    return where(input.abs() <= lambd, 0, input)


def softshrink(input, lambd=0.5):
    """Pull towards 0 by lambd: y = x − clamp(x, −lambd, lambd). The slope at ±lambd is 0."""
    if lambd < 0:
        raise explained(ArgumentError, "softshrink", "lambd must not be negative.", [f"lambd: {lambd}"], "Pass 0 or more.")
    return input - clamp(input, -lambd, lambd)


def tanhshrink(input):
    """What tanh takes away: y = x − tanh x."""
    return input - tanh(input)


def softmin(input, dim=None, dtype=None):
    """The softmax of −x: the smallest element weighs most."""
    return softmax(-input, dim=dim, dtype=dtype)


def glu(input, dim=-1):
    """A gate: cut x into halves a and b along dim, y = a · σ(b)."""
    axis = one_axis("glu", dim, input.ndim)
    size = input.shape[axis] if input.ndim else 0
    if size % 2 or not input.ndim:
        raise explained(ShapeError, "glu", "the axis must have an even size: one half gates the other.",
                        [f"x: {input.shape}, axis {axis} has size {size}"],
                        "Make the layer before it twice as wide as its result should be.")
    return narrow(input, axis, 0, size // 2) * sigmoid(narrow(input, axis, size // 2, size // 2))


__all__ = ["celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish", "prelu",
           "relu6", "selu", "silu", "softmin", "softplus", "softshrink", "softsign", "tanhshrink", "threshold"]
