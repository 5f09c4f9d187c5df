"""softmax.cu on the CPU: every rung against float64, cross-entropy against the op, ragged sizes in check mode, three thread orders."""

import numpy as np
import pytest
from launched import EPS, NEEDS_COMPILER, ORDERS, WAYS, assert_close, assert_same_bits, drawn, launch

import minidl
from minidl.backend import generic
from minidl.backend.cuda import launch as launching
from minidl.backend.cuda import softmax as launchers

pytestmark = NEEDS_COMPILER

SHAPES = [((3, 1), 1), ((5, 31), 1), ((33, 32), 1), ((2, 33), 1), ((2, 1000), 1), ((3, 1025), 1), ((2, 3, 4), 0), ((2, 5, 33), 1),
          ((2, 6, 3, 5), 1), ((2, 3, 4, 2), 2), ((31, 2), 0)]


def rungs(shape, dim):
    rows = dim == len(shape) - 1 or len(shape) == 4 and dim == 1
    return [*["softmax_v2_warp_per_row"] * (rows and shape[dim] <= 1024), *["softmax_v3_block_per_row_online"] * rows,
            "softmax_v1_thread_per_line"]


def softmax_case(shape, dim, way, only=None):
    x = drawn(*shape) * np.float32(5)
    for op in ("softmax", "log_softmax"):
        right = getattr(generic.softmax, op)(x.astype(np.float64), dim)
        for rung in [only] if only else rungs(shape, dim):
            y = launch(op, rung, x, way=way, dim=dim)
            assert_close(y, right, (16 + 2 * np.sqrt(shape[dim])) * EPS * (1 + np.abs(right)), (op, rung))  # n terms in one sum
    return y


def cross_entropy_case(shape, way, weighted=False, smoothing=0.0, scores=None):
    """Loss and gradient as F.cross_entropy has them in float64, for all three reductions; one label in four is ignored."""
    C, rows = shape[1], shape[:1] + shape[2:]
    x = drawn(*shape) * np.float32(3) if scores is None else scores
    labels, grad = np.random.default_rng(5).integers(0, C, rows), drawn(*rows, seed=6)
    labels.reshape(-1)[1::4] = -100
    w = np.abs(drawn(C, seed=7)) + np.float32(0.1) if weighted else None
    with launching.running(*way):
        loss, sums = launchers.rows_and_sums(x, labels, w, smoothing, -100)
        grads = {"none": launchers.grad_of_rows(grad, x, labels, w, None, smoothing, -100),
                 "mean": launchers.grad_of_rows(np.float32([2]), x, labels, w, sums[1:2], smoothing, -100),
                 "sum": launchers.grad_of_rows(np.float32([2]), x, labels, w, None, smoothing, -100)}
    for reduction, ours in (("none", loss), ("sum", sums[0]), ("mean", sums[2])):
        wide = minidl.tensor(x.astype(np.float64), requires_grad=True)
        weight = None if w is None else minidl.tensor(w.astype(np.float64))
        y = minidl.nn.functional.cross_entropy(wide, minidl.tensor(labels), weight,
                            reduction=reduction, label_smoothing=smoothing)
        y.backward(minidl.tensor(grad.astype(np.float64)) if reduction == "none" else minidl.tensor(2.0, dtype=minidl.float64))
        assert_close(np.asarray(ours), y.array, 32 * EPS * (1 + np.abs(y.array)) * (1 + C * smoothing), reduction)
        assert_close(grads[reduction], wide.grad.array, 64 * EPS * (1 + np.abs(wide.grad.array)), reduction)
    return loss, sums, *grads.values()


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_every_rung_on_ragged_sizes(way):
    for shape, dim in SHAPES:
        softmax_case(shape, dim, way)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_cross_entropy(way):
    for shape in [(5, 2), (33, 31), (4, 1000), (2, 5, 3, 4)]:
        cross_entropy_case(shape, way)
        cross_entropy_case(shape, way, weighted=True, smoothing=0.1)
        cross_entropy_case(shape, way, smoothing=1.0)


def test_a_label_that_is_no_class_gives_nan_and_touches_nothing():
    """Check mode would report a read beside the scores or the weights."""
    for labels in ([0, 3, 1, -1], [2, 2**40, 0, -5]):
        with launching.running("check"):
            loss, sums = launchers.rows_and_sums(drawn(4, 3), np.array(labels), np.abs(drawn(3)), 0.1, -100)
            launchers.grad_of_rows(drawn(4), drawn(4, 3), np.array(labels), np.abs(drawn(3)), None, 0.1, -100)
        assert np.isnan(loss).tolist() == [False, True, False, True] and np.isnan(sums[2])


def test_scores_of_ten_thousand_are_right():
    scores = np.float32([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [3.0, 1.0, 2.0], [1e4, 1e4, -3e38]])
    for rung in rungs((4, 3), 1):
        y = launch("softmax", rung, scores, way=("fast", "forward"), dim=1)
        assert_close(y, generic.softmax.softmax(scores.astype(np.float64), 1), 4 * EPS, rung)
    cross_entropy_case((4, 3), ("fast", "forward"), scores=scores)


def test_infinities_and_nan_are_the_generic_ones():
    inf, nan = np.inf, np.nan
    x = np.float32([[-inf, 1, 2], [-inf, -inf, -inf], [inf, 1, 2], [inf, inf, 0], [nan, 1, 2], [1, 2, nan], [nan, -inf, -inf],
                    [-inf, 5, -inf]])
    for op in ("softmax", "log_softmax"):
        right = getattr(generic.softmax, op)(x, 1)
        for rung in rungs(x.shape, 1):
            y = launch(op, rung, x, way=("fast", "forward"), dim=1)
            assert np.allclose(y, right, rtol=1e-6, atol=0, equal_nan=True), (op, rung, y, right)
            long = np.concatenate([x, np.full((8, 700), -inf, np.float32)], 1)
            y = launch(op, rung, long, way=("fast", "forward"), dim=1)[:, :3]
            assert np.allclose(y, right, rtol=1e-6, atol=0, equal_nan=True), rung


def test_same_input_same_bits_in_every_thread_order():
    first = softmax_case((3, 1025), 1, ("fast", "forward")), *cross_entropy_case((33, 31), ("fast", "forward"), True, 0.1)
    for order in ORDERS[1:]:
        assert_same_bits((softmax_case((3, 1025), 1, ("fast", order)), *cross_entropy_case((33, 31), ("fast", order), True, 0.1)), first)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_the_classes_of_imagenet(order):
    softmax_case((64, 1000), 1, ("fast", order))
    cross_entropy_case((64, 1000), ("fast", order), smoothing=0.1)


CASES = {**{rung: lambda mode, order, rung=rung: softmax_case((5, 33), 1, (mode, order), rung) for rung in rungs((5, 33), 1)},
         **{name: lambda mode, order: cross_entropy_case((33, 31), (mode, order), True, 0.1)
            for name in ("cross_entropy_rows", "cross_entropy_total", "cross_entropy_grad")}}
