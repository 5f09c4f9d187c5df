"""batchnorm.cu, batchnorm_grad.cu and layernorm.cu on the CPU: against float64, ragged sizes in check mode, three thread orders."""

import numpy as np
import pytest
from launched import EPS, NEEDS_COMPILER, ORDERS, WAYS, assert_close, assert_same_bits, drawn, launch, wide

from minidl.backend import generic
from minidl.backend.cuda import launch as launching
from minidl.backend.cuda.normalize import Shape, gradients, running_averages

pytestmark = NEEDS_COMPILER

SMALL = [(1, 4, 3, 3), (2, 1, 31, 1), (3, 33, 4, 2), (2, 32, 3, 5), (33, 31), (32, 8), (2, 132, 5, 3)]  # ragged: C and N·H·W around 32
LAYERS = [(2, 64, 28, 28), (2, 256, 14, 14), (1, 3, 112, 112)]                                           # a small batch of ResNet's layers


def rungs(shape):
    return ("norm_v3_float4", "norm_v2_tile") if shape[1] % 4 == 0 else ("norm_v2_tile",)


def train_case(shape, rung, way, mean=0.0, add=False, relu=False):
    """Forward, backward and eval of one shape, against the generic body in float64."""
    x, w, b = drawn(*shape, mean=mean), drawn(shape[1], seed=1), drawn(shape[1], seed=2)
    more = drawn(*shape, seed=3) if add else None
    y, mean_found, var = launch("batch_norm_train", rung, x, w, b, more, way=way, eps=1e-5, relu=relu)
    right = generic.normalize.batch_norm_train(*wide(x, w, b, more), eps=1e-5, relu=relu)
    scale = np.abs(x).max()  # what rounding x itself can do
    assert_close(mean_found, right[1], 4 * EPS * scale, "mean")
    assert_close(var, right[2], 64 * EPS * right[2] + 4 * EPS * EPS * scale * scale, "var")
    slope = np.abs(w).max() / np.sqrt(right[2].min() + 1e-5)
    assert_close(y, right[0], 64 * EPS * (1 + np.abs(right[0]).max()) + 8 * EPS * scale * slope, "y")
    if rung.startswith("batch_norm_v1"):
        return y, mean_found, var
    grad_y = drawn(*shape, seed=4)
    grads = launch("batch_norm_grad", rung, grad_y, x, w, mean_found, var, way=way, eps=1e-5)
    right = generic.normalize.batch_norm_grad(*wide(grad_y, x, w, mean_found, var), eps=1e-5)
    n = x.size // shape[1]
    assert_close(grads[0], right[0], 64 * EPS * (1 + np.abs(right[0]).max()), "grad_x")
    for ours, theirs, what in zip(grads[1:], right[1:], ("grad_w", "grad_b"), strict=True):
        assert_close(ours, theirs, 16 * np.sqrt(n) * EPS * 4, what)
    evaluated = launch("batch_norm_eval", rung, x, mean_found, var, w, b, more, way=way, eps=1e-5, relu=relu)
    assert_same_bits(evaluated, y, "eval with the batch's own statistics")
    return y, mean_found, var, *grads


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_every_rung_on_ragged_sizes(way):
    for shape in SMALL:
        for rung in rungs(shape):
            train_case(shape, rung, way)
            train_case(shape, rung, way, add=True, relu=True)
        train_case(shape, "batch_norm_v1_block_per_channel", way)


@pytest.mark.parametrize("rung", ["norm_v3_float4", "norm_v2_tile", "batch_norm_v1_block_per_channel"])
def test_a_mean_of_1000_standard_deviations(rung):
    """The one-pass formula Σx²/n − mean² is off by several per cent here; the variance must be right to rounding."""
    x = drawn(8, 12, 20, 20, mean=1000.0)
    _, mean, var = launch("batch_norm_train", rung, x, None, None, None, way=("fast", "forward"), eps=1e-5, relu=False)
    right_mean, right_var = x.astype(np.float64).mean((0, 2, 3)), x.astype(np.float64).var((0, 2, 3))
    assert_close(mean, right_mean, 1000 * EPS, "mean")
    tolerance = 2e-3 if "v1" in rung else 2e-5  # means of tiles are rounded by 3e-5 and lie 0.3 apart; v1 adds up means in 32 bits
    assert_close(var, right_var, tolerance, "var")
    naive = (x * x).mean((0, 2, 3)) - x.mean((0, 2, 3)) ** 2
    assert np.abs(naive - right_var).max() > 2e-3, "the planted formula Σx²/n − mean² must not pass"


def test_an_outlier_in_front_costs_no_digits():
    """Numbers are taken relative to a thread's first row, which may itself be far out."""
    x = drawn(4, 8, 16, 16)
    x[0, :, 0, 0] = 1e4
    _, _, var = launch("batch_norm_train", "norm_v3_float4", x, None, None, None, way=("fast", "forward"), eps=1e-5, relu=False)
    assert_close(var, x.astype(np.float64).var((0, 2, 3)), 1e-5 * var.max(), "var")


