"""Mistakes in reductions, softmax and losses: factors of N, axes, terms that went missing, labels."""

import numpy as np

from minidl.core.examples import integers, normal, shuffled
from minidl.core.op import example
from minidl.core.tensor import Tensor
from minidl.ops import softmax
from minidl.ops.reduce import axes_of, count, spread
from minidl.planted.plant import mistake

ROWS = [example(normal(3, 3), dim=1)]


@mistake("sum", examples=ROWS, guess="transposed")
def sum_spreads_along_the_other_axis(right, a):
    """The gradient of a sum over columns is repeated along the rows.

    grad_y has lost an axis; broadcasting puts the new one in front, and in a square matrix nobody notices.
    """
    def backward(grad_y):
        return grad_y.expand(a.x.shape)

    return backward


@mistake("mean", guess="a mean's 1/24 is missing?")
def one_over_n_lost(right, a):
    """The gradient of a mean is that of a sum.

    The 1/N was in the forward only. Training works with another learning rate, so it stays for years.
    """
    axes = axes_of("mean", a.x.ndim, a.dim)

    def backward(grad_y):
        return spread(grad_y, a.x.shape, axes)

    return backward


@mistake("mean", guess="mean for sum?")
def one_over_n_twice(right, a):
    """The gradient of a mean is divided by N once more.

    The loss takes a mean, and the backward of the layer divides by the batch again.
    """
    axes = axes_of("mean", a.x.ndim, a.dim)

    def backward(grad_y):
        return right(grad_y) / count(a.x.shape, axes)

    return backward


@mistake("mean", guess="off by the factor 1.5", examples=[example(normal(2, 3, 4), dim=1)])
def divides_by_the_batch(right, a):
    """A mean over axis 1 is divided by the size of axis 0.

    len(x) is the size of the first axis, whatever is averaged.
    """
    def backward(grad_y):
        return spread(grad_y / a.x.shape[0], a.x.shape, (1,))

    return backward


@mistake("var", guess="n for n − 1?")
def biased_for_unbiased(right, a):
    """The variance divides by N − 1, its gradient by N.

    Both are called variance. Batch normalisation uses both, one to normalise and one to remember.
    """
    axes = axes_of("var", a.x.ndim, a.dim)

    def backward(grad_y):
        return spread(grad_y, a.x.shape, axes) * (a.x - a.x.mean(axes, True)) * (2 / count(a.x.shape, axes))

    return backward


@mistake("var", guess="right to first order")
def mean_held_constant(right, a):
    """The mean inside the variance is detached: right to first order, wrong to second.

    To first order the mean's own share cancels, so the shortcut passes every first-order check.
    """
    axes = axes_of("var", a.x.ndim, a.dim)
    freedom = count(a.x.shape, axes) - (int(a.unbiased) if a.correction is None else a.correction)

    def backward(grad_y):
        return spread(grad_y, a.x.shape, axes) * (a.x - a.x.mean(axes, True).detach()) * (2 / freedom)

    return backward


@mistake("cumsum", guess="transposed", examples=[example(normal(2, 4), 1)])
def running_sum_from_the_wrong_end(right, a):
    """The gradient is a running sum from the front.

    An element is part of all sums behind it, so its gradient collects what comes from behind.
    """
    def backward(grad_y):
        return grad_y.cumsum(a.dim)

    return backward


# --- softmax --------------------------------------------------------------------------------------------------------

@mistake("softmax", guess="only the diagonal")
def softmax_elements_on_their_own(right, a):
    """The gradient is grad_y · y · (1 − y).

    That is sigmoid's. Raising one score lowers all other shares, and that part is missing.
    """
    def backward(grad_y, y):
        return grad_y * y * (1 - y)

    return backward


@mistake("softmax", guess="only the diagonal")
def softmax_without_its_sum(right, a):
    """The sum Σ grad_y · y is not subtracted.

    The first term alone, grad_y · y: what remains of the formula when the denominator is taken for a constant.
    """
    def backward(grad_y, y):
        return grad_y * y

    return backward


