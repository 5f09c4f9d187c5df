"""softmax, its relatives and the losses: far-out scores, every shape of labels, weights, smoothing, messages."""

import itertools

import numpy as np
import pytest

import minidl
from minidl.autograd import grad
from minidl.core.errors import MinidlError
from minidl.nn.functional import cross_entropy, mse_loss

INF = float("inf")
FAR_OUT = [[1e4, 0.0, -1e4], [-INF, 1.0, 2.0], [5.0, 5.0, 5.0]]


def test_far_out_scores():
    x = minidl.tensor(FAR_OUT, requires_grad=True)
    y = x.softmax(1)
    np.testing.assert_allclose(y.detach().array, [[1, 0, 0], [0, 0.26894143, 0.7310586], [1 / 3] * 3], rtol=1e-6)
    np.testing.assert_allclose(x.log_softmax(1).detach().array[0], [0, -1e4, -2e4])
    np.testing.assert_allclose(x.logsumexp(1).detach().array, [1e4, 2.3132617, 6.0986123], rtol=1e-6)
    for function in (minidl.softmax, minidl.log_softmax, minidl.logsumexp):
        slope, = grad((function(x, 1)[:, -1] if function is not minidl.logsumexp else function(x, 1)).sum(), [x])
        assert np.isfinite(slope.array).all()


def test_a_line_of_minus_infinity():
    x = minidl.tensor([[-INF, -INF]], requires_grad=True)
    assert x.logsumexp(1).tolist() == [-INF]
    assert grad(x.logsumexp(1).sum(), [x])[0].tolist() == [[0, 0]]
    assert np.isnan(x.softmax(1).detach().array).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("shape, dim", [((2, 3), 0), ((2, 3, 4), -2), ((2, 3, 2, 2), 1), ((), 0), ((0, 3), 1), ((3, 0), 1), ((1,), 0)])
def test_the_loops_agree(name, shape, dim):
    x = minidl.randn(shape, dtype="float64")
    with minidl.use_backend("reference"):
        loops = getattr(x, name)(dim)
    np.testing.assert_allclose(getattr(x, name)(dim).array, loops.array, rtol=1e-13, atol=1e-15)


def test_the_loops_agree_far_out():
    for row in [*FAR_OUT, [-INF] * 3, [1.0, np.nan, 2.0], [INF, 1.0, 0.0]]:
        x = minidl.tensor(row, dtype="float64")
        for name in ("softmax", "log_softmax", "logsumexp"):
            with minidl.use_backend("reference"):
                loops = getattr(x, name)(0)
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(getattr(x, name)(0).array, loops.array, rtol=1e-13, err_msg=f"{name} of {row}")


def test_the_softmax_of_float16_is_computed_in_float32():
    y = minidl.zeros(5000, 2, dtype="float16").softmax(0)  # the sum of 5000 ones would stop at 2048
    assert y.dtype == "float16"
    np.testing.assert_allclose(y.array, 1 / 5000, rtol=1e-3)


def by_hand(x, labels, weight, smoothing):
    """The loss of every row, and the weight of its label: one number at a time."""
    rows, weights = [], []
    for scores, label in zip(x, labels, strict=True):
        logs = scores - np.log(np.exp(scores).sum())
        C = len(scores)
        share = [(1 - smoothing) * (c == label) + smoothing / C for c in range(C)]
        rows.append(0.0 if label == -100 else -sum(weight[c] * share[c] * logs[c] for c in range(C)))
        weights.append(0.0 if label == -100 else weight[label])
    return np.array(rows), np.array(weights)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0]])
def test_cross_entropy_by_hand(weight, smoothing):
    x, labels = minidl.randn(4, 3, dtype="float64"), minidl.tensor([0, 2, -100, 2])
    settings = {"weight": None if weight is None else minidl.tensor(weight, dtype="float64"), "label_smoothing": smoothing}
    rows, weights = by_hand(x.array, labels.tolist(), weight or [1.0] * 3, smoothing)
    np.testing.assert_allclose(cross_entropy(x, labels, reduction="none", **settings).array, rows, rtol=1e-12)
    np.testing.assert_allclose(cross_entropy(x, labels, reduction="sum", **settings).item(), rows.sum(), rtol=1e-12)
    np.testing.assert_allclose(cross_entropy(x, labels, **settings).item(), rows.sum() / weights.sum(), rtol=1e-12)
    pixels = x.T.reshape(1, 3, 2, 2)  # the same rows as the pixels of one image
    np.testing.assert_allclose(cross_entropy(pixels, labels.reshape(1, 2, 2), reduction="none", **settings).array.ravel(), rows, rtol=1e-12)
    np.testing.assert_allclose(cross_entropy(x[0], labels[0], **settings).item(), rows[0] / (weights[0] if weight else 1), rtol=1e-12)


def test_the_gradient_is_belief_minus_truth():
    x = minidl.tensor([[0.0, 0.0], [0.0, 0.0]], requires_grad=True)
    cross_entropy(x, minidl.tensor([0, 1]), reduction="sum").backward()
    assert x.grad.tolist() == [[-0.5, 0.5], [0.5, -0.5]]


