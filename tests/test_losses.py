"""Losses: scores of any size, values worked out by hand, what is kept for the gradient, and what is refused."""

import math

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F  # noqa: N812 - everybody's name for it
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError
from minidl.core.guard import saved_arrays

t = minidl.zeros
labels = minidl.tensor([1, 0])


def slope(loss, values, dtype=minidl.float32):
    """(loss, gradient) of one prediction, as Python numbers."""
    x = minidl.tensor(values, dtype=dtype, requires_grad=True)
    y = loss(x)
    y.backward()
    return y.item(), x.grad.tolist()


@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_no_overflow(size):
    """Scores of ±size: certain and right costs 0, certain and wrong costs the distance, and every gradient is finite."""
    right, grad = slope(lambda x: F.cross_entropy(x, minidl.tensor([0])), [[size, -size]])
    assert right == 0 and grad == [[0, 0]]
    wrong, grad = slope(lambda x: F.cross_entropy(x, minidl.tensor([1])), [[size, -size]])
    assert wrong == pytest.approx(2 * size) and grad == [[1, -1]]
    one = minidl.ones(1)
    right, grad = slope(lambda x: F.binary_cross_entropy_with_logits(x, one), [size])
    assert right == pytest.approx(0, abs=1e-40) and grad == pytest.approx([0], abs=1e-40)
    wrong, grad = slope(lambda x: F.binary_cross_entropy_with_logits(x, one), [-size])
    assert wrong == pytest.approx(size) and grad == [-1]
    wrong, grad = slope(lambda x: F.binary_cross_entropy_with_logits(x, one, pos_weight=minidl.tensor([3.0])), [-size])
    assert wrong == pytest.approx(3 * size) and grad == [-3]


def test_infinite_scores():
    """An impossible class costs nothing if it is not the label."""
    value, grad = slope(lambda x: F.cross_entropy(x, minidl.tensor([0])), [[0.0, 0.0, -math.inf]])
    assert value == pytest.approx(math.log(2)) and np.allclose(grad, [[-0.5, 0.5, 0]])
    value, _ = slope(lambda x: F.nll_loss(x, minidl.tensor([0])), [[-1.0, -math.inf]])
    assert value == 1


def test_values_by_hand():
    x, y = minidl.tensor([0.0, 3.0]), minidl.tensor([0.5, 1.0])
    assert F.l1_loss(x, y, "none").tolist() == [0.5, 2]
    assert F.smooth_l1_loss(x, y, "none").tolist() == [0.125, 1.5]
    assert F.smooth_l1_loss(x, y, "none", beta=0.5).tolist() == [0.25, 1.75]
    assert F.huber_loss(x, y, "none", delta=0.5).tolist() == [0.125, 0.875]
    assert F.mse_loss(x, y, "sum").item() == 4.25
    assert F.nll_loss(minidl.tensor([[-1.0, -2.0], [-3.0, -4.0]]), labels, minidl.tensor([1.0, 3.0])).item() == pytest.approx(9 / 4)
    assert F.kl_div(minidl.tensor([0.0, -1.0]), minidl.tensor([0.0, 1.0]), "none").tolist() == [0, 1]
    assert F.binary_cross_entropy(minidl.tensor([0.0, 1.0]), minidl.tensor([1.0, 1.0]), reduction="none").tolist() == [100, 0]


def test_cross_entropy_is_log_softmax_then_nll():
    x = minidl.randn(5, 4, 3)
    target = minidl.randint(0, 4, (5, 3))
    np.testing.assert_allclose(F.cross_entropy(x, target).item(), F.nll_loss(F.log_softmax(x, 1), target).item(), rtol=1e-6)


def test_binary_cross_entropy_after_sigmoid():
    x, y = minidl.randn(5, 4, dtype=minidl.float64), minidl.rand(5, 4, dtype=minidl.float64)
    np.testing.assert_allclose(F.binary_cross_entropy(x.sigmoid(), y).item(), F.binary_cross_entropy_with_logits(x, y).item(), rtol=1e-12)


@pytest.mark.parametrize("loss", [F.l1_loss, F.mse_loss, F.huber_loss, F.smooth_l1_loss, F.kl_div, F.binary_cross_entropy_with_logits])
def test_of_nothing(loss):
    """The mean of no terms is NaN, their sum 0."""
    assert math.isnan(loss(t(0, 3), t(0, 3)).item()) and loss(t(0, 3), t(0, 3), reduction="sum").item() == 0
    assert loss(t(0, 3), t(0, 3), reduction="none").shape == (0, 3)


