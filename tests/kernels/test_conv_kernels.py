"""conv*.cu and im2col.cu on the CPU: every rung on small whole numbers, where equal means equal: in check mode on sizes that tile
badly, in fast mode in three thread orders on layers of real networks; then normal numbers against float64, bits, choices, planted bugs.
"""

import contextlib
import functools

import numpy as np
import pytest
from launched import EPS, ORDERS, assert_close, assert_same_bits, drawn, implementation, launch

import minidl
from minidl.backend import IMPLEMENTATIONS, generic
from minidl.backend.cuda import conv, conv_call
from minidl.backend.cuda import launch as launching
from minidl.backend.cuda.on_cpu import KernelError
from minidl.backend.cuda.source import text_of
from minidl.backend.window import output_size

OPS = conv.OPS


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def how(stride=1, padding=0, dilation=1, groups=1):
    """Settings as backends take them."""
    return {"stride": pair(stride), "padding": padding if isinstance(padding, tuple) else ((padding,) * 2,) * 2, "dilation": pair(dilation),
            "groups": groups}


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
    ((2, 33, 6, 5), 66, (3, 3), how(stride=(2, 1), padding=((1, 1), (0, 2)), groups=33)),
]
# ResNet's stem, 3×3, 3×3 with stride 2 and 1×1, Inception's 1×7, ResNeXt's groups, MobileNet's depthwise; few tiles: each is a build
LAYERS = [
    ((1, 3, 32, 32), 64, (7, 7), how(stride=2, padding=3)),
    ((1, 64, 14, 14), 64, (3, 3), how(padding=1)),
    ((2, 64, 14, 14), 128, (3, 3), how(stride=2, padding=1)),
    ((2, 128, 7, 7), 256, (1, 1), how()),
    ((1, 64, 9, 9), 96, (1, 7), how(padding=((0, 0), (3, 3)))),
    ((2, 128, 7, 7), 128, (3, 3), how(padding=1, groups=32)),
    ((1, 96, 14, 14), 96, (3, 3), how(stride=2, padding=1, groups=96)),
]
TENSOR_CORES = {"v5_tf32": True, "v6_3xtf32": "3x"}
UNMARKED = ("v1_thread_per_output", "v2_shared_tile")  # these run in `make test` too
RUNGS = [name for name, *_ in conv.LADDER]


def takes(op, rung, shape, O, kernel, settings):
    """Is this a layer for the rung, if speed does not matter?"""
    C, groups = shape[1] // settings["groups"], settings["groups"]
    if rung == "depthwise":
        return C == 1 and groups > 1
    if rung == "im2col":
        return groups == 1
    return rung not in TENSOR_CORES or O // groups % 4 == 0 and (C % 4 == 0 or groups == 1 and op != "conv2d_grad_x")


