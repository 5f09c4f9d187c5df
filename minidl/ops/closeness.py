"""Are two tensors the same, or nearly? Plain functions on top of the ops, with PyTorch's names."""

from minidl.core.errors import DTypeError, describe, explained
from minidl.core.tensor import Tensor
from minidl.ops.compare import eq, isfinite, isnan, le, logical_and, logical_or
from minidl.ops.elementwise import abs, add, mul, sub
from minidl.ops.select import clamp


def isclose(input, other, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Element by element: |x − other| ≤ atol + rtol · |other|. Equal infinities are close; NaN is close to NaN if asked for."""
    for name, x in (("input", input), ("other", other)):
        if not isinstance(x, Tensor):
            raise explained(DTypeError, "isclose", "both must be Tensors.", [f"{name}: {describe(x)}"], "Wrap it in minidl.tensor(...).")
    close = logical_and(le(abs(sub(input, other)), add(mul(abs(other), rtol), atol)), isfinite(other))
    close = logical_or(close, eq(input, other))
    return logical_or(close, logical_and(isnan(input), isnan(other))) if equal_nan else close


def allclose(input, other, rtol=1e-5, atol=1e-8, equal_nan=False):
    """True if every element is close, see isclose()."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input, other):
    """True if both have the same shape and the same elements."""
    return input.shape == other.shape and bool(eq(input, other).all())


def is_tensor(obj):
    """Is this a minidl Tensor?"""
    return isinstance(obj, Tensor)


def numel(input):
    """The number of elements."""
    return input.numel()


def is_floating_point(input):
    """Is the element type a floating point type?"""
    return input.is_floating_point()


clip = clamp
for _function in (isclose, allclose, equal):
    setattr(Tensor, _function.__name__, _function)
Tensor.clip = clamp

__all__ = ["allclose", "clip", "equal", "is_floating_point", "is_tensor", "isclose", "numel"]
