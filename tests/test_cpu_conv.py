"""Convolution and products in NumPy, tuned: every rung equals the generic one wherever it can run, with any number of threads.

Integers first, where equality is exact and an index error has no tolerance to hide in; then Winograd's rounding.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
from minidl.backend import IMPLEMENTATIONS, explain, run, threads
from minidl.backend.cpu import choose, conv_blocks, im2col_blocked, im2col_narrow, matmul, products, winograd, winograd_grad_w
from minidl.backend.cpu import winograd_rows as by_rows
from minidl.backend.layout import empty, is_stored_right
from minidl.backend.window import output_size

RUNGS = [name for name, *_ in choose.LADDER]
OPS = ("conv2d", "conv2d_grad_x", "conv2d_grad_w")
QUICK = settings(max_examples=60)


@pytest.fixture(autouse=True)
def the_number_of_threads_stays():
    before = minidl.get_num_threads()
    yield
    minidl.set_num_threads(before)


def image(values, shape, dtype, channels_last=True):
    """An array of this shape, stored as activations are, or as the user's own C order."""
    array = values(shape).astype(dtype)
    if not channels_last:
        return array
    stored = empty(shape, dtype, array)
    stored[...] = array
    return stored


def calls(x_shape, w_shape, how, dtype, values, channels_last=True, bias=True):
    """[(op, arrays, settings)] of the three ops on one convolution."""
    size = output_size(x_shape, w_shape[2:], how["stride"], how["padding"], how["dilation"])
    x, w = image(values, x_shape, dtype, channels_last), image(values, w_shape, dtype, channels_last)
    grad_y = image(values, (x_shape[0], w_shape[0], *size), dtype, channels_last)
    b = values((w_shape[0],)).astype(dtype) if bias else None
    return [("conv2d", (x, w, b), how), ("conv2d_grad_x", (grad_y, w), how | {"x_shape": x_shape}),
            ("conv2d_grad_w", (x, grad_y), how | {"w_shape": w_shape})]


def test_a_sum_in_lanes_holds_no_more_memory_than_itself():
    """A gradient that was a row of all partial sums kept eight times its size until the optimiser had run."""
    totals = [conv_blocks.sum_in_lanes(range(20), (3, 5), np.float32, lambda item, out: out.fill(item)) for _ in range(2)]
    assert all(np.array_equal(total, np.full((3, 5), 190)) and total.base is None for total in totals)
    assert not np.shares_memory(*totals)


def integers(seed):
    rng = np.random.default_rng(seed)
    return lambda shape: rng.integers(-3, 4, shape)


def on(name, op, arrays, how):
    with minidl.use_backend(name):
        return run(op, *arrays, **how)


