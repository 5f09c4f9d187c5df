"""conv*.cu on the CPU: every rung against plain loops on small whole numbers, where equal means equal, in check mode on sizes that
tile badly; on layers of real networks in three thread orders; and against float64 with a bound from n·eps.
"""

import numpy as np
import pytest
from launched import EPS, ORDERS, assert_close, assert_same_bits, drawn, launch

import minidl
from minidl.backend import generic
from minidl.backend.cuda import conv
from minidl.backend.window import output_size

SIDES = {0: ((0, 0), (0, 0)), 1: ((1, 1), (1, 1)), 3: ((3, 3), (3, 3))}
OPS = conv.OPS


def how(stride=1, padding=0, dilation=1, groups=1):
    """Settings as backends take them; stride and dilation one number or a pair."""
    pair = lambda value: value if isinstance(value, tuple) else (value, value)  # noqa: E731
    return {"stride": pair(stride), "padding": SIDES.get(padding, padding), "dilation": pair(dilation), "groups": groups}


RAGGED = [  # x, O, kernel, settings: sizes of 1, 31, 32, 33, nothing a multiple of a tile
    ((1, 1, 1, 1), 1, (1, 1), how()),
    ((2, 3, 6, 5), 4, (3, 3), how(stride=2, padding=1)),
    ((1, 33, 5, 7), 31, (3, 2), how(padding=((0, 2), (1, 0)), dilation=(1, 2))),
    ((2, 32, 4, 3), 33, (1, 1), how()),
    ((1, 4, 9, 8), 36, (2, 3), how(stride=(3, 2), padding=((1, 2), (2, 1)))),
    ((1, 8, 8, 7), 24, (3, 3), how(stride=(1, 2), padding=((1, -1), (2, -1)), groups=2)),
    ((1, 6, 7, 6), 6, (3, 2), how(padding=((0, 0), (1, 1)), dilation=(2, 2), groups=3)),
    ((1, 5, 8, 9), 20, (3, 3), how(stride=2, padding=1, dilation=(2, 3))),
    ((1, 64, 3, 5), 68, (3, 3), how(padding=1)),
    ((1, 2, 9, 9), 3, (1, 1), how(stride=2)),
]
LAYERS = [  # one image each: ResNet's stem, 3×3, 3×3 with stride 2 and 1×1 layers, at sizes a CPU can bear
    ((1, 3, 32, 32), 64, (7, 7), how(stride=2, padding=3)),
    ((2, 64, 14, 14), 64, (3, 3), how(padding=1)),
    ((2, 64, 14, 14), 128, (3, 3), how(stride=2, padding=1)),
    ((2, 128, 7, 7), 256, (1, 1), how()),
    ((1, 128, 7, 7), 128, (1, 7), how(padding=((0, 0), (3, 3)))),
    ((1, 128, 14, 14), 128, (3, 3), how(padding=1, groups=32)),
]
RUNGS = ("v1_thread_per_output", "v2_shared_tile", "v3_register_blocked", "v4_double_buffered")
TENSOR_CORES = {"v5_tf32": True, "v6_3xtf32": "3x"}


def inputs(op, shape, O, kernel, settings, dtype=np.float32, whole=2):
    """(arrays, extra settings) of an op for a layer."""
    x = drawn(*shape, seed=1, whole=whole, dtype=dtype)
    w = drawn(O, shape[1] // settings["groups"], *kernel, seed=2, whole=whole, dtype=dtype)
    grad_y = drawn(shape[0], O, *output_size(shape, kernel, *[settings[k] for k in ("stride", "padding", "dilation")]), seed=3, whole=whole,
                   dtype=dtype)
    bias = drawn(O, seed=4, whole=whole, dtype=dtype)
    return {"conv2d": ((x, w, bias), {}), "conv2d_grad_x": ((grad_y, w), {"x_shape": shape}),
            "conv2d_grad_w": ((x, grad_y), {"w_shape": w.shape})}[op]


def fitting(op, rung, layers):
    """The layers that a rung takes: tensor cores want channels in fours."""
    def fits(shape, O, kernel, settings):
        C, groups = shape[1], settings["groups"]
        return O // groups % 4 == 0 and (C // groups % 4 == 0 or groups == 1 and op != "conv2d_grad_x")
    return [layer for layer in layers if rung not in TENSOR_CORES or fits(*layer)]


def run_anyhow(op, rung, arrays, way, settings):
    """Run a rung even where it would leave the call to another one: it must be right there too."""
    accepts = conv.accepts_wide
    conv.accepts_wide = lambda call, arrays, *_: conv.common(call, arrays)
    try:
        with minidl.use_tf32(TENSOR_CORES.get(rung, False)):
            return launch(op, rung, *arrays, way=way, **settings)
    finally:
        conv.accepts_wide = accepts


def exact(op, rung, layer, way):
    """Whole numbers: every sum is exact, so every index error shows."""
    arrays, extra = inputs(op, *layer)
    settings = layer[3] | extra
    right = getattr(generic.conv, op)(*(a.astype(np.float64) for a in arrays), **settings)
    result = run_anyhow(op, rung, arrays, way, settings)
    assert result.dtype == np.float32
    assert_close(result, right, 0, f"{op} {rung} {layer}")
    return result


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("rung", [*RUNGS, *TENSOR_CORES])
def test_ragged_sizes_in_check_mode(op, rung):
    for layer in fitting(op, rung, RAGGED):
        exact(op, rung, layer, ("check", "forward"))
