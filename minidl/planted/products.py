"""Mistakes in products of matrices: factors, transposes, forgotten arguments."""

from minidl.core.examples import normal
from minidl.core.op import example
from minidl.core.tensor import Tensor
from minidl.planted.plant import changed, mistake

PRODUCT = [example(normal(2, 3), normal(3, 4))]
SQUARE = [example(normal(3, 3), normal(3, 3))]


@mistake("matmul", guess="off by the factor 0.5")
def weight_gradient_halved(right, a):
    """The gradient of the second factor is half as large as it should be.

    A mean over a batch of two, taken in the layer and again in the loss; or a 2 that went lost in a derivation.
    """
    def halved(grad_other):
        return grad_other * 0.5

    def backward(grad_y):
        return changed(right(grad_y), 1, halved)

    return backward


@mistake("matmul", guess="transposed", examples=SQUARE)
def weight_gradient_transposed(right, a):
    """The gradient of the second factor is grad_yᵀ @ x instead of xᵀ @ grad_y.

    With a square weight both have the right shape, so nothing complains.
    """
    def backward(grad_y):
        return grad_y @ a.other.mT, grad_y.mT @ a.x

    return backward


@mistake("matmul", guess="transposed", examples=SQUARE)
def weight_not_transposed(right, a):
    """The gradient of the first factor is grad_y @ w instead of grad_y @ wᵀ.

    The forward has no transpose, so the backward got none; a square weight hides it.
    """
    def backward(grad_y):
        return grad_y @ a.other, a.x.mT @ grad_y

    return backward


@mistake("matmul", guess="zero everywhere", examples=PRODUCT)
def one_gradient_forgotten(right, a):
    """None is returned for the second factor.

    "The weight is frozen anyway", or an early return that was meant for numbers. Training goes on with the rest.
    """
    def backward(grad_y):
        return right(grad_y)[0], None

    return backward


@mistake("matmul", guess="wrong only at the last index of axis 0", examples=PRODUCT)
def last_row_left_out(right, a):
    """The last row of the weight's gradient stays zero.

    A loop over range(n - 1), or a buffer that is one row short.
    """
    def without_last_row(grad_other):
        mask = Tensor(grad_other.array * 0 + 1)
        mask.array[-1] = 0
        return grad_other * mask

    def backward(grad_y):
        return changed(right(grad_y), 1, without_last_row)

    return backward


@mistake("matmul", guess="constant during the second derivative", examples=PRODUCT)
def weight_saved_as_raw_array(right, a):
    """The backward multiplies with a raw array of the weight: right to first order, wrong to second.

    What a backward saves looks like a number to the next derivative unless it is a tensor of the graph.
    """
    def backward(grad_y):
        return grad_y @ Tensor(a.other.array).mT, a.x.mT @ grad_y

    return backward


@mistake("einsum", guess="swapped", examples=[example([normal(3, 3), normal(3, 3)], "ij,ij->i")])
def einsum_gradients_in_swapped_order(right, a):
    """Each operand gets the other one's gradient.

    The gradients were collected in the order in which they were computed, not in the order of the operands.
    """
    def backward(grad_y):
        return tuple(reversed(right(grad_y)))

    return backward