def settings_of(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


@st.composite
def convolutions(draw):
    """Shapes and settings; 3×3 at stride 1 and 1×1 often, pads that differ, pads below and on the right also negative."""
    def number(a, b):
        return draw(st.integers(a, b))

    plain = draw(st.booleans())
    kernel = draw(st.sampled_from([(3, 3), (1, 1)])) if plain else (number(1, 4), number(1, 4))
    stride = draw(st.sampled_from([(1, 1), (2, 2)])) if plain else (number(1, 3), number(1, 3))
    dilation = (1, 1) if plain else (number(1, 2), number(1, 2))
    padding = tuple((number(0, 2), number(-1, 2)) for _ in range(2))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    x_shape = (number(1, 4), groups * draw(st.sampled_from([1, 1, 2, 5])), number(2, 13), number(2, 13))
    w_shape = (groups * number(1, 4), x_shape[1] // groups, *kernel)
    if min(output_size(x_shape, kernel, stride, padding, dilation)) < 1:
        padding = tuple((dilation[k] * kernel[k], stride[k]) for k in range(2))
    return x_shape, w_shape, settings_of(stride, padding, dilation, groups)


@QUICK
@given(convolutions(), st.sampled_from(["float32", "float64"]), st.booleans(), st.integers(0, 99))
def test_every_rung_equals_the_generic_one(case, dtype, channels_last, seed):
    for op, arrays, how in calls(*case, dtype, integers(seed), channels_last, bias=seed % 2):
        before = [None if a is None else a.copy() for a in arrays]
        expected = on("generic/im2col", op, arrays, how)
        for rung in IMPLEMENTATIONS[op]:
            if rung.backend != "cpu" or rung.name.startswith("cpu/winograd"):
                continue
            with minidl.use_backend(rung.name):
                if rung.refusal(arrays, how):
                    continue
            result = rung.function(*arrays, **how)
            assert np.array_equal(result, expected), (op, rung.name)
            assert is_stored_right(result) and result.dtype == dtype, (op, rung.name)
        assert all(a is None or np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


def rounded(op, arrays, how):
    """How large the sums are that are rounded: the sum of |terms|, times what the transforms blow up and cancel again.

    At the least one term: a tile reads also the filters' cells that see no pixel, and lets them cancel.
    """
    terms = [None if a is None else np.abs(a).astype(float) for a in arrays]
    return np.finfo(np.float32).eps * max(on("generic/im2col", op, terms, how).max(), terms[0].max() * terms[1].max())


@QUICK
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 14), st.integers(1, 11), st.integers(1, 5), st.integers(0, 99),
       st.sampled_from([winograd.BLOCK, 1]))
def test_winograd_equals_the_generic_one_up_to_its_rounding(N, C, H, W, O, seed, block):
    """Also with blocks of one row of tiles, and with so many channels for a block that it goes position by position."""
    rng = np.random.default_rng(seed)
    padding = tuple((int(p), int(q)) for p, q in rng.integers(1, 3, (2, 2)))
    case = (N, C, H, W), (O, C, 3, 3), settings_of(padding=padding)
    before = winograd.BLOCK, winograd_grad_w.LANES
    try:
        winograd.BLOCK, winograd_grad_w.LANES = block, block
        for op, arrays, how in calls(*case, "float32", rng.standard_normal, bias=seed % 2):
            expected = on("generic/im2col", op, [None if a is None else a.astype(float) for a in arrays], how)
            for name, factor in (("cpu/winograd_2x2", 20), ("cpu/winograd", 200)):
                error = np.abs(on(name, op, arrays, how) - expected).max()
                allowed = factor * rounded(op, arrays, how)
                assert error <= allowed, (op, name, error, allowed)
    finally:
        winograd.BLOCK, winograd_grad_w.LANES = before


@pytest.mark.parametrize("name, kernel, bound", [
    ("cpu/im2col_blocked", (3, 3), 4e-6), ("cpu/winograd_2x2", (3, 3), 2e-5), ("cpu/winograd", (3, 3), 2e-5),
    ("cpu/winograd", (5, 5), 1e-4), ("cpu/winograd", (1, 3), 1e-5), ("cpu/winograd", (5, 1), 4e-5),
    ("cpu/winograd", (1, 7), 8e-5), ("cpu/winograd", (7, 1), 8e-5), ("cpu/winograd_rows", (3, 3), 1e-5)])
def test_rounding_for_outputs_of_size_one(name, kernel, bound):
    """The figures that winograd.py states."""
    padding = tuple((k // 2, k // 2) for k in kernel)
    size = 16 if name == "cpu/winograd_rows" else 14
    case = (2, 128, size, size), (64, 128, *kernel), settings_of(padding=padding)
    for op, arrays, how in calls(*case, "float32", np.random.default_rng(0).standard_normal, bias=False):
        expected = on("generic/im2col", op, [a if a is None else a.astype(float) for a in arrays], how)
        error = np.abs(on(name, op, arrays, how) - expected).max() / expected.std()
        assert error <= bound, (op, error)


@QUICK
@given(st.sampled_from(sorted(choose.OUTPUTS)), st.integers(1, 3), st.integers(1, 5), st.integers(1, 14), st.integers(1, 11),
       st.integers(1, 4), st.integers(0, 99))
def test_winograd_with_every_kernel(kernel, N, C, H, W, O, seed):
    rng = np.random.default_rng(seed)
    padding = tuple((k // 2 + int(rng.integers(0, 2)), k // 2) for k in kernel)
    for op, arrays, how in calls((N, C, H, W), (O, C, *kernel), settings_of(padding=padding), "float32", rng.standard_normal):
        expected = on("generic/im2col", op, [a if a is None else a.astype(float) for a in arrays], how)
        error = np.abs(on("cpu/winograd", op, arrays, how) - expected).max()
        assert error <= 400 * rounded(op, arrays, how), (op, kernel, error)


@QUICK
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(1, 19), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_winograd_rows_equals_the_generic_one_up_to_its_rounding(N, C, down, across, O, channels_last, seed):
    """Also after itself with other channels: what the pixels beyond the image's end were must not matter."""
    rng = np.random.default_rng(seed)
    (top, bottom), (left, right) = padding = tuple((int(p), int(q)) for p, q in rng.integers(0, 3, (2, 2)))
    H, W = 4 * down, across
    minidl.set_num_threads(1)
    ran = 0
    for x_size in ((H + 2 - top - bottom, W + 2 - left - right), (H, W)):  # whole tiles of outputs, or of conv2d_grad_x
        case = (N, C, *x_size), (O, C, 3, 3), settings_of(padding=padding)
        if min(x_size) < 1 or min(output_size(case[0], (3, 3), (1, 1), padding, (1, 1))) < 1:
            continue
        for op, arrays, how in calls(*case, "float32", rng.standard_normal, channels_last, bias=seed % 2):
            rung = next(rung for rung in IMPLEMENTATIONS[op] if rung.name == "cpu/winograd_rows")
            with minidl.use_backend(rung.name):
                if rung.refusal(arrays, how):
                    continue
            ran += 1
            expected = on("generic/im2col", op, [None if a is None else a.astype(float) for a in arrays], how)
            allowed = 100 * rounded(op, arrays, how)
            for name in ("region", "V", "M", "products"):  # whatever an earlier call left there
                threads.scratch(name, (1 << 14,))[...] = np.nan
            result = rung.function(*arrays, **how)
            assert np.abs(result - expected).max() <= allowed, op
            assert is_stored_right(result) and result.dtype == np.float32
    assert ran or min(H, W) < 4 or top + bottom + left + right > 2


LARGE = {  # enough work for several blocks and lanes
    "products": ((6, 48, 17, 16), (64, 48, 1, 1), settings_of()),
    "products, stride 2": ((6, 96, 33, 32), (64, 96, 1, 1), settings_of((2, 2))),
    "stem": ((5, 3, 65, 64), (32, 3, 7, 7), settings_of((2, 2), ((3, 3), (3, 3)))),
    "1×7": ((5, 32, 17, 17), (48, 32, 1, 7), settings_of(padding=((0, 0), (3, 3)))),
    "5×5": ((5, 16, 28, 28), (32, 16, 5, 5), settings_of(padding=((2, 2), (2, 2)))),
    "col2im": ((5, 32, 29, 28), (48, 32, 3, 3), settings_of((2, 2), ((1, 1), (1, 1)))),
    "groups": ((5, 32, 28, 28), (64, 8, 3, 3), settings_of(padding=((1, 1), (1, 1)), groups=4)),
    "depthwise": ((5, 64, 28, 28), (64, 1, 3, 3), settings_of((1, 1), ((1, 1), (1, 1)), groups=64)),
    "winograd": ((5, 64, 28, 27), (48, 64, 3, 3), settings_of(padding=((1, 1), (1, 1)))),
    "winograd, rows": ((9, 16, 32, 28), (16, 16, 3, 3), settings_of(padding=((1, 1), (1, 1)))),
    "winograd, rows, one large image": ((1, 12, 200, 204), (16, 12, 3, 3), settings_of(padding=((1, 1), (1, 1)))),
    "winograd, many channels": ((3, 256, 14, 14), (256, 256, 3, 3), settings_of(padding=((1, 1), (1, 1)))),
}


@pytest.mark.parametrize("case", LARGE)
def test_the_same_bits_for_any_number_of_threads(case):
    for op, arrays, how in calls(*LARGE[case], "float32", np.random.default_rng(1).standard_normal):
        results = []
        for number in (1, 2, 3):
            minidl.set_num_threads(number)
            results.append(on("cpu", op, arrays, how).tobytes())
        assert results[0] == results[1] == results[2], (case, op)


@pytest.mark.parametrize("case", LARGE)
def test_many_blocks_equal_the_generic_one(case):
    for op, arrays, how in calls(*LARGE[case], "float32", integers(2)):
        expected = on("generic/im2col", op, [a if a is None else a.astype(float) for a in arrays], how)
        with minidl.use_winograd(False):
            assert np.array_equal(on("cpu", op, arrays, how), expected), (case, op)
        assert np.abs(on("cpu", op, arrays, how) - expected).max() <= 1e-4 * np.abs(expected).max(), (case, op)


NARROW = {
    "even": ((9, 16, 32, 32), (16, 16, 3, 3), settings_of(padding=((1, 1), (1, 1)))),
    "odd": ((7, 12, 33, 31), (16, 12, 3, 5), settings_of(padding=((1, 1), (2, 1)))),
    "stride 2": ((7, 16, 33, 32), (32, 16, 3, 3), settings_of((2, 2), ((1, 1), (1, 1)))),
    "strides of their own": ((7, 16, 32, 35), (24, 16, 5, 4), settings_of((3, 2), ((2, 1), (1, 2)))),
    "one large image": ((1, 16, 260, 250), (16, 16, 3, 3), settings_of(padding=((1, 1), (1, 1)))),
    "a prime number of pixels": ((3, 3, 39, 39), (16, 3, 3, 3), settings_of()),
}


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("case", NARROW)
def test_few_channels_in_many_blocks(monkeypatch, case, unpacked):
    """Exact, and the same bits for any number of threads, whatever OpenBLAS chose for this machine."""
    monkeypatch.setattr(matmul, "has_unpacked_kernels", lambda: unpacked)
    for op, arrays, how in calls(*NARROW[case], "float32", integers(6)):
        assert np.array_equal(on("cpu/im2col_narrow", op, arrays, how), on("generic/im2col", op, arrays, how)), op
    for op, arrays, how in calls(*NARROW[case], "float32", np.random.default_rng(7).standard_normal):
        results = []
        for number in (1, 2, 3):
            minidl.set_num_threads(number)
            results.append(on("cpu/im2col_narrow", op, arrays, how).tobytes())
        assert results[0] == results[1] == results[2], op


def some_channels(array):
    """The same numbers as every image's middle channels: neighbouring channels, pixels that are not neighbours in memory."""
    N, C, H, W = array.shape
    larger = empty((N, C + 5, H, W), array.dtype, array)
    larger[...] = np.nan  # what is read by mistake is seen
    larger[:, 2:2 + C] = array
    return larger[:, 2:2 + C]


@pytest.mark.parametrize("store", [some_channels, np.asfortranarray])
@pytest.mark.parametrize("rung, pads", [("cpu/products", (0, 0))] + [
    (rung, pads) for rung in RUNGS[1:] for pads in ((0, 0), (1, 1), (2, 2), (2, 0))])
def test_pixels_that_are_not_neighbours_in_memory(rung, pads, store):
    """Without padding (conv2d_grad_x: with all of it) a rung may read the image where it lies."""
    C, k, ran = 4, 1 if rung == "cpu/products" else 3, set()
    for N, size, more, stride in itertools.product((1, 2), (8, 10), (1, 2), (1, 2)):
        groups, O = (C, more * C) if rung == "cpu/depthwise" else (1, 3 * more)
        how = settings_of((stride, stride), (pads, (pads[0], pads[0])), groups=groups)
        for op, (first, second, *bias), full in calls((N, C, size, size), (O, C // groups, k, k), how, "float32", integers(8)):
            arrays = [store(first), store(second), *bias]
            implementation = next(i for i in IMPLEMENTATIONS[op] if i.name == rung)
            with minidl.use_backend(rung):
                if implementation.refusal(arrays, full):
                    continue
            ran.add(op)
            expected = on("generic/im2col", op, [first, second, *bias], full)
            assert np.allclose(on(rung, op, arrays, full), expected, atol=1e-3), (op, N, size, more, stride)
    assert ran == set(OPS)


def test_few_channels_are_worth_it_where_it_was_measured(monkeypatch):
    """The layers of CIFAR ResNet-20 and the first ones of larger networks."""
    def taken(x_shape, w_shape, stride, pad):
        how = settings_of((stride, stride), ((pad, pad), (pad, pad)))
        return [explain(op, *arrays, **more).split("\n")[0].split("cpu/")[1]
                for op, arrays, more in calls(x_shape, w_shape, how, "float32", np.zeros)]

    monkeypatch.setattr(choose, "has_unpacked_kernels", lambda: True)
    monkeypatch.setattr(matmul, "has_unpacked_kernels", lambda: True)
    lines, narrow, tiles, columns = "winograd_rows", "im2col_narrow", "winograd", "im2col_blocked"
    assert taken((2, 16, 32, 32), (16, 16, 3, 3), 1, 1) == [lines] * 3  # conv2d, grad_x, grad_w
    assert taken((8, 3, 32, 32), (16, 3, 3, 3), 1, 1) == [lines] * 3
    assert lines not in taken((1, 16, 16, 16), (16, 16, 3, 3), 1, 1)
    assert taken((2, 16, 31, 31), (16, 16, 3, 3), 1, 1) == [narrow] * 3
    assert taken((2, 16, 32, 32), (32, 16, 3, 3), 2, 1) == [columns, narrow, narrow]
    assert taken((2, 32, 16, 16), (64, 32, 3, 3), 2, 1) == [columns] * 3
    assert taken((128, 64, 8, 8), (64, 64, 3, 3), 1, 1) == [tiles] * 3
    assert taken((1, 3, 64, 64), (64, 3, 7, 7), 2, 3) == [columns, narrow, narrow]
    assert taken((1, 3, 64, 64), (64, 3, 3, 3), 1, 1) == [columns, columns, narrow]
    with minidl.use_winograd(False):
        assert taken((2, 16, 32, 32), (16, 16, 3, 3), 1, 1) == [narrow] * 3
        monkeypatch.setattr(choose, "has_unpacked_kernels", lambda: False)
        assert taken((2, 16, 32, 32), (16, 16, 3, 3), 1, 1) == [columns] * 3


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("x_shape, w_shape", [((6, 48, 31, 29), (32, 48, 1, 1)), ((3, 24, 40, 41), (16, 24, 3, 3)),
                                              ((3, 3, 33, 35), (64, 3, 7, 7))])
def test_few_columns_with_either_kind_of_blas(monkeypatch, unpacked, x_shape, w_shape):
    """Whatever OpenBLAS chose for this machine: one large product, and a stack of small ones with a rest."""
    stacks = []

    def small(a, b, out, real=matmul.in_small_products):
        stacks.append(len(a))
        return real(a, b, out)

    for module in (matmul, im2col_blocked):
        monkeypatch.setattr(module, "in_small_products", small)
    monkeypatch.setattr(matmul, "has_unpacked_kernels", lambda: unpacked)
    for op, arrays, how in calls(x_shape, w_shape, settings_of(), "float32", integers(5)):
        expected = on("generic/im2col", op, arrays, how)
        with minidl.use_winograd(False):
            assert np.array_equal(on("cpu", op, arrays, how), expected), op
    assert bool(stacks) == unpacked


def test_blocks_cover_everything_once():
    for N in (0, 1, 2, 5, 8):
        for rows in (1, 3, 7, 56):
            for row_bytes in (1, 1000, 10**6, 10**8):
                for work in (0, 10**7, 10**12):
                    seen = np.zeros((N, rows), int)
                    blocks = conv_blocks.blocks(N, rows, row_bytes, work)
                    for block in blocks:
                        seen[block] += 1
                    assert (seen == 1).all()
    assert len(conv_blocks.blocks(128, 4, 36 << 10, 10**9)) == 8  # not five: one of two threads would have three


def test_the_chooser_says_why():
    x, w = np.zeros((8, 64, 56, 56), "f4"), np.zeros((64, 64, 3, 3), "f4")
    how = settings_of(padding=((1, 1), (1, 1)))
    assert "runs on cpu/winograd" in explain("conv2d", x, w, None, **how)
    assert "float32: its rounding" in explain("conv2d", x.astype(float), w.astype(float), None, **how)
    with minidl.use_winograd(False):
        said = explain("conv2d", x, w, None, **how)
        assert "runs on cpu/im2col_blocked" in said and "switched off by use_winograd(False)" in said
    assert "runs on cpu/products" in explain("conv2d", x, w[:, :, :1, :1], None, **settings_of())
    assert "3 channels: transforms" in explain("conv2d", x[:, :3], w[:, :3], None, **how)


def test_a_forced_rung_runs_where_it_can_though_it_is_not_worth_it():
    op, arrays, how = calls((1, 2, 5, 5), (3, 2, 3, 3), settings_of(), "float32", integers(3))[0]
    assert np.allclose(on("cpu/winograd_2x2", op, arrays, how), on("generic", op, arrays, how), atol=1e-4)
    with pytest.raises(minidl.MinidlError, match="for stride 1"):
        on("cpu/winograd_2x2", op, arrays, how | {"stride": (2, 2)})


@pytest.mark.parametrize("x_shape", [(0, 3, 8, 8), (2, 0, 8, 8)])
def test_nothing_to_compute_is_left_to_the_generic_one(x_shape):
    for op, arrays, how in calls(x_shape, (4, x_shape[1], 3, 3), settings_of(), "float32", np.zeros):
        assert on(None, op, arrays, how).shape == on("generic", op, arrays, how).shape


@pytest.mark.parametrize("a, b", [((700, 70), (70, 60)), ((8, 300), (300, 900)), ((5, 60, 70), (5, 70, 80)), ((4, 3, 60, 70), (70, 90)),
                                  ((2, 3, 60, 70), (3, 70, 80)), ((70,), (70, 3000)), ((3000, 70), (70,)), ((2, 3), (3, 4))])
def test_products_in_slices(a, b):
    draw = integers(4)
    a, b = draw(a).astype("f4"), draw(b).astype("f4")
    results = []
    for number in (1, 2, 3):
        minidl.set_num_threads(number)
        results.append(on("cpu/sliced", "matmul", (a, b), {}))
        assert np.array_equal(results[-1], np.matmul(a, b)) and results[-1].dtype == a.dtype
        turned = on("cpu/sliced", "matmul", (a, np.ascontiguousarray(b.T).T), {})
        assert np.array_equal(turned, np.matmul(a, b))


def test_the_rungs_are_what_their_names_say():
    """A ladder with a rung missing, or twice the same, would go unnoticed: results agree."""
    assert RUNGS == ["cpu/products", "cpu/winograd_rows", "cpu/im2col_narrow", "cpu/winograd", "cpu/winograd_2x2", "cpu/depthwise",
                     "cpu/im2col_blocked"]
    modules = {name: rung for name, rung, *_ in choose.LADDER}
    assert modules["cpu/products"] is products and modules["cpu/im2col_blocked"] is im2col_blocked
    assert modules["cpu/im2col_narrow"] is im2col_narrow and modules["cpu/winograd_rows"] is by_rows
    for op in OPS:
        assert [i.name for i in IMPLEMENTATIONS[op] if i.backend == "cpu"] == RUNGS
