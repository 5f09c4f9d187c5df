"""Arithmetic and functions of one element: y[k] depends on x[k] alone (and on what broadcasting puts beside it)."""

import numpy as np

from minidl.backend.layout import elementwise
from minidl.core.op import example, needs_grad, op
from minidl.core.examples import nonzero, normal, positive
from minidl.ops.broadcast import broadcast_shape, floating, operands, shape_of, sum_to


@op("x other", examples=[example(normal(2, 3), normal(2, 3)), example(normal(2, 3, 1), normal(4)), example(normal(3), 2.5)],
    tex=r"y = x + \alpha\, o", method=True)
def add(x, other, alpha=1):
    """Add, element by element: y = x + alpha · other.

    Shapes:    x and other broadcast to y.
    Backward:  every element counts once: grad_x = grad_y, grad_other = alpha · grad_y, summed over broadcast axes.
    """
    if alpha != 1:
        return add.op.forward(x, mul(other, alpha))
    a, b = operands("add", x, other)
    y = elementwise(np.add, a, b)
    x_shape, other_shape = a.shape, b.shape

    def backward(grad_y):
        return sum_to(grad_y, x_shape), sum_to(grad_y, other_shape)

    return y, backward


@op("x other", examples=[example(normal(2, 3), normal(2, 3)), example(normal(2, 3, 1), normal(4)), example(normal(3), 2.5)],
    tex=r"y = x \cdot o", method=True)
def mul(x, other):
    """Multiply, element by element: y = x · other.

    Shapes:    x and other broadcast to y.
    Backward:  product rule: grad_x = grad_y · other, grad_other = grad_y · x, summed over broadcast axes.
    """
    a, b = operands("mul", x, other)
    y = elementwise(np.multiply, a, b)
    x_shape, other_shape = a.shape, b.shape
    need_x, need_other = needs_grad(x, other)
    x_saved, other_saved = (x if need_other else None), (other if need_x else None)

    def backward(grad_y):
        grad_x = sum_to(grad_y * other_saved, x_shape) if need_x else None
        grad_other = sum_to(grad_y * x_saved, other_shape) if need_other else None
        return grad_x, grad_other

    return y, backward


@op("x", examples=[example(normal(2, 3))], tex=r"y = \tanh x", uses_output=True, method=True)
def tanh(x):
    """Hyperbolic tangent: y = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ), between −1 and 1.

    Shapes:    x -> y, the same.
    Backward:  tanh' = 1 − tanh², so the output is all it needs: grad_x = grad_y · (1 − y²).
    """
    y = elementwise(np.tanh, floating(x))

    def backward(grad_y, y):
        return grad_y * (1 - y * y)

    return y, backward


@op("x other", tex="", method=True)
def sub(x, other, alpha=1):
    """Subtract."""
    a, b = operands("sub", x, other)
    y = elementwise(np.subtract, a, b)
    x_shape, other_shape = a.shape, b.shape

    def backward(grad_y):
        return sum_to(grad_y, x_shape), -sum_to(grad_y, other_shape)

    return y, backward


@op("x", examples=[example(normal(2, 3)), example(normal(2, 3, 2, 2))], tex=r"y = x")
def clone(x):
    """Copy: y = x, in memory of its own.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y.
    """
    y = elementwise(np.positive, x.array)

    def backward(grad_y):
        return grad_y

    return y, backward
