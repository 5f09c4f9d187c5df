"""gather, scatter and their kin, diagonals and triangles: small cases by hand, repeated places, storage order, messages."""

import numpy as np
import pytest

import minidl
from minidl.autograd import grad
from minidl.backend.layout import is_stored_right
from minidl.core.errors import MinidlError

INF = float("inf")
t = minidl.tensor


def leaf(values):
    return minidl.tensor(values, dtype="float64", requires_grad=True)


def test_gather_and_back():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = x.gather(1, t([[0, 0], [1, 0]]))
    assert y.tolist() == [[1, 1], [4, 3]]
    g, = grad(y, [x], t([[1.0, 10.0], [100.0, 1000.0]], dtype="float64"))
    assert g.tolist() == [[11, 0], [1000, 100]]  # picked twice: both gradients


def test_an_index_shorter_than_x():
    assert t([[1, 2, 3], [4, 5, 6]]).gather(0, t([[1, 0]])).tolist() == [[4, 2]]
    assert t([[1, 2], [3, 4]]).scatter(1, t([[1]]), t([[9]])).tolist() == [[1, 9], [3, 4]]
    assert t([1, 2, 3]).gather(0, minidl.zeros(0, dtype="int64")).shape == (0,)


def test_the_last_of_several_wins_and_alone_gets_the_gradient():
    x, src = leaf([1.0, 2.0, 3.0]), leaf([10.0, 20.0, 30.0, 40.0])
    y = x.scatter(0, t([2, 0, 2, 0]), src)
    assert y.tolist() == [40, 2, 30]
    g_x, g_src = grad(y, [x, src], t([1.0, 10.0, 100.0], dtype="float64"))
    assert g_x.tolist() == [0, 10, 0] and g_src.tolist() == [0, 0, 100, 1]


def test_scatter_add_adds_repeated_places():
    x, src = leaf([1.0, 2.0, 3.0]), leaf([10.0, 20.0, 30.0])
    y = x.scatter_add(0, t([2, 0, 2]), src)
    assert y.tolist() == [21, 2, 43]
    g_x, g_src = grad(y, [x, src], t([1.0, 10.0, 100.0], dtype="float64"))
    assert g_x.tolist() == [1, 10, 100] and g_src.tolist() == [100, 1, 100]
    assert y.tolist() == x.scatter(0, t([2, 0, 2]), src, reduce="add").tolist()


def test_scatter_of_a_number_and_nan():
    x = t([1.0, 2.0, float("nan")])
    assert x.scatter(0, t([2]), 7).tolist() == [1, 2, 7] and x.scatter(0, t([2]), value=INF).tolist() == [1, 2, INF]
    assert t([True, False]).scatter(0, t([1]), True).dtype == minidl.bool


