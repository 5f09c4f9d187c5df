"""Convolution: the loops and im2col say the same, results are stored channels-last, im2col's numbers, and what is refused."""

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
import minidl.nn.functional as F  # noqa: N812 - everybody's name for it
from minidl import ops
from minidl.backend import IMPLEMENTATIONS
from minidl.backend.counters import COUNTS
from minidl.backend.generic import conv as generic
from minidl.backend.generic.im2col import col2im, im2col, windows
from minidl.backend.layout import is_stored_right, stored
from minidl.core.errors import ArgumentError, BackendError, DTypeError, ShapeError

QUICK = settings(max_examples=40)
ONE = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
t = minidl.zeros


def ordered(draw, array):
    """The same numbers in a drawn memory order, maybe with gaps or backwards."""
    order = draw(st.permutations(range(array.ndim)))
    array = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    step = draw(st.sampled_from((1, 2, -1)))
    return np.repeat(array, 2, -1)[..., ::2] if step == 2 else array[..., ::step]


@st.composite
def convolutions(draw):
    """(x, w, b, settings) with small integers, so that every sum is exact."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    small = st.integers(1, 3)
    groups, kernel = draw(small), (draw(small), draw(small))
    c, o = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    how = {"stride": (draw(small), draw(small)), "dilation": (draw(small), draw(small)), "groups": groups}
    pads = draw(st.one_of(st.just("same"), st.just("valid"), st.tuples(st.integers(0, 2), st.integers(0, 2))))
    if pads == "same":
        how["stride"] = 1
    given_pads = (0, 0) if isinstance(pads, str) else pads
    need = [d * (k - 1) + 1 - 2 * pad for k, d, pad in zip(kernel, how["dilation"], given_pads, strict=True)]
    image = [max(1, n) + draw(st.integers(0, 2)) for n in need]
    x = rng.integers(-4, 5, (draw(st.integers(0, 2)), c, *image)).astype(float)
    w = rng.integers(-4, 5, (o, c // groups, *kernel)).astype(float)
    b = rng.integers(-4, 5, o).astype(float) if draw(st.booleans()) else None
    return ordered(draw, x), ordered(draw, w), b, how | {"padding": pads}


def all_three(x, w, b, how, seed=0):
    """The arrays that conv2d and its two gradients give, each second-order term included through the chain."""
    x, w = minidl.Tensor(x, True), minidl.Tensor(w, True)
    b = None if b is None else minidl.Tensor(b, True)
    y = F.conv2d(x, w, b, **how)
    u = np.random.default_rng(seed).integers(-3, 4, y.shape).astype(float)
    leaves = [x, w] + [b] * (b is not None)
    grads = minidl.autograd.grad(y, leaves, minidl.Tensor(u, True), create_graph=True)
    again = minidl.autograd.grad(list(grads[:2]), leaves[:2], [x.detach(), w.detach()])
    return [a.array for a in (y, *grads, *again)]


@QUICK
@given(convolutions())
def test_reference_and_im2col_agree_exactly(case):
    x, w, b, how = case
    before = x.copy(), w.copy()
    fast = all_three(x, w, b, how)
    with minidl.use_backend("generic/im2col"):
        y = F.conv2d(x, w, b, **how)
    with minidl.use_backend("reference"):
        assert np.array_equal(y.array, F.conv2d(x, w, b, **how).array)
    assert np.array_equal(x, before[0]) and np.array_equal(w, before[1])
    slow = all_three_on_reference(x, w, b, how)
    for a, r in zip(fast, slow, strict=True):
        assert np.array_equal(a, r) and is_stored_right(a)


def all_three_on_reference(x, w, b, how):
    """all_three() with the three convolutions on the loops; the sum of the bias has no other implementation."""
    kept = {name: IMPLEMENTATIONS[name][:] for name in ("conv2d", "conv2d_grad_x", "conv2d_grad_w")}
    try:
        for name in kept:
            IMPLEMENTATIONS[name][:] = [i for i in kept[name] if i.name == "reference"]
        return all_three(x, w, b, how)
    finally:
        for name, listed in kept.items():
            IMPLEMENTATIONS[name][:] = listed


@pytest.mark.parametrize("how", [{"stride": 2}, {"stride": (1, 3), "padding": (1, 0)}, {"groups": 2}])
def test_one_by_one_kernels_agree_exactly(how):
    """The kernel for which im2col and col2im have a short cut, and its neighbours that must not take it."""
    rng = np.random.default_rng(0)
    how = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | how
    x, w = rng.integers(-4, 5, (2, 4, 5, 6)).astype(float), rng.integers(-4, 5, (6, 4 // how["groups"], 1, 1)).astype(float)
    for fast, slow in zip(all_three(x, w, None, how), all_three_on_reference(x, w, None, how), strict=True):
        assert np.array_equal(fast, slow)


def test_same_puts_the_extra_pixel_below_and_right():
    row, ones = minidl.tensor([[[[1.0, 2, 3, 4]]]]), minidl.ones(1, 1, 1, 2)
    assert F.conv2d(row, ones, padding="same").tolist() == [[[[3, 5, 7, 4]]]]
    assert F.conv2d(row.permute(0, 1, 3, 2), ones.permute(0, 1, 3, 2), padding="same").tolist() == [[[[3], [5], [7], [4]]]]
    assert F.conv1d(row[0], ones[0], padding="same").tolist() == [[[3, 5, 7, 4]]]


def test_output_padding_adds_pixels_that_no_window_sees():
    x = minidl.tensor([[[[1.0, 2]]]], requires_grad=True)
    ones = minidl.ones(1, 1, 1, 2, requires_grad=True)
    assert F.conv_transpose2d(x, ones, stride=2, output_padding=(0, 1)).tolist() == [[[[1, 1, 2, 2, 0]]]]
    y = F.conv_transpose2d(x, ones, stride=(1, 1), dilation=(1, 3), output_padding=(0, 2))  # more than stride − 1, which dilation allows
    assert y.tolist() == [[[[1, 2, 0, 1, 2, 0, 0]]]]
    y.backward(minidl.tensor([[[[1.0, 2, 3, 4, 5, 6, 7]]]]))
    assert x.grad.tolist() == [[[[5, 7]]]] and ones.grad.tolist() == [[[[5, 14]]]]


@QUICK
@given(convolutions(), st.integers(1, 400))
def test_the_batch_in_parts_gives_the_same(case, limit):
    x, w, b, how = case
    with minidl.use_backend("generic"):
        whole = all_three(x, w, b, how)
        generic.COLUMN_BYTES, limit = limit, generic.COLUMN_BYTES
        try:
            parts = all_three(x, w, b, how)
        finally:
            generic.COLUMN_BYTES = limit
    assert all(np.array_equal(a, p) and is_stored_right(p) for a, p in zip(whole, parts, strict=True))


@QUICK
@given(convolutions())
def test_unfold_fold_and_the_transposed_convolution_on_both_backends(case):
    x, w, _, how = case
    window = {"kernel_size": w.shape[2:], "stride": how["stride"], "dilation": how["dilation"], "padding": 4}
    back = np.ascontiguousarray(w[:1]).repeat(x.shape[1], 0)  # (C, O/groups, KH, KW): filters for the way back
    results = []
    for name in ("generic", "reference"):
        with minidl.use_backend(name):
            columns = F.unfold(x, **window)
            larger = F.conv_transpose2d(x, back, None, how["stride"], 0, 0, how["groups"], how["dilation"])
            results.append((columns.array, F.fold(columns, x.shape[2:], **window).array, larger.array))
    assert all(np.array_equal(fast, slow) and is_stored_right(fast) for fast, slow in zip(*results, strict=True))


def test_im2col_and_col2im_give_the_numbers_of_their_docstrings():
    image = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    columns = im2col(image, (2, 2), **ONE)
    assert columns.tolist() == [[[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]]]
    assert col2im(columns, image.shape, (2, 2), **ONE).tolist() == [[[[1, 4, 3], [8, 20, 12], [7, 16, 9]]]]


def test_the_page_on_im2col_shows_what_is_computed():
    failed, tried = doctest.testfile(str(Path(__file__).resolve().parents[1] / "docs/by_hand/conv2d.md"), module_relative=False)
    assert tried > 15 and failed == 0


@QUICK
@given(convolutions())
def test_col2im_is_the_transpose_of_im2col(case):
    """⟨im2col(x), u⟩ = ⟨x, col2im(u)⟩ for every u: the definition of a transpose."""
    x, w, _, how = case
    place = ops.window.conv_window("test", w.shape[2:], how["stride"], how["padding"], how["dilation"])
    columns = im2col(x, w.shape[2:], **place, groups=how["groups"])
    u = np.random.default_rng(1).integers(-5, 6, columns.shape).astype(float)
    assert (columns * u).sum() == (x * col2im(u, x.shape, w.shape[2:], **place, groups=how["groups"])).sum()


def test_a_one_by_one_kernel_copies_nothing():
    x = stored(np.random.default_rng(0).standard_normal((2, 3, 4, 5)))
    columns = im2col(x, (1, 1), **ONE)
    assert np.shares_memory(columns, x) and np.shares_memory(col2im(columns, x.shape, (1, 1), **ONE), x)
    assert np.shares_memory(windows(x, (3, 2), **ONE), x)


@pytest.mark.parametrize("how", [{}, {"stride": 2, "padding": 1}, {"groups": 2}, {"dilation": 2, "padding": "same"}])
def test_stored_inputs_need_no_layout_conversion(how):
    rng = np.random.default_rng(0)
    x = minidl.Tensor(stored(rng.standard_normal((2, 4, 7, 6)).astype("f")), True)
    w = minidl.Tensor(stored(rng.standard_normal((6, 4 // how.get("groups", 1), 3, 3)).astype("f")), True)
    b = minidl.Tensor(rng.standard_normal(6).astype("f"), True)
    COUNTS.clear()
    y = F.conv2d(x, w, b, **how)
    grads = minidl.autograd.grad((y * y).sum(), [x, w, b])
    assert COUNTS["layout conversion"] == 0
    assert all(a.dtype == np.float32 and is_stored_right(a.array) for a in (y, *grads))


@pytest.mark.parametrize("wrong", [{"stride": 2.0}, {"stride": (2, 2.0)}, {"padding": (1.0, 1)}, {"dilation": (True, 1.0)}])
def test_what_merely_equals_a_setting_is_refused_also_after_the_setting_itself(wrong):
    """1.0 equals 1: what was found about a call with whole numbers says nothing about one with others."""
    x, w = minidl.ones(2, 4, 7, 6), minidl.ones(4, 4, 3, 3)
    right = {"stride": 2, "padding": (1, 1), "dilation": (1, 1)}
    grad_y = F.conv2d(x, w, **right)
    for call in (lambda how: F.conv2d(x, w, **how), lambda how: ops.conv2d_grad_x(grad_y, w, x.shape, **how),
                 lambda how: ops.conv2d_grad_w(x, grad_y, w.shape, **how)):
        for _ in range(2):
            call(right)
        with pytest.raises((ArgumentError, TypeError)):
            call(right | wrong)


def test_names_of_the_implementations():
    for name in ("conv2d", "conv2d_grad_x", "conv2d_grad_w", "unfold", "fold"):
        assert {"generic/im2col", "reference"} <= {i.name for i in IMPLEMENTATIONS[name]}
    with minidl.use_backend("cpu/winograd"), pytest.raises(BackendError, match="unfold has: generic/im2col"):
        F.unfold(t(1, 2, 3, 3), 2)


def test_one_image_and_one_sequence_without_a_batch():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 6, 5)), rng.standard_normal((4, 3, 3, 2))
    assert np.array_equal(F.conv2d(x, w).array, F.conv2d(x[None], w).array[0])
    assert F.conv1d(x[0], rng.standard_normal((2, 6, 3))).shape == (2, 3)
    assert F.conv_transpose2d(x, rng.standard_normal((3, 2, 2, 2))).shape == (2, 7, 6)
    assert F.unfold(x, 2).shape == (12, 20) and F.fold(F.unfold(x, 2), (6, 5), 2).shape == (3, 6, 5)


def test_a_backward_keeps_only_what_its_formula_names():
    x, w = minidl.ones(2, 3, 6, 5, requires_grad=True), minidl.ones(4, 3, 3, 2)
    y = F.conv2d(x, w)
    kept = [c.cell_contents for c in y.grad_fn.backward.__closure__]
    assert any(k is w for k in kept) and not any(k is x for k in kept)


ERRORS = [
    (lambda: F.conv2d(t(2, 6, 5, 3), t(4, 3, 2, 2)), ShapeError, """\
