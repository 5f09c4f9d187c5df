"""Mistakes in functions of one element: signs, factors, slopes, what a second derivative needs, precision, memory."""

import numpy as np

from minidl.core.dtypes import float32
from minidl.core.examples import nonzero, normal, positive
from minidl.core.op import example
from minidl.core.tensor import Tensor
from minidl.ops.broadcast import sum_to
from minidl.planted.plant import changed, mistake

BROADCAST = [example(normal(2, 3), normal(3))]


def first_along_broadcast_axes(grad, shape):
    """grad at index 0 of every axis that had been repeated: what a broadcast looks like to someone who forgets the sum."""
    lead = grad.ndim - len(shape)
    for _ in range(lead):
        grad = grad.select(0, 0)
    for axis, n in enumerate(shape):
        if n == 1 and grad.shape[axis] != 1:
            grad = grad.narrow(axis, 0, 1)
    return grad


@mistake("add", guess="missing sum over the broadcast axis 0", examples=BROADCAST)
def bias_gradient_of_one_row(right, a):
    """The gradient of a broadcast operand is that of the first row alone.

    A bias is added to every row of a batch, so every row has its share in the bias's gradient. With a batch of one it is right.
    """
    def backward(grad_y):
        return grad_y, first_along_broadcast_axes(grad_y, a.other.shape)

    return backward


@mistake("mul", guess="missing sum over the broadcast axis", examples=[example(normal(2, 3, 1), normal(4))])
def scale_gradient_of_one_slice(right, a):
    """The gradient of a broadcast factor counts one of the places where it was used.

    As with a bias, but every place has another value, so it is not even off by a factor.
    """
    def backward(grad_y):
        return first_along_broadcast_axes(grad_y * a.other, a.x.shape), sum_to(grad_y * a.x, a.other.shape)

    return backward


@mistake("mul", guess="the gradients of x and other are swapped", examples=[example(normal(2, 3), normal(2, 3))])
def product_rule_mixed_up(right, a):
    """Each factor gets itself as its slope instead of the other one.

    Two names that differ by a letter, typed once and copied.
    """
    def backward(grad_y):
        return grad_y * a.x, grad_y * a.other

    return backward


@mistake("sub", guess="sign slip")
def minus_forgotten(right, a):
    """The subtrahend gets +grad_y.

    The backward was copied from add.
    """
    def negated(grad):
        return -grad

    def backward(grad_y):
        return changed(right(grad_y), 1, negated)

    return backward


@mistake("div", guess="sign slip", examples=[example(normal(2, 3), nonzero(2, 3))])
def quotient_rule_sign(right, a):
    """The gradient of the denominator has the wrong sign.

    d(1/o) = −1/o²: the minus comes from the power −1 and is easily lost.
    """
    def backward(grad_y):
        return grad_y / a.other, grad_y * a.x / (a.other * a.other)

    return backward


@mistake("pow", guess="zero everywhere", examples=[example(positive(2, 3), normal(2, 3))])
def exponent_gradient_lost(right, a):
    """The exponent gets a gradient of zeros.

    The op was written for x ** 2 and let tensors in later. For a learnt exponent nothing happens, and nothing is said.
    """
    def zeros(grad):
        return grad * 0

    def backward(grad_y):
        return changed(right(grad_y), 1, zeros)

    return backward


@mistake("pow", examples=[example(positive(2, 3), 3)])
def power_not_lowered(right, a):
    """The slope is n · xⁿ instead of n · xⁿ⁻¹.

    Half of the power rule.
    """
    def backward(grad_y):
        return grad_y * a.other * a.x ** a.other, None

    return backward


@mistake("log")
def log_divides_by_its_output(right, a):
    """The slope is 1 / y instead of 1 / x.

    For exp the output is what the gradient needs; for log it is the input.
    """
    def backward(grad_y):
        return grad_y / a.x.log()

    return backward


@mistake("sqrt", guess="off by the factor 2")
def root_without_its_half(right, a):
    """The slope is 1 / y instead of 1 / (2y).

    The exponent ½ became an exponent −½ and left nothing behind.
    """
    def backward(grad_y, y):
        return grad_y / y

    return backward


@mistake("sqrt")
def epsilon_against_division_by_zero(right, a):
    """The slope is 1 / (2y + 10⁻⁶).

    A guard against a division by 0, added to every element: all gradients are a little wrong, and small ones very wrong.
    """
    def backward(grad_y, y):
        return grad_y / (2 * y + 1e-6)

    return backward