def test_slices():
    x = leaf([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert x.index_select(0, t([2, 0, 2])).tolist() == [[5, 6], [1, 2], [5, 6]]
    y = x.index_add(0, t([1, 1]), t([[1.0, 2.0], [10.0, 20.0]], dtype="float64"), alpha=2)
    assert y.tolist() == [[1, 2], [25, 48], [5, 6]]
    assert x.take_along_dim(t([[1], [0], [1]]), 1).tolist() == [[2], [3], [6]]
    assert x.take_along_dim(t([5, 0])).tolist() == [6, 1]


def test_masks():
    x, value = leaf([1.0, 2.0, 3.0]), leaf(9.0)
    y = x.masked_fill(t([True, False, True]), value)
    g_x, g_value = grad(y, [x, value], t([1.0, 10.0, 100.0], dtype="float64"))
    assert y.tolist() == [9, 2, 9] and g_x.tolist() == [0, 10, 0] and g_value.item() == 101
    masked = x.masked_fill(t([True, False, True]), -INF)
    assert grad(masked.softmax(0)[1], [x])[0].tolist() == [0, 0, 0]  # not NaN
    assert x.masked_select(x > 1).tolist() == [2, 3] and x.masked_fill(t([[True], [False]]), 0).shape == (2, 3)
    assert t([1, 2]).masked_fill(t([True, False]), 5).dtype == minidl.int64


def test_roll():
    x = t([[1, 2, 3], [4, 5, 6]])
    assert x.roll(1).tolist() == [[6, 1, 2], [3, 4, 5]] and x.roll(1, 1).tolist() == [[3, 1, 2], [6, 4, 5]]
    assert x.roll((1, -1), (0, 1)).tolist() == [[5, 6, 4], [2, 3, 1]]


def test_diagonals():
    x = t([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert x.diagonal().tolist() == [1, 5] and x.diagonal(1).tolist() == [2, 6] and x.diagonal(-1).tolist() == [4]
    assert x.diagonal(3).shape == (0,) and x.trace().item() == 6
    assert t([1, 2]).diag().tolist() == [[1, 0], [0, 2]] and t([1, 2]).diag(-1).tolist() == [[0, 0, 0], [1, 0, 0], [0, 2, 0]]
    assert x.diag_embed().shape == (2, 3, 3) and x.diag_embed(dim1=0, dim2=2).diagonal(dim1=0, dim2=2).tolist() == x.tolist()
    x.diagonal().array[...] = 0  # no view of x
    assert x.trace().item() == 6


def test_triangles_do_not_let_nan_through():
    x = t([[1.0, float("nan")], [2.0, 3.0]])
    assert x.tril().tolist() == [[1, 0], [2, 3]] and x.triu(1).isnan().tolist() == [[False, True], [False, False]]
    causal = minidl.zeros(2, 2).masked_fill(minidl.ones(2, 2).triu(1) > 0, -INF)
    assert causal.tolist() == [[0, -INF], [0, 0]]


@pytest.mark.parametrize("call", [
    lambda x: x.gather(1, t(np.zeros((2, 2, 4, 5), np.int64))), lambda x: x.scatter(0, t(np.zeros((1, 3, 4, 5), np.int64)), 1.0),
    lambda x: x.masked_fill(x > 0, 0), lambda x: x.roll(1, 2), lambda x: x.tril(), lambda x: x[0].diag_embed(),
    lambda x: x.index_select(1, t([0, 2]))])
def test_storage_and_dtype(call):
    y = call(minidl.randn(2, 3, 4, 5))
    assert is_stored_right(y.array) and y.dtype == minidl.float32


def test_inputs_are_not_written_to():
    x, index = minidl.zeros(3), t([1])
    x.scatter(0, index, 5), x.scatter_add(0, index, minidl.ones(1)), x.index_add(0, index, minidl.ones(1)), x.masked_fill(x == 0, 1)
    assert x.tolist() == [0, 0, 0]


MESSAGES = {
    "gather: index 3 lies outside the axis.": lambda: minidl.ones(2, 3).gather(1, t([[3]])),
    "gather: index -1 lies outside the axis.": lambda: minidl.ones(3).gather(0, t([-1])),
    "gather: an index is a tensor of integers.": lambda: minidl.ones(3).gather(0, t([1.0])),
    "gather: index must have as many axes as x.": lambda: minidl.ones(2, 3).gather(0, t([1])),
    "gather: axis 0 of index is longer than x's.": lambda: minidl.ones(1, 3).gather(1, t([[0], [1]])),
    "scatter: reduce = 'multiply' is not one of minidl's.": lambda: minidl.ones(3).scatter(0, t([1]), 2, reduce="multiply"),
    "scatter: src and x must have one dtype.": lambda: minidl.ones(3).scatter(0, t([1]), t([1])),
    "scatter_add: src must be at least as long as index along every axis.":
        lambda: minidl.ones(3).scatter_add(0, t([1, 2]), minidl.ones(1)),
    "index_select: index must have one axis.": lambda: minidl.ones(3).index_select(0, t([[1]])),
    "index_add: source must have the shape of the slices that index names.": lambda: minidl.ones(3).index_add(0, t([1]), minidl.ones(2)),
    "take_along_dim: indices must have as many axes as x.": lambda: minidl.ones(2, 3).take_along_dim(t([1]), 1),
    "masked_fill: mask must be a Tensor of booleans.": lambda: minidl.ones(3).masked_fill(t([1]), 0),
    "masked_fill: value must be one number.": lambda: minidl.ones(3).masked_fill(t([True]), minidl.ones(3)),
    "masked_fill: int64 cannot hold the value.": lambda: t([1]).masked_fill(t([True]), -INF),
    "roll: there must be one shift per axis.": lambda: minidl.ones(2, 3).roll((1, 2), 0),
    "tril: a triangle needs two axes.": lambda: minidl.ones(3).tril(),
    "diagonal: the two axes must differ.": lambda: minidl.ones(2, 3).diagonal(0, 1, -1),
    "diagonal: a diagonal needs two axes.": lambda: minidl.ones(2).diagonal(),
    "diag: x must be a vector or a matrix.": lambda: minidl.ones(2, 2, 2).diag(),
    "diag_embed: x must have at least one axis.": lambda: minidl.ones(()).diag_embed(),
    "trace: x must be a matrix.": lambda: minidl.ones(2).trace(),
}


@pytest.mark.parametrize("text", MESSAGES)
def test_messages(text):
    with pytest.raises(MinidlError) as raised:
        MESSAGES[text]()
    assert str(raised.value).splitlines()[0] == text and len(str(raised.value).splitlines()) >= 3