conv2d: axis C/groups disagrees.
    x axis 1 says C = 6
    w axis 1 says C/groups = 3, not 6
    shapes: x (N, C, H, W) = (2, 6, 5, 3), w (O, C/groups, KH, KW) = (4, 3, 2, 2)
    Did you mean x.permute(0, 3, 1, 2) (a channels-last image)?"""),
    (lambda: F.conv2d(t(2, 3, 4, 9), t(5, 3, 7, 2)), ShapeError, """\
conv2d: the kernel is larger than the padded image.
    OH = (4 + 2·0 − 1·(7 − 1) − 1) // 1 + 1 = -2   with H = 4, KH = 7
    shapes: x (2, 3, 4, 9), kernel (7, 2)
    Use padding=2 or more, a smaller kernel, or a larger image."""),
    (lambda: F.conv2d(t(2, 3, 6, 5), t(4, 3, 2, 4), padding=((1, 0), (0, 1)), dilation=2), ShapeError, """\
conv2d: the kernel is larger than the padded image.
    OW = (5 + 0 + 1 − 2·(4 − 1) − 1) // 1 + 1 = 0   with W = 5, KW = 4
    shapes: x (2, 3, 6, 5), kernel (2, 4)
    Use padding=1 or more, a smaller kernel, or a larger image."""),
    (lambda: F.conv2d(t(2, 3, 6, 5), t(4, 1, 3, 3), groups=2), ArgumentError, """\
