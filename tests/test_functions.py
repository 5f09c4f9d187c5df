"""More functions of one element: erf against math.erf, rounding, quotients and angles at their corners, dtypes, messages."""

import math

import numpy as np
import pytest

import minidl
from minidl.autograd import grad
from minidl.backend.erf import erf as erf_of_array
from minidl.backend.layout import is_stored_right
from minidl.core.errors import MinidlError

INF, NAN = float("inf"), float("nan")


def slopes(function, *values, order=1):
    """The gradients of function at these numbers, one list per argument; of its slope in the first one for order 2."""
    inputs = [minidl.tensor(v, dtype="float64", requires_grad=True) for v in values]
    found = grad(function(*inputs).sum(), inputs, create_graph=order > 1)
    if order > 1 and found[0].requires_grad:  # else it is constant
        found = grad(found[0].sum(), inputs)
    elif order > 1:
        found = [g * 0 for g in found]
    return [g.tolist() for g in found] if len(found) > 1 else found[0].tolist()


def test_erf_is_right_to_two_units_in_the_last_place():
    x = np.concatenate([np.linspace(-7, 7, 100_001), np.logspace(-300, 0, 500), [1.0, -1.0, 6.0, 0.0, INF, -INF]])
    exact = np.array([math.erf(v) for v in x])
    error = np.abs(erf_of_array(x) - exact) / np.spacing(np.abs(exact))
    assert error.max() <= 2
    narrow = x.astype(np.float32)
    found = erf_of_array(narrow)
    error = np.abs(found - [math.erf(v) for v in narrow.tolist()]) / np.spacing(np.maximum(np.abs(found), 1e-30))
    assert error.max() <= 4 and found.dtype == np.float32


def test_erf_notices_a_wrong_digit(monkeypatch):
    from minidl.backend import erf
    monkeypatch.setattr(erf, "P", (*erf.P[:3], erf.P[3] * (1 + 1e-12), *erf.P[4:]))
    assert abs(erf_of_array(np.array([0.9])) - math.erf(0.9))[0] > 2 * np.spacing(math.erf(0.9))


def test_erf_far_out_and_in_every_shape():
    x = minidl.tensor([NAN, INF, -INF, 1e300, -0.0])
    assert repr(x.erf().tolist()) == "[nan, 1.0, -1.0, 1.0, -0.0]"
    assert minidl.tensor(0.5).erf().item() == pytest.approx(math.erf(0.5))
    assert minidl.zeros(0, 3).erf().shape == (0, 3)
    assert minidl.tensor([0.5], dtype="float16").erf().dtype == minidl.float16
    assert is_stored_right(minidl.randn(2, 3, 4, 5).erf().array)


@pytest.mark.parametrize("name, expected", [
    ("round", [-2, -2, -0.0, 0, 2, 2]), ("floor", [-3, -2, -1, 0, 1, 2]),
    ("ceil", [-2, -1, -0.0, 1, 2, 3]), ("trunc", [-2, -1, -0.0, 0, 1, 2]),
])
def test_rounding(name, expected):
    x = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    assert repr(getattr(minidl, name)(minidl.tensor(x)).tolist()) == repr([float(v) for v in expected])
    assert slopes(getattr(minidl, name), [*x, 0.0, 1.0]) == [0] * 8
    whole = minidl.tensor([-2, 7])
    assert getattr(minidl, name)(whole).dtype == minidl.int64 and getattr(minidl, name)(whole).tolist() == [-2, 7]


def test_round_to_decimals():
    x = minidl.tensor([0.25, 1.35, -12.34], dtype="float64")
    assert x.round(decimals=1).tolist() == [0.2, 1.4, -12.3]
    assert x.round(decimals=-1).tolist() == [0, 0, -10]


@pytest.mark.parametrize("function, at, expected", [
    (minidl.rsqrt, [4.0], [-0.0625]), (minidl.rsqrt, [0.0], [-INF]), (minidl.reciprocal, [2.0, 0.0], [-0.25, -INF]),
    (minidl.square, [-3.0, 0.0], [-6, 0]), (minidl.log1p, [0.0, -1.0], [1, INF]), (minidl.expm1, [0.0, -1000.0], [1, 0]),
    (minidl.sin, [0.0], [1]), (minidl.cos, [0.0], [0]), (minidl.erf, [0.0, 30.0], [2 / math.sqrt(math.pi), 0]),
])
def test_slopes(function, at, expected):
    assert slopes(function, at) == expected


def test_tiny_arguments_keep_their_digits():
    x = minidl.tensor([1e-300, -1e-300, 1e-12], dtype="float64")
    for f, g in ((minidl.expm1, np.expm1), (minidl.log1p, np.log1p)):
        assert f(x).tolist() == g(x.array).tolist()


def test_fmod_has_the_sign_of_x():
    x, other = minidl.tensor([5.0, -5.0, 5.5]), minidl.tensor([3.0, 3.0, -2.0])
    assert minidl.fmod(x, other).tolist() == [2, -2, 1.5]
    assert slopes(minidl.fmod, [5.0, -5.0, 5.5], [3.0, 3.0, -2.0]) == [[1, 1, 1], [-1, 1, 2]]
    assert minidl.fmod(minidl.tensor([5, -5]), 3).tolist() == [2, -2]


def test_there_is_no_angle_and_no_direction_at_the_origin():
    assert slopes(minidl.atan2, [0.0, 1.0], [0.0, 0.0]) == [[0, 0], [0, -1]]
    assert slopes(minidl.hypot, [0.0, 3.0], [0.0, 4.0]) == [[0, pytest.approx(0.6)], [0, 0.8]]
    assert slopes(minidl.hypot, [0.0], [0.0], order=2) == [[0], [0]]  # not NaN
    assert slopes(minidl.atan2, [0.0], [0.0], order=2) == [[0], [0]]
    assert minidl.hypot(minidl.tensor([1e300], dtype="float64"), 1e300).item() < INF


def test_dtypes():
    whole = minidl.tensor([1, 2])
    names = "rsqrt", "reciprocal", "sin", "cos", "erf", "log1p", "expm1"
    assert all(getattr(minidl, name)(whole).dtype == minidl.float32 for name in names)
    assert minidl.square(whole).dtype == minidl.int64 and minidl.square(whole > 1).dtype == minidl.int64
    assert minidl.atan2(whole, whole).dtype == minidl.float32
    assert minidl.hypot(minidl.tensor([3.0]), 4).dtype == minidl.float32


MESSAGES = {
    "round: integers have no decimals.": lambda: minidl.tensor([12]).round(decimals=1),
    "floor: booleans have no such arithmetic.": lambda: minidl.tensor([True]).floor(),
    "fmod: integers cannot be divided by 0.": lambda: minidl.fmod(minidl.tensor([1]), 0),
    "atan2: the shapes do not broadcast: axis -1 has sizes 2 and 3.": lambda: minidl.atan2(minidl.ones(2), minidl.ones(3)),
}


@pytest.mark.parametrize("text", MESSAGES)
def test_messages(text):
    with pytest.raises(MinidlError) as raised:
        MESSAGES[text]()
    assert str(raised.value).splitlines()[0] == text and len(str(raised.value).splitlines()) >= 3


def test_activations_of_images_are_not_laid_out_again():
    from minidl.backend.counters import COUNTS
    x = minidl.randn(2, 3, 4, 5, requires_grad=True)
    before = COUNTS["layout conversion"]
    for function in (minidl.erf, minidl.nn.functional.gelu, minidl.nn.functional.silu, minidl.nn.functional.elu, minidl.sin):
        function(x).square().sum().backward()
    assert COUNTS["layout conversion"] == before