def test_same_input_same_bits_in_every_thread_order():
    for shape in [(3, 33, 4, 2), (2, 64, 14, 14)]:
        for rung in rungs(shape):
            first = train_case(shape, rung, ("fast", "forward"))
            for way in WAYS[1:]:
                assert_same_bits(train_case(shape, rung, way), first, (shape, rung, way))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_layers_of_real_networks(order):
    for shape in LAYERS:
        for rung in rungs(shape):
            train_case(shape, rung, ("fast", order), add=True, relu=True)


def fused_case(shape, width, way, add):
    """The backward through relu (and add): against masking first and differentiating then."""
    x, w, b, grad_y = (drawn(*s, seed=k) for k, s in enumerate([shape, shape[1:2], shape[1:2], shape]))
    more = drawn(*shape, seed=5) if add else None
    rung = "norm_v3_float4" if width == 4 else "norm_v2_tile"
    y, mean, var = launch("batch_norm_train", rung, x, w, b, more, way=way, eps=1e-5, relu=True)
    with launching.running(*way):
        found = gradients(grad_y, x, y if add else None, w, b, mean, var, 1e-5, True, Shape(x, width=width), need_add=add)
    masked = np.where(y > 0, grad_y, np.float32(0))
    right = generic.normalize.batch_norm_grad(*wide(masked, x, w, mean, var), eps=1e-5)
    for ours, theirs, what in zip(found, right, ("grad_x", "grad_w", "grad_b"), strict=False):
        assert_close(ours, theirs, 64 * EPS * (1 + np.abs(theirs).max()) + 8 * EPS * np.sqrt(x.size), what)
    assert found[3] is None if not add else (found[3] == masked).all()
    return found[:3]


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_the_backward_through_relu_and_add(way):
    for shape in [(3, 33, 4, 2), (2, 32, 3, 5)]:
        for width in (4, 1) if shape[1] % 4 == 0 else (1,):
            for add in (False, True):
                fused_case(shape, width, way, add)


@pytest.mark.parametrize("width", [4, 1])
def test_a_nan_comes_through_relu(width):
    """fmaxf(y, 0) would make a 0 of it: a network that has gone wrong must not look as if it had not."""
    rung, shape, way = f"norm_{'v3_float4' if width == 4 else 'v2_tile'}", (2, 8, 3, 3), ("fast", "forward")
    x, mean, var = drawn(*shape), np.zeros(8, np.float32), np.ones(8, np.float32)
    x[1, 5, 2, 0] = np.nan
    y = launch("batch_norm_eval", rung, x, mean, var, None, None, None, way=way, eps=1e-5, relu=True)
    assert np.isnan(y[1, 5, 2, 0]) and np.isnan(y).sum() == 1 and (np.nan_to_num(y) >= 0).all()
    y, mean, var = launch("batch_norm_train", rung, x, None, None, None, way=way, eps=1e-5, relu=True)
    broken = np.arange(8) == 5
    assert (np.isnan(mean) == broken).all() and (np.isnan(var) == broken).all()
    assert (np.isnan(y) == broken[:, None, None]).all(), "its whole channel, and no other"


def images_case(shape, groups, rung, way):
    """Instance norm (groups None) or group norm, forward and backward."""
    x, w, b, grad_y = (drawn(*s, seed=k) for k, s in enumerate([shape, shape[1:2], shape[1:2], shape]))
    how = {"axes": (2, 3), "groups": groups, "weight_axes": (1,), "eps": 1e-5}
    y, mean, var = launch("normalize_over", rung, x, w, b, way=way, **how)
    right = generic.normalize.normalize_over(*wide(x, w, b), **how)
    for ours, theirs, what in zip((y, mean, var), right, ("y", "mean", "var"), strict=True):
        assert_close(ours, theirs, 64 * EPS * (1 + np.abs(theirs).max()), what)
    grads = launch("normalize_over_grad", rung, grad_y, x, w, mean, var, way=way, **how)
    right = generic.normalize.normalize_over_grad(*wide(grad_y, x, w, mean, var), **how)
    for ours, theirs, what in zip(grads, right, ("grad_x", "grad_w", "grad_b"), strict=True):
        assert_close(ours, theirs, 256 * EPS * (1 + np.abs(theirs).max()), what)
    return y, *grads


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_instance_and_group_norm(way):
    for shape, groups in [((2, 8, 5, 3), None), ((2, 8, 5, 3), 2), ((3, 6, 31, 1), 3), ((1, 132, 2, 4), 33)]:
        for rung in rungs(shape):
            images_case(shape, groups, rung, way)


