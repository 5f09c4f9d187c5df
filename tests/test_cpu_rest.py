"""The tuned implementations that are no products: normalisation, pooling, element-wise passes. Each equals the plain one.

Blocks are made tiny, so that drawn shapes have many of them, full ones, ragged ones and none.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.backend import IMPLEMENTATIONS, layout, rectify, threads
from minidl.backend.cpu import normalize, pool, samples
from minidl.backend.layout import empty
from minidl.core.errors import ShapeError
from minidl.ops.window import pool_window

EPS = float(np.finfo("float32").eps)


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Long rows of 12 numbers, 6 where they are added up, blocks of 40, and three threads."""
    for name, value in (("LONG", 12), ("SUMMED", 6), ("BLOCK", 40), ("LEAST", 0)):
        monkeypatch.setattr(normalize, name, value)
    monkeypatch.setattr(threads, "_wanted", 3)
    normalize.cut.cache_clear()  # which remembers blocks of another size
    yield
    normalize.cut.cache_clear()


def function(op, name):
    return next(i.function for i in IMPLEMENTATIONS[op] if i.name == name)


def image(rng, shape, dtype="float32", scale=1.0, offset=0.0, order="stored"):
    """Normal numbers in storage order, or with the axes in another order in memory."""
    values = np.asarray(rng.standard_normal(shape) * scale + offset, dtype)
    array = empty(shape, np.dtype(dtype), values) if order == "stored" else np.empty(shape[::-1], dtype).transpose()
    if order == "stretch" and len(shape) == 4:  # of the channels of a wider image
        array = empty((shape[0], shape[1] + 3, *shape[2:]), np.dtype(dtype), values)[:, 2:-1]
    array[...] = values
    return array


def double(arrays):
    return [None if a is None else a.astype(np.float64) for a in arrays]


# --- batch norm -----------------------------------------------------------------------------------------------------------

@st.composite
def batch_norms(draw):
    """A call: shapes, which arguments are there, relu, how far off the mean is, dtype."""
    ndim = draw(st.sampled_from((2, 4, 4)))
    shape = (draw(st.integers(2, 5)), draw(st.sampled_from((1, 2, 3, 5, 12, 13))), *[draw(st.integers(1, 6)) for _ in range(ndim - 2)])
    return {"shape": shape, "seed": draw(st.integers(0, 99)), "weight": draw(st.booleans()), "bias": draw(st.booleans()),
            "order": draw(st.sampled_from(("stored", "other", "stretch"))), "add": draw(st.booleans()), "relu": draw(st.booleans()),
            "offset": draw(st.sampled_from((0, 1, 30, 1000))),
            "dtype": draw(st.sampled_from(("float32", "float32", "float64")))}


def batch_norm_arrays(call):
    """x, weight, bias, add, grad_y."""
    rng, shape, dtype = np.random.default_rng(call["seed"]), call["shape"], call["dtype"]
    x = image(rng, shape, dtype, rng.uniform(0.5, 2, (1, shape[1], *[1] * (len(shape) - 2))), call["offset"], call["order"])
    weight = rng.uniform(0.5, 2, shape[1]).astype(dtype) if call["weight"] else None
    bias = rng.standard_normal(shape[1]).astype(dtype) if call["bias"] else None
    add, grad_y = (image(rng, shape, dtype, order=call["order"]) for _ in "ag")
    return x, weight, bias, add if call["add"] else None, grad_y


def test_batch_norm_equals_the_plain_one(tiny_blocks):
    """Statistics, y and all gradients against generic in float64. u = (x − mean)·r carries the rounding of the mean: eps · |mean|/std."""
    @given(batch_norms())
    def compare(call):
        x, weight, bias, add, grad_y = batch_norm_arrays(call)
        eps = EPS if call["dtype"] == "float32" else float(np.finfo("float64").eps)
        settings = {"eps": 0.01, "relu": call["relu"]}
        right = function("batch_norm_train", "generic")(*double((x, weight, bias, add)), **settings)
        found = function("batch_norm_train", "cpu/blocks")(x, weight, bias, add, **settings)
        spread = np.sqrt(right[2] + 0.01).min()
        close = 60 * eps * (8 + call["offset"] / spread)
        for array, expected, scale in zip(found, right, (4 / min(spread, 1), 1 + call["offset"], 1 + right[2].max()), strict=True):
            assert array.dtype == x.dtype
            assert np.abs(array - expected).max() <= close * scale
        gate = found[0] if call["relu"] else None
        backward = {"eps": 0.01, "add": call["relu"] and call["add"]}
        grads = function("batch_norm_grad", "cpu/blocks")(grad_y, x, weight, *found[1:], gate, **backward)
        expected = function("batch_norm_grad", "generic")(*double((grad_y, x, weight, *found[1:], gate)), **backward)
        size = x.size / x.shape[1]
        for array, wanted, scale in zip(grads, expected, (16 / spread ** 2, 8 * size / spread, size, 1), strict=False):
            assert np.abs(array - wanted).max() <= close * scale
        assert len(grads) == len(expected)

    compare()


