"""Activations: which slope each kink has, numbers far out, second derivatives that overflow must not spoil, messages."""

import math

import numpy as np
import pytest

import minidl
from minidl.backend.layout import is_stored_right
from minidl.core.errors import MinidlError
from tests.test_functions import slopes

F = minidl.nn.functional
INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("function, at, expected", [
    (F.leaky_relu, [-1, 0, 2], [0.01, 0.01, 1]),
    (F.elu, [-1, 0, 2], [math.exp(-1), 1, 1]),
    (lambda x: F.elu(x, 0.5), [0], [0.5]),
    (lambda x: F.celu(x, 0.5), [-1, 0], [math.exp(-2), 1]),
    (F.relu6, [-1, 0, 3, 6, 7], [0, 0, 1, 0, 0]),
    (F.hardtanh, [-2, -1, 0, 1, 2], [0, 0, 1, 0, 0]),
    (F.hardsigmoid, [-3, 0, 3], [0, 1 / 6, 0]),
    (F.hardswish, [-4, -3, 0, 3, 4], [0, 0, 0.5, 1, 1]),
    (lambda x: F.hardshrink(x), [-1, -0.5, 0, 0.5, 1], [1, 0, 0, 0, 1]),
    (lambda x: F.softshrink(x), [-1, -0.5, 0, 0.5, 1], [1, 0, 0, 0, 1]),
    (lambda x: F.threshold(x, 1, 7), [0, 1, 2], [0, 0, 1]),
    (F.softsign, [0, 1], [1, 0.25]),
    (lambda x: F.softplus(x, beta=2, threshold=4), [2, 2.5], [1 / (1 + math.exp(-4)), 1]),
    (F.gelu, [0], [0.5]), (F.silu, [0], [0.5]), (F.mish, [0], [0.6]), (F.logsigmoid, [0], [0.5]), (F.tanhshrink, [0], [0]),
])
def test_subgradients(function, at, expected):
    assert slopes(function, [float(v) for v in at]) == pytest.approx(expected, rel=1e-15)


SMOOTH = ["elu", "celu", "selu", "gelu", "silu", "softplus", "logsigmoid", "mish", "leaky_relu", "hardtanh", "relu6", "hardswish",
          "hardsigmoid", "softsign", "tanhshrink", "hardshrink", "softshrink"]


@pytest.mark.parametrize("name", SMOOTH)
def test_far_out_nothing_overflows(name):
    """Values, first and second derivatives are finite where the function is."""
    at = [-1e4, -800.0, -100.0, 100.0, 800.0, 1e4]
    function = getattr(F, name)
    assert np.isfinite(function(minidl.tensor(at, dtype="float64")).array).all()
    assert np.isfinite(slopes(function, at)).all() and np.isfinite(slopes(function, at, order=2)).all()


def test_far_out_values():
    x = minidl.tensor([-1000.0, 1000.0], dtype="float64")
    assert F.softplus(x, threshold=5000).tolist() == [0, 1000]
    assert F.logsigmoid(x).tolist() == [-1000, 0]
    assert F.silu(x).tolist() == [0, 1000] and F.gelu(x).tolist() == [0, 1000] and F.mish(x).tolist() == [0, 1000]
    assert F.gelu(x, approximate="tanh").tolist() == [0, 1000]
    assert F.logsigmoid(minidl.tensor([-INF, INF])).tolist() == [-INF, 0]


@pytest.mark.parametrize("name", SMOOTH)
def test_nan_stays_nan_and_layout_stays(name):
    assert np.isnan(getattr(F, name)(minidl.tensor([NAN])).array[0])
    x = minidl.randn(2, 3, 4, 5)
    assert is_stored_right(getattr(F, name)(x).array) and getattr(F, name)(x).dtype == minidl.float32
    assert getattr(F, name)(minidl.zeros(0, 3)).shape == (0, 3)


def test_prelu_weights():
    x = minidl.tensor([[-1.0, 2.0], [0.0, -4.0]], dtype="float64", requires_grad=True)
    w = minidl.tensor([0.5, 0.25], dtype="float64", requires_grad=True)
    F.prelu(x, w).sum().backward()
    assert x.grad.tolist() == [[0.5, 1], [0.5, 0.25]] and w.grad.tolist() == [-1, -4]
    one = minidl.tensor([0.1], dtype="float64", requires_grad=True)
    F.prelu(minidl.tensor([INF, 1.0, -2.0], dtype="float64"), one).sum().backward()
    assert one.grad.tolist() == [-2]  # +inf lies above 0: it takes no part


def test_gates():
    x = minidl.tensor([[1.0, 2.0, 0.0, 100.0]])
    assert F.glu(x).tolist() == [[0.5, 2.0]]
    assert F.softmin(minidl.tensor([0.0, 0.0]), dim=0).tolist() == [0.5, 0.5]


def test_inplace_writes_nothing():
    x = minidl.tensor([-1.0, 2.0])
    for name in ("leaky_relu", "elu", "celu", "selu", "silu", "mish", "hardtanh", "relu6", "hardswish", "hardsigmoid"):
        getattr(F, name)(x, inplace=True)
    assert x.tolist() == [-1, 2]


MESSAGES = {
    "gelu: only floating point numbers have it.": lambda: F.gelu(minidl.tensor([1])),
    "gelu: approximate 'erf' is not known.": lambda: F.gelu(minidl.ones(2), approximate="erf"),
    "celu: alpha must not be 0.": lambda: F.celu(minidl.ones(2), alpha=0),
    "hardtanh: min_val must not be above max_val.": lambda: F.hardtanh(minidl.ones(2), 1, -1),
    "softshrink: lambd must not be negative.": lambda: F.softshrink(minidl.ones(2), -1),
    "glu: the axis must have an even size: one half gates the other.": lambda: F.glu(minidl.ones(2, 3)),
    "prelu: weight has one element, or one per channel of x.": lambda: F.prelu(minidl.ones(2, 3), minidl.ones(2)),
}


@pytest.mark.parametrize("text", MESSAGES)
def test_messages(text):
    with pytest.raises(MinidlError) as raised:
        MESSAGES[text]()
    assert str(raised.value).splitlines()[0] == text and len(str(raised.value).splitlines()) >= 3
