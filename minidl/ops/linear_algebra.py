"""Matrix products by their strict names: mm, bmm, mv, dot, addmm, ... Plain functions made of matmul, without broadcasting."""

from math import prod

from minidl.core.errors import ArgumentError, ShapeError, explained, match_shapes
from minidl.core.tensor import Tensor
from minidl.ops.axes import several_axes
from minidl.ops.matmul import matmul
from minidl.ops.shape import expand, permute, reshape


def mm(input, mat2):
    """The product of two matrices: y[n, m] = Σ_k x[n, k] · mat2[k, m]."""
    match_shapes("mm", x=(input, "N K"), mat2=(mat2, "K M"))
    return matmul(input, mat2)


def bmm(input, mat2):
    """The products of two equally long lists of matrices: y[b, n, m] = Σ_k x[b, n, k] · mat2[b, k, m]."""
    match_shapes("bmm", x=(input, "B N K"), mat2=(mat2, "B K M"))
    return matmul(input, mat2)


def mv(input, vec):
    """A matrix times a vector: y[n] = Σ_k x[n, k] · vec[k]."""
    match_shapes("mv", x=(input, "N K"), vec=(vec, "K"))
    return matmul(input, vec)


def dot(input, tensor):
    """The product of two vectors: y = Σ_k x[k] · tensor[k]."""
    match_shapes("dot", x=(input, "K"), tensor=(tensor, "K"))
    return matmul(input, tensor)


def vdot(input, other):
    """The product of two vectors: dot(), since minidl's numbers are real."""
    return dot(input, other)


def outer(input, vec2):
    """All products of the elements of two vectors: y[n, m] = x[n] · vec2[m]."""
    match_shapes("outer", x=(input, "N"), vec2=(vec2, "M"))
    return reshape(input, (-1, 1) if input.array.size else (0, 1)) * vec2


def added(call, input, product, beta, alpha):
    """beta · input + alpha · product, input expanded to the product; with beta = 0 input is not even looked at (NaN)."""
    product = product if alpha == 1 else product * alpha
    if input.ndim > product.ndim or any(n not in (1, m) for n, m in zip(input.shape[::-1], product.shape[::-1], strict=False)):
        raise explained(ShapeError, call, "input must broadcast to the product.", [f"input: {input.shape}", f"product: {product.shape}"],
                        "Its sizes, aligned from the right, must be equal or 1.")
    if beta == 0:
        return product
    return expand(input if beta == 1 else input * beta, product.shape) + product


def addmm(input, mat1, mat2, *, beta=1, alpha=1):
    """A product of two matrices, and something added: y = beta · input + alpha · (mat1 @ mat2)."""
    match_shapes("addmm", mat1=(mat1, "N K"), mat2=(mat2, "K M"))
    return added("addmm", input, matmul(mat1, mat2), beta, alpha)


def baddbmm(input, batch1, batch2, *, beta=1, alpha=1):
    """Products of two lists of matrices, and something added: y = beta · input + alpha · (batch1 @ batch2)."""
    match_shapes("baddbmm", batch1=(batch1, "B N K"), batch2=(batch2, "B K M"))
    return added("baddbmm", input, matmul(batch1, batch2), beta, alpha)


def addmv(input, mat, vec, *, beta=1, alpha=1):
    """A matrix times a vector, and something added: y = beta · input + alpha · (mat @ vec)."""
    match_shapes("addmv", mat=(mat, "N K"), vec=(vec, "K"))
    return added("addmv", input, matmul(mat, vec), beta, alpha)


def tensordot(a, b, dims=2):
    """Multiply and sum over pairs of axes: the last `dims` of a with the first of b, or the axes in two lists.

    y has the axes of a that are left, then those of b.
    """
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.ndim, b.ndim):
            raise explained(ArgumentError, "tensordot", "dims counts axes that both tensors have.",
                            [f"a: {a.shape}", f"b: {b.shape}", f"dims: {dims}"],
                            "0 gives all products, 1 is like a matrix product.")
        dims = range(a.ndim - dims, a.ndim), range(dims)
    a_axes, b_axes = (several_axes("tensordot", d if isinstance(d, int) else tuple(d), x.ndim) for d, x in zip(dims, (a, b), strict=True))
    if [a.shape[k] for k in a_axes] != [b.shape[k] for k in b_axes]:
        raise explained(ShapeError, "tensordot", "the axes that are summed must agree in number and size.",
                        [f"a: {a.shape}, axes {a_axes}", f"b: {b.shape}, axes {b_axes}"], "dims holds a list of axes of a and one of b.")
    a_left, b_left = ([k for k in range(x.ndim) if k not in axes] for x, axes in ((a, a_axes), (b, b_axes)))
    a_sizes, b_sizes = [a.shape[k] for k in a_left], [b.shape[k] for k in b_left]
    k_size = prod(a.shape[k] for k in a_axes)
    rows = reshape(permute(a, (*a_left, *a_axes)), (prod(a_sizes), k_size))
    columns = reshape(permute(b, (*b_axes, *b_left)), (k_size, prod(b_sizes)))
    return reshape(matmul(rows, columns), (*a_sizes, *b_sizes))


for method in (mm, bmm, mv, dot, vdot, outer, addmm, baddbmm, addmv):
    setattr(Tensor, method.__name__, method)

__all__ = ["addmm", "addmv", "baddbmm", "bmm", "dot", "mm", "mv", "outer", "tensordot", "vdot"]