@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (41, 13)])
def test_batch_norm_has_the_same_bits_with_any_number_of_threads(shape, tiny_blocks, monkeypatch):
    results = []
    for count in (1, 2, 3):
        monkeypatch.setattr(threads, "_wanted", count)
        x, weight, bias, add, grad_y = batch_norm_arrays({"shape": shape, "seed": 3, "weight": 1, "bias": 1, "add": 1, "offset": 0,
                                                          "dtype": "float32", "order": "stored"})
        y, mean, var = function("batch_norm_train", "cpu/blocks")(x, weight, bias, add, eps=1e-5, relu=True)
        results.append([y, mean, var, *function("batch_norm_grad", "cpu/blocks")(grad_y, x, weight, mean, var, y, eps=1e-5, add=True)])
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_batch_norm_is_sound_far_from_zero():
    """Mean 1000, deviation 1, 200,000 numbers a channel: the variance is right to 1e-5, where Σx²/n − mean² would be off by 0.1."""
    x = image(np.random.default_rng(0), (20, 3, 100, 100), offset=1000)
    y, mean, var = function("batch_norm_train", "cpu/blocks")(x, None, None, None, eps=0.0, relu=False)
    right = x.astype(np.float64)
    assert np.abs(mean - right.mean((0, 2, 3))).max() <= 1000 * EPS
    assert np.abs(var / right.var((0, 2, 3)) - 1).max() <= 1e-5
    assert np.abs(y.mean((0, 2, 3), dtype=np.float64)).max() <= 1e-5


@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm_in_evaluation(relu, tiny_blocks):
    rng = np.random.default_rng(5)
    for shape, offset in (((3, 5, 4, 3), 0), ((2, 7, 5, 5), 500), ((9, 4), 0)):
        x, add = image(rng, shape, offset=offset), image(rng, shape)
        mean, var = (np.full(shape[1], offset) + rng.standard_normal(shape[1])).astype("f4"), rng.uniform(0.5, 2, shape[1]).astype("f4")
        arrays = x, mean, var, var, mean, add
        right = function("batch_norm_eval", "generic")(*double(arrays), eps=1e-5, relu=relu)
        found = function("batch_norm_eval", "cpu/blocks")(*arrays, eps=1e-5, relu=relu)
        assert np.abs(found - right).max() <= 100 * EPS * (8 + 3 * offset)


# --- pooling --------------------------------------------------------------------------------------------------------------

@pytest.fixture
def tiny_items(monkeypatch):
    """Items of 30 outputs, three threads."""
    monkeypatch.setattr(pool, "ITEM", 30)
    monkeypatch.setattr(pool, "BIG", 0)
    monkeypatch.setattr(threads, "_wanted", 3)


