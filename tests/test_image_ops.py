"""Padding, resizing and shuffles: loops and vectorised steps agree exactly, small cases by hand, storage, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
import minidl.nn.functional as F  # noqa: N812 - everybody's name for it
from minidl.backend.counters import COUNTS
from minidl.backend.layout import is_stored_right, stored
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError
from minidl.core.guard import saved_arrays

QUICK = settings(max_examples=60)
t = minidl.zeros


@st.composite
def calls(draw):
    """(x, function) of a padding or a resizing; whole numbers, and shares that are exact in binary."""
    shape = tuple(draw(st.integers(1 if k else 0, 4)) for k in range(4))
    x = np.random.default_rng(draw(st.integers(0, 99))).integers(-8, 9, shape) * 1024.0
    order = draw(st.permutations(range(4)))
    x = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))[..., ::draw(st.sampled_from((1, -1)))]
    if draw(st.booleans()):
        mode = draw(st.sampled_from(("reflect", "replicate", "circular")))
        pad = [draw(st.integers(0, min(shape[3 - k // 2] - (mode == "reflect"), 3))) for k in range(4)]
        return x, lambda x: F.pad(x, pad, mode)
    mode, size = draw(st.sampled_from(("nearest", "bilinear"))), tuple(n * draw(st.sampled_from((1, 2, 4))) for n in shape[2:])
    return x, lambda x: F.interpolate(x, size, mode=mode)


@QUICK
@given(calls())
def test_the_loops_agree(drawn):
    """Outputs, gradients and the gradient of the gradient, bit for bit."""
    array, function = drawn
    found = []
    for name in ("generic", "reference"):
        with minidl.use_backend(name):
            x = minidl.Tensor(array, True)
            y = function(x)
            u = minidl.Tensor(np.random.default_rng(1).integers(-8, 9, y.shape) * 1024.0, True)
            grad, = minidl.autograd.grad(y, [x], u, create_graph=True)
            back, = minidl.autograd.grad(grad, [u], x.detach())
            found.append([y.array, grad.array, back.array])
    for a, b in zip(*found, strict=True):
        assert is_stored_right(a) and is_stored_right(b)
        np.testing.assert_array_equal(a, b)


def row(*values):
    return minidl.tensor([[values]], dtype=minidl.float32)


def test_padding_by_hand():
    x = row(1, 2, 3, 4)
    assert F.pad(x, (2, 1)).flatten().tolist() == [0, 0, 1, 2, 3, 4, 0]
    assert F.pad(x, (2, 1), "reflect").flatten().tolist() == [3, 2, 1, 2, 3, 4, 3]
    assert F.pad(x, (2, 1), "replicate").flatten().tolist() == [1, 1, 1, 2, 3, 4, 4]
    assert F.pad(x, (2, 1), "circular").flatten().tolist() == [3, 4, 1, 2, 3, 4, 1]
    assert F.pad(x, (-1, 2), "circular").flatten().tolist() == [2, 3, 4, 2, 3]
    assert F.pad(x.long(), (1, 0), "replicate").dtype == np.int64


def test_resizing_by_hand():
    x = row(0, 10)
    assert F.interpolate(x, 4).flatten().tolist() == [0, 0, 10, 10]
    assert F.interpolate(x, 4, mode="linear").flatten().tolist() == [0, 2.5, 7.5, 10]
    assert F.interpolate(x, 3, mode="linear", align_corners=True).flatten().tolist() == [0, 5, 10]
    assert F.interpolate(row(1, 3, 5, 7), scale_factor=0.5, mode="area").flatten().tolist() == [2, 6]


def test_infinity_reaches_no_neighbour():
    """A pixel that is not read has no part in the result, not even 0 · ∞."""
    x = minidl.tensor([[[[1.0, 2, np.inf, 4, 5]]]])
    y = F.interpolate(x, (1, 10), mode="bilinear").flatten().tolist()
    assert np.isfinite(y[:3]).all() and np.isfinite(y[8:]).all() and y[5] == np.inf


def test_shuffles_by_hand():
    x = minidl.arange(8.0).reshape(1, 8, 1, 1)
    assert F.pixel_shuffle(x, 2).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert F.pixel_shuffle(minidl.arange(8.0).reshape(1, 4, 1, 2), 2)[0, 0].tolist() == [[0, 2, 1, 3], [4, 6, 5, 7]]
    assert F.channel_shuffle(x, 2).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    image = minidl.randn(2, 3, 4, 6)
    assert (F.pixel_shuffle(F.pixel_unshuffle(image, 2), 2) == image).all()
    assert (F.channel_shuffle(F.channel_shuffle(image := minidl.randn(1, 6, 2, 2), 2), 3) == image).all()


@pytest.mark.parametrize("function", [
    lambda x: F.pad(x, (1, 2, 0, 1), "reflect"), lambda x: F.interpolate(x, scale_factor=2),
    lambda x: F.interpolate(x, (7, 9), mode="bilinear")])
def test_images_stay_channels_last(function):
    """Nothing is converted, and nothing but positions and shares is kept."""
    x = minidl.Tensor(stored(np.ones((2, 3, 4, 5))), True)
    y = function(x)
    u = minidl.Tensor(stored(np.ones(y.shape)))
    assert sum(a.nbytes for a in saved_arrays(y.grad_fn)) < x.nbytes
    COUNTS.clear()
    function(x).backward(u)
    assert is_stored_right(y.array) and is_stored_right(x.grad.array) and not COUNTS["layout conversion"]


ERRORS = [
    (lambda: F.pad(t(1, 2, 3), (3, 0), "reflect"), ShapeError, """\