@mistake("softmax", examples=ROWS)
def softmax_sums_over_the_wrong_axis(right, a):
    """The sum inside the gradient runs over the other axis.

    dim=1 in the forward, 0 in the backward: the default of another library.
    """
    def backward(grad_y, y):
        return y * (grad_y - (grad_y * y).sum(0, True))

    return backward


@mistake("softmax", guess="zero everywhere")
def softmax_gradient_is_zero(right, a):
    """The gradient is lost altogether.

    Shares add up to 1, so the gradient of their sum is 0: a check that sums the output expects zeros and finds zeros.
    """
    def backward(grad_y, y):
        return grad_y * 0

    return backward


@mistake("log_softmax", guess="constant during the second derivative")
def log_softmax_detaches_its_shares(right, a):
    """The shares exp(y) inside the gradient are constants: right to first order, wrong to second.

    They were computed in the forward and saved as an array.
    """
    def backward(grad_y, y):
        return grad_y - y.detach().exp() * grad_y.sum(a.dim, True)

    return backward


@mistake("logsumexp")
def maximum_counted_as_well(right, a):
    """The largest element gets 1 on top of its share.

    The maximum is subtracted for safety and added again. It cancels, unless one of the two is differentiated and the other not.
    """
    axes = axes_of("logsumexp", a.x.ndim, a.dim)

    def backward(grad_y, y):
        largest = (a.x == a.x.amax(axes, True)).to(grad_y.dtype)
        return right(grad_y, y) + spread(grad_y, a.x.shape, axes) * largest

    return backward


@mistake("logsumexp", examples=ROWS)
def logsumexp_broadcasts_the_wrong_way(right, a):
    """x − y without keepdim: y lines up with the columns instead of the rows.

    In a square matrix broadcasting finds nothing wrong.
    """
    def backward(grad_y, y):
        return spread(grad_y, a.x.shape, (1,)) * (a.x - y).exp()

    return backward


# --- losses ---------------------------------------------------------------------------------------------------------

@mistake("mse_loss", guess="off by the factor 0.5")
def square_without_its_two(right, a):
    """The gradient of the squared error lacks the 2.

    Textbooks write ½ (x − t)²; libraries do not.
    """
    def backward(grad_y):
        return tuple(None if g is None else g * 0.5 for g in right(grad_y))

    return backward


LABELS = [example(normal(4, 3), integers(0, 3, 4))]


@mistake("cross_entropy", examples=LABELS)
def labels_off_by_one(right, a):
    """The gradient pulls up the class after the labelled one.

    Labels that start at 1 in the file and at 0 in the code, corrected in one of two places.
    """
    def backward(grad_y):
        labels = (a.target.array + 1) % a.x.shape[1]
        truth = Tensor(np.eye(a.x.shape[1], dtype=a.x.dtype)[labels])
        return grad_y * (softmax(a.x, 1) - truth) / len(labels), None, None

    return backward


@mistake("cross_entropy", examples=[example(normal(4, 3), integers(0, 3, 4), label_smoothing=0.1)])
def smoothing_forgotten_in_backward(right, a):
    """The loss smooths its labels, the gradient does not.

    softmax − onehot is the formula everyone knows by heart.
    """
    def backward(grad_y):
        truth = Tensor(np.eye(a.x.shape[1], dtype=a.x.dtype)[a.target.array])
        return grad_y * (softmax(a.x, 1) - truth) / a.target.array.size, None, None

    return backward


@mistake("cross_entropy", guess="a condition of the forward is missing",
         examples=[example(normal(4, 3), shuffled(0, 1, 2, 1), ignore_index=1)])
def ignored_rows_still_pull(right, a):
    """Rows that the loss ignores get a gradient.

    ignore_index was handled where the loss is added up, and not in the gradient.
    """
    def backward(grad_y):
        counted = (a.target.array != a.ignore_index).sum()
        truth = Tensor(np.eye(a.x.shape[1], dtype=a.x.dtype)[a.target.array])
        return grad_y * (softmax(a.x, 1) - truth) / float(counted), None, None

    return backward
