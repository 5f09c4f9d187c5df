"""tanh, sigmoid and relu: what stands between the layers of a network. Their gradients are ops of their own, because
small tensors pay per op. The later inventions (gelu, silu, ...) are in activation.py.
"""

import numpy as np

from minidl.backend.layout import elementwise
from minidl.backend.rectify import gate, rectify
from minidl.core.examples import nonzero, normal
from minidl.core.op import example, needs_grad, op
from minidl.ops.broadcast import floating
from minidl.ops.elementwise import refuse_bool


@op("x", examples=[example(normal(2, 3)), example(normal(3, 1, 2, 2))], tex=r"y = \tanh x", uses_output=True, method=True)
def tanh(x):
    """Hyperbolic tangent: y = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ), between −1 and 1.

    Shapes:    x -> y, the same.
    Backward:  tanh' = 1 − tanh², so the output is all it needs: grad_x = grad_y · (1 − y²).
    """
    def backward(grad_y, y):
        return tanh_grad(grad_y, y)

    return elementwise(np.tanh, floating(x)), backward


@op("grad_y y", examples=[example(normal(2, 3), normal(2, 3)), example(normal(3, 1, 2, 2), normal(3, 1, 2, 2))],
    tex=r"\partial x = \partial y \,(1 - y^2)")
def tanh_grad(grad_y, y):
    """The gradient of tanh: z = grad_y · (1 − y²).

    Shapes:    grad_y and y the same -> z, the same.
    Backward:  z is linear in grad_y, so that gradient is this op again: grad_grad_y = grad_z · (1 − y²);
               the second argument's is −2 y · grad_y · grad_z.
    """
    z = elementwise(np.multiply, grad_y.array, 1 - y.array * y.array)
    need_grad_y, need_y = needs_grad(grad_y, y)

    def backward(grad_z):
        return tanh_grad(grad_z, y) if need_grad_y else None, grad_z * grad_y * (-2 * y) if need_y else None

    return z, backward


@op("x", examples=[example(normal(2, 3)), example(normal(3, 1, 2, 2))], tex=r"y = \frac{1}{1 + e^{-x}}", uses_output=True, method=True)
def sigmoid(x):
    """The logistic function: y = 1 / (1 + e⁻ˣ), between 0 and 1.

    Shapes:    x -> y, the same.
    Backward:  σ' = σ (1 − σ), so the output is all it needs: grad_x = grad_y · y · (1 − y).
    """
    y = elementwise(np.exp, elementwise(np.negative, floating(x)))
    y = elementwise(np.reciprocal, y + 1)  # e⁻ˣ overflows to inf for very negative x, and 1 / inf = 0 is right

    def backward(grad_y, y):
        return sigmoid_grad(grad_y, y)

    return y, backward


@op("grad_y y", examples=[example(normal(2, 3), normal(2, 3)), example(normal(3, 1, 2, 2), normal(3, 1, 2, 2))],
    tex=r"\partial x = \partial y \; y\,(1 - y)")
def sigmoid_grad(grad_y, y):
    """The gradient of sigmoid: z = grad_y · y · (1 − y).

    Shapes:    grad_y and y the same -> z, the same.
    Backward:  z is linear in grad_y, so that gradient is this op again: grad_grad_y = grad_z · y · (1 − y);
               the second argument's is grad_z · grad_y · (1 − 2 y).
    """
    z = elementwise(np.multiply, grad_y.array, y.array * (1 - y.array))
    need_grad_y, need_y = needs_grad(grad_y, y)

    def backward(grad_z):
        return sigmoid_grad(grad_z, y) if need_grad_y else None, grad_z * grad_y * (1 - 2 * y) if need_y else None

    return z, backward


@op("x", examples=[example(nonzero(2, 3)), example(nonzero(3, 1, 2, 2))], tex=r"y = \max(x, 0)", uses_output=True, method=True)
def relu(x, inplace=False):
    """Rectify: y = x where x > 0, else 0.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y where y > 0, else 0 (also at x = 0).
    """
    refuse_bool("relu", x.array)

    def backward(grad_y, y):
        return relu_grad(grad_y, y)

    return rectify(x.array), backward


@op("grad_y y", examples=[example(normal(2, 3), nonzero(2, 3)), example(normal(3, 1, 2, 2), nonzero(3, 1, 2, 2))],
    tex=r"\partial x = \partial y \; [y > 0]")
def relu_grad(grad_y, y):
    """The gradient of relu: z = grad_y where y > 0, else 0.

    Shapes:    grad_y and y the same -> z, the same.
    Backward:  z is linear in grad_y, so that gradient is this op again: grad_grad_y = grad_z where y > 0, else 0.
               y only opens and closes the gate: it has no gradient.
    """
    z = gate(grad_y.array, y.array)
    y_saved = y.detach()

    def backward(grad_z):
        return relu_grad(grad_z, y_saved), None

    return z, backward


__all__ = ["relu", "sigmoid", "tanh"]
