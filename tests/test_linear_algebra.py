"""Strict products (mm, bmm, addmm, ...), tensordot, and the words for rearranging: values by NumPy, messages."""

import numpy as np
import pytest

import minidl
from minidl.backend.layout import is_stored_right
from minidl.core.errors import MinidlError

t = minidl.tensor


def test_products():
    x, y = minidl.randn(2, 3, dtype="float64"), minidl.randn(3, 4, dtype="float64")
    np.testing.assert_allclose(x.mm(y).array, x.array @ y.array)
    np.testing.assert_allclose(minidl.outer(x[0], y[0]).array, np.outer(x.array[0], y.array[0]))
    np.testing.assert_allclose(x.mv(y[:, 0]).array, x.array @ y.array[:, 0])
    np.testing.assert_allclose(minidl.tensordot(x, y, 1).array, x.array @ y.array)
    np.testing.assert_allclose(minidl.tensordot(x, y, ([1], [0])).array, x.array @ y.array)
    np.testing.assert_allclose(minidl.addmm(y[:2], x, y, beta=0.5, alpha=2).array, 0.5 * y.array[:2] + 2 * (x.array @ y.array))
    assert t([1, 2]).dot(t([3, 4])).item() == 11 and t([1, 2]).dot(t([3, 4])).dtype == minidl.int64


def test_beta_0_does_not_look_at_input():
    nan = minidl.full((2, 2), float("nan"))
    assert minidl.addmm(nan, minidl.ones(2, 3), minidl.ones(3, 2), beta=0).tolist() == [[3, 3], [3, 3]]
    assert minidl.baddbmm(nan, minidl.ones(1, 2, 3), minidl.ones(1, 3, 2), beta=0, alpha=2).tolist() == [[[6, 6], [6, 6]]]


def test_nothing_to_multiply():
    assert minidl.zeros(0, 3).mm(minidl.zeros(3, 2)).shape == (0, 2) and minidl.zeros(2, 0).mm(minidl.zeros(0, 3)).sum().item() == 0
    assert minidl.outer(minidl.zeros(0), minidl.zeros(3)).shape == (0, 3) and minidl.tensordot(t(2.0), t([1.0, 2.0]), 0).tolist() == [2, 4]


def test_words_for_moving():
    x = t(np.arange(6).reshape(2, 3))
    assert x.t().tolist() == [[0, 3], [1, 4], [2, 5]] and x[0].t().tolist() == [0, 1, 2]
    assert x.repeat(1, 2).tolist() == [[0, 1, 2, 0, 1, 2], [3, 4, 5, 3, 4, 5]] and x.repeat(2, 1, 1).shape == (2, 2, 3)
    assert x.tile(2).tolist() == x.repeat(1, 2).tolist()
    assert x.repeat_interleave(2, 0).tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
    assert x.repeat_interleave(t([0, 2]), dim=0).tolist() == [[3, 4, 5], [3, 4, 5]] and x.repeat_interleave(t([2])).shape == (12,)
    assert minidl.zeros(2, 3, 4).movedim(0, -1).shape == (3, 4, 2) and minidl.zeros(2, 3, 4).movedim((0, 1), (2, 0)).shape == (3, 4, 2)
    assert minidl.zeros(2, 6).unflatten(1, (3, -1)).shape == (2, 3, 2) and x.ravel().shape == (6,)
    assert x.broadcast_to((4, 2, 3)).shape == (4, 2, 3) and x.swapaxes(0, 1).tolist() == x.t().tolist()
    a, b = minidl.broadcast_tensors(minidl.ones(2, 1), minidl.ones(3))
    assert a.shape == b.shape == (2, 3)


def test_meshgrid():
    rows, columns = minidl.meshgrid(t([1, 2]), t([3, 4, 5]), indexing="ij")
    assert rows.tolist() == [[1, 1, 1], [2, 2, 2]] and columns.tolist() == [[3, 4, 5], [3, 4, 5]]
    x, y = minidl.meshgrid(t([1, 2]), t([3, 4, 5]), indexing="xy")
    assert x.tolist() == [[1, 2], [1, 2], [1, 2]] and y.tolist() == [[3, 3], [4, 4], [5, 5]]


@pytest.mark.parametrize("call", [
    lambda x: x.repeat(2, 1, 1, 2), lambda x: x.repeat_interleave(2, 1), lambda x: x.repeat_interleave(t([2, 1]), 0)])
def test_storage(call):
    assert is_stored_right(call(minidl.randn(2, 3, 4, 5)).array)


MESSAGES = {
    "mm: x must have 2 axes (N, K).": lambda: minidl.ones(2, 2, 3).mm(minidl.ones(3, 2)),
    "mm: axis K disagrees.": lambda: minidl.ones(2, 3).mm(minidl.ones(2, 3)),
    "bmm: axis B disagrees.": lambda: minidl.ones(2, 3, 4).bmm(minidl.ones(1, 4, 3)),
    "mv: vec must have 1 axes (K).": lambda: minidl.ones(2, 3).mv(minidl.ones(3, 1)),
    "dot: axis K disagrees.": lambda: minidl.ones(2).dot(minidl.ones(3)),
    "outer: x must have 1 axes (N).": lambda: minidl.ones(2, 2).outer(minidl.ones(3)),
    "addmm: input must broadcast to the product.": lambda: minidl.ones(3).addmm(minidl.ones(2, 3), minidl.ones(3, 2)),
    "tensordot: the axes that are summed must agree in number and size.": lambda: minidl.tensordot(minidl.ones(2, 3), minidl.ones(2, 3), 1),
    "tensordot: dims counts axes that both tensors have.": lambda: minidl.tensordot(minidl.ones(2), minidl.ones(2, 2), 2),
    "t: x must have at most two axes.": lambda: minidl.ones(2, 2, 2).t(),
    "movedim: every axis needs one place to go.": lambda: minidl.ones(2, 2).movedim((0, 1), 0),
    "repeat: there must be a size ≥ 0 for every axis of x, and there may be more.": lambda: minidl.ones(2, 2).repeat(2),
    "repeat_interleave: repeats holds one number per slice.": lambda: minidl.ones(2, 2).repeat_interleave(t([1, 2, 3]), 0),
    "unflatten: the sizes must multiply to the size of axis 1.": lambda: minidl.ones(2, 6).unflatten(1, (4, -1)),
    "meshgrid: indexing 'yx' is not known.": lambda: minidl.meshgrid(minidl.ones(2), indexing="yx"),
    "meshgrid: the coordinates must be vectors.": lambda: minidl.meshgrid(minidl.ones(2, 2)),
}


@pytest.mark.parametrize("text", MESSAGES)
def test_messages(text):
    with pytest.raises(MinidlError) as raised:
        MESSAGES[text]()
    assert str(raised.value).splitlines()[0] == text and len(str(raised.value).splitlines()) >= 3
