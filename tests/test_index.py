"""Indexing: PyTorch's order of work, duplicates in the gradient, writing, and what a wrong index says."""

import numpy as np
import pytest

import minidl
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError
from minidl.core.gradcheck import check

x = minidl.Tensor(np.arange(60.0).reshape(4, 3, 5))


def test_ints_select_before_arrays_are_looked_at():
    assert x[0, :, [1, 2]].shape == (3, 2)  # NumPy has (2, 3)
    assert x[[1, 2], :, 0].shape == (2, 3)
    assert x[[1, 2], :, [0, 1]].shape == (2, 3)  # arrays apart: their shape comes first, in both
    assert (x[0, :, [1, 2]].array == x.array[0][:, [1, 2]]).all()
    assert x[minidl.tensor(1), [0, 2]].shape == (2, 5)  # a 0-d tensor is an int


def test_results_keep_dtype_and_stay_tensors():
    one = x[1, 2, 3]
    assert isinstance(one, minidl.Tensor) and one.shape == () and one.item() == 28.0
    for name in ("bool", "uint8", "int64", "float16"):
        assert minidl.Tensor(np.ones((2, 3), name))[[0, 1], 1].dtype == name


def test_a_duplicate_collects_every_gradient():
    leaf = minidl.Tensor(np.arange(4.0), True)
    leaf[[1, 1, 3, 1]].backward(minidl.Tensor(np.array([1.0, 10.0, 5.0, 100.0])))
    assert leaf.grad.tolist() == [0.0, 111.0, 0.0, 5.0]
    leaf.grad = None
    leaf[[1, -3]].sum().backward()  # -3 is 1 as well
    assert leaf.grad.tolist() == [0.0, 2.0, 0.0, 0.0]


def test_the_check_would_see_lost_duplicates():
    @minidl.core.op.op("x", name="planted_getitem")
    def planted(x):
        def backward(grad_y):
            grad_x = np.zeros(3)
            grad_x[[1, 1]] = grad_y.array  # assignment keeps the last one only
            return minidl.Tensor(grad_x)
        return x.array[[1, 1]], backward

    try:
        assert not check(planted, [np.arange(3.0)], 1)
        assert check(lambda x: x[[1, 1]], [np.arange(3.0)], 2)
    finally:
        del minidl.core.op.OPS["planted_getitem"]


@pytest.mark.parametrize("index", [
    (0, slice(None), [1, 2]), (0, [1, 2]), (slice(1, 3), None, [0, 0], -1), ([[0], [1]], [0, 2]), (..., [4, 4]), (x > 30,),
    (slice(None, None, 2), ..., 1), (None, [3, 3, 3], ..., None), (True, 0), ([0, 1], slice(None), [2, 2]),
], ids=str)
def test_gradients(index):
    report = check(lambda x: x[index], [np.random.default_rng(0).standard_normal((4, 3, 5))], 2)
    assert report, report


def test_writing_follows_the_same_rules():
    a = minidl.zeros(4, 3, 5)
    a[0, :, [1, 2]] = minidl.ones(3, 2)
    assert a.array.sum() == 6 and (a.array[0][:, [1, 2]] == 1).all()
    a[a == 0] = -1.0
    assert a.array.min() == -1
    a[1, 1, 1] = 7
    a[minidl.tensor([2, 3]), 0] = minidl.arange(5)
    assert a[1, 1, 1].item() == 7 and a[3, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("index, kind, text", [
    (7, RangeError, """x[...]: index 7 lies outside axis 0.
    x: (4, 3, 5), axis 0 has size 4
    Indices go from -4 to 3."""),
    ((0, -4), RangeError, """x[...]: index -4 lies outside axis 1.
    x: (4, 3, 5), axis 1 has size 3
    Indices go from -3 to 2."""),
    ((..., [0, 5, 1]), RangeError, """x[...]: index 5 lies outside axis 2.
    x: (4, 3, 5), axis 2 has size 5
    Indices go from -5 to 4."""),
    ((0, 0, 0, 0), RangeError, """x[...]: an index names every axis at most once, and has at most one '...'.
    x: (4, 3, 5), 3 axes
    the index names 4
    Drop the extra indices."""),
    ((slice(None), slice(None, None, -1)), ArgumentError, """x[...]: the step of a slice must be positive.
    axis 1: ::-1
    Did you mean x.flip(1)?"""),
    ((slice(None), np.ones(4, bool)), ShapeError, """x[...]: a mask must have the size of every axis it covers.
    x: (4, 3, 5), axis 1 has size 3
    mask: (4,), axis 0 has size 4
    Compute the mask from x itself, as in x > 0."""),
    (([0, 1], [0, 1, 2]), ShapeError, """x[...]: the arrays of an index must broadcast to one shape.
    x: (4, 3, 5)
    axis 0: (2,)
    axis 1: (3,)
    For every pair of rows and columns give them shapes (n, 1) and (m,)."""),
    (1.5, DTypeError, """x[...]: an index is made of ints, slices, None, ..., integer arrays and boolean masks.
    got float 1.5
    Convert it: .long() for positions, .bool() for a mask."""),
    (np.array([0.0, 1.0]), DTypeError, """x[...]: an index is made of ints, slices, None, ..., integer arrays and boolean masks.
    got ndarray of shape (2,), float64
    Convert it: .long() for positions, .bool() for a mask."""),
    (np.array([0, 1], "uint8"), DTypeError, """x[...]: an index is made of ints, slices, None, ..., integer arrays and boolean masks.
    got ndarray of shape (2,), uint8
    Convert it: .long() for positions, .bool() for a mask."""),
], ids=str)
def test_a_wrong_index_says_what_is_wrong(index, kind, text):
    with pytest.raises(kind) as caught:
        x[index]
    assert str(caught.value) == text


def test_loops_and_unpacking():
    assert len(list(x)) == 4
    first, *_ = x
    assert first.shape == (3, 5)


@pytest.mark.parametrize("index", [slice(0, 2), [0, 1], minidl.tensor([True, True, False, False])], ids=str)
def test_a_value_that_does_not_fit_its_place_says_so(index):
    with pytest.raises(ShapeError, match="must broadcast to the place") as caught:
        minidl.zeros(4, 3)[index] = minidl.ones(2)
    assert "place: (2, 3)" in str(caught.value) and "value: (2,)" in str(caught.value)


def test_writing_into_a_tensor_that_an_op_saved():
    w = minidl.ones(4, 3, requires_grad=True)
    kept = (w * w).sum()
    with minidl.no_grad():
        w[0] = 5
        w[[1, 2], 0] = 7
    assert w[0].tolist() == [5, 5, 5] and w[2, 0].item() == 7
    del kept
