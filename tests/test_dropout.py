"""Dropout, stochastic depth and embedding: shares, masks, what is kept, seeds, and what is refused."""

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F  # noqa: N812 - everybody's name for it
from minidl import nn
from minidl.backend.layout import is_stored_right, stored
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError
from minidl.core.guard import saved_arrays

t = minidl.zeros
DROPS = {"dropout": F.dropout, "dropout2d": F.dropout2d, "row": lambda x, p, training=True: F.stochastic_depth(x, p, "row", training),
         "batch": lambda x, p, training=True: F.stochastic_depth(x, p, "batch", training)}


@pytest.fixture(autouse=True)
def _seeded():
    minidl.manual_seed(3)


def ones(*shape):
    return minidl.Tensor(stored(np.ones(shape, np.float32)), True)


@pytest.mark.parametrize("name", DROPS)
def test_the_ends(name):
    """p = 0 leaves everything, p = 1 nothing; outside of training nothing happens at all."""
    x = ones(4, 3, 2, 5)
    assert DROPS[name](x, 0.0) is x and DROPS[name](x, 0.5, False) is x and DROPS[name](x, 1.0, False) is x
    y = DROPS[name](x, 1.0)
    y.backward(minidl.ones(4, 3, 2, 5))
    assert not y.array.any() and not x.grad.array.any()


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_shares_and_scale(p):
    """A share p is 0, the rest is 1/(1 − p): the mean stays. The gradient passes the same mask with the same factor."""
    x = ones(300, 400)
    y = F.dropout(x, p)
    assert set(np.unique(y.array).tolist()) == {0.0, float(np.float32(1 / (1 - p)))}
    n = x.numel()
    assert abs((y.array == 0).mean() - p) <= 5 * np.sqrt(p * (1 - p) / n)
    u = minidl.randn(300, 400)
    y.backward(u)
    np.testing.assert_array_equal(x.grad.array, u.array * y.array)


@pytest.mark.parametrize("name, free", [("dropout2d", 2), ("row", 1), ("batch", 0)])
def test_what_goes_together(name, free):
    """Whole channels, samples, or the batch: one decision for each, all positions alike."""
    found, mixed = set(), 0
    for _ in range(20):
        y = DROPS[name](ones(8, 6, 3, 2), 0.5).array
        rest = y.reshape(*y.shape[:free], -1)
        assert (rest == rest[..., :1]).all()
        found |= set(rest[..., 0].ravel().tolist())
        mixed += len(set(rest[..., 0].ravel().tolist())) == 2
    assert found == {0.0, 2.0} and (mixed > 15) == (free > 0), "what is free decides for itself"


def test_a_seed_gives_one_mask():
    """In the order of the logical shape: the same for every storage order."""
    masks = []
    for x in (np.ones((2, 3, 4, 5)), stored(np.ones((2, 3, 4, 5)))):
        minidl.manual_seed(7)
        masks.append(F.dropout(minidl.Tensor(x), 0.5).array)
    np.testing.assert_array_equal(*masks)
    minidl.manual_seed(8)
    assert (F.dropout(minidl.ones(2, 3, 4, 5), 0.5).array != masks[0]).any()


def test_only_the_mask_is_kept():
    """One byte an element; dropout2d one byte a channel."""
    x = ones(8, 3, 10, 10)
    y = F.dropout(x)
    assert [(a.dtype, a.shape) for a in saved_arrays(y.grad_fn)] == [(np.dtype(bool), x.shape)]
    assert [a.nbytes for a in saved_arrays(F.dropout2d(x).grad_fn)] == [24]
    assert is_stored_right(y.array) and is_stored_right(saved_arrays(y.grad_fn)[0])


def test_layers_follow_train_and_eval():
    layer, x = nn.Dropout(0.5), ones(50, 50)
    assert (layer(x).array == 0).any()
    layer.p = 0.0
    assert layer(x) is x
    layer.p = 0.5
    assert layer.eval()(x) is x


def test_padding_row_gets_no_gradient():
    weight = minidl.randn(4, 3, requires_grad=True)
    y = F.embedding(minidl.tensor([[0, 1], [1, 3]]), weight, padding_idx=-3)
    y.backward(minidl.ones(2, 2, 3))
    assert y.array[0, 1].tolist() == weight.array[1].tolist()
    assert weight.grad.array[:, 0].tolist() == [1, 0, 0, 1]


def test_rows_used_twice_add_up():
    weight = minidl.randn(4, 3, requires_grad=True)
    F.embedding(minidl.tensor([2, 2, 2, 0]), weight).sum().backward()
    assert weight.grad.array[:, 0].tolist() == [1, 0, 3, 0]


ERRORS = [
    (lambda: F.dropout(t(3), 1.5), ArgumentError, """\
dropout: p is a probability.
    p = 1.5
    Choose p between 0 and 1."""),
    (lambda: F.dropout(t(3), -0.1, training=False), ArgumentError, """\
dropout: p is a probability.
    p = -0.1
    Choose p between 0 and 1."""),
    (lambda: F.dropout2d(t(3)), ShapeError, """\
dropout2d: x must have channels, (N, C, ...).
    x: (3,)
    Use dropout()."""),
    (lambda: F.stochastic_depth(t(3), 0.5, "rows"), ArgumentError, """\
stochastic_depth: there is no mode 'rows'.
    modes: 'batch', 'row'
    'row' decides for every sample on its own."""),
    (lambda: F.dropout(minidl.arange(3)), DTypeError, """\
masked_scale: x is floating point and the mask holds booleans.
    x: (3,), int64
    mask: (3,), bool
    Did you mean mask != 0?"""),
    (lambda: F.embedding(t(3), t(4, 2)), DTypeError, """\
embedding: the index holds whole numbers, rows of the table.
    index: (3,), float32
    The index comes first, then the table. Convert it with index.long()."""),
    (lambda: F.embedding(minidl.tensor([[0, 1], [4, 0]]), t(4, 2)), RangeError, """\
embedding: an index must lie between 0 and V − 1 = 3.
    index[1, 0] = 4
    rows: V = 4
    Enlarge the table, or check the index."""),
    (lambda: F.embedding(minidl.tensor([0]), t(4)), ShapeError, """\
embedding: the table must have two axes, (V, D).
    w: (4,)
    One row of D numbers per index."""),
    (lambda: F.embedding(minidl.tensor([0]), t(4, 2), padding_idx=4), RangeError, """\
embedding: padding_idx must be a row of the table.
    padding_idx = 4, rows: 4
    Rows count from 0."""),
    (lambda: F.embedding(minidl.tensor([0]), t(4, 2), max_norm=1.0), ArgumentError, """\
embedding: max_norm, scale_grad_by_freq and sparse are not available.
    max_norm=1.0, scale_grad_by_freq=False, sparse=False
    Leave them out; clip_grad_norm_ bounds what one step changes."""),
]


@pytest.mark.parametrize("call, kind, text", ERRORS)
def test_messages(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text
