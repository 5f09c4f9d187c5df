"""Functions, activations, statistics and order against PyTorch. Corners (kinks, ties, zeros) are drawn on purpose."""

import numpy as np
import pytest

from tests.parity.drawn import OURS, QUIET, Cases, Dice, axis_of, compare, numbers, pair, shape_of

pytestmark = QUIET
case = Cases()
inf = float("inf")

SHIFTED = {"rsqrt": 0.1, "log1p": -0.9}


@case("rsqrt", "reciprocal", "square", "sin", "cos", "erf", "log1p", "expm1", "floor", "ceil", "trunc", "sign")
def unary(rng, name):
    x = numbers(rng, shape_of(rng))
    x = np.abs(x) + SHIFTED[name] if name in SHIFTED else np.where(np.abs(x) < 0.1, 0.5, x) if name == "reciprocal" else x
    return (lambda lib, x: getattr(lib, name)(x)), [x]


@case("round")
def rounding(rng, name):
    decimals = int(rng.integers(-1, 3))
    return (lambda lib, x: lib.round(x, decimals=decimals)), [numbers(rng, shape_of(rng), [0.5, 1.5, -2.5, 0.25])]


@case("fmod", "atan2", "hypot")
def binary(rng, name):
    a, b = pair(rng)
    y = numbers(rng, b)
    return (lambda lib, x, y: getattr(lib, name)(x, y)), [numbers(rng, a), np.where(np.abs(y) < 0.1, 0.3, y)]


@case("atan2 at 0")
def origin(rng, name):
    shape = shape_of(rng)
    return (lambda lib, x, y: lib.atan2(x, y)), [numbers(rng, shape, [0.0]), numbers(rng, shape, [0.0, 1.0])]


ACTIVATIONS = {
    "leaky_relu": [{}, {"negative_slope": 0.2}, {"inplace": False}], "elu": [{}, {"alpha": 0.5}], "celu": [{}, {"alpha": 0.25}],
    "selu": [{}],
    "gelu": [{}, {"approximate": "tanh"}, {"approximate": "none"}], "silu": [{}],
    "softplus": [{}, {"beta": 2}, {"beta": 0.5, "threshold": 1}],
    "logsigmoid": [{}], "mish": [{}], "hardtanh": [{}, {"min_val": -0.5, "max_val": 2.0}], "relu6": [{}],
    "hardsigmoid": [{}], "hardswish": [{}],
    "softsign": [{}], "threshold": [{"threshold": 0.5, "value": -2.0}], "hardshrink": [{}, {"lambd": 1.0}],
    "softshrink": [{}, {"lambd": 1.0}],
    "tanhshrink": [{}],
}


@case(*[name for name in ACTIVATIONS if name != "hardsigmoid"])
@case("hardsigmoid", orders=1, exact=1e-7)  # PyTorch has 1/6 in float32, and cannot differentiate it twice
def activation(rng, name):
    settings = ACTIVATIONS[name][rng.integers(len(ACTIVATIONS[name]))]
    corners = [0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0, -3.0, 6.0, 30.0, -30.0, 300.0, -300.0]
    return (lambda lib, x: getattr(lib, name)(x, **settings)), [numbers(rng, shape_of(rng), corners)]


@case("prelu")
def channel_slopes(rng, name):
    shape = shape_of(rng, low=1)
    channels = shape[1] if len(shape) > 1 and rng.random() < 0.7 else 1
    return (lambda lib, x, w: lib.prelu(x, w)), [numbers(rng, shape, [0.0]), rng.standard_normal(channels)]


@case("softmin")
def normalised(rng, name):
    shape = shape_of(rng)
    dim = axis_of(rng, shape)
    return (lambda lib, x: lib.softmin(x, dim=dim)), [numbers(rng, shape)]


@case("glu")
def gate(rng, name):
    shape = list(shape_of(rng, low=1, zero=False))
    dim = axis_of(rng, shape)
    shape[dim] *= 2
    return (lambda lib, x: lib.glu(x, dim)), [numbers(rng, shape)]


# --- statistics and order ------------------------------------------------------------------------------------------

def some_axes(rng, shape):
    """None, one axis, or several of them."""
    kind = rng.integers(3)
    if kind == 0 or not shape:
        return None
    if kind == 1:
        return axis_of(rng, shape)
    return tuple(int(k) for k in rng.permutation(len(shape))[:rng.integers(1, len(shape) + 1)])


@case("std", "std_mean", "var_mean")
def spread_of(rng, name):
    shape = shape_of(rng, low=1, zero=False)
    x = np.zeros(shape) + 2 if rng.corners and rng.random() < 0.3 else numbers(rng, shape)
    dim, keepdim, correction = some_axes(rng, shape), bool(rng.integers(2)), int(rng.integers(2))
    n = x.size if dim is None else np.prod([shape[k] for k in np.atleast_1d(dim)])
    correction = correction if n > 1 else 0
    if rng.random() < 0.3 and n > 1:
        return (lambda lib, x: getattr(lib, name)(x, bool(correction))), [x + rng.standard_normal(shape)] if x.size > 1 else [x]
    return (lambda lib, x: getattr(lib, name)(x, dim=dim, keepdim=keepdim, correction=correction)), [x]


