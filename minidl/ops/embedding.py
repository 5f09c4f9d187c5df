"""Embedding: rows of a table by number, and its gradient, which adds up in every row what its uses send back."""

from minidl import backend
from minidl.backend.layout import stored
from minidl.core.device import array_module
from minidl.core.dtypes import is_floating
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError, explained
from minidl.core.examples import integers, normal
from minidl.core.later import require
from minidl.core.op import example, op
from minidl.ops.broadcast import same_device
from minidl.ops.select import where


def embedding(input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False):
    """Rows of a table: y[...] = weight[input[...]]. The row padding_idx is read like the others, but never gets a gradient."""
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise explained(ArgumentError, "embedding", "max_norm, scale_grad_by_freq and sparse are not available.",
                        [f"max_norm={max_norm}, scale_grad_by_freq={scale_grad_by_freq}, sparse={sparse}"],
                        "Leave them out; clip_grad_norm_ bounds what one step changes.")
    y = embed(input, weight)
    if padding_idx is None:
        return y
    count = weight.shape[0]
    if not -count <= padding_idx < count:
        raise explained(RangeError, "embedding", "padding_idx must be a row of the table.",
                        [f"padding_idx = {padding_idx}, rows: {count}"], "Rows count from 0.")
    return where((input == padding_idx % count).unsqueeze(-1), y.detach(), y)


@op("index weight", examples=[example(integers(0, 4, 2, 3), normal(4, 5)), example(integers(0, 4, 5), normal(4, 3)),
                              example(integers(0, 3), normal(3, 2))],
    tex=r"y_{n\,:} = w_{i_n\,:}")
def embed(index, weight):
    """Look up rows of a table: y[...] = w[index[...]].

    Shapes:    index (...) of integers,  w (V, D)  ->  y (..., D)
    Backward:  a row may be used many times, and gets the sum of what its uses send back: grad_w = embed_grad(grad_y, index).
    """
    check_embedding("embedding", index, weight.shape, w=weight)
    count = weight.shape[0]

    def backward(grad_y):
        return None, embed_grad(grad_y, index, count)

    return stored(weight.array[index.array]), backward


@op("grad_y index", examples=[example(normal(2, 3, 5), integers(0, 4, 2, 3), 4), example(normal(5, 3), integers(0, 4, 5), 4)],
    tex=r"\bar w_{v\,:} = \sum_{n:\, i_n = v} \bar y_{n\,:}")
def embed_grad(grad_y, index, count):
    """The gradient of embed: every row of the table adds up the gradients of its uses.

    Shapes:    grad_y (..., D),  index (...) of integers  ->  grad_w (count, D)
    Backward:  it is linear in grad_y, and what was added up is looked up again: embed(index, w2), w2 being the gradient
               that arrives (it takes w's place).
    """
    D = grad_y.shape[-1]
    check_embedding("embed_grad", index, (count, D), grad_y=grad_y)
    if grad_y.shape != (*index.shape, D):
        raise explained(ShapeError, "embed_grad", "grad_y has one row per index.", [f"grad_y: {grad_y.shape}", f"index: {index.shape}"],
                        "Pass the index that embed() had.")
    grad_w = array_module(grad_y.array).zeros((count, D), grad_y.dtype)
    backend.run("add_at", grad_w, index.array.reshape(-1), grad_y.array.reshape(-1, D))

    def backward(w2):
        return embed(index, w2), None

    return grad_w, backward


def check_embedding(call, index, shape, **tensors):
    """Integers that name rows of a table."""
    same_device(call, index, *tensors.values())
    if is_floating(index.dtype) or index.dtype.kind == "b":
        raise explained(DTypeError, call, "the index holds whole numbers, rows of the table.", [f"index: {index.shape}, {index.dtype}"],
                        "The index comes first, then the table. Convert it with index.long().")
    if len(shape) != 2:
        raise explained(ShapeError, call, "the table must have two axes, (V, D).", [f"w: {shape}"], "One row of D numbers per index.")
    wrong = (index.array < 0) | (index.array >= shape[0])

    def complain():
        first = tuple(int(k[0]) for k in wrong.nonzero()) if index.ndim else ()
        raise explained(RangeError, call, f"an index must lie between 0 and V − 1 = {shape[0] - 1}.",
                        [f"index[{', '.join(map(str, first))}] = {int(index.array[first])}", f"rows: V = {shape[0]}"],
                        "Enlarge the table, or check the index.")

    require(~wrong.any(), complain)


__all__ = ["embed", "embed_grad", "embedding"]
