"""Pooling: the loops and the vectorised steps agree, ties and corners, what is kept for the gradient, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
import minidl.nn.functional as F  # noqa: N812 - everybody's name for it
from minidl import ops
from minidl.backend import IMPLEMENTATIONS
from minidl.backend.counters import COUNTS
from minidl.backend.layout import is_stored_right, stored
from minidl.backend.window import adaptive_bounds, kernel_cells
from minidl.core.errors import ArgumentError, DTypeError, ShapeError

QUICK = settings(max_examples=60)
POOLS = [name for name in IMPLEMENTATIONS if "pool" in name]
t = minidl.zeros


@st.composite
def images(draw, least=(1, 1)):
    """Whole numbers with many ties (multiples of 5040, so that every mean is exact), in any memory order."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *(max(1, n) + draw(st.integers(0, 4)) for n in least))
    x = rng.integers(-2, 3, shape) * 5040.0
    order = draw(st.permutations(range(4)))
    x = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    return x[..., ::draw(st.sampled_from((1, -1)))]


@st.composite
def pools(draw):
    """(image, settings) of a pooling."""
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    x = draw(images([d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]))
    how = {"kernel_size": kernel, "stride": draw(st.one_of(st.none(), st.tuples(st.integers(1, 4), st.integers(1, 4)))),
           "padding": padding, "ceil_mode": draw(st.booleans())}
    return x, how, dilation


def test_an_average_is_differentiated_twice_with_its_own_settings():
    """What comes back through the gradient of the gradient is the average itself, count_include_pad and all."""
    x = np.random.default_rng(0).standard_normal((1, 2, 7, 6))
    for how in ({"padding": 1, "count_include_pad": False, "ceil_mode": True}, {"divisor_override": 5}, {"stride": 1}):
        y, _, back = everything(F.avg_pool2d, x, {"kernel_size": (3, 2), **how})
        assert np.abs(back - y).max() <= 1e-15 * np.abs(y).max()


def everything(pool, x, how, seed=0):
    """Outputs, the gradient, and the gradient of the gradient, as arrays."""
    x = minidl.Tensor(x, True)
    results = pool(x, **how)
    y = results[0] if isinstance(results, tuple) else results
    u = minidl.Tensor(np.random.default_rng(seed).integers(-3, 4, y.shape) * 5040.0, True)
    grad_x, = minidl.autograd.grad(y, [x], u, create_graph=True)
    back, = minidl.autograd.grad(grad_x, [u], x.detach())
    return [a.array for a in (*(results if isinstance(results, tuple) else [y]), grad_x, back)]


def assert_both_agree(pool, x, how):
    before, found = x.copy(), []
    for name in ("generic", "reference"):
        with minidl.use_backend(name):
            found.append(everything(pool, x, how))
    assert np.array_equal(x, before)
    assert all(np.array_equal(fast, slow) and is_stored_right(fast) for fast, slow in zip(*found, strict=True))


@QUICK
@given(pools())
def test_max_pool_on_both_backends(case):
    x, how, dilation = case
    assert_both_agree(F.max_pool2d, x, how | {"dilation": dilation, "return_indices": True})


@QUICK
@given(pools(), st.booleans(), st.sampled_from((None, 7, -2)))
def test_avg_pool_on_both_backends(case, count_include_pad, divisor):
    x, how, _ = case
    assert_both_agree(F.avg_pool2d, x * 7, how | {"count_include_pad": count_include_pad, "divisor_override": divisor})


@QUICK
@given(images(), st.integers(1, 7), st.integers(1, 7))
def test_adaptive_pools_on_both_backends(x, rows, columns):
    assert_both_agree(F.adaptive_max_pool2d, x, {"output_size": (rows, columns), "return_indices": True})
    found = []
    for name in ("generic", "reference"):
        with minidl.use_backend(name):
            found.append(everything(F.adaptive_avg_pool2d, x, {"output_size": (rows, columns)}))
    for fast, slow in zip(*found, strict=True):  # a pixel's shares add up in another order: not exact
        assert np.abs(fast - slow).max(initial=0) <= 64 * np.finfo(float).eps * np.abs(slow).max(initial=0)
        assert is_stored_right(fast)


@QUICK
@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 4), st.integers(1, 3), st.integers(1, 9))
def test_kernel_cells_are_the_pairs_with_a_pixel(size, kernel, stride, pad, dilation, places):
    wanted = {(p, i, p * stride + i * dilation - pad) for p in range(places) for i in range(kernel)}
    wanted = {(p, i, h) for p, i, h in wanted if 0 <= h < size}
    found = set()
    for i, _, (_, p, _), (_, h, _) in kernel_cells((size, 1), (places, 1), (kernel, 1), (stride, 1), (pad, 0), (dilation, 1)):
        rows, pixels = range(p.start, p.stop), range(size)[h]
        assert len(rows) == len(pixels)
        found |= {(row, i, pixel) for row, pixel in zip(rows, pixels, strict=True)}
    assert found == wanted


