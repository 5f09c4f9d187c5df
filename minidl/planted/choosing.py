"""Mistakes in ops that choose: gates, bounds, ties, masks."""

from minidl.core.examples import Spec, distinct, nonzero
from minidl.core.op import example
from minidl.core.tensor import Tensor
from minidl.ops import cat, where
from minidl.ops.broadcast import sum_to
from minidl.ops.reduce import axes_of, kept_shape, spread
from minidl.planted.plant import mistake


def tied(*shape):
    """Whole numbers where every row has its largest and its smallest twice."""
    def draw(rng, s):
        return rng.permuted([[1.0, 4.0, 2.0, 4.0, 1.0][:s[-1]] for _ in range(s[0])], axis=1)
    return Spec("tied", shape, draw)


@mistake("where", guess="a condition of the forward is missing")
def gradient_to_both_branches(right, a):
    """Both branches get the whole gradient.

    The condition is forgotten on the way back, as if y were x + other.
    """
    def backward(grad_y):
        grad_x = sum_to(grad_y, a.x.shape) if isinstance(a.x, Tensor) else None
        return None, grad_x, sum_to(grad_y, a.other.shape) if isinstance(a.other, Tensor) else None

    return backward


@mistake("where", guess="swapped")
def branches_exchanged(right, a):
    """The gradient goes where the value did not come from.

    The condition and its negation, exchanged.
    """
    def backward(grad_y):
        _, grad_x, grad_other = right(grad_y)
        return None, *((grad_y - grad_x, grad_y - grad_other) if grad_x is not None and grad_other is not None else (grad_x, grad_other))

    return backward


@mistake("maximum", guess="wrong only where x < other")
def maximum_gives_both_everything(right, a):
    """Both operands get the whole gradient.

    Right for a sum; of two numbers only the larger one moves their maximum.
    """
    def backward(grad_y):
        return sum_to(grad_y, a.x.shape), sum_to(grad_y, a.other.shape) if isinstance(a.other, Tensor) else None

    return backward


@mistake("maximum", guess="a tie counted more than once", examples=[example(tied(3, 4), tied(3, 4))])
def tie_counted_for_both(right, a):
    """Where the operands are equal both get the whole gradient: written with >= twice.

    The two masks overlap at a tie. Random numbers have none, so random tests pass; zeros and counts have many.
    """
    def backward(grad_y):
        return where(a.x >= a.other, grad_y, 0), where(a.other >= a.x, grad_y, 0)

    return backward


@mistake("amax", guess="a tie counted more than once", examples=[example(tied(3, 5), dim=1)])
def ties_counted_twice(right, a):
    """Equal maxima each get the whole gradient instead of a share.

    x == y is 1 for every one of them. After a relu or with whole numbers that is common.
    """
    axes = axes_of("amax", a.x.ndim, a.dim)

    def backward(grad_y, y):
        attained = (a.x == y.reshape(kept_shape(a.x.shape, axes))).to(grad_y.dtype)
        return spread(grad_y, a.x.shape, axes) * attained

    return backward


@mistake("max_along", guess="shifted by one", examples=[example(distinct(3, 4), 1)])
def gradient_to_the_next_position(right, a):
    """The gradient goes to the element after the largest one.

    Positions counted from 1 in one place and from 0 in another.
    """
    def backward(grad_y, grad_indices):
        grad_x = right(grad_y, grad_indices)
        n = grad_x.shape[a.dim]
        return cat([grad_x.narrow(a.dim, n - 1, 1), grad_x.narrow(a.dim, 0, n - 1)], a.dim)

    return backward


@mistake("clamp", guess="a condition of the forward is missing")
def clamp_lets_gradients_through(right, a):
    """Elements outside the range get the gradient as well.

    Sometimes meant (a straight-through estimator), usually not: the op is not a copy there.
    """
    def backward(grad_y):
        return grad_y

    return backward


@mistake("relu", guess="wrong only where x < 0")
def relu_always_open(right, a):
    """The gradient passes where x < 0 too.

    The gate is in the forward and was not repeated in the backward.
    """
    def backward(grad_y, y):
        return grad_y

    return backward


@mistake("relu", guess="not linear in the incoming gradient")
def relu_gated_by_the_gradient(right, a):
    """Negative incoming gradients are set to 0 as well.

    That is "guided backpropagation", made for pictures of what a network sees. It is not the gradient.
    """
    def backward(grad_y, y):
        return where((grad_y > 0) & (y > 0), grad_y, 0)

    return backward


@mistake("leaky_relu", examples=[example(nonzero(2, 3), 0.1)])
def leak_on_the_wrong_side(right, a):
    """The small slope is used where x > 0.

    where() takes the value for "true" first, and the condition was turned round.
    """
    def backward(grad_y, *y):
        return where(a.x > 0, grad_y * a.negative_slope, grad_y)

    return backward