def test_shares_as_targets():
    x, labels = minidl.randn(3, 4, dtype="float64"), minidl.tensor([1, 0, 3])
    shares = minidl.nn.functional.one_hot(labels, 4).double().requires_grad_()
    np.testing.assert_allclose(cross_entropy(x, shares).item(), cross_entropy(x, labels).item(), rtol=1e-12)
    slope, = grad(cross_entropy(x, shares), [shares])
    np.testing.assert_allclose(slope.array, -x.log_softmax(1).array / 3, rtol=1e-12)


def test_an_impossible_class_that_is_not_the_label():
    x = minidl.tensor([[-INF, 1.0, 2.0]], requires_grad=True)
    loss = cross_entropy(x, minidl.tensor([2]))
    loss.backward()
    np.testing.assert_allclose(loss.item(), 0.3132617, rtol=1e-6)
    assert np.isfinite(x.grad.array).all()


def test_all_ignored_and_none_at_all():
    assert np.isnan(cross_entropy(minidl.ones(2, 3), minidl.tensor([-100, -100])).item())
    assert cross_entropy(minidl.ones(2, 3), minidl.tensor([7, 7]), ignore_index=7, reduction="sum").item() == 0
    assert cross_entropy(minidl.ones(0, 3), minidl.zeros(0, dtype=int), reduction="sum").item() == 0
    assert np.isnan(mse_loss(minidl.ones(0), minidl.ones(0)).item())


def test_an_ignored_class_counts_in_neither_sum_nor_mean():
    x, labels = minidl.randn(3, 4, dtype="float64"), minidl.tensor([1, 0, 3])
    for smoothing in (0.0, 0.2):
        ignoring = cross_entropy(x, labels, ignore_index=0, label_smoothing=smoothing)
        without = cross_entropy(x[[0, 2]], labels[[0, 2]], label_smoothing=smoothing)
        np.testing.assert_allclose(ignoring.item(), without.item(), rtol=1e-12)


def test_mse_loss():
    x, target = minidl.tensor([[1.0, 2.0]], requires_grad=True), minidl.tensor([[0.0, 4.0]], requires_grad=True)
    assert mse_loss(x, target).item() == 2.5
    assert mse_loss(x, target, reduction="sum").item() == 5
    assert mse_loss(x, target, reduction="none").tolist() == [[1, 4]]
    grad_x, grad_target = grad(mse_loss(x, target), [x, target])
    assert grad_x.tolist() == [[1, -2]]
    assert grad_target.tolist() == [[-1, 2]]


def test_training_lowers_the_loss():
    minidl.manual_seed(0)
    x, labels = minidl.randn(20, 3), minidl.tensor([0, 1] * 10)
    weight = minidl.zeros(3, 2, requires_grad=True)
    losses = []
    for _ in range(20):
        loss = cross_entropy(x @ weight, labels)
        step, = grad(loss, [weight])
        weight = (weight - 0.5 * step).detach().requires_grad_()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(2))
    assert all(after < before for before, after in itertools.pairwise(losses))


SCORES = minidl.ones(2, 3)


@pytest.mark.parametrize("call, text", [
    (lambda: cross_entropy(SCORES, minidl.tensor([0, 3])), "cross_entropy: a label must lie between 0 and C − 1 = 2."),
    (lambda: cross_entropy(SCORES, minidl.tensor([0, -1])), "cross_entropy: a label must lie between 0 and C − 1 = 2."),
    (lambda: cross_entropy(SCORES, minidl.tensor([0.0, 1.0])), "cross_entropy: class labels are whole numbers."),
    (lambda: cross_entropy(SCORES, minidl.tensor([0])), "cross_entropy: the target has one label per row of scores."),
    (lambda: cross_entropy(SCORES, minidl.tensor([[0, 1, 0]] * 2)), "cross_entropy: the target has one label per row of scores."),
    (lambda: cross_entropy(minidl.tensor(1.0), minidl.tensor(0)), "cross_entropy: x needs an axis of class scores."),
    (lambda: cross_entropy(SCORES, minidl.tensor([0, 1]), minidl.ones(2)), "cross_entropy: weight has one constant per class."),
    (lambda: cross_entropy(SCORES, minidl.tensor([0, 1]), reduction="avg"), "cross_entropy: 'avg' is not a reduction."),
    (lambda: mse_loss(minidl.ones(2, 1), minidl.ones(2)), "mse_loss: x and target must have one shape."),
    (lambda: minidl.softmax(SCORES), "softmax: dim must say along which axis the shares add up to 1."),
    (lambda: minidl.log_softmax(SCORES, 2), "log_softmax: there is no axis 2."),
])
def test_messages(call, text):
    with pytest.raises(MinidlError) as caught:
        call()
    lines = str(caught.value).split("\n    ")
    assert lines[0] == text
    assert len(lines) >= 3  # the rule, a fact, the fix


def test_the_wrong_label_is_named():
    with pytest.raises(MinidlError, match=r"target\[1\] = 3\n    classes: C = 3\n    ignore_index: -100\n    Do the labels start at 1\?"):
        cross_entropy(SCORES, minidl.tensor([0, 3]))