@st.composite
def poolings(draw):
    """An image and the settings of pool_window()."""
    kernel = [draw(st.integers(1, 4)) for _ in "hw"]
    settings = {"kernel_size": tuple(kernel), "stride": tuple(draw(st.integers(1, 3)) for _ in "hw"),
                "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel), "ceil_mode": draw(st.booleans()),
                "dilation": tuple(draw(st.sampled_from((1, 1, 2))) for _ in "hw")}
    shape = (draw(st.integers(0, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = image(rng, shape, draw(st.sampled_from(("float32", "float64"))), order=draw(st.sampled_from(("stored", "other"))))
    kind = draw(st.sampled_from(("ties", "ties", "normal", "infinite", "nan")))
    if kind == "ties":
        np.rint(x, out=x)
    elif kind != "normal":
        x[rng.random(shape) < 0.5] = -np.inf if kind == "infinite" else np.nan
    return x, settings, rng


def test_max_pooling_equals_the_plain_one(tiny_items):
    """Values, positions and gradients exactly: ties, NaN and −∞ included."""
    @given(poolings())
    def compare(drawn):
        x, settings, rng = drawn
        try:
            how = pool_window("max_pool2d", x, **settings)
        except ShapeError:
            return
        right, positions = function("max_pool2d", "generic")(x, **how)
        name = "generic" if pool.accepts_max(x, **how) else "cpu/cells"
        y, indices = function("max_pool2d", name)(x, **how)
        assert np.array_equal(y, right, equal_nan=True) and np.array_equal(indices, positions) and indices.dtype == positions.dtype
        grad_y = image(rng, y.shape, x.dtype)
        if grad_y.size:
            grad_y.flat[0] = np.inf
        window = tuple(how[name] for name in ("kernel", "stride", "padding", "dilation"))
        grad_x = function("max_pool2d_grad_x", "cpu/scatter")(grad_y, indices, x.shape, window)
        assert np.array_equal(grad_x, function("max_pool2d_grad_x", "generic")(grad_y, indices, x.shape), equal_nan=True)

    compare()


# --- element by element, and sums -----------------------------------------------------------------------------------------

@pytest.fixture
def tiny_pieces(monkeypatch):
    """Pieces of 64 elements from 100 elements on, rows of 30 zeros, three threads."""
    for module in (layout, rectify):
        monkeypatch.setattr(module, "LARGE", 100)
        monkeypatch.setattr(module, "PIECE", 64)
        monkeypatch.setattr(module, "STREAM", 100)
    monkeypatch.setattr(layout, "JOINED", 100)
    for name, value in (("FEW", 0), ("LONG", 30), ("_zeros", {})):
        monkeypatch.setattr(rectify, name, value)
    monkeypatch.setattr(threads, "_wanted", 3)


@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (2, 3, 1, 1), (0, 3, 2, 2), (31, 9), (200,), ()])
def test_passes_over_pieces_change_nothing(shape, tiny_pieces):
    """Every mixture of orders in memory; NaN, infinities and zeros of both signs included."""
    rng = np.random.default_rng(1)
    for order, other in itertools.product(("stored", "other"), repeat=2):
        x, y = image(rng, shape, order=order), image(rng, shape, order=other)
        for array in (x, y):
            array[rng.random(shape) < 0.3] = 0
            array[rng.random(shape) < 0.1] = np.nan
            array[rng.random(shape) < 0.1] = -np.inf
        x_before, y_before = x.copy(), y.copy()
        with np.errstate(invalid="ignore"):
            assert np.array_equal(rectify.rectify(x), np.maximum(x, 0), equal_nan=True)
            assert np.array_equal(rectify.gate(x, y), x * (y > 0), equal_nan=True)
            assert np.array_equal(layout.elementwise(np.subtract, x, y), x - y, equal_nan=True)
            assert np.array_equal(layout.elementwise(np.less, x, y, np.dtype(bool)), x < y)
            assert np.array_equal(layout.elementwise(np.multiply, x, np.float32(3)), 3 * x, equal_nan=True)
            total, expected = x.copy(), x + y
            layout.add_into(total, y)
            assert np.array_equal(total, expected, equal_nan=True)
        assert np.array_equal(x, x_before, equal_nan=True) and np.array_equal(y, y_before, equal_nan=True)


def test_operands_that_broadcast_go_in_one_piece(tiny_pieces):
    rng = np.random.default_rng(2)
    x, column, scalar = image(rng, (4, 5, 6, 7)), image(rng, (1, 5, 1, 1)), np.asarray(2.5, "f4")
    assert np.array_equal(layout.elementwise(np.add, x, column), x + column)
    assert np.array_equal(layout.elementwise(np.multiply, scalar, x), scalar * x)


@pytest.mark.parametrize(("shape", "axes"), [((3, 13, 7, 5), (0, 2, 3)), ((2, 1, 9, 9), (0, 2, 3)), ((101, 5), (0,))])
def test_sums_per_channel(shape, axes, tiny_blocks, monkeypatch):
    """Against float64: the rows of a part are added in float32, everything else in float64."""
    x = image(np.random.default_rng(3), shape, offset=5)
    for keepdim in (False, True):
        results = []
        for count in (1, 2, 3):
            monkeypatch.setattr(threads, "_wanted", count)
            results.append(function("sum", "cpu/rows")(x, axes=axes, keepdim=keepdim, dtype=x.dtype))
        right = x.astype(np.float64).sum(axes, keepdims=keepdim)
        assert results[0].shape == right.shape and results[0].dtype == x.dtype
        assert np.abs(results[0] - right).max() <= 8 * EPS * np.abs(right).max()
        assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("width", (126, 127, 300))
def test_max_pooling_of_wide_images_finds_the_same_positions(tiny_items, width):
    """i·W + j fits into a byte up to 126 columns; beyond, cells are counted."""
    x = image(np.random.default_rng(0), (1, 2, 5, width), "float32")
    how = pool_window("max_pool2d", x, 3, 2, 1, 1, False)
    found, right = (function("max_pool2d", name)(x, **how) for name in ("cpu/cells", "generic"))
    assert all(map(np.array_equal, found, right))


@pytest.mark.parametrize("stride", (1, 2))
def test_padding_does_not_win_over_pixels_that_are_as_small(tiny_items, stride):
    x = image(np.random.default_rng(0), (2, 3, 5, 6), "float32")
    x[:, 1] = -np.inf
    how = pool_window("max_pool2d", x, 3, stride, 1, 1, True)
    found, right = (function("max_pool2d", name)(x, **how) for name in ("cpu/cells", "generic"))
    assert all(map(np.array_equal, found, right))


def test_average_pooling_equals_the_plain_one(tiny_items):
    """Sums in another order: each of at most 16 numbers of size one, and as many gradients."""
    @given(poolings(), st.booleans(), st.sampled_from((None, None, 3)))
    def compare(drawn, count_include_pad, divisor_override):
        x, settings, rng = drawn
        x[...] = rng.standard_normal(x.shape)
        try:
            how = pool_window("avg_pool2d", x, **{**settings, "dilation": 1})
        except ShapeError:
            return
        how = {**how, "count_include_pad": count_include_pad, "divisor_override": divisor_override}
        del how["dilation"]
        y = function("avg_pool2d", "cpu/strips")(x, **how)
        close = 16 * float(np.finfo(x.dtype).eps) * 8
        assert y.dtype == x.dtype and np.abs(y - function("avg_pool2d", "generic")(x, **how)).max(initial=0) <= close
        grad_y = image(rng, y.shape, x.dtype)
        grad_x = function("avg_pool2d_grad_x", "cpu/strips")(grad_y, x.shape, **how)
        assert np.abs(grad_x - function("avg_pool2d_grad_x", "generic")(grad_y, x.shape, **how)).max(initial=0) <= close

    compare()


def test_joining_sample_by_sample_changes_nothing(tiny_pieces):
    rng = np.random.default_rng(8)
    arrays = [image(rng, (4, 3, 5, 2)), image(rng, (4, 6, 5, 2), order="other"), image(rng, (4, 1, 5, 2))]
    assert np.array_equal(layout.join(arrays, 1, empty((4, 10, 5, 2), arrays[0].dtype, arrays[0])), np.concatenate(arrays, 1))


def test_another_order_in_memory_is_copied_on_all_cores(tiny_pieces):
    x = image(np.random.default_rng(4), (5, 3, 7, 4), order="other")
    assert np.array_equal(layout.stored(x), x) and layout.is_stored_right(layout.stored(x))


# --- what treats every sample by itself -----------------------------------------------------------------------------------

@pytest.fixture
def tiny_samples(monkeypatch):
    """Parts of 40 numbers, three threads."""
    monkeypatch.setattr(samples, "PART", 40)
    monkeypatch.setattr(samples, "BIG", 0)
    monkeypatch.setattr(threads, "_wanted", 3)


@pytest.mark.parametrize(("shape", "how"), [
    ((7, 6, 5), {"axes": (2,), "groups": None, "weight_axes": (2,)}), ((5, 6, 2, 3), {"axes": (2, 3), "groups": 2, "weight_axes": (1,)}),
    ((5, 3, 4, 2), {"axes": (2, 3), "groups": None, "weight_axes": (1,)}), ((9, 4), {"axes": (1,), "groups": None, "weight_axes": (1,)}),
    ((3, 3, 2, 4), {"axes": (1, 2, 3), "groups": None, "weight_axes": (1, 2, 3)})])
def test_normalising_by_samples_equals_the_plain_one(shape, how, tiny_samples):
    """The sums over samples are merged in another order, nothing else differs."""
    rng, how = np.random.default_rng(6), {**how, "eps": 1e-5}
    x, grad_y = image(rng, shape, offset=3, order="other"), image(rng, shape)
    weight, bias = (rng.standard_normal([shape[k] for k in how["weight_axes"]]).astype("f4") for _ in "wb")
    right = function("normalize_over", "generic")(layout.stored(x), weight, bias, **how)
    found = function("normalize_over", "cpu/samples")(x, weight, bias, **how)
    assert all(a.shape == b.shape and np.abs(a - b).max() <= 8 * EPS * np.abs(b).max() for a, b in zip(found, right, strict=True))
    expected = function("normalize_over_grad", "generic")(grad_y, x, weight, *right[1:], **how)
    grads = function("normalize_over_grad", "cpu/samples")(grad_y, x, weight, *right[1:], **how)
    assert all(a.dtype == b.dtype and np.abs(a - b).max() <= 32 * EPS * np.abs(b).max() for a, b in zip(grads, expected, strict=True))


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "neighbour_sum"])
@pytest.mark.parametrize("shape", [(9, 7), (5, 6, 3, 2), (4, 3, 8)])
def test_other_ops_by_samples_equal_the_plain_ones(op, shape, tiny_samples):
    x = image(np.random.default_rng(7), shape, scale=5)
    x[1, 2] = -np.inf
    how = {"before": 2, "after": 1} if op == "neighbour_sum" else {"dim": 1}
    right = function(op, "generic")(x, **how)
    assert np.allclose(function(op, "cpu/samples")(x, **how), right, rtol=8 * EPS, atol=8 * EPS, equal_nan=True)
