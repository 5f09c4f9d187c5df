"""Reductions: axes, empty ones, ties, the numbers that one-pass formulas lose, pairs of values and positions, messages."""

import numpy as np
import pytest

import minidl
from minidl.autograd import grad
from minidl.backend.layout import is_stored_right
from minidl.core.errors import MinidlError

NAMES = ["sum", "mean", "var", "std", "amax", "amin", "all", "any", "logsumexp"]
NUMPY = {"amax": np.max, "amin": np.min, "logsumexp": lambda x, axis, keepdims: np.log(np.exp(x).sum(axis, keepdims=keepdims)),
         "var": lambda x, axis, keepdims: np.var(x, axis, ddof=1, keepdims=keepdims),
         "std": lambda x, axis, keepdims: np.std(x, axis, ddof=1, keepdims=keepdims)}


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2), (-1, 1), (0, 1, 2, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_axes(name, dim, keepdim):
    x = minidl.randn(3, 2, 4, 2, dtype="float64")
    y = getattr(minidl, name)(x, dim=dim, keepdim=keepdim)
    np.testing.assert_allclose(y.array, NUMPY.get(name, getattr(np, name, None))(x.array, axis=dim, keepdims=keepdim), rtol=1e-12)
    assert is_stored_right(y.array)


@pytest.mark.parametrize("name", ["sum", "mean", "amax"])
def test_no_axes_means_all_of_them(name):
    assert getattr(minidl, name)(minidl.ones(2, 3), dim=()).shape == ()


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin", "all", "any", "argmax"])
def test_a_single_number(name):
    assert getattr(minidl, name)(minidl.tensor(3.0), dim=-1).shape == ()


def test_nothing_to_reduce():
    empty = minidl.zeros(0, 3)
    assert empty.sum().item() == 0
    assert empty.sum(0).tolist() == [0, 0, 0]
    assert np.isnan(empty.mean(0).array).all()
    assert np.isnan(empty.var().array)
    assert empty.all().item() is True
    assert empty.any().item() is False
    assert empty.amax(1).shape == (0,)
    assert minidl.logsumexp(empty, 0).tolist() == [-np.inf] * 3
    x = minidl.zeros(0, 3, requires_grad=True)
    x.sum().backward()
    assert x.grad.shape == (0, 3)


def test_variance_of_one_element():
    assert np.isnan(minidl.tensor([3.0]).var().item())
    assert minidl.tensor([3.0]).var(unbiased=False).item() == 0
    assert minidl.tensor([1.0, 3.0]).var(correction=0).item() == 1
    assert minidl.var(minidl.tensor([1.0, 3.0]), False).item() == 1


def test_variance_far_from_zero():
    x = minidl.tensor(1e6 + np.arange(8, dtype=np.float32))
    assert x.var().item() == 6.0
    one_pass = (x * x).mean().item() - x.mean().item() ** 2
    assert abs(one_pass * 8 / 7 - 6.0) > 100  # what the formula with squares would have made of it


@pytest.mark.parametrize("name", ["amax", "max"])
def test_ties_over_all_axes_are_shared(name):
    x = minidl.tensor([[3.0, 1.0], [3.0, 3.0]], requires_grad=True)
    third, = grad(getattr(minidl, name)(x), [x])
    np.testing.assert_allclose(third.array, [[1 / 3, 0], [1 / 3, 1 / 3]])
    by_row, = grad(x.amax(1).sum(), [x])
    assert by_row.tolist() == [[1, 0], [0.5, 0.5]]


def test_along_an_axis_the_first_of_equals_gets_it_all():
    x = minidl.tensor([[3.0, 1.0], [3.0, 3.0]], requires_grad=True)
    values, indices = x.max(1)
    assert indices.tolist() == [0, 0]
    assert grad(values.sum(), [x])[0].tolist() == [[1, 0], [1, 0]]
    values, indices = x.min(0)
    assert indices.tolist() == [0, 0]
    assert grad(values.sum(), [x])[0].tolist() == [[1, 1], [0, 0]]


def test_max_is_three_functions():
    x = minidl.tensor([[1.0, 5.0, 2.0]])
    assert minidl.max(x).item() == x.max().item() == 5
    pair = minidl.max(x, 1, True)
    assert pair.values.tolist() == [[5]]
    assert pair.indices.tolist() == [[1]]
    assert pair.indices.dtype == "int64"
    assert minidl.max(x, minidl.tensor([3.0])).tolist() == x.max(other=minidl.tensor([3.0])).tolist() == [[3, 5, 3]]
    assert x.min(dim=1).values.tolist() == [1]
    assert minidl.min(x, minidl.tensor([3.0])).tolist() == [[1, 3, 2]]


def test_positions():
    x = minidl.randn(2, 3, 4, 5)
    assert x.argmax().item() == np.argmax(np.ascontiguousarray(x.array))  # of the logical order, whatever the storage
    assert x.argmin(2, keepdim=True).shape == (2, 3, 1, 5)
    assert minidl.tensor([1.0, np.nan, 3.0]).argmax().item() == 1
    assert not minidl.ones(2, requires_grad=True).argmax().requires_grad


def test_nan_is_an_extreme():
    x = minidl.tensor([1.0, np.nan, 3.0])
    assert np.isnan(x.amax().item())
    assert np.isnan(x.max(0).values.item())


def test_standard_deviation_of_equal_numbers_has_the_gradient_0():
    x = minidl.ones(3, requires_grad=True)
    x.std().backward()
    assert x.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name, dims", [("sum", (0, 1)), ("mean", -1), ("amax", 0), ("var", 1)])
def test_gradients_own_their_memory(name, dims):
    x = minidl.rand(2, 3, requires_grad=True)
    getattr(x, name)(dims).sum().backward()
    assert x.grad.array.flags.writeable
    assert x.grad.array.flags.c_contiguous


@pytest.mark.parametrize("call, text", [
    (lambda: minidl.ones(2, 3).sum(2), "sum: there is no axis 2."),
    (lambda: minidl.ones(2, 3).sum((0, -2)), "sum: an axis is named twice."),
    (lambda: minidl.tensor([1, 2]).mean(), "mean: only floating point numbers have it."),
    (lambda: minidl.tensor([1, 2]).var(), "var: only floating point numbers have it."),
    (lambda: minidl.zeros(0, 3).amax(), "amax: no elements have no maximum."),
    (lambda: minidl.zeros(0, 3).amin(0), "amin: no elements have no minimum."),
    (lambda: minidl.zeros(0, 3).max(0), "max: no elements have no maximum."),
    (lambda: minidl.zeros(0).argmin(), "argmin: no elements have no minimum."),
])
def test_messages(call, text):
    with pytest.raises(MinidlError) as caught:
        call()
    lines = str(caught.value).split("\n    ")
    assert lines[0] == text
    assert len(lines) >= 3  # the rule, a fact, the fix