pad: axis 2 cannot be padded like that.
    x: (1, 2, 3), axis 2 has size 3
    pad (3, 0), mode 'reflect'
    Here 'reflect' reaches at most 2, and something must be left."""),
    (lambda: F.pad(t(1, 2, 3), (0, 4), "circular"), ShapeError, """\
pad: axis 2 cannot be padded like that.
    x: (1, 2, 3), axis 2 has size 3
    pad (0, 4), mode 'circular'
    Here 'circular' reaches at most 3, and something must be left."""),
    (lambda: F.pad(t(1, 2, 0), (0, 1), "replicate"), ShapeError, """\
pad: axis 2 cannot be padded like that.
    x: (1, 2, 0), axis 2 has size 0
    pad (0, 1), mode 'replicate'
    The axis is empty."""),
    (lambda: F.pad(t(1, 2, 3), (1, 1), "mirror"), ArgumentError, """\
pad: there is no mode 'mirror'.
    modes: 'constant', 'reflect', 'replicate', 'circular'
    Check the spelling."""),
    (lambda: F.pad(t(1, 2, 3), (1, 1), "reflect", 2.0), ArgumentError, """\
pad: mode 'reflect' takes its values from x.
    value: 2.0
    Use mode='constant' for a number."""),
    (lambda: F.pad(t(1, 2, 3), (1, 1, 1), "reflect"), ShapeError, """\
pad: pad is a pair (before, after) per axis, for the last axes of x; the batch has none.
    pad: (1, 1, 1), 3 numbers
    x: (1, 2, 3), 3 axes
    Name the last axis first: (left, right, top, bottom)."""),
    (lambda: F.interpolate(t(2, 3, 4, 4)), ArgumentError, """\
interpolate: either size or scale_factor says how large.
    size=None, scale_factor=None
    Pass one of the two."""),
    (lambda: F.interpolate(t(2, 3, 4, 4), (2, 2, 2)), ShapeError, """\
interpolate: one number per axis of positions, 2 in all.
    given: (2, 2, 2)
    One number alone holds for all axes."""),
    (lambda: F.interpolate(t(2, 3, 4, 4), scale_factor=0.1), ShapeError, """\
interpolate: sizes must be at least 1.
    old: (4, 4)
    new: (0, 0)
    Use a larger factor."""),
    (lambda: F.interpolate(t(2, 3, 4, 4), 2, mode="bicubic"), ArgumentError, """\
interpolate: there is no such way to resize here.
    mode: 'bicubic', antialias=False
    x: (2, 3, 4, 4), modes: 'nearest', 'nearest-exact', 'bilinear', 'area'
    'bilinear' is for images, 'linear' for sequences; antialias is not available."""),
    (lambda: F.interpolate(t(2, 3, 4, 4), 2, align_corners=True), ArgumentError, """\
interpolate: align_corners is a setting of the linear modes.
    mode: 'nearest', align_corners=True
    Leave it out."""),
    (lambda: F.interpolate(t(4, 4), 2), ShapeError, """\
interpolate: x must be images (N, C, H, W) or sequences (N, C, W).
    x: (4, 4)
    Did you mean x.unsqueeze(0) (a batch of one)?"""),
    (lambda: F.interpolate(t(1, 1, 4, 4).long(), 3, mode="bilinear"), DTypeError, """\
resample: only floating point numbers can be mixed.
    x: (1, 1, 4, 4), int64
    Convert it first: x.float()."""),
    (lambda: F.pixel_shuffle(t(2, 6, 3, 3), 2), ShapeError, """\
pixel_shuffle: the channels must be a multiple of r².
    x: (2, 6, 3, 3), C = 6
    r = 2
    Every group of r² channels becomes one."""),
    (lambda: F.pixel_unshuffle(t(2, 6, 3, 4), 2), ShapeError, """\
pixel_unshuffle: height and width must be multiples of r.
    x: (2, 6, 3, 4)
    r = 2
    Pad or cut the image first."""),
    (lambda: F.pixel_shuffle(t(2, 4, 3, 3), 0), RangeError, """\
pixel_shuffle: x is (.., C, H, W) and the factor a whole number of at least 1.
    x: (2, 4, 3, 3)
    factor: int 0
    2 doubles both sides."""),
    (lambda: F.pixel_shuffle(t(4, 3), 2), ShapeError, """\
pixel_shuffle: x is (.., C, H, W) and the factor a whole number of at least 1.
    x: (4, 3)
    factor: int 2
    Did you mean x.unsqueeze(0)?"""),
    (lambda: F.channel_shuffle(t(2, 6, 3, 3), 4), ShapeError, """\
channel_shuffle: x is (N, C, ...) and groups divides C.
    x: (2, 6, 3, 3)
    groups: 4
    Choose a divisor of the number of channels."""),
]


@pytest.mark.parametrize("call, kind, text", ERRORS)
def test_messages(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text
