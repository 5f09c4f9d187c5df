"""Products and running products with zeros, norms at their corners, the order of equal elements, medians, messages."""

import numpy as np
import pytest

import minidl
from minidl.autograd import grad
from minidl.backend.layout import is_stored_right
from minidl.core.errors import MinidlError
from tests.test_functions import slopes

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("at, expected", [
    ([2.0, 3.0, 4.0], [12, 8, 6]), ([2.0, 0.0, 4.0], [0, 8, 0]), ([0.0, 0.0, 4.0], [0, 0, 0]), ([5.0], [1]), ([], []),
    ([1e100, 1e100, 0.0, 1e-100], [0, 0, 1e100, 0]),
])
def test_prod_with_zeros(at, expected):
    assert slopes(minidl.prod, at) == pytest.approx(expected)
    assert slopes(lambda x: x.prod(0), at) == pytest.approx(expected)


def test_the_second_derivative_of_prod_with_two_zeros():
    x = minidl.tensor([0.0, 3.0, 0.0, 4.0], dtype="float64", requires_grad=True)
    first, = grad(x.prod(), [x], create_graph=True)
    second, = grad(first[0], [x])
    assert first.tolist() == [0, 0, 0, 0] and second.tolist() == [0, 0, 12, 0]  # ∂²/∂x₀∂x₂ = 3 · 4