conv2d: groups must divide the channels going in and the channels coming out.
    groups: 2
    channels: C = 3, O = 4
    These would do: 1."""),
    (lambda: F.conv2d(t(2, 6, 6, 5), t(4, 1, 3, 3), groups=0), ArgumentError, """\
conv2d: groups must divide the channels going in and the channels coming out.
    groups: 0
    channels: C = 6, O = 4
    These would do: 1, 2."""),
    (lambda: F.conv2d(t(2, 6, 6, 5), t(4, 6, 3)), ShapeError, """\
conv2d: w must have 4 axes (O, C/groups, KH, KW).
    w has 3 axes, shape (4, 6, 3)
    shapes: x (N, C, H, W) = (2, 6, 6, 5), w (O, C/groups, KH, KW) = (4, 6, 3)
    Did you mean w.unsqueeze(0) (a batch of one)?"""),
    (lambda: F.conv2d(t(6, 5), t(4, 6, 3, 2)), ShapeError, """\
conv2d: x must have 4 axes (N, C, H, W).
    x has 2 axes, shape (6, 5)
    shapes: x (N, C, H, W) = (6, 5), w (O, C/groups, KH, KW) = (4, 6, 3, 2)
    Reshape x to the axes named above."""),
    (lambda: F.conv2d(t(2, 3, 6, 5), t(4, 3, 3, 2), t(3)), ShapeError, """\
