"""What the kernel tests share: running a launcher on NumPy arrays, drawing inputs, comparing with float64."""

import numpy as np
import pytest

import minidl.backend.cuda.normalize
import minidl.backend.cuda.optim
import minidl.backend.cuda.pool
import minidl.backend.cuda.reduce
import minidl.backend.cuda.scatter
import minidl.backend.cuda.softmax  # noqa: F401 - importing the launchers registers them
from minidl.backend import IMPLEMENTATIONS
from minidl.backend.cuda.launch import running
from minidl.backend.cuda.on_cpu_build import why_no_compiler
from minidl.backend.layout import empty

NEEDS_COMPILER = pytest.mark.skipif(bool(why_no_compiler()), reason=f"KERNELS ARE NOT RUN HERE: {why_no_compiler()}")
ORDERS = ("forward", "reverse", "random")
EPS = np.finfo(np.float32).eps
WAYS = [("check", "forward"), *(("fast", order) for order in ORDERS)]  # how every case is run


def implementation(op, name):
    """The implementation `cuda/name` of an op."""
    return next(i for i in IMPLEMENTATIONS[op] if i.name == f"cuda/{name}")


def launch(op, name, *arrays, way, **how):
    """Run one rung, which must accept the call, on NumPy arrays; way = (mode, order)."""
    rung = implementation(op, name)
    refusal = rung.accepts(*arrays, **how) if rung.accepts else ""
    assert not refusal, f"{op}: {rung.name} refused: {refusal}"
    with running(*way):
        return rung.function(*arrays, **how)


def drawn(*shape, seed=0, mean=0.0, whole=None, dtype=np.float32):
    """Normal numbers, or whole ones from −whole to whole; a 4-D array is stored channels-last."""
    rng = np.random.default_rng([seed, *shape])
    values = rng.integers(-whole, whole + 1, shape) if whole else rng.standard_normal(shape) + mean
    y = empty(shape, np.dtype(dtype), np.zeros(0))
    y[...] = values
    return y


def wide(*arrays):
    """The same arrays in float64; None stays None."""
    return [None if a is None else a.astype(np.float64) for a in arrays]


def assert_close(ours, right, tolerance, what=""):
    """Every number within a tolerance of the right one; NaN fails."""
    assert ours.shape == right.shape, (what, ours.shape, right.shape)
    error = np.abs(ours.astype(np.float64) - right)
    assert (error <= tolerance).all(), f"{what}: off by {np.nanmax(error):.3g} at {np.unravel_index(np.nanargmax(error), error.shape)}" \
                                       f" (allowed {np.max(tolerance):.3g}, {np.isnan(error).sum()} NaN)"


def assert_same_bits(first, second, what=""):
    """Two results, or tuples of them, are equal bit for bit."""
    for a, b in zip(first, second, strict=True) if isinstance(first, tuple) else [(first, second)]:
        assert a.dtype == b.dtype and np.array_equal(a.view(np.uint8 if a.dtype == bool else f"u{a.itemsize}"),
                                                     b.view(np.uint8 if b.dtype == bool else f"u{b.itemsize}")), what
