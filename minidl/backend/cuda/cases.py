"""Calls of the backend that are wide enough for every kernel: 16 columns and more, channels in fours, long sums, float64, TF32.

The examples of the ops are small, for reading and for gradient checks; most rungs leave such calls to others. What a call
is here, (op, arrays, settings), is what backend.run() takes. A new kernel that nothing reaches gets its line here.
"""

import numpy as np

from minidl.core.config import STATE

WINDOW = {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 0)}
PRECISIONS = (False, True, "3x")  # of convolution on tensor cores


def calls():
    """(precision, op, arrays, settings) of one call after another; the same numbers every time."""
    rng = np.random.default_rng(0)
    for make in (convolutions, norms, pools, reductions, scatters):
        for precision, *call in make(lambda *shape: rng.standard_normal(shape).astype(np.float32)):
            yield precision, *call


def within(precision):
    """Set the precision that convolutions may have; what it was before."""
    before, STATE.tf32 = STATE.tf32, precision
    return before


def how_conv(stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1):
    """Settings of a convolution as backends take them."""
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def one_convolution(x, w, grad_y, bias=None, **how):
    """The three calls that one convolution makes."""
    yield "conv2d", (x, w, bias), how
    yield "conv2d_grad_x", (grad_y, w), how | {"x_shape": x.shape}
    yield "conv2d_grad_w", (x, grad_y), how | {"w_shape": w.shape}


def convolutions(drawn):
    """Tiles that end ragged, in every precision; float64; long sums; an image of 3 channels, which tensor cores fill up to 4."""
    x, w, grad_y, bias = drawn(2, 16, 6, 7), drawn(20, 16, 3, 3), drawn(2, 20, 6, 7), drawn(20)
    deep = drawn(1, 60, 5, 7), drawn(20, 60, 3, 3), drawn(1, 20, 3, 4), None  # 540 products to a sum: cut in parts
    for precision in PRECISIONS:
        for call in one_convolution(x, w, grad_y, bias, **how_conv()):
            yield precision, *call
        for call in one_convolution(*deep, **how_conv(stride=(2, 2))):
            yield precision, *call
        yield precision, "conv2d", (drawn(1, 3, 8, 9), drawn(16, 3, 3, 3), None), how_conv()
    wide = [a.astype(np.float64) for a in (x[:1, :3], w[:4, :3], grad_y[:1, :4], bias[:4])]
    for call in one_convolution(*wide, **how_conv()):
        yield False, *call
    for call in one_convolution(drawn(2, 8, 6, 5), drawn(16, 1, 3, 3), drawn(2, 16, 6, 5), **how_conv(groups=8)):
        yield False, *call


def norms(drawn):
    """Channels in fours and not; running averages."""
    for C in (8, 33):
        x, weight, bias, mean, var = drawn(3, C, 5, 7), drawn(C), drawn(C), drawn(C), drawn(C) ** 2 + 0.5
        y = np.maximum(drawn(3, C, 5, 7), 0)
        yield False, "batch_norm_train", (x, weight, bias, drawn(3, C, 5, 7)), {"eps": 1e-5, "relu": True}
        yield False, "batch_norm_eval", (x, mean, var, weight, bias, None), {"eps": 1e-5, "relu": False}
        yield False, "batch_norm_grad", (drawn(3, C, 5, 7), x, weight, mean, var, y), {"eps": 1e-5}
        yield False, "running_averages", (mean, var, drawn(C), drawn(C)), {"momentum": 0.1, "unbias": 105 / 104}


def pools(drawn):
    """Channels in fours; positions without their windows."""
    x, (OH, OW) = drawn(2, 8, 7, 6), (4, 5)
    adaptive, mean = {"size": (3, 2)}, {"count_include_pad": False, "divisor_override": None}
    positions = np.arange(2 * 8 * OH * OW, dtype=np.int32).reshape(2, 8, OH, OW) % 42
    yield False, "max_pool2d", (x,), WINDOW | {"dilation": (1, 1), "size": (OH, OW)}
    yield False, "adaptive_max_pool2d", (x,), adaptive
    yield False, "max_pool2d_grad_x", (drawn(2, 8, 3, 3), block_positions(2, 8)), {
        "x_shape": (2, 8, 6, 6), "window": ((2, 2), (2, 2), (0, 0), (1, 1))}
    yield False, "max_pool2d_at", (x, positions), {}
    yield False, "avg_pool2d", (x,), WINDOW | {"size": (OH, OW)} | mean
    yield False, "avg_pool2d_grad_x", (drawn(2, 8, OH, OW),), {"x_shape": x.shape} | WINDOW | {"size": (OH, OW)} | mean
    yield False, "adaptive_avg_pool2d", (x,), adaptive
    yield False, "adaptive_avg_pool2d_grad_x", (drawn(2, 8, 3, 2),), {"x_shape": x.shape}


def block_positions(N, C):
    """Where 2 × 2 windows of a 6 × 6 image found their largest: a corner that goes round."""
    corners, k = np.array([0, 1, 6, 7]), np.arange(N * C * 9).reshape(N, C, 3, 3)
    return (np.arange(3).reshape(3, 1) * 12 + np.arange(3) * 2 + corners[k % 4]).astype(np.int32)


def reductions(drawn):
    """Few numbers to a result, long rows, long columns, and both cut into parts."""
    for shape, axes in (((3, 5), (1,)), ((4, 700), (1,)), ((700, 5), (0,)), ((9000,), (0,)), ((2, 8, 9, 5), (0, 2, 3))):
        x = drawn(*shape)
        yield False, "sum", (x,), {"axes": axes, "keepdim": False, "dtype": np.dtype(np.float32)}
        for sign in (1, -1):
            yield False, "extreme", (x,), {"axes": axes, "keepdim": True, "sign": sign}
        if len(axes) == 1:
            yield False, "position", (x,), {"axis": axes[0], "keepdim": False, "sign": 1}


def scatters(drawn):
    """Rows of few and of many numbers, keys that meet."""
    keys = np.array([4, 0, 4, 2, 2, 4, 6], np.int64)
    for D in (3, 33):
        yield False, "add_at", (drawn(7, D), keys, drawn(7, D)), {}
