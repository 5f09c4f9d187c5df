"""How parameters start: shapes, bounds, repeatability, storage, and every message."""

import math

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.backend.layout import is_stored_right
from minidl.nn import init


def drawn(function, *shape, dtype=minidl.float64, **settings):
    minidl.manual_seed(0)
    return function(minidl.empty(*shape, dtype=dtype), **settings).array


WITH_CHANCE = [init.uniform_, init.normal_, init.trunc_normal_, init.xavier_uniform_, init.xavier_normal_, init.kaiming_uniform_,
               init.kaiming_normal_, init.orthogonal_, lambda t, **settings: init.sparse_(t.reshape(15, -1), 0.5, **settings)]


@pytest.mark.parametrize("function", WITH_CHANCE, ids=lambda f: f.__name__)
def test_a_seed_and_a_generator_repeat(function):
    first = drawn(function, 5, 3, 4, 2)
    assert np.array_equal(first, drawn(function, 5, 3, 4, 2)) and np.any(first != first.flat[0])
    streams = [minidl.Generator().manual_seed(0) for _ in range(2)]
    ours, again = (function(minidl.empty(5, 3, 4, 2, dtype=minidl.float64), generator=stream).array for stream in streams)
    assert np.array_equal(ours, again)


@pytest.mark.parametrize("function", WITH_CHANCE[:-1], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_storage_and_identity_stay(function, dtype):
    conv = nn.Conv2d(3, 4, 3, dtype=dtype)
    array = conv.weight.array
    assert function(conv.weight) is conv.weight and conv.weight.array is array
    assert array.dtype == dtype and is_stored_right(array) and np.isfinite(array).all()


def test_outside_the_graph():
    param = nn.Parameter(minidl.ones(3))
    init.zeros_(param)
    assert param.is_leaf and param.requires_grad and np.all(param.array == 0)


BOUNDS = [(0, 1, -2, 2), (0, 0.02, -2, 2), (1, 2, -1, 0.5), (0, 1, 3, 4), (0, 1, -0.01, 0.02), (5, 1, -2, 2), (0, 1, 3, math.inf),
          (0, 1, -100, -30)]


def normal_density(z):
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("mean, std, a, b", BOUNDS)
def test_a_truncated_normal_has_the_right_mean(mean, std, a, b):
    values = drawn(init.trunc_normal_, 400, 500, mean=mean, std=std, a=a, b=b)
    assert values.min() >= a and values.max() <= b
    low, high = (a - mean) / std, (b - mean) / std
    share = (math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2))) / 2
    if abs(low) > 20 and low * high > 0:  # so far out the density falls like an exponential
        expected = b - std / abs(high)
    else:
        expected = mean + std * (normal_density(low) - normal_density(high)) / share
    assert abs(values.mean() - expected) <= 6 * values.std() / math.sqrt(values.size) + 1e-4 * std * (low < -20)


def test_a_truncated_normal_is_normal_inside():
    values = drawn(init.trunc_normal_, 400, 500, a=-1, b=2)
    share = lambda z: (1 + math.erf(z / math.sqrt(2))) / 2
    for z in np.linspace(-0.9, 1.9, 9):
        expected = (share(z) - share(-1)) / (share(2) - share(-1))
        assert abs((values < z).mean() - expected) <= 6 * math.sqrt(expected * (1 - expected) / values.size)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3, 3)])
def test_orthogonal(shape):
    matrix = drawn(init.orthogonal_, *shape, gain=2).reshape(shape[0], -1)
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    assert np.abs(matrix @ matrix.T - 4 * np.eye(len(matrix))).max() <= 1e-12


def test_dirac_copies_the_input():
    conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    init.dirac_(conv.weight)
    x = minidl.randn(2, 3, 4, 5)
    assert np.array_equal(conv(x).detach().array, x.array)


def test_sparse_columns():
    values = drawn(lambda t: init.sparse_(t, 0.25), 21, 9)
    assert np.all((values == 0).sum(0) == 6)  # 21 · 0.25, rounded up


@pytest.mark.parametrize("code", ["nn.Conv2d(3, 4, 0 + 1)", "nn.Linear(0, 3)", "nn.Linear(3, 0)", "nn.Embedding(0, 3)"])
def test_sizes_of_zero_and_one(code):
    assert all(np.isfinite(param.array).all() for param in eval(code).parameters())


def test_a_padding_row_starts_as_zero():
    assert np.all(nn.Embedding(4, 3, padding_idx=-2).weight.array[2] == 0)


MESSAGES = [
    (lambda t: init.trunc_normal_(t, a=1, b=-1), ValueError, ["init.trunc_normal_: the bounds must enclose something", "a = 1, b = -1"]),
    (lambda t: init.eye_(t), ValueError, ["init.eye_: the tensor must have two axes.", "shape: (4,)"]),
    (lambda t: init.dirac_(t), ValueError, ["init.dirac_: the tensor must have three to five axes"]),
    (lambda t: init.dirac_(minidl.empty(4, 2, 3), 3), ValueError, ["groups must divide the number of filters.", "O = 4, groups = 3"]),
    (lambda t: init.orthogonal_(t), ValueError, ["init.orthogonal_: the tensor must have at least two axes"]),
    (lambda t: init.sparse_(t, 0.5), ValueError, ["init.sparse_: the tensor must have two axes."]),
    (lambda t: init.xavier_normal_(t), ValueError, ["init.xavier: the tensor must have at least two axes", "zeros_, ones_ or uniform_"]),
    (lambda t: init.kaiming_normal_(t), ValueError, ["init.kaiming: the tensor must have at least two axes"]),
    (lambda t: init.kaiming_normal_(minidl.empty(2, 2), mode="fan"), ValueError, ["mode must be 'fan_in' or 'fan_out'."]),
    (lambda t: init.calculate_gain("swish"), ValueError, ["no gain is known for 'swish'.", "known: linear, sigmoid"]),
]


@pytest.mark.parametrize("call, kind, parts", MESSAGES, ids=[parts[0][:40] for _, _, parts in MESSAGES])
def test_a_message(call, kind, parts):
    with pytest.raises(kind) as caught:
        call(minidl.empty(4))
    assert [part for part in parts if part not in str(caught.value)] == []