conv2d: axis O disagrees.
    w axis 0 says O = 4
    b axis 0 says O = 3
    shapes: x (N, C, H, W) = (2, 3, 6, 5), w (O, C/groups, KH, KW) = (4, 3, 3, 2), b (O) = (3,)
    Make the two sizes called O equal."""),
    (lambda: F.conv2d(t(2, 3, 6, 5), t(4, 3, 3, 2), stride=0), ArgumentError, """\
conv2d: stride must be a whole number, 1 or more, or a pair of them (height, width).
    stride: int 0
    Give one number for both axes, as in stride=1."""),
    (lambda: F.conv2d(t(2, 3, 6, 5), t(4, 3, 3, 2), padding=(1, 2, 3)), ArgumentError, """\
conv2d: padding must be a whole number, 0 or more, or a pair of them (height, width).
    padding: tuple (1, 2, 3)
    Give one number for both axes, as in padding=1."""),
    (lambda: F.conv2d(t(2, 3, 6, 5), t(4, 3, 3, 2), padding=-1), ArgumentError, """\
conv2d: padding must be a whole number, 0 or more, or a pair of them (height, width).
    padding: int -1
    Give one number for both axes, as in padding=1."""),
    (lambda: F.conv2d(t(2, 3, 6, 5), t(4, 3, 3, 2), padding="full"), ArgumentError, """\
conv2d: padding is a number, a pair, 'same' or 'valid'.
    padding: 'full'
    Did you mean 'same' (the output is as large as the image)?"""),
    (lambda: F.conv2d(t(2, 3, 6, 5), t(4, 3, 3, 2), stride=2, padding="same"), ArgumentError, """\
conv2d: padding='same' needs stride 1: a strided output cannot be as large as the image.
    stride: (2, 2)
    Use padding=1 for an output of ceil(size / stride)."""),
    (lambda: F.conv2d(t(2, 3, 6, 5), t(4, 3, 3, 2).double()), DTypeError, """\
conv2d: the tensors must have one element type.
    x: float32
    w: float64
    Convert one of them, as in x.to(w.dtype)."""),
    (lambda: F.conv1d(t(2, 3, 6), t(4, 2, 3)), ShapeError, """\
conv1d: axis C/groups disagrees.
    x axis 1 says C = 3
    w axis 1 says C/groups = 2, not 3
    shapes: x (N, C, L) = (2, 3, 6), w (O, C/groups, K) = (4, 2, 3)
    Make the two sizes called C equal."""),
    (lambda: F.conv1d(t(2, 3, 6), t(4, 3, 9)), ShapeError, """\