def test_cumprod_with_zeros():
    at = [2.0, 0.0, 3.0, 0.0, 4.0]
    jacobian = []
    for k in range(5):
        x = minidl.tensor(at, dtype="float64", requires_grad=True)
        jacobian.append(grad(x.cumprod(0)[k], [x])[0].tolist())
    assert jacobian == [[1, 0, 0, 0, 0], [0, 2, 0, 0, 0], [0, 6, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert minidl.cumprod(minidl.tensor(at), 0).tolist() == [2, 0, 0, 0, 0]


def test_running_sums():
    assert minidl.cumsum(minidl.tensor([[1, 2], [3, 4]]), 0).tolist() == [[1, 2], [4, 6]]
    assert minidl.cumsum(minidl.tensor([True, True]), 0).dtype == minidl.int64
    assert minidl.cumsum(minidl.tensor(3.0), 0).shape == ()
    assert slopes(lambda x: x.cumsum(0), [1.0, 5.0, 7.0]) == [3, 2, 1]


def test_logcumsumexp_far_out():
    x = [1000.0, -1000.0, 1000.0, -INF]
    twice = 1000 + np.log(2)
    assert minidl.logcumsumexp(minidl.tensor(x, dtype="float64"), 0).tolist() == pytest.approx([1000, 1000, twice, twice])
    assert slopes(lambda x: x.logcumsumexp(0), x) == pytest.approx([3, 0, 1, 0])
    assert slopes(lambda x: x.logcumsumexp(0), [-INF, -INF, 0.0]) == [0, 0, 1]


@pytest.mark.parametrize("p", [0, 0.5, 1, 1.5, 2, 3, -1, INF, -INF, "fro"])
def test_norm_has_slope_0_at_the_zero_vector(p):
    assert slopes(lambda x: x.norm(p), [0.0, 0.0]) == [0, 0]
    if p in (1, 2, 3, "fro"):
        assert slopes(lambda x: x.norm(p), [0.0, 0.0], order=2) == [0, 0]


@pytest.mark.parametrize("p, value, slope", [
    (0, 2, [0, 0, 0]), (1, 7, [0, 1, -1]), (2, 5, [0, 0.6, -0.8]), (INF, 4, [0, 0, -1]), (-INF, 0, [0, 0, 0]), ("fro", 5, [0, 0.6, -0.8]),
])
def test_norms(p, value, slope):
    x = minidl.tensor([0.0, 3.0, -4.0])
    assert minidl.norm(x, p).item() == value and slopes(lambda x: x.norm(p), x.tolist()) == pytest.approx(slope)


def test_the_largest_share_the_slope_of_the_maximum_norm():
    assert slopes(lambda x: x.norm(INF), [1.0, -3.0, 3.0]) == [0, -0.5, 0.5]


def test_equal_elements_have_no_deviation():
    assert slopes(minidl.std, [2.0, 2.0, 2.0]) == [0, 0, 0] and slopes(minidl.std, [2.0, 2.0], order=2) == [0, 0]
    std, mean = minidl.std_mean(minidl.tensor([[1.0, 3.0], [2.0, 2.0]]), dim=1, correction=0)
    assert std.tolist() == [1, 0] and mean.tolist() == [2, 2]
    assert minidl.var_mean(minidl.tensor([1.0, 3.0]), False)[0].item() == 1


def test_equal_elements_keep_their_order():
    x = minidl.tensor([2, 1, 2, 1, 2])
    assert x.sort().indices.tolist() == [1, 3, 0, 2, 4] and x.argsort(descending=True).tolist() == [0, 2, 4, 1, 3]
    assert x.topk(3).indices.tolist() == [0, 2, 4] and x.topk(3, largest=False).indices.tolist() == [1, 3, 0]
    assert x.median(0).indices.tolist() == 0 and x.median().item() == 2


def test_order_hands_gradients_back():
    weights = minidl.tensor([1.0, 10.0, 100.0], dtype="float64")
    assert slopes(lambda x: x.sort(descending=True).values * weights, [5.0, 7.0, 6.0]) == [100, 1, 10]
    assert slopes(lambda x: x.topk(2).values * weights[:2], [5.0, 7.0, 6.0]) == [0, 1, 10]
    assert slopes(lambda x: x.median(0).values, [5.0, 7.0, 6.0, 1.0]) == [1, 0, 0, 0]
    assert slopes(minidl.median, [1.0, 2.0, 2.0, 5.0, 0.0]) == [0, 0.5, 0.5, 0, 0]  # of all: shared, as amax does


def test_nan_is_the_largest_and_the_median():
    x = minidl.tensor([1.0, NAN, 0.0])
    assert x.sort().indices.tolist() == [2, 0, 1] and x.topk(1).indices.tolist() == [1] and np.isnan(x.median().item())
    values, indices = x.median(0)
    assert np.isnan(values.item()) and indices.item() == 1


@pytest.mark.parametrize("call", [
    lambda x: x.sort(1).values, lambda x: x.cumsum(1), lambda x: x.cumprod(-1), lambda x: x.logcumsumexp(2), lambda x: x.topk(2, 3).values,
    lambda x: x.norm(2, 1, True), lambda x: x.prod(2, True), lambda x: x.std(1, keepdim=True)])
def test_storage_and_dtype(call):
    y = call(minidl.randn(2, 3, 4, 5))
    assert is_stored_right(y.array) and y.dtype == minidl.float32


def test_nothing_to_work_on():
    x = minidl.zeros(0, 3)
    assert x.prod().item() == 1 and x.prod(0).tolist() == [1, 1, 1] and x.norm().item() == 0
    assert x.cumsum(0).shape == x.sort(0).values.shape == x.cumprod(1).shape == (0, 3)
    assert x.topk(0, 0).values.shape == (0, 3)


MESSAGES = {
    "norm: p = 'nuc' is not one of minidl's norms.": lambda: minidl.ones(2, 2).norm("nuc"),
    "norm: no elements have no extreme.": lambda: minidl.zeros(0).norm(INF),
    "norm: only floating point numbers have it.": lambda: minidl.tensor([1]).norm(),
    "median: no elements have no middle.": lambda: minidl.zeros(0).median(),
    "topk: k lies between 0 and the size of the axis.": lambda: minidl.ones(2, 3).topk(4),
    "cumsum: there is no axis 2.": lambda: minidl.ones(2, 3).cumsum(2),
    "logcumsumexp: only floating point numbers have it.": lambda: minidl.tensor([1]).logcumsumexp(0),
}


@pytest.mark.parametrize("text", MESSAGES)
def test_messages(text):
    with pytest.raises(MinidlError) as raised:
        MESSAGES[text]()
    assert str(raised.value).splitlines()[0] == text and len(str(raised.value).splitlines()) >= 3
