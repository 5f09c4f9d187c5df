"""pool.cu on the CPU: equal to the generic body bit for bit where it does not divide, ties and NaN included."""

import launched
import numpy as np
import pytest
from launched import EPS, NEEDS_COMPILER, ORDERS, WAYS, assert_close, assert_same_bits, drawn, launch

from minidl.backend import generic, reference

pytestmark = NEEDS_COMPILER

WINDOWS = [  # x, then kernel, stride, padding, dilation, size
    ((2, 4, 6, 5), ((2, 2), (2, 2), (0, 0), (1, 1), (3, 2))),
    ((1, 3, 7, 6), ((3, 2), (2, 2), (1, 1), (1, 1), (4, 4))),   # as ceil_mode makes it: the last window hangs over
    ((2, 32, 7, 5), ((3, 3), (1, 2), (1, 1), (2, 1), (5, 3))),
    ((3, 33, 5, 4), ((3, 3), (2, 1), (1, 0), (1, 1), (3, 2))),
    ((1, 1, 31, 1), ((5, 1), (3, 1), (2, 0), (1, 1), (11, 1))),
    ((1, 4, 9, 9), ((2, 2), (3, 3), (0, 0), (1, 1), (3, 3))),   # pixels between the windows
]
ADAPTIVE = [((2, 3, 6, 5), (3, 2)), ((2, 4, 7, 5), (5, 5)), ((3, 8, 4, 5), (1, 1)), ((1, 2, 3, 7), (5, 7)), ((1, 36, 9, 6), (4, 4))]


def rungs(op, C, backward=False):
    return [*[f"{op}_v2_float4"] * (C % 4 == 0), f"{op}_v1_thread_per_{'pixel' if backward else 'output'}"]


def with_ties(shape):
    """Small whole numbers, so that windows have ties, and a few NaN and −∞."""
    x = drawn(*shape, whole=2)
    rng = np.random.default_rng(7)
    x[rng.random(shape) < 0.05] = np.nan
    x[rng.random(shape) < 0.05] = -np.inf
    return x


def max_case(shape, window, way, rung=None):
    kernel, stride, padding, dilation, size = window
    how = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "size": size}
    for x in (drawn(*shape), with_ties(shape)):
        right_y, right_indices = generic.pool.max_pool2d(x, **how)
        for name in rung and [rung] or rungs("max_pool2d", shape[1]):
            y, indices = launch("max_pool2d", name, x, way=way, **how)
            assert (indices == right_indices).all(), name
            assert np.array_equal(y, right_y, equal_nan=True), name
    return y, indices


def max_grad_case(shape, window, way):
    kernel, stride, padding, dilation, size = window
    x, grad_y = with_ties(shape), drawn(*shape[:2], *size, seed=3)
    _, indices = generic.pool.max_pool2d(x, kernel, stride, padding, dilation, size)
    right = reference.pool.max_pool2d_grad_x(grad_y, indices, shape)
    for name in rungs("max_pool2d_grad_x", shape[1], True):
        grad_x = launch("max_pool2d_grad_x", name, grad_y, indices, way=way, x_shape=shape, window=(kernel, stride, padding, dilation))
        assert (grad_x == right).all(), name  # the same sums in the same order: equal bits
    y = launch("max_pool2d_at", "max_pool2d_at", x, indices, way=way)
    assert np.array_equal(y, generic.pool.max_pool2d_at(x, indices), equal_nan=True)
    return grad_x, y


def avg_case(shape, window, way):
    kernel, stride, padding, _, size = window
    x, grad_y = drawn(*shape), drawn(*shape[:2], *size, seed=3)
    for count_include_pad, divisor_override in ((True, None), (False, None), (True, 7)):
        how = {"kernel": kernel, "stride": stride, "padding": padding, "size": size, "count_include_pad": count_include_pad,
               "divisor_override": divisor_override}
        right = generic.pool.avg_pool2d(x.astype(np.float64), **how)
        right_grad = generic.pool.avg_pool2d_grad_x(grad_y.astype(np.float64), shape, **how)
        for name in rungs("avg_pool2d", shape[1]):
            y = launch("avg_pool2d", name, x, way=way, **how)
            assert_close(y, right, 16 * EPS * (1 + np.abs(right)), name)
        for name in rungs("avg_pool2d_grad_x", shape[1], True):
            grad_x = launch("avg_pool2d_grad_x", name, grad_y, way=way, x_shape=shape, **how)
            assert_close(grad_x, right_grad, 16 * EPS * (1 + np.abs(right_grad)), name)
    return y, grad_x