conv1d: the kernel is larger than the padded image.
    OL = (6 + 2·0 − 1·(9 − 1) − 1) // 1 + 1 = -2   with L = 6, K = 9
    shapes: x (2, 3, 1, 6), kernel (1, 9)
    Use padding=2 or more, a smaller kernel, or a larger image."""),
    (lambda: F.conv1d(t(2, 3, 6, 5), t(4, 3, 3)), ShapeError, """\
conv1d: x must have 3 axes (N, C, L).
    x has 4 axes, shape (2, 3, 6, 5)
    shapes: x (N, C, L) = (2, 3, 6, 5), w (O, C/groups, K) = (4, 3, 3)
    Did you mean x.flatten(2)?"""),
    (lambda: F.conv_transpose2d(t(2, 3, 4, 5), t(4, 3, 2, 2)), ShapeError, """\
conv_transpose2d: axis C disagrees.
    x axis 1 says C = 3
    w axis 0 says C = 4
    shapes: x (N, C, H, W) = (2, 3, 4, 5), w (C, O/groups, KH, KW) = (4, 3, 2, 2)
    Make the two sizes called C equal."""),
    (lambda: F.conv_transpose2d(t(2, 3, 4, 5), t(3, 2, 2, 2), output_padding=1), ArgumentError, """\
conv_transpose2d: output_padding must be smaller than stride or dilation.
    output_padding: (1, 1)
    stride: (1, 1)
    dilation: (1, 1)
    It only says which of the image sizes with the same convolution result is meant."""),
    (lambda: F.conv_transpose2d(t(2, 3, 1, 5), t(3, 2, 2, 2), padding=2), ShapeError, """\
conv_transpose2d: the output would have no height.
    OH = (1 − 1)·1 − 2·2 + 1·(2 − 1) + 0 + 1 = -2
    Use less padding, a larger kernel, or a larger image."""),
    (lambda: F.conv_transpose2d(t(2, 3, 1, 5), t(3, 2, 2, 2), groups=2), ArgumentError, """\
conv_transpose2d: groups must divide the channels going in and the channels coming out.
    groups: 2
    channels: C = 3
    These would do: 1, 3."""),
    (lambda: F.unfold(t(2, 3, 4, 5), (5, 2)), ShapeError, """\
unfold: the kernel is larger than the padded image.
    OH = (4 + 2·0 − 1·(5 − 1) − 1) // 1 + 1 = 0   with H = 4, KH = 5
    shapes: x (2, 3, 4, 5), kernel (5, 2)
    Use padding=1 or more, a smaller kernel, or a larger image."""),
    (lambda: F.fold(t(2, 12, 5), (4, 3), 2), ShapeError, """\
fold: a column holds one window of every channel, and there is one column per window.
    x: (2, 12, 5)
    axis 1 must be a multiple of KH·KW = 2·2 = 4
    axis 2 must be OH·OW = 3·2 = 6
    Pass the settings that unfold was called with, and the image's size as output_size."""),
    (lambda: F.fold(t(2, 10, 6), (4, 3), 2), ShapeError, """\
fold: a column holds one window of every channel, and there is one column per window.
    x: (2, 10, 6)
    axis 1 must be a multiple of KH·KW = 2·2 = 4
    axis 2 must be OH·OW = 3·2 = 6
    Pass the settings that unfold was called with, and the image's size as output_size."""),
    (lambda: ops.conv2d_grad_x(t(2, 4, 3, 3), t(4, 3, 3, 2), (2, 3, 6, 5)), ShapeError, """\
conv2d_grad_x: grad_y must have the shape of conv2d's output.
    x (2, 3, 6, 5), w (4, 3, 3, 2), groups 1
    conv2d's output: (2, 4, 4, 4)
    grad_y: (2, 4, 3, 3)
    Pass the same settings as to conv2d, and the shapes that it had."""),
    (lambda: ops.conv2d_grad_w(t(2, 3, 6, 5), t(2, 4, 3, 3), (4, 3, 3, 2)), ShapeError, """\
conv2d_grad_w: grad_y must have the shape of conv2d's output.
    x (2, 3, 6, 5), w (4, 3, 3, 2), groups 1
    conv2d's output: (2, 4, 4, 4)
    grad_y: (2, 4, 3, 3)
    Pass the same settings as to conv2d, and the shapes that it had."""),
]


@pytest.mark.parametrize("call, kind, text", ERRORS)
def test_messages(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text