def kept(y):
    return {id(a): a for a in saved_arrays(y.grad_fn)}.values()


def test_what_is_kept():
    """A loss keeps what its formula names, prediction and target, and no third array of that size."""
    x, y = minidl.randn(40, 30, requires_grad=True), minidl.rand(40, 30)
    for loss in (F.l1_loss, F.mse_loss, F.huber_loss, F.binary_cross_entropy_with_logits):
        assert sum(a.nbytes for a in kept(loss(x, y))) == 2 * x.nbytes, loss.__name__
    target = minidl.randint(0, 30, (40,))
    assert sum(a.nbytes for a in kept(F.nll_loss(x, target))) == target.nbytes
    assert sum(a.nbytes for a in kept(F.cross_entropy(x, target))) == x.nbytes + target.nbytes


ERRORS = [
    (lambda: F.l1_loss(t(4, 1), t(4)), ShapeError, """\
l1_loss: x and target must have one shape.
    x: (4, 1)
    target: (4,)
    Broadcasting them is nearly always a mistake. Did you mean target.unsqueeze(1), or x.squeeze(1)?"""),
    (lambda: F.huber_loss(t(3), t(3), delta=0), ArgumentError, """\
huber_loss: delta is a distance, above 0.
    delta: 0
    Below delta the loss is a parabola; 1 is usual."""),
    (lambda: F.smooth_l1_loss(t(3), t(3), beta=-1.0), ArgumentError, """\
smooth_l1_loss: beta is a distance, at least 0.
    beta: -1.0
    Below beta the loss is a parabola; 1 is usual."""),
    (lambda: F.kl_div(t(3), t(3), reduction="average"), ArgumentError, """\
kl_div: 'average' is not a reduction.
    reductions: 'mean', 'sum', 'none'
    Check the spelling."""),
    (lambda: F.nll_loss(t(2, 3), t(2)), DTypeError, """\
nll_loss: class labels are whole numbers.
    x: (2, 3), float32
    target: (2,), float32
    Convert them: target.long()."""),
    (lambda: F.nll_loss(t(2, 3), minidl.tensor([1, 3])), RangeError, """\
nll_loss: a label must lie between 0 and C − 1 = 2.
    target[1] = 3
    classes: C = 3
    ignore_index: -100
    Do the labels start at 1? Then pass target - 1."""),
    (lambda: F.nll_loss(t(2, 3), labels.unsqueeze(1)), ShapeError, """\
nll_loss: the target has one label per row of scores.
    x: (2, 3), float32
    target: (2, 1), int64
    expected target: (2,)
    x is (N, C) or (N, C, d1, ...), target (N) or (N, d1, ...)."""),
    (lambda: F.nll_loss(t(2, 3), labels, t(2)), ShapeError, """\
nll_loss: weight has one constant per class.
    weight: (2,), requires_grad=False
    x: (2, 3), float32
    target: (2,), int64
    Pass a tensor of shape (3,) that does not require grad."""),
    (lambda: F.binary_cross_entropy(minidl.tensor([0.5, 1.5]), t(2)), RangeError, """\
binary_cross_entropy: x must be probabilities, between 0 and 1.
    smallest: 0.5
    largest: 1.5
    For scores before the sigmoid use binary_cross_entropy_with_logits."""),
    (lambda: F.binary_cross_entropy_with_logits(t(2, 3), t(2, 3), pos_weight=t(2)), ShapeError, """\
binary_cross_entropy_with_logits: the shapes do not broadcast: axis -1 has sizes 3 and 2.
    argument 0: (2, 3)
    argument 1: (2,)
    Aligned from the right, two sizes must be equal or one of them 1. Did you mean unsqueeze() on one of them?"""),
    (lambda: F.binary_cross_entropy(t(3), t(3), minidl.ones(2, 3)), ShapeError, """\
binary_cross_entropy: a weight is a constant that broadcasts to the shape of x.
    x: (3,)
    weight: (2, 3), requires_grad=False
    Detach it, or reshape it."""),
]


@pytest.mark.parametrize("call, kind, text", ERRORS)
def test_messages(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert str(caught.value) == text
