"""Ops that choose between elements: where, maximum, minimum, clamp. The gradient goes where the value came from."""

import numpy as np

from minidl.backend.layout import elementwise, empty
from minidl.core.device import array_module
from minidl.core.errors import ArgumentError, DTypeError, describe, explained
from minidl.core.examples import booleans, distinct, nonzero, normal
from minidl.core.op import as_array, example, needs_grad, op
from minidl.core.tensor import Tensor
from minidl.ops.broadcast import broadcast_shape, operands, same_device, sum_to


@op("condition x other", examples=[example(booleans(2, 3), normal(2, 3), normal(2, 3)), example(booleans(3), normal(2, 1), normal(2, 3)),
                                   example(booleans(2, 3, 2, 2), normal(3, 1, 1), -2.0)],
    tex=r"y = \begin{cases} x & c \\ o & \lnot c \end{cases}")
def where(condition, x, other):
    """Choose: y = x where condition is true, other where it is not.

    Shapes:    condition, x and other broadcast to y.
    Backward:  grad_y goes to whichever was chosen; the other one gets 0, whatever its value (NaN does not leak).
    """
    if not isinstance(condition, Tensor) or condition.array.dtype.kind not in "bu":
        raise explained(DTypeError, "where", "condition must be a Tensor of booleans.", [f"it is {describe(condition)}"],
                        "Did you mean where(x != 0, ...)?")
    chosen = condition.array.astype(bool, copy=False)
    a, b = values(x, other, condition)
    shape = broadcast_shape("where", chosen.shape, a.shape, b.shape)
    y = empty(shape, a.dtype, chosen)
    y[...] = b
    array_module(y).copyto(y, a, where=chosen)
    need_x, need_other = needs_grad(x, other)
    x_shape, other_shape = a.shape, b.shape

    def backward(grad_y):
        grad_x = sum_to(where(condition, grad_y, 0), x_shape) if need_x else None
        grad_other = sum_to(where(condition, 0, grad_y), other_shape) if need_other else None
        return None, grad_x, grad_other

    return y, backward


def values(x, other, condition):
    """The two arrays to choose from; two Python numbers become arrays beside the condition."""
    tensors = [t for t in (x, other) if isinstance(t, Tensor)]
    if tensors:
        same_device("where", condition, *tensors)
        return operands("where", x, other)
    xp = array_module(condition.array)
    dtype = np.dtype("float32") if float in (type(x), type(other)) else np.dtype("int64")
    return xp.asarray(x, dtype), xp.asarray(other, dtype)


def choose(call, x, other):
    """maximum and minimum: the array, and the backward that splits a tie evenly."""
    a, b = operands(call, x, other)
    y = elementwise(getattr(np, call), a, b)
    need_x, need_other = needs_grad(x, other)
    x_shape, other_shape = a.shape, b.shape

    def backward(grad_y):
        won, tied = (x > other if call == "maximum" else x < other), x == other
        half = grad_y / 2
        grad_x = sum_to(where(tied, half, where(won, grad_y, 0)), x_shape) if need_x else None
        grad_other = sum_to(where(tied, half, where(won, 0, grad_y)), other_shape) if need_other else None
        return grad_x, grad_other

    return y, backward


@op("x other", examples=[example(distinct(2, 3), nonzero(2, 3)), example(nonzero(2, 3, 1), distinct(4)), example(normal(3, 1, 2, 2), 0.1)],
    tex=r"y = \max(x, o)", method=True)
def maximum(x, other):
    """The larger of two, element by element; NaN if either is NaN.

    Shapes:    x and other broadcast to y.
    Backward:  grad_y goes to the larger one; equal ones get half each.
    """
    return choose("maximum", x, other)


@op("x other", examples=[example(distinct(2, 3), nonzero(2, 3)), example(nonzero(2, 3, 1), distinct(4)), example(normal(3, 1, 2, 2), 0.1)],
    tex=r"y = \min(x, o)", method=True)
def minimum(x, other):
    """The smaller of two, element by element; NaN if either is NaN.

    Shapes:    x and other broadcast to y.
    Backward:  grad_y goes to the smaller one; equal ones get half each.
    """
    return choose("minimum", x, other)


@op("x", examples=[example(normal(2, 3), -0.5, 0.5), example(normal(2, 3), min=0.1), example(normal(2, 3, 2, 2), max=0.3)],
    tex=r"y = \min(\max(x, a), b)", method=True)
def clamp(x, min=None, max=None):
    """Limit to the range from min to max: y = min(max(x, a), b). Either bound may be a number or left out.

    Shapes:    x -> y, the same.
    Backward:  grad_x = grad_y inside the range and on its bounds, 0 outside.
    """
    if min is None and max is None:
        raise explained(ArgumentError, "clamp", "min or max must be given.", ["both are None"], "Pass min=, max= or both.")
    lower, upper = (None if bound is None else bound_of(x, bound) for bound in (min, max))
    y = x.array if lower is None else elementwise(np.maximum, *operands("clamp", x, lower))
    y = y if upper is None else elementwise(np.minimum, *operands("clamp", Tensor(as_array(y)), upper))

    def backward(grad_y):
        inside = x >= lower if upper is None else x <= upper if lower is None else (x >= lower) & (x <= upper)
        return where(inside, grad_y, 0)

    return y, backward


def bound_of(x, bound):
    """A bound of clamp as a number: tensors of bounds are what maximum() and minimum() are for."""
    if isinstance(bound, Tensor):
        if bound.ndim or bound.requires_grad:
            raise explained(ArgumentError, "clamp", "a bound must be a number.", [f"it is {describe(bound)}"],
                            "Use maximum(x, lower) and minimum(x, upper): they take tensors and differentiate them.")
        return bound.item()
    return bound


__all__ = ["clamp", "maximum", "minimum", "where"]