def test_the_last_window_of_ceil_mode():
    """Rounding up adds a window, but none that would start in the padding on the far side."""
    x = t(1, 1, 5, 6)
    assert F.max_pool2d(x, 2, ceil_mode=True).shape == (1, 1, 3, 3)
    assert F.max_pool2d(x, 2, padding=1).shape == (1, 1, 3, 4)
    assert F.max_pool2d(x, 2, padding=1, ceil_mode=True).shape == (1, 1, 3, 4)  # a fourth row of windows would start at h = 5: padding


def test_ties_go_to_the_first_and_padding_never_wins():
    x = minidl.Tensor(np.full((1, 1, 4, 4), -3.0), True)
    y, indices = F.max_pool2d(x, 2, padding=1, return_indices=True)
    assert y.tolist() == np.full((1, 1, 3, 3), -3.0).tolist()
    assert indices.tolist() == [[[[0, 1, 3], [4, 5, 7], [12, 13, 15]]]]
    y.sum().backward()
    assert x.grad.array.sum() == 9


def test_the_last_of_several_nans_wins():
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    x[0, 0, 0, 0] = x[0, 0, 0, 2] = np.nan
    for y, indices in (F.max_pool2d(minidl.Tensor(x), (2, 3), return_indices=True), F.adaptive_max_pool2d(minidl.Tensor(x), 1, True)):
        assert np.isnan(y.item()) and indices.item() == 2


def test_the_average_divides_by_what_counts():
    x = minidl.ones(1, 1, 3, 3)
    assert F.avg_pool2d(x, 2, 2, 1).tolist() == [[[[0.25, 0.5], [0.5, 1]]]]
    assert F.avg_pool2d(x, 2, 2, 1, count_include_pad=False).tolist() == [[[[1, 1], [1, 1]]]]
    assert F.avg_pool2d(x, 2, 2, ceil_mode=True).tolist() == [[[[1, 1], [1, 1]]]]  # what lies beyond the padding never counts
    assert F.avg_pool2d(x, 2, 2, 1, divisor_override=8).tolist() == [[[[0.125, 0.25], [0.25, 0.5]]]]


def test_adaptive_windows_cover_the_axis():
    assert adaptive_bounds(7, 3) == [(0, 3), (2, 5), (4, 7)]
    assert adaptive_bounds(2, 3) == [(0, 1), (0, 2), (1, 2)]
    x = minidl.Tensor(np.arange(24.0).reshape(1, 2, 3, 4))
    assert F.adaptive_avg_pool2d(x, 1).tolist() == [[[[5.5]], [[17.5]]]]
    assert np.array_equal(F.adaptive_avg_pool2d(x, (None, None)).array, x.array)
    assert F.adaptive_max_pool2d(x, (None, 2)).shape == (1, 2, 3, 2)


def kept_tensors(y):
    return [c.cell_contents for c in y.grad_fn.backward.__closure__ if isinstance(c.cell_contents, minidl.Tensor)]


def test_a_maximum_keeps_positions_and_an_average_nothing():
    x = minidl.ones(2, 3, 6, 5, requires_grad=True)
    for y in (F.max_pool2d(x, 2), F.adaptive_max_pool2d(x, 2)):
        assert [k.dtype for k in kept_tensors(y)] == ["int32"]
    for y in (F.avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 2)):
        assert kept_tensors(y) == []


def test_stored_images_need_no_layout_conversion_and_float32_stays():
    x = minidl.Tensor(stored(np.random.default_rng(0).standard_normal((2, 3, 7, 6)).astype("f")), True)
    for pool in (lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: F.avg_pool2d(x, 3, 2, 1, False, False), lambda x: F.avg_pool2d(x, 2),
                 lambda x: F.adaptive_avg_pool2d(x, 1), lambda x: F.adaptive_avg_pool2d(x, (3, 4)), lambda x: F.adaptive_max_pool2d(x, 2)):
        COUNTS.clear()
        y = pool(x)
        grad_x, = minidl.autograd.grad((y * y).sum(), [x])
        assert COUNTS["layout conversion"] == 0
        assert y.dtype == grad_x.dtype == np.float32 and is_stored_right(y.array) and is_stored_right(grad_x.array)


def test_every_pool_has_loops_beside_it():
    assert len(POOLS) == 8
    for name in POOLS:
        assert {"generic", "reference"} <= {i.name for i in IMPLEMENTATIONS[name]}


def test_one_image_and_one_sequence_without_a_batch():
    x = np.random.default_rng(0).standard_normal((3, 6, 5))
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    assert y.shape == indices.shape == (3, 3, 2)
    assert F.max_pool1d(x, 2).shape == F.avg_pool1d(x, 2).shape == (3, 6, 2) and F.max_pool1d(x[0], 2).shape == (6, 2)
    assert F.adaptive_avg_pool1d(x[0], 2).shape == (6, 2) and F.adaptive_max_pool1d(x, 4).shape == (3, 6, 4)