def rows_case(shape, axes, rung, way, mean=0.0):
    """Layer norm, forward and backward."""
    sizes = [shape[k] for k in axes]
    x, w, b, grad_y = drawn(*shape, mean=mean), drawn(*sizes, seed=1), drawn(*sizes, seed=2), drawn(*shape, seed=3)
    how = {"axes": axes, "groups": None, "weight_axes": axes, "eps": 1e-5}
    y, mean, var = launch("normalize_over", rung, x, w, b, way=way, **how)
    right = generic.normalize.normalize_over(*wide(x, w, b), **how)
    scale = np.abs(x).max()
    for ours, theirs, what in zip((y, mean, var), right, ("y", "mean", "var"), strict=True):
        assert_close(ours, theirs, 64 * EPS * (1 + np.abs(theirs).max() + (0 if what == "var" else scale)), what)
    grads = launch("normalize_over_grad", "layer_norm_grad_rows", grad_y, x, w, mean, var, way=way, **how)
    right = generic.normalize.normalize_over_grad(*wide(grad_y, x, w, mean, var), **how)
    for ours, theirs, what in zip(grads, right, ("grad_x", "grad_w", "grad_b"), strict=True):
        assert_close(ours, theirs, 256 * EPS * (1 + np.abs(theirs).max()), what)
    return y, *grads


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_layer_norm(way):
    for shape, axes in [((3, 4), (1,)), ((2, 5, 31), (2,)), ((33, 32), (1,)), ((2, 3, 4, 5), (1, 2, 3)), ((3, 2, 2, 6), (1, 2, 3)),
                        ((2, 7, 1028), (2,)), ((5, 33), (1,))]:
        registers = int(np.prod([shape[k] for k in axes])) % 4 == 0
        for rung in ("layer_norm_v1_block_per_row", *["layer_norm_v2_row_in_registers"] * registers):
            rows_case(shape, axes, rung, way)
            rows_case(shape, axes, rung, way, mean=1000.0)


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_running_averages(way):
    """Both in one launch, either may be missing; whole numbers and halves are exact."""
    for C in (1, 31, 257):
        mean, var, running_mean, running_var = (drawn(C, seed=k, whole=8) for k in range(4))
        right_mean, right_var = 0.5 * running_mean + 0.5 * mean, 0.5 * running_var + 0.5 * (2 * var)
        with launching.running(*way):
            running_averages(mean, var, running_mean, None, 0.5, 2.0)
            running_averages(mean, var, None, running_var, 0.5, 2.0)
        assert (running_mean == right_mean).all() and (running_var == right_var).all()


def test_whole_numbers_add_up_exactly():
    """Σ grad_y of whole numbers has no rounding to hide a wrong index in."""
    x, grad_y = drawn(3, 36, 7, 5, whole=3), drawn(3, 36, 7, 5, seed=1, whole=3)
    zero, one = np.zeros(36, np.float32), np.ones(36, np.float32)
    for rung in rungs(x.shape):
        _, grad_w, grad_b = launch("batch_norm_grad", rung, grad_y, x, None, zero, one, way=("check", "forward"), eps=0.0)
        assert (grad_b == grad_y.sum((0, 2, 3))).all() and (grad_w == (grad_y * x).sum((0, 2, 3))).all()


CASES = {
    "batch_norm_v1_block_per_channel": lambda mode, order: train_case((3, 33, 4, 2), "batch_norm_v1_block_per_channel", (mode, order)),
    **{f"{part}_{rung}": lambda mode, order, shape=shape, rung=rung: train_case(shape, f"norm_{rung}", (mode, order))
       for part in ("norm_statistics", "norm_apply", "norm_grad_sums", "norm_grad_apply")
       for rung, shape in (("v2_tile", (3, 33, 4, 2)), ("v3_float4", (2, 36, 5, 3)))},
    "norm_merge": lambda mode, order: images_case((2, 8, 5, 3), 2, "norm_v3_float4", (mode, order)),
    "norm_grad_merge": lambda mode, order: images_case((2, 6, 5, 3), 3, "norm_v2_tile", (mode, order)),
    "norm_running_averages": lambda mode, order: test_running_averages((mode, order)),
    "layer_norm_v1_block_per_row": lambda mode, order: rows_case((2, 5, 31), (2,), "layer_norm_v1_block_per_row", (mode, order)),
    "layer_norm_v2_row_in_registers": lambda mode, order: rows_case((5, 36), (1,), "layer_norm_v2_row_in_registers", (mode, order)),
    "layer_norm_grad_rows": lambda mode, order: rows_case((5, 36), (1,), "layer_norm_v1_block_per_row", (mode, order)),
    "layer_norm_grad_columns": lambda mode, order: rows_case((70, 33), (1,), "layer_norm_v1_block_per_row", (mode, order)),
}