def inputs(op, layer, draw):
    """(arrays, settings) of an op for a layer."""
    shape, O, kernel, settings = layer
    size = output_size(shape, kernel, *[settings[k] for k in ("stride", "padding", "dilation")])
    x, w, grad_y = draw(*shape, seed=1), draw(O, shape[1] // settings["groups"], *kernel, seed=2), draw(shape[0], O, *size, seed=3)
    arrays, more = {"conv2d": ((x, w, draw(O, seed=4)), {}), "conv2d_grad_x": ((grad_y, w), {"x_shape": shape}),
                    "conv2d_grad_w": ((x, grad_y), {"w_shape": w.shape})}[op]
    return arrays, settings | more


@functools.cache
def whole_case(op, number):
    """(arrays, settings, the right answer) of RAGGED + LAYERS in whole numbers: every sum is exact, so every index error shows."""
    arrays, settings = inputs(op, (RAGGED + LAYERS)[number], functools.partial(drawn, whole=2))
    return arrays, settings, getattr(generic.conv, op)(*(a.astype(np.float64) for a in arrays), **settings)


def run(op, rung, arrays, way, settings):
    """Run a rung even where it would leave the call to a faster one: it must be right there too."""
    narrow, conv.at_least = conv.at_least, lambda columns, call, arrays, newest=0: conv.common(call, arrays)
    try:
        with minidl.use_tf32(TENSOR_CORES.get(rung, False)):
            return launch(op, rung, *arrays, way=way, **settings)
    finally:
        conv.at_least = narrow


def exact(op, rung, number, way):
    arrays, settings, right = whole_case(op, number)
    result = run(op, rung, arrays, way, settings)
    assert result.dtype == np.float32
    assert_close(result, right, 0, f"{op} {rung} {(RAGGED + LAYERS)[number]}")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("rung", [pytest.param(r, marks=[] if r in UNMARKED else pytest.mark.slow) for r in RUNGS])
def test_ragged_sizes_in_check_mode(op, rung):
    for number, layer in enumerate(RAGGED):
        if takes(op, rung, *layer):
            exact(op, rung, number, ("check", "forward"))


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("rung", RUNGS)
def test_layers_of_real_networks_in_three_thread_orders(op, rung):
    for number, layer in enumerate(LAYERS, len(RAGGED)):
        if takes(op, rung, *layer):
            for order in ORDERS:
                exact(op, rung, number, ("fast", order))


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("rung", ["v2_shared_tile", "v4_double_buffered"])
def test_other_tiles_give_the_same(op, rung):
    from minidl.backend.cuda.tiles import override
    name, shape = f"{op}_{rung}", {"TILE": 16} if rung == "v2_shared_tile" else {"BM": 128, "BN": 128}
    with override(name, **shape), override(f"{name}/narrow", **shape):
        for number in (2, 5, 8):
            exact(op, rung, number, ("check", "forward"))


def bound(op, arrays, settings, factor):
    """factor · eps · Σ |terms|: what rounding can do to a sum."""
    return factor * EPS * getattr(generic.conv, op)(*(abs(a.astype(np.float64)) for a in arrays), **settings)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("rung", [r for r in RUNGS if r != "depthwise"])
def test_rounding_stays_small_and_bits_stay_the_same(op, rung):
    arrays, settings = inputs(op, LAYERS[1], drawn)
    right = getattr(generic.conv, op)(*(a.astype(np.float64) for a in arrays), **settings)
    result = run(op, rung, arrays, ("fast", "forward"), settings)
    n = 64 * 9 if op != "conv2d_grad_w" else 196
    tf32 = 2 * 2.0**-11 / EPS * (rung == "v5_tf32")     # both factors of every product are off by half a unit of the 10th bit
    assert_close(result, right, bound(op, arrays, settings, n**0.5 + 8 + tf32), rung)   # 8: what v6's split loses, 3 · 2^−22, and more
    if tf32:
        assert (abs(result - right) > bound(op, arrays, settings, n**0.5 + 8)).any()    # the bound without it would see the rounding
    for order in ("reverse", "random"):
        assert_same_bits(run(op, rung, arrays, ("fast", order), settings), result, order)


@contextlib.contextmanager
def short_parts(length=16):
    """Inside, sums are cut as finely as those of a large layer, on a small one."""
    before = conv_call.SHORTEST_PART, conv_call.SHORTEST_DEPTH
    conv_call.SHORTEST_PART = conv_call.SHORTEST_DEPTH = length
    try:
        yield
    finally:
        conv_call.SHORTEST_PART, conv_call.SHORTEST_DEPTH = before


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("rung", ["v2_shared_tile", "v3_register_blocked", "v4_double_buffered", "v5_tf32"])
def test_sums_in_parts(op, rung):
    """Also empty parts (stride 2: the smaller classes of pixels), groups, a bias that is added once, channels that were padded."""
    with short_parts():
        for number in (1, 2, 4, 5, 8):
            if takes(op, rung, *RAGGED[number]):
                exact(op, rung, number, ("check", "forward"))


def test_few_tiles_and_long_sums_are_cut():
    parts = {}
    for name, shape, O, kernel, settings in [
            ("layer4", (32, 512, 7, 7), 512, (3, 3), how(padding=1)), ("layer2", (32, 128, 28, 28), 128, (3, 3), how(padding=1)),
            ("pointwise", (8, 256, 14, 14), 1024, (1, 1), how()), ("many", (256, 256, 56, 56), 64, (1, 1), how()),
            ("stride", (8, 256, 14, 14), 512, (3, 3), how(stride=2, padding=1))]:
        size = output_size(shape, kernel, *[settings[k] for k in ("stride", "padding", "dilation")])
        for op in OPS[:2]:
            call = conv_call.Call(op, shape, (O, shape[1], *kernel), (shape[0], O, *size), **settings)
            M, N, products = call.product
            part, splits = call.cut(-(-M // 128) * -(-N // 128) * products)
            assert part % 16 == 0 and (splits - 1) * part < call.depth <= splits * part
            parts[name, op] = splits
    assert parts["layer4", "conv2d"] == parts["layer4", "conv2d_grad_x"] == 5       # 52 tiles: 260 blocks, two rounds of 132
    assert parts["many", "conv2d"] == parts["many", "conv2d_grad_x"] == parts["pointwise", "conv2d"] == 1
    assert parts["layer2", "conv2d"] == 2                                           # 196 tiles: 392 half ones, three short rounds
    assert parts["stride", "conv2d_grad_x"] > 1


def test_the_filter_gradient_is_cut_by_shape_alone_and_summed_in_order():
    layer = ((4, 4, 31, 31), 8, (3, 3), how(padding=1))
    arrays, settings = inputs("conv2d_grad_w", layer, functools.partial(drawn, whole=2))
    call = conv_call.call_of("conv2d_grad_w", *arrays, **settings)
    part, splits = call.cut(1)
    assert splits > 4 and part % 16 == 0 and (splits - 1) * part < 4 * 31 * 31 <= splits * part
    right = generic.conv.conv2d_grad_w(*(a.astype(np.float64) for a in arrays), **settings)
    for rung in ("v2_shared_tile", "v4_double_buffered"):
        assert_close(run("conv2d_grad_w", rung, arrays, ("fast", "random"), settings), right, 0, rung)


def test_float64_runs_on_the_first_rung():
    for op in OPS:
        arrays, settings = inputs(op, RAGGED[5], functools.partial(drawn, dtype=np.float64))
        right = getattr(generic.conv, op)(*arrays, **settings)
        assert_close(launch(op, "v1_thread_per_output", *arrays, way=("check", "forward"), **settings), right, 1e-13)


def test_storage_orders_and_negative_padding_at_the_top():
    (x, w, bias), settings = inputs("conv2d", RAGGED[5], functools.partial(drawn, whole=2))
    right = run("conv2d", "v4_double_buffered", (x, w, bias), ("fast", "forward"), settings)
    for other in (np.ascontiguousarray(x), np.asfortranarray(x), x[:, ::-1].copy()[:, ::-1]):
        assert_same_bits(run("conv2d", "v4_double_buffered", (other, np.ascontiguousarray(w), bias), ("fast", "forward"), settings), right)
    cropped = generic.conv.conv2d(x[:, :, 1:], w, bias, **settings | {"padding": ((0, 0), (1, 1))})
    top = settings | {"padding": ((-1, 0), (1, 1))}
    for rung in ("v1_thread_per_output", "v2_shared_tile", "v4_double_buffered"):
        assert_close(run("conv2d", rung, (x, w, bias), ("fast", "forward"), top), cropped, 0)
        grad_x = run("conv2d_grad_x", rung, (cropped, w), ("fast", "forward"), top | {"x_shape": x.shape})
        inner = generic.conv.conv2d_grad_x(cropped, w, (1, 8, 7, 7), **settings | {"padding": ((0, 0), (1, 1))})
        assert_close(grad_x[:, :, 1:], inner, 0)
        assert (grad_x[:, :, 0] == 0).all()


def chosen(op, layer, dtype=np.float32):
    """The first rung that takes a layer, as on a GPU."""
    arrays, settings = inputs(op, layer, lambda *shape, seed: np.zeros(shape, dtype))
    taken = [i.name for i in IMPLEMENTATIONS[op] if i.backend == "cuda" and not i.accepts(*arrays, **settings)]
    return taken[0].removeprefix("cuda/") if taken else "generic"


def test_which_rung_is_chosen():
    stem, middle, pointwise, groups, depthwise = (LAYERS[i] for i in (0, 1, 3, 5, 6))
    for op in OPS:
        assert chosen(op, middle) == chosen(op, pointwise) == "v4_double_buffered"
        assert chosen(op, groups) == ("v2_shared_tile" if op == "conv2d_grad_w" else "v1_thread_per_output")
        assert chosen(op, depthwise) == "depthwise"
        assert chosen(op, RAGGED[5], np.float64) == "v1_thread_per_output" and chosen(op, RAGGED[5], np.float16) == "generic"
        assert chosen(op, ((0, 4, 8, 8), 8, (3, 3), how())) == "generic"
        with minidl.use_tf32():
            assert chosen(op, middle) == "v5_tf32"
            assert chosen(op, ((1, 32, 8, 8), 33, (3, 3), how())) == "v4_double_buffered"
        with minidl.use_tf32("3x"):
            assert chosen(op, middle) == "v6_3xtf32"
    assert chosen("conv2d", stem) == chosen("conv2d_grad_w", stem) == "v4_double_buffered"
    assert chosen("conv2d_grad_x", stem) == "v1_thread_per_output"      # three columns: no tile is filled
    reason = implementation("conv2d", "v5_tf32").accepts(*inputs("conv2d", middle, drawn)[0], **middle[3])
    assert reason == "tensor cores round to 10 bits: only inside use_tf32()"


# --- would the tests have noticed? ------------------------------------------------------------------------------------

PLANTED = [  # file, what is wrong, what it says now, op, rung, layer
    ("conv.cu", "__syncthreads();                                       // the tile is complete", "", "conv2d", "v2_shared_tile", 2),
    ("conv.cu", "__syncthreads();                                       // nobody reads it any more", "", "conv2d", "v2_shared_tile", 2),
    ("conv.cu", "(unsigned)(m.h + t.h) >= (unsigned)H ||", "", "conv2d", "v2_shared_tile", 8),
    ("conv.cu", "s.OH, s.OW, s.SH, s.SW, -s.PT", "s.OH, s.OW, s.SH, s.SW, s.PT", "conv2d", "v2_shared_tile", 4),
    ("conv.cu", "min(k_begin + part, s.N * s.OH * s.OW)", "k_begin + part", "conv2d_grad_w", "v2_shared_tile", 2),
    ("conv.cu", "(K - 1 - first) / step + 1", "(K - 1 - first) / step", "conv2d_grad_x", "v2_shared_tile", 4),
    ("conv.cu", "min(k_begin + part, K)", "k_begin + part", "conv2d", "v2_shared_tile", 2),
    ("conv.cu", "(long long)split * M * O", "0", "conv2d", "v2_shared_tile", 2),
    ("conv.cu", "min(k_begin + part, i.count * j.count * filters)", "k_begin + part", "conv2d_grad_x", "v2_shared_tile", 4),
    ("conv_parts.cu", "total + bias[at % C]", "total", "conv2d", "v2_shared_tile", 2),
    ("conv_blocked.cu", "t.c -= channels; t.j += 1;", "t.c -= channels;", "conv2d", "v4_double_buffered", 2),
    ("conv_blocked.cu", "m.q -= PW; m.p += 1;", "m.q -= PW;", "conv2d_grad_w", "v4_double_buffered", 2),
    ("conv_blocked.cu", "wait_for_groups<RING - 2>();", "wait_for_groups<RING - 1>();", "conv2d", "v4_double_buffered", 2),
    ("conv_blocked.cu", "    __syncthreads();\n    fetch(t + RING - 1);", "    fetch(t + RING - 1);", "conv2d", "v4_double_buffered", 2),
    ("conv_blocked.cu", "e * STEP < rows_left && 0 < k_left", "0 < k_left", "conv2d", "v4_double_buffered", 2),
    ("conv_blocked.cu", "if (n + c < map.N)", "", "conv2d", "v3_register_blocked", 2),
    ("conv_mma.cu", "{upper[k], lower[k], upper[k + 1],", "{lower[k], upper[k], upper[k + 1],", "conv2d", "v5_tf32", 1),
    ("conv_depthwise.cu", "if (o < O)\n    for", "for", "conv2d_grad_w", "depthwise", 10),
    ("im2col.cu", "h >= 0 && h < H &&", "", "conv2d", "im2col", 8),
]


@pytest.mark.parametrize(("file", "right", "wrong", "op", "rung", "number"),
                         [pytest.param(*bug, marks=[] if bug[4] in UNMARKED else pytest.mark.slow) for bug in PLANTED])
def test_planted_bugs_are_found(file, right, wrong, op, rung, number, monkeypatch):
    text = text_of(file)
    assert text.count(right) >= 1
    broken = text.replace(right, wrong)
    monkeypatch.setattr(launching, "text_of", lambda name: broken if name == file else text_of(name))
    launching.kernel.cache_clear()
    launching.compiled.cache_clear()
    try:
        with pytest.raises((KernelError, AssertionError)), short_parts(64):
            exact(op, rung, number, ("check", "forward"))
    finally:
        launching.kernel.cache_clear()
        launching.compiled.cache_clear()


# --- every kernel by name, for the test that none is forgotten --------------------------------------------------------

def case(op, rung, number):
    return lambda mode, order: exact(op, rung, number, (mode, order))


def double_case(op):
    def run_it(mode, order):
        arrays, settings = inputs(op, RAGGED[1], functools.partial(drawn, dtype=np.float64, whole=2))
        assert_close(launch(op, "v1_thread_per_output", *arrays, way=(mode, order), **settings),
                     getattr(generic.conv, op)(*arrays, **settings), 0)
    return run_it


def cut_case(mode, order):
    """196 positions in 13 parts of 16, and 576 taps in 8."""
    with short_parts():
        for op in OPS:
            exact(op, "v2_shared_tile", len(RAGGED) + 1, (mode, order))


PER = {"conv2d": "output", "conv2d_grad_x": "pixel", "conv2d_grad_w": "weight"}
CASES = {f"{op}_{rung}": case(op, rung, 4) for op in OPS for rung in RUNGS if rung.startswith("v") and not rung.startswith("v1")}
CASES |= {f"{op}_v1_thread_per_{PER[op]}": case(op, "v1_thread_per_output", 1) for op in OPS}
CASES |= {f"{op}_v1_thread_per_{PER[op]}_f64": double_case(op) for op in OPS}
CASES |= {f"{op}_depthwise": case(op, "depthwise", 10) for op in OPS}
CASES |= {"im2col": case("conv2d", "im2col", 1), "col2im": case("conv2d_grad_x", "im2col", 1),
          "pad_channels": case("conv2d_grad_w", "v5_tf32", 1), "sum_in_order": cut_case}