ERRORS = [
    (lambda: F.max_pool2d(t(2, 3, 4, 9), 5), ShapeError, """\
max_pool2d: the kernel is larger than the padded image.
    OH = (4 + 2·0 − 1·(5 − 1) − 1) // 5 + 1 = 0   with H = 4, KH = 5
    shapes: x (2, 3, 4, 9), kernel (5, 5)
    Use a smaller kernel, or a larger image."""),
    (lambda: F.max_pool2d(t(2, 3, 4, 9), (7, 3), ceil_mode=True, stride=2), ShapeError, """\
max_pool2d: the kernel is larger than the padded image.
    OH = (4 + 2·0 − 1·(7 − 1) − 1 + 1) // 2 + 1 = 0   with H = 4, KH = 7
    shapes: x (2, 3, 4, 9), kernel (7, 3)
    Use a smaller kernel, or a larger image."""),
    (lambda: F.max_pool2d(t(2, 3, 6, 5), 3, padding=2), ArgumentError, """\
max_pool2d: padding must be at most half of the kernel: else a window could lie in the padding alone.
    padding: (2, 2)
    kernel_size: (3, 3)
    Use padding=1 or less."""),
    (lambda: F.max_pool2d(t(6, 5), 2), ShapeError, """\
max_pool2d: x must have 4 axes (N, C, H, W).
    x has 2 axes, shape (6, 5)
    shapes: x (N, C, H, W) = (6, 5)
    Reshape x to the axes named above."""),
    (lambda: F.max_pool2d(t(2, 3, 0, 5), 2, padding=1), ShapeError, """\
max_pool2d: an image without pixels cannot be pooled.
    x: (2, 3, 0, 5)
    Only the batch may be empty."""),
    (lambda: F.max_pool2d(t(1, 1, 4, 4), 2, padding=1, dilation=5), ShapeError, """\
max_pool2d: a window has no cell in the image.
    height: H = 4, window 0 looks at -1, 4
    kernel (2, 2), padding (1, 1), dilation (5, 5)
    Use less padding or a smaller dilation."""),
    (lambda: F.max_pool2d(t(2, 3, 6, 5), 0), ArgumentError, """\
max_pool2d: kernel_size must be a whole number, 1 or more, or a pair of them (height, width).
    kernel_size: int 0
    Give one number for both axes, as in kernel_size=1."""),
    (lambda: F.max_pool1d(t(2, 3, 6, 5), 2), ShapeError, """\
max_pool1d: x must have 3 axes (N, C, L).
    x has 4 axes, shape (2, 3, 6, 5)
    shapes: x (N, C, L) = (2, 3, 6, 5)
    Did you mean x.flatten(2)?"""),
    (lambda: F.max_pool1d(t(2, 3, 6), 7), ShapeError, """\
max_pool1d: the kernel is larger than the padded image.
    OL = (6 + 2·0 − 1·(7 − 1) − 1) // 7 + 1 = 0   with L = 6, K = 7
    shapes: x (2, 3, 1, 6), kernel (1, 7)
    Use a smaller kernel, or a larger image."""),
    (lambda: F.avg_pool2d(t(2, 3, 6, 5), 2, divisor_override=0), ArgumentError, """\
avg_pool2d: a sum cannot be divided by nothing.
    divisor_override: 0
    Leave divisor_override out to divide by the window's size."""),
    (lambda: F.avg_pool2d(t(2, 3, 6, 5).long(), 2), DTypeError, """\
avg_pool2d: the image must be floating point.
    x: int64
    Convert it first: x.float()."""),
    (lambda: F.adaptive_avg_pool2d(t(2, 3, 6, 5), (2, 3, 4)), ArgumentError, """\
adaptive_avg_pool2d: output_size must be a whole number, 0 or more, or a pair of them (height, width).
    output_size: tuple (2, 3, 4)
    Give one number for both axes, as in output_size=1."""),
    (lambda: F.adaptive_max_pool2d(t(2, 3, 6, 5), -1), ArgumentError, """\
adaptive_max_pool2d: output_size must be a whole number, 0 or more, or a pair of them (height, width).
    output_size: tuple (-1, -1)
    Give one number for both axes, as in output_size=1."""),
    (lambda: F.adaptive_avg_pool2d(t(2, 3, 0, 5), 1), ShapeError, """\
adaptive_avg_pool2d: an image without pixels cannot be pooled.
    x: (2, 3, 0, 5)
    Only the batch may be empty."""),
    (lambda: ops.avg_pool2d_grad_x(t(2, 3, 2, 2), (2, 3, 6, 5), 2), ShapeError, """\
avg_pool2d_grad_x: grad_y must have the shape of avg_pool2d's output.
    avg_pool2d's output: (2, 3, 3, 2)
    grad_y: (2, 3, 2, 2)
    Pass the same settings as to avg_pool2d, and the shape that its image had."""),
    (lambda: ops.max_pool2d_grad_x(t(2, 3, 2, 2), t(2, 3, 2, 3).long(), (2, 3, 6, 5)), ShapeError, """\
max_pool2d_grad_x: axis OW disagrees.
    indices axis 3 says OW = 3
    grad_y axis 3 says OW = 2
    shapes: indices (N, C, OH, OW) = (2, 3, 2, 3), grad_y (N, C, OH, OW) = (2, 3, 2, 2)
    Make the two sizes called OW equal."""),
]


@pytest.mark.parametrize("call, kind, text", ERRORS)
def test_messages(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text
