"""Triangles and diagonals of matrices: tril, triu, diagonal, diag_embed, diag, trace."""

from minidl.backend.layout import empty, stored
from minidl.core.device import array_module
from minidl.core.errors import ArgumentError, ShapeError, explained
from minidl.core.examples import normal
from minidl.core.op import example, op
from minidl.core.tensor import Tensor
from minidl.ops.axes import one_axis


def triangle(call, x, diagonal):
    """tril or triu of an array with at least two axes."""
    if x.ndim < 2:
        raise explained(ShapeError, call, "a triangle needs two axes.", [f"x: {x.shape}"], "Use unsqueeze() or expand() to make a matrix.")
    return stored(getattr(array_module(x.array), call)(x.array, diagonal))


@op("x", examples=[example(normal(3, 4)), example(normal(2, 3, 2), 1), example(normal(2, 1, 3, 2), diagonal=-1)],
    tex=r"y_{ij} = [j \le i + d]\, x_{ij}", method=True)
def tril(x, diagonal=0):
    """The lower triangle: elements above the given diagonal become 0. Axes in front of the last two are a batch.

    Shapes:    x (.., N, M) -> y, the same.
    Backward:  what was set to 0 gets no gradient: grad_x = tril(grad_y).
    """
    def backward(grad_y):
        return tril(grad_y, diagonal)

    return triangle("tril", x, diagonal), backward


@op("x", examples=[example(normal(3, 4)), example(normal(2, 3, 2), 1), example(normal(2, 1, 3, 2), diagonal=-1)],
    tex=r"y_{ij} = [j \ge i + d]\, x_{ij}", method=True)
def triu(x, diagonal=0):
    """The upper triangle: elements below the given diagonal become 0. Axes in front of the last two are a batch.

    Shapes:    x (.., N, M) -> y, the same.
    Backward:  what was set to 0 gets no gradient: grad_x = triu(grad_y).
    """
    def backward(grad_y):
        return triu(grad_y, diagonal)

    return triangle("triu", x, diagonal), backward


def two_axes(call, dim1, dim2, ndim):
    """Two different axes, numbers ≥ 0."""
    if ndim < 2:
        raise explained(ShapeError, call, "a diagonal needs two axes.", [f"axes: {ndim}"], "Use diag_embed() to make a matrix of a vector.")
    first, second = one_axis(call, dim1, ndim), one_axis(call, dim2, ndim)
    if first == second:
        raise explained(ArgumentError, call, "the two axes must differ.", [f"dim1 {dim1}, dim2 {dim2}, {ndim} axes"], "Name two axes.")
    return first, second


@op("x", examples=[example(normal(3, 4)), example(normal(2, 3, 4), 1, 1, 2), example(normal(2, 3, 2, 4), offset=-1, dim1=3, dim2=1)],
    tex=r"y_k = x_{k,\, k + d}", method=True)
def diagonal(x, offset=0, dim1=0, dim2=1):
    """The diagonal of two axes, moved up (offset > 0) or down, as the last axis of y: y[.., k] = x[k, k + offset, ..].

    Shapes:    x with sizes N at dim1 and M at dim2 -> y without these two, the diagonal's length at the end.
    Backward:  only the diagonal moves y: grad_x has grad_y there, 0 elsewhere (diagonal_grad).
    """
    first, second = two_axes("diagonal", dim1, dim2, x.ndim)
    x_shape = x.shape

    def backward(grad_y):
        return diagonal_grad(grad_y, x_shape, offset, first, second)

    return stored(x.array.diagonal(offset, first, second)), backward


@op("grad_y", examples=[example(normal(3), (3, 4)), example(normal(2, 2), (2, 3, 3), 1, 1, 2),
                   example(normal(2, 2, 3), (2, 3, 2, 4), -1, 3, 1)],
    tex=r"g_{ij} = [j = i + d]\, \bar y_i")
def diagonal_grad(grad_y, x_shape, offset=0, dim1=0, dim2=1):
    """The gradient of diagonal: zeros of x's shape with the last axis of grad_y along a diagonal of two axes.

    Shapes:    grad_y (.., K) -> grad_x of x_shape.
    Backward:  every number went to one place: the gradient is the diagonal there.
    """
    first, second = two_axes("diagonal_grad", dim1, dim2, len(x_shape))
    grad_x = empty(x_shape, grad_y.dtype, grad_y.array)
    grad_x.fill(0)
    xp = array_module(grad_x)
    k = xp.arange(grad_y.shape[-1])
    xp.moveaxis(grad_x, (first, second), (-2, -1))[..., k + max(-offset, 0), k + max(offset, 0)] = grad_y.array  # writes through a view

    def backward(grad_x2):  # the gradient of grad_x takes x's place
        return diagonal(grad_x2, offset, first, second)

    return grad_x, backward


def diag_embed(input, offset=0, dim1=-2, dim2=-1):
    """Put the last axis on a diagonal of two new axes, zeros elsewhere: the opposite of diagonal()."""
    if not input.ndim:
        raise explained(ShapeError, "diag_embed", "x must have at least one axis.", ["x: ()"], "Use x.reshape(1).")
    first, second = two_axes("diag_embed", dim1, dim2, input.ndim + 1)
    size = input.shape[-1] + abs(offset)
    rest = iter(input.shape[:-1])
    return diagonal_grad(input, tuple(size if k in (first, second) else next(rest) for k in range(input.ndim + 1)), offset, first, second)


def diag(input, diagonal=0):
    """Of a vector: the matrix with it on a diagonal. Of a matrix: its diagonal."""
    if input.ndim not in (1, 2):
        raise explained(ShapeError, "diag", "x must be a vector or a matrix.", [f"x: {input.shape}"],
                        "For batches use diagonal() or diag_embed().")
    return diag_embed(input, diagonal) if input.ndim == 1 else diagonal_of(input, diagonal)


diagonal_of = diagonal  # in diag() its own name is an argument


def trace(input):
    """The sum of a matrix's diagonal."""
    if input.ndim != 2:
        raise explained(ShapeError, "trace", "x must be a matrix.", [f"x: {input.shape}"],
                        "For batches use diagonal(dim1=-2, dim2=-1).sum(-1).")
    return diagonal(input).sum()


for method in (diag, diag_embed, trace):
    setattr(Tensor, method.__name__, method)

__all__ = ["diag", "diag_embed", "diagonal", "diagonal_grad", "trace", "tril", "triu"]
