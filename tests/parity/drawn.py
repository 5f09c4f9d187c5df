"""Random calls that run in minidl and in PyTorch from the same text, and their comparison.

A case is a function draw(rng, name) -> (call, arrays): call(lib, *tensors) is the same for both libraries, so names,
argument order and keywords are compared as well as outputs, gradients, second order and dtypes.
"""

import itertools

import numpy as np
import pytest

import minidl
from minidl import ops
from minidl.core.derivative import grad
from minidl.core.tensor import Tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra `parity`)")
QUIET = pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's own remarks about these calls
DRAWS = 40


class Names:
    """Look a name up in several places: minidl.ops holds in one place what PyTorch spreads over several."""

    def __init__(self, tensor, *places):
        self.tensor, self.places = tensor, places

    def __getattr__(self, name):
        return next(getattr(place, name) for place in self.places if hasattr(place, name))


OURS = Names(lambda array, requires_grad=False: Tensor(np.array(array), requires_grad), ops, minidl)
THEIRS = Names(lambda array, requires_grad=False: torch.tensor(np.asarray(array), requires_grad=requires_grad),
               torch, torch.nn.functional)


def flat(result):
    """Tensors in a tuple, whether one came or several."""
    if isinstance(result, (tuple, list)):
        return tuple(itertools.chain.from_iterable(flat(r) for r in result))
    return (result,)


def ours_array(t):
    return np.asarray(t.array)


def theirs_array(t):
    return t.detach().numpy(force=True)


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


class Cases(dict):
    """The cases of one file by name; used as a decorator it registers a draw for some names."""

    def __call__(self, *names, **more):
        def register(draw):
            for name in names:
                self[name] = (draw, more)
            return draw
        return register

    def compare64(self, name):
        """Many draws in float64; at corners only values and first derivatives."""
        draw, more = self[name]
        for seed in range(DRAWS):
            rng = Dice([seed, 5], corners=seed % 2)
            call, arrays = draw(rng, name)
            compare(call, arrays, rng, more.get("exact", 1e-10), orders=min(more.get("orders", 2), 1 if rng.corners else 2))

    def compare32(self, name):
        """A few draws in float32: everything must stay float32."""
        draw, more = self[name]
        for seed in range(8):
            rng = Dice([seed, 6], corners=seed % 2)
            call, arrays = draw(rng, name)
            compare(call, [a.astype(np.float32) if is_floating(a) else a for a in arrays], rng, more.get("tolerance", 2e-4), orders=1)
