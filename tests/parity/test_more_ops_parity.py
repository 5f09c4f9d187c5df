"""The ops of functions, activation, statistics, scatter, diagonal, rearrange and linear_algebra against PyTorch.

Every case draws random calls. A call runs in both libraries from the same text, so names, argument order and keywords
are compared as well as outputs, gradients, second order and dtypes. Corners (kinks, ties, zeros) are drawn on purpose.
"""

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra `parity`)")

from minidl import ops  # noqa: E402 - after the skip
from minidl.core.derivative import grad  # noqa: E402
from minidl.core.tensor import Tensor  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's own remarks about these calls
DRAWS = 40
inf = math.inf


class Names:
    """Look a name up in several places: minidl.ops holds in one place what PyTorch spreads over several."""

    def __init__(self, tensor, *places):
        self.tensor, self.places = tensor, places

    def __getattr__(self, name):
        return next(getattr(place, name) for place in self.places if hasattr(place, name))


OURS = Names(lambda array, requires_grad=False: Tensor(np.array(array), requires_grad), ops)
THEIRS = Names(lambda array, requires_grad=False: torch.tensor(np.asarray(array), requires_grad=requires_grad),
               torch, torch.nn.functional, torch.linalg)


def flat(result):
    """Tensors in a tuple, whether one came or several."""
    if isinstance(result, (tuple, list)):
        return tuple(itertools.chain.from_iterable(flat(r) for r in result))
    return (result,)


def ours_array(t):
    return np.asarray(t.array)


def theirs_array(t):
    return t.detach().numpy()


def assert_same(name, mine, other, tolerance):
    """Equal shape and dtype; equal NaN and infinities; finite values within tolerance of their size."""
    assert mine.dtype == other.dtype, f"{name}: {mine.dtype} here, {other.dtype} there"
    assert mine.shape == other.shape, f"{name}: {mine.shape} here, {other.shape} there"
    if mine.dtype.kind != "f":
        assert (mine == other).all(), f"{name}: {mine} here, {other} there"
        return
    odd = ~np.isfinite(other)
    assert np.array_equal(mine[odd], other[odd], equal_nan=True), f"{name}: {mine} here, {other} there"
    error = np.abs(mine[~odd].astype(np.float64) - other[~odd])
    worst = (error / np.maximum(1, np.abs(other[~odd]))).max(initial=0)
    assert worst <= tolerance, f"{name}: off by {worst:.1e}\n{mine}\n{other}"


def is_floating(array):
    return array.dtype.kind == "f"


def first_and_second(lib, call, arrays, cotangents, directions, orders):
    """(outputs, gradients, second-order gradients) as arrays; zeros where no path leads."""
    theirs = lib is THEIRS
    leaves = [lib.tensor(a, requires_grad=True) if is_floating(a) else lib.tensor(a) for a in arrays]
    array_of, take = (theirs_array, torch.autograd.grad) if theirs else (ours_array, grad)
    outputs = flat(call(lib, *leaves))
    differentiable = [y for y in outputs if y.requires_grad]
    inputs = [x for x in leaves if x.requires_grad]
    seeds = [lib.tensor(c) for c in cotangents[:len(differentiable)]]
    if not differentiable:
        return [array_of(y) for y in outputs], [], []
    grads = take(differentiable, inputs, seeds, create_graph=True, allow_unused=True)
    total = [(g * lib.tensor(d)).sum() for g, d in zip(grads, directions, strict=True) if g is not None and g.requires_grad]
    second = take(total, inputs, allow_unused=True) if total and orders == 2 else [None] * len(inputs)
    values = [[np.zeros_like(array_of(x)) if g is None else array_of(g) for g, x in zip(gs, inputs, strict=True)] for gs in (grads, second)]
    return [array_of(y) for y in outputs], *values


def compare(call, arrays, rng, tolerance=1e-10, orders=2):
    """One call in both libraries."""
    outputs = flat(call(THEIRS, *map(THEIRS.tensor, arrays)))
    cotangents = [rng.standard_normal(tuple(y.shape)).astype(theirs_array(y).dtype) for y in outputs if y.is_floating_point()]
    directions = [rng.standard_normal(a.shape).astype(a.dtype) for a in arrays if is_floating(a)]
    mine, other = (first_and_second(lib, call, arrays, cotangents, directions, orders) for lib in (OURS, THEIRS))
    for kind, ours, theirs in zip(("output", "gradient", "second order"), mine, other, strict=True):
        assert len(ours) == len(theirs)
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(f"{kind} {k}", a, b, tolerance)


# --- drawing ------------------------------------------------------------------------------------------------------

class Dice(np.random.Generator):
    """Random numbers, and whether corners (kinks, ties, zeros) may come up: there second derivatives need not exist."""

    def __init__(self, seed, corners):
        super().__init__(np.random.PCG64(seed))
        self.corners = corners


def shape_of(rng, low=0, high=4, zero=True):
    """A shape of `low` to `high` axes; now and then with a size of 0."""
    sizes = rng.integers(1, 5, rng.integers(low, high + 1)).tolist()
    if zero and sizes and rng.random() < 0.1:
        sizes[rng.integers(len(sizes))] = 0
    return tuple(sizes)


def pair(rng, **kind):
    """Two shapes that broadcast."""
    shape = shape_of(rng, **kind)
    other = tuple(1 if rng.random() < 0.3 else n for n in shape)[rng.integers(0, len(shape) + 1):]
    return (shape, other) if rng.random() < 0.5 else (other, shape)


def axis_of(rng, shape):
    """Some axis, counted from either end."""
    n = max(len(shape), 1)
    return int(rng.integers(-n, n))


def numbers(rng, shape, corners=()):
    """Normal numbers of mixed sizes, some of them replaced by corners."""
    x = rng.standard_normal(shape) * rng.choice([0.1, 1, 5])
    return np.asarray(np.where(rng.random(shape) < 0.3, rng.choice(corners, shape), x) if corners and rng.corners else x)


CASES = {}


def case(*names, **more):
    """Register draw(rng, name) -> (call, arrays) for some op names."""
    def register(draw):
        for name in names or (draw.__name__,):
            CASES[name] = (draw, more)
        return draw
    return register


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


# --- the tests ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", CASES)
def test_float64(name):
    draw, more = CASES[name]
    for seed in range(DRAWS):
        rng = Dice([seed, 5], corners=seed % 2)
        call, arrays = draw(rng, name)
        compare(call, arrays, rng, more.get("exact", 1e-10), orders=min(more.get("orders", 2), 1 if rng.corners else 2))


@pytest.mark.parametrize("name", [name for name, (_, more) in CASES.items() if more.get("float32", True)])
def test_float32_stays_float32(name):
    draw, more = CASES[name]
    for seed in range(8):
        rng = Dice([seed, 6], corners=seed % 2)
        call, arrays = draw(rng, name)
        compare(call, [a.astype(np.float32) if is_floating(a) else a for a in arrays], rng, tolerance=more.get("tolerance", 2e-4), orders=1)