def adaptive_case(shape, size, way):
    C, x, grad_y = shape[1], with_ties(shape), drawn(*shape[:2], *size, seed=3)
    right_y, right_indices = generic.pool.adaptive_max_pool2d(x, size)
    window = ((0, 0), (1, 1), (0, 0), (1, 1))
    right_grad = reference.pool.max_pool2d_grad_x(grad_y, right_indices, shape)
    for name in rungs("max_pool2d", C):
        y, indices = launch("adaptive_max_pool2d", name, x, way=way, size=size)
        assert (indices == right_indices).all() and np.array_equal(y, right_y, equal_nan=True), name
    for name in rungs("max_pool2d_grad_x", C, True):
        grad_max = launch("max_pool2d_grad_x", name, grad_y, right_indices, way=way, x_shape=shape, window=window)
        assert (grad_max == right_grad).all(), name
    x = drawn(*shape, seed=1)
    right, right_grad = (f.astype(np.float64) for f in (x, grad_y))
    right, right_grad = generic.pool.adaptive_avg_pool2d(right, size), generic.pool.adaptive_avg_pool2d_grad_x(right_grad, shape)
    for name in rungs("avg_pool2d", C):
        y = launch("adaptive_avg_pool2d", name, x, way=way, size=size)
        assert_close(y, right, 16 * EPS * (1 + np.abs(right)), name)
    for name in rungs("avg_pool2d_grad_x", C, True):
        grad_x = launch("adaptive_avg_pool2d_grad_x", name, grad_y, way=way, x_shape=shape)
        assert_close(grad_x, right_grad, 16 * EPS * (1 + np.abs(right_grad)), name)
    return y, grad_x, grad_max


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_windows_of_every_kind(way):
    for shape, window in WINDOWS:
        max_case(shape, window, way)
        max_grad_case(shape, window, way)
        if window[3] == (1, 1):
            avg_case(shape, window, way)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_adaptive_windows(way):
    for shape, size in ADAPTIVE:
        adaptive_case(shape, size, way)


def test_same_input_same_bits_in_every_thread_order():
    for shape, window in WINDOWS[:3]:
        first = max_grad_case(shape, window, ("fast", "forward"))
        for order in ORDERS[1:]:
            assert_same_bits(max_grad_case(shape, window, ("fast", order)), first)


def test_a_backward_without_windows_is_left_to_others():
    grad_y, indices = drawn(1, 4, 2, 2), np.zeros((1, 4, 2, 2), np.int32)
    for rung in rungs("max_pool2d_grad_x", 4, True):
        refusal = launched.implementation("max_pool2d_grad_x", rung).accepts(grad_y, indices, x_shape=(1, 4, 4, 4), window=None)
        assert "without their windows" in refusal


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_the_stem_of_resnet(order):
    shape, window = (1, 64, 112, 112), ((3, 3), (2, 2), (1, 1), (1, 1), (56, 56))
    max_case(shape, window, ("fast", order))
    avg_case(shape, window, ("fast", order))


OPS = {"max_pool2d": max_case, "max_pool2d_grad_x": max_grad_case, "avg_pool2d": avg_case, "avg_pool2d_grad_x": avg_case}
CASES = {name: lambda mode, order, case=case, C=C: case((2, C, 7, 6), WINDOWS[1][1], (mode, order))
         for op, case in OPS.items() for C in (3, 4) for name in rungs(op, C, op.endswith("grad_x"))[:1]}
CASES["max_pool2d_at"] = lambda mode, order: max_grad_case(*WINDOWS[0], (mode, order))
