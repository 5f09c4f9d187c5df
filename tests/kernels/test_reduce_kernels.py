"""reduce.cu and scatter.cu on the CPU: exact on whole numbers, ties and NaN as NumPy has them, same bits in every thread order."""

import numpy as np
import pytest
from launched import EPS, NEEDS_COMPILER, ORDERS, WAYS, assert_close, assert_same_bits, drawn, launch

from minidl.backend.cuda import launch as launching
from minidl.backend.cuda.reduce import geometry, runs
from minidl.backend.cuda.scatter import add_sorted

pytestmark = NEEDS_COMPILER

SHAPES = [((5,), (0,)), ((3, 31), (1,)), ((2, 300), (1,)), ((33, 257), (0,)), ((300, 33), (0,)), ((1, 5000), (1,)), ((5000, 3), (0,)),
          ((2, 3, 4), (0, 2)), ((2, 6, 5, 7), (0, 2, 3)), ((2, 6, 5, 7), (1,)), ((2, 36, 12, 9), (2, 3)), ((2, 6, 5, 7), (0, 1, 2, 3)),
          ((3, 5, 70, 2), (2,)), ((40, 3, 3, 33), (0, 3))]


def sum_case(shape, axes, way):
    """Exact on whole numbers; on normal ones as close as 64-bit sums of parts are."""
    for keepdim in (True, False):
        x = drawn(*shape, whole=9)
        y = launch("sum", "sum_v2", x, way=way, axes=axes, keepdim=keepdim, dtype=np.dtype("float32"))
        assert y.shape == x.sum(axes, keepdims=keepdim).shape and (y == x.sum(axes, keepdims=keepdim)).all()
    x = drawn(*shape, mean=1000)
    y = launch("sum", "sum_v2", x, way=way, axes=axes, keepdim=False, dtype=np.dtype("float32"), scale=0.25)
    right = x.sum(axes, dtype=np.float64) * 0.25
    assert_close(np.asarray(y), right, 4 * EPS * np.abs(right))
    return y


def extreme_case(shape, axes, way):
    """Values and positions, with ties and with NaN."""
    for x in (drawn(*shape), drawn(*shape, whole=2), with_nan(shape)):
        for sign, name in ((1, "max"), (-1, "min")):
            y = launch("extreme", "extreme_v2", x, way=way, axes=axes, keepdim=True, sign=sign)
            assert np.array_equal(y, getattr(x, name)(axes, keepdims=True), equal_nan=True), name
            for axis in axes:
                found = launch("position", "extreme_v2", x, way=way, axis=axis, keepdim=False, sign=sign)
                assert found.dtype == np.int64 and (found == getattr(x, f"arg{name}")(axis)).all(), name
            if x.ndim < 4:
                assert int(launch("position", "extreme_v2", x, way=way, axis=None, keepdim=False, sign=sign)) == getattr(x, f"arg{name}")()
    return y, np.asarray(found)


def with_nan(shape):
    x = drawn(*shape, whole=2)
    x[np.random.default_rng(1).random(shape) < 0.1] = np.nan
    return x


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_sums(way):
    for shape, axes in SHAPES:
        sum_case(shape, axes, way)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_extremes_and_positions(way):
    for shape, axes in SHAPES:
        extreme_case(shape, axes, way)


def test_every_rung_is_reached():
    kinds = {geometry(*step)[0] for shape, axes in SHAPES for step in runs(shape, axes)}
    assert kinds == {"v1_thread_per_output", "v2_rows", "v2_columns"}
    assert any(geometry(*step)[4] > 1 for shape, axes in SHAPES for step in runs(shape, axes)), "no sum was cut into parts"


def test_a_million_numbers_keep_their_digits():
    """Added up one after the other in 32 bits, the sum would be off by 10⁻³; the parts' sums are right to the last bit or two."""
    x = np.abs(drawn(1 << 20, seed=1)) + np.float32(0.1)
    y = launch("sum", "sum_v2", x, way=("fast", "forward"), axes=(0,), keepdim=False, dtype=np.dtype("float32"))
    right = x.sum(dtype=np.float64)
    assert abs(float(y) - right) <= 4 * EPS * right
    assert abs(float(np.add.accumulate(x)[-1]) - right) > 16 * EPS * right, "the planted sum, one after the other, must not pass"


def add_at_case(V, n, D, way, rung=None):
    """Whole numbers: exact. Normal ones: the same bits in every thread order."""
    keys = np.random.default_rng(3).integers(0, V, n)
    order = np.argsort(keys, kind="stable")
    for values in (drawn(n, D, whole=9), drawn(n, D, seed=2)):
        target = drawn(V, D, seed=1, whole=9)
        right = target.astype(np.float64)
        np.add.at(right, keys, values.astype(np.float64))
        if rung is None:
            launch("add_at", "add_at_sorted", target, keys, values, way=way)
        else:
            with launching.running(*way):
                add_sorted(target, keys[order], order, values, rung)
        assert_close(target, right, 8 * EPS * np.abs(right).max() * (np.abs(values % 1).max() > 0))
    return target


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_add_at(way):
    for V, n, D in [(1, 1, 1), (4, 33, 1), (7, 31, 5), (3, 200, 33), (100, 32, 8), (2, 1000, 2)]:
        first = add_at_case(V, n, D, way)
        for rung in ("add_at_v1_thread_per_run", "add_at_v2_warp_per_run"):
            assert_close(add_at_case(V, n, D, way, rung), first.astype(np.float64), 4 * EPS * np.abs(first).max())


def test_same_input_same_bits_in_every_thread_order():
    def everything(order):
        way = ("fast", order)
        return (*(sum_case(shape, axes, way) for shape, axes in SHAPES[3:9]), add_at_case(2, 1000, 2, way), add_at_case(3, 200, 33, way))
    for order in ORDERS[1:]:
        assert_same_bits(everything(order), everything("forward"))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_the_gradient_of_a_bias(order):
    sum_case((4, 256, 56, 56), (0, 2, 3), ("fast", order))
    extreme_case((4, 64, 28, 28), (2, 3), ("fast", order))
    add_at_case(1000, 20000, 16, ("fast", order))


CASES = {
    **{f"{what}_{kind}": lambda mode, order, case=case, shape=shape, axes=axes: case(shape, axes, (mode, order))
       for what, case in (("sum", sum_case), ("extreme", extreme_case))
       for kind, shape, axes in (("v1_thread_per_output", (3, 31), (1,)), ("v2_rows", (2, 300), (1,)), ("v2_columns", (300, 33), (0,)))},
    **{rung: lambda mode, order, rung=rung: add_at_case(7, 31, 5, (mode, order), rung)
       for rung in ("add_at_v1_thread_per_run", "add_at_v2_warp_per_run")},
}
