"""The layer of a perceptron: linear, and bilinear with two inputs."""

from math import prod

from minidl import backend
from minidl.core.errors import ShapeError, explained, match_shapes
from minidl.core.examples import normal
from minidl.core.op import example, needs_grad, op
from minidl.ops.broadcast import operands, same_device
from minidl.ops.matmul import einsum, matmul

__all__ = ["linear", "bilinear"]


@op("x weight bias", examples=[example(normal(4, 3), normal(2, 3), normal(2)), example(normal(2, 4, 3), normal(5, 3)),
                               example(normal(3), normal(2, 3), normal(2)), example(normal(2, 3, 2, 4), normal(3, 4), normal(3))],
    tex=r"y_{no} = b_o + \sum_k x_{nk}\, w_{ok}")
def linear(x, weight, bias=None):
    """A weighted sum of the last axis for every output: y[n, o] = b[o] + Σ_k x[n, k] · w[o, k].

    Shapes:    x (.., K),  w (O, K),  b (O,)  ->  y (.., O)
    Backward:  x[n, k] meets w[o, k] in y[n, o]: grad_x = grad_y · w, grad_w = grad_yᵀ · x with all other axes as rows,
               and b[o] counts once in every row: grad_b = Σ_n grad_y[n, o].
    """
    if not x.ndim or x.shape[-1:] != weight.shape[1:] or bias is not None and bias.shape != weight.shape[:1]:
        _match(x, weight, bias)  # says what is wrong
    a, w = operands("linear", x, weight)
    y = backend.run("matmul", a, w.T)
    if bias is not None:
        same_device("linear", x, bias)
        y += bias.array.astype(y.dtype, copy=False)
    need_x, need_w, need_b = needs_grad(x, weight, bias)
    x_saved, w_saved = (x if need_w else None), (weight if need_x else None)

    def backward(grad_y):
        grad_x = matmul(grad_y, w_saved) if need_x else None
        grad_w = matmul(_rows(grad_y).mT, _rows(x_saved)) if need_w else None
        grad_b = _rows(grad_y).sum(0) if need_b else None
        return grad_x, grad_w, grad_b

    return y, backward


def _rows(x):
    """All axes but the last joined: (.., K) -> (rows, K)."""
    return x if x.ndim == 2 else x.reshape((prod(x.shape[:-1]), x.shape[-1]))


def _match(x, weight, bias):
    """Check the three shapes."""
    if x.ndim == 0:
        raise explained(ShapeError, "linear", "x must have at least one axis.", [f"x: shape {x.shape}"],
                        "Use x.reshape(1) for a single number.")
    match_shapes("linear", w=(weight, "O K"), b=(bias, "O"))
    if x.shape[-1] != weight.shape[1]:
        fix = "Make the layer's in_features equal to the last axis of x."
        if prod(x.shape[1:]) == weight.shape[1]:
            fix = "Did you mean x.flatten(1) (all axes but the batch as one)?"
        elif weight.shape[0] == x.shape[-1]:
            fix = "Did you mean weight.T? The weight is (outputs, inputs)."
        raise explained(ShapeError, "linear", "axis K disagrees.",
                        [f"x axis {x.ndim - 1} says K = {x.shape[-1]}", f"w axis 1 says K = {weight.shape[1]}",
                         f"shapes: x (.., K) = {x.shape}, w (O, K) = {weight.shape}"], fix)


def bilinear(input1, input2, weight, bias=None):
    """A weighted sum of all products of two inputs: y[n, o] = b[o] + Σ_ij x1[n, i] · w[o, i, j] · x2[n, j]."""
    match_shapes("bilinear", w=(weight, "O I J"), b=(bias, "O"))
    if input1.shape[:-1] != input2.shape[:-1] or (*input1.shape[-1:], *input2.shape[-1:]) != weight.shape[1:]:
        raise explained(ShapeError, "bilinear", "the inputs must agree in all axes but the last, and those must be the weight's.",
                        [f"x1 (.., I) = {input1.shape}, x2 (.., J) = {input2.shape}, w (O, I, J) = {weight.shape}"],
                        "in1_features belongs to the first input, in2_features to the second.")
    y = einsum("...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else y + bias