@mistake("erf", guess="off by the factor 0.99966")
def constant_with_four_digits(right, a):
    """2/√π is typed in as 1.128.

    The error is a third of a thousandth: smaller than many tolerances.
    """
    def backward(grad_y):
        return grad_y * 1.128 * (-(a.x * a.x)).exp()

    return backward


@mistake("abs", guess="wrong only where x < 0")
def slope_of_abs_is_one(right, a):
    """Where x is negative the slope is +1 too.

    Tried on positive numbers only.
    """
    def backward(grad_y):
        return grad_y

    return backward


@mistake("sin", guess="sign slip")
def cosine_with_a_minus(right, a):
    """The slope of sin is −cos.

    The minus belongs to the slope of cos.
    """
    def backward(grad_y):
        return -grad_y * a.x.cos()

    return backward


# --- right to first order, wrong to second -------------------------------------------------------------------------

@mistake("exp", guess="constant during the second derivative")
def exp_detaches_its_output(right, a):
    """The saved output is detached: right to first order, zero to second.

    Saved as a plain array "to save memory". Gradient penalties and Newton steps then go wrong without a word.
    """
    def backward(grad_y, y):
        return grad_y * y.detach()

    return backward


@mistake("tanh", guess="constant during the second derivative")
def tanh_computes_on_raw_arrays(right, a):
    """1 − y² is computed with NumPy inside the backward: right to first order, wrong to second.

    It is faster, and every first-order check passes.
    """
    def backward(grad_y, y):
        return grad_y * Tensor(1 - y.array * y.array)

    return backward


@mistake("sigmoid", guess="constant during the second derivative")
def sigmoid_detaches_half_a_formula(right, a):
    """In y · (1 − y) the second y is detached: the second derivative has one of its two terms.

    One of two saved values was saved as an array.
    """
    def backward(grad_y, y):
        return grad_y * y * (1 - y.detach())

    return backward


@mistake("reciprocal", guess="constant during the second derivative")
def gradient_without_a_graph(right, a):
    """The gradient is computed outside the graph: its own derivative is zero.

    A no_grad() around the whole backward, because "gradients need no gradients".
    """
    def backward(grad_y, *y):
        return Tensor(right(grad_y, *y).array)

    return backward


# --- precision ------------------------------------------------------------------------------------------------------

@mistake("exp", guess="computes in float32", at="forward", examples=[example(normal(2, 3))])
def forward_rounds_to_float32(a, y):
    """Somewhere in the forward the values go through float32.

    A table, a default dtype, a kernel that has no float64 version: seven digits are left, and the checks are loosened until they pass.
    """
    y.array[...] = y.array.astype(float32)


@mistake("sigmoid", guess="computes in float32")
def backward_rounds_to_float32(right, a):
    """The gradient goes through float32.

    A buffer that was allocated without a dtype. The error is 10⁻⁷ of the gradient.
    """
    def backward(grad_y, y):
        return Tensor(right(grad_y, y).array.astype(float32).astype(grad_y.dtype))

    return backward


# --- memory -------------------------------------------------------------------------------------------------------

@mistake("neg", guess="backward wrote into the gradient it was given")
def writes_into_grad_y(right, a):
    """The backward negates the incoming gradient in place and returns it.

    It saves an allocation, and whoever else holds that gradient (a sum has two inputs) now holds the negative.
    """
    def backward(grad_y):
        grad_y.array *= -1
        return grad_y

    return backward


@mistake("relu", guess="the function wrote into its input", at="forward")
def input_overwritten(a, y):
    """The forward writes its result into its input.

    inplace=True without a guard: whoever needs the input later, for instance a skip connection, finds another.
    """
    a.x.array[...] = y.array


SCRATCH = {}


@mistake("square", guess="a later backward changed a gradient that an earlier one returned")
def scratch_buffer_returned(right, a):
    """All gradients of one shape live in one buffer: two leaves share an array.

    A buffer kept for speed is fine until it is returned. The second call overwrites the gradient that the first one gave away.
    """
    def backward(grad_y, *y):
        grad = right(grad_y, *y)
        buffer = SCRATCH.setdefault(grad.shape, np.empty(grad.shape, grad.dtype))
        buffer[...] = grad.array
        return Tensor(buffer)

    return backward