@case("prod")
def product(rng, name):
    shape = shape_of(rng)
    x, keepdim = numbers(rng, shape), bool(rng.integers(2))
    x = np.where(rng.random(shape) < rng.choice([0, 0.2, 0.6]), 0.0, x)  # second order must be right with zeros too
    if rng.random() < 0.4:
        return (lambda lib, x: lib.prod(x)), [x]
    dim = axis_of(rng, shape)
    return (lambda lib, x: lib.prod(x, dim, keepdim)), [x]


@case("cumsum", "cumprod", "logcumsumexp", tolerance=1e-3)
def running(rng, name):
    shape = shape_of(rng)
    x, dim = numbers(rng, shape), axis_of(rng, shape)
    x = np.where(rng.random(shape) < rng.choice([0, 0.2, 0.6]), 0.0, x)
    return (lambda lib, x: getattr(lib, name)(x, dim=dim)), [x]


@case("norm", tolerance=1e-3)
def length(rng, name):
    shape = shape_of(rng, low=1, zero=False)
    p = rng.choice([0.0, 0.5, 1, 1.5, 2, 3, -1, inf, -inf])
    x = numbers(rng, shape, [0.0, 1.0, -1.0] if p not in (-1,) else ())
    x = np.where(np.abs(x) < 1e-3, 0.0 if rng.corners else 0.3, x)
    if rng.corners and rng.random() < 0.2:
        x = np.zeros(shape)
    dim, keepdim = some_axes(rng, shape), bool(rng.integers(2))
    kind = rng.integers(3)
    if kind == 0:
        return (lambda lib, x: lib.norm(x)), [x]
    if kind == 1:
        return (lambda lib, x: lib.norm(x, dim=dim, keepdim=keepdim)), [x]
    return (lambda lib, x: lib.norm(x, p, dim, keepdim)), [x]


def unequal(rng, shape):
    """Numbers without ties, or whole numbers with many: then only values can be compared."""
    return np.asarray(rng.integers(0, 3, shape).astype(float) if rng.corners else rng.standard_normal(shape))


@case("sort")
def ordering(rng, name):
    shape = shape_of(rng)
    dim, descending = axis_of(rng, shape), bool(rng.integers(2))
    return (lambda lib, x: lib.sort(x, dim=dim, descending=descending, stable=True)), [unequal(rng, shape)]


@case("argsort")
def ordering_positions(rng, name):
    shape = shape_of(rng)
    dim, descending = axis_of(rng, shape), bool(rng.integers(2))
    return (lambda lib, x: lib.argsort(x, dim=dim, descending=descending, stable=True)), [unequal(rng, shape)]


@case("topk")
def best(rng, name):
    shape = shape_of(rng, low=1)
    dim, largest = axis_of(rng, shape), bool(rng.integers(2))
    k = int(rng.integers(0, shape[dim] + 1))
    if rng.corners:
        return (lambda lib, x: lib.topk(x.detach(), k, dim, largest)[0]), [unequal(rng, shape)]
    return (lambda lib, x: lib.topk(x, k, dim=dim, largest=largest)), [unequal(rng, shape)]


@case("median")
def middle(rng, name):
    shape = shape_of(rng, zero=False)
    dim, keepdim, x = axis_of(rng, shape), bool(rng.integers(2)), unequal(rng, shape)
    if rng.random() < 0.3:
        return (lambda lib, x: lib.median(x)), [x]
    if rng.corners:
        x = np.where(rng.random(shape) < 0.1, np.nan, x)
        return (lambda lib, x: lib.median(x.detach(), dim, keepdim)[0]), [x]
    return (lambda lib, x: lib.median(x, dim, keepdim=keepdim)), [x]


@pytest.mark.parametrize("name", case)
def test_float64(name):
    case.compare64(name)


@pytest.mark.parametrize("name", case)
def test_float32_stays_float32(name):
    case.compare32(name)


SPOILED = {
    "output": lambda lib, x: x * 2 if lib is OURS else x * 2.00001,
    "gradient": lambda lib, x: x * 2 if lib is OURS else x + x.detach(),
    "second order": lambda lib, x: x * x if lib is OURS else x * x.detach() * 2 - x.detach() ** 2,
    "dtype": lambda lib, x: x.float() if lib is OURS else x,
    "shape": lambda lib, x: x.detach().sum(0, True) if lib is OURS else x.detach().sum(0),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_difference_is_noticed(what):
    """The comparison itself: two calls that differ in one respect only."""
    rng = Dice(1, corners=False)
    with pytest.raises(AssertionError, match="output" if what in ("dtype", "shape") else what):
        compare(SPOILED[what], [rng.standard_normal((2, 3))], rng)
