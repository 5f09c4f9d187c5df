"""Comparisons, logic on truth values and on bits, and questions about one element. None of them has a gradient."""

import numpy as np

from minidl.backend.layout import elementwise
from minidl.core.dtypes import bool_
from minidl.core.errors import DTypeError, explained
from minidl.core.examples import booleans, integers, normal
from minidl.core.op import example, op
from minidl.core.tensor import Tensor
from minidl.ops.broadcast import broadcast_shape, operands, same_device

PAIRS = [example(integers(0, 3, 2, 3), integers(0, 3, 3)), example(normal(2, 3), 0.5), example(normal(2, 3, 2, 2), normal(3, 1, 1))]
BITS = [example(integers(0, 9, 2, 3), integers(0, 9, 3)), example(booleans(2, 3), booleans(2, 3)), example(integers(0, 9, 3), 5)]
TRUTHS = [example(booleans(2, 3), booleans(3)), example(integers(0, 2, 2, 3), integers(0, 2, 2, 1))]
ONE = [example(normal(2, 3)), example(normal(2, 3, 2, 2))]


def compared(call, ufunc, x, other):
    """The truth values of a comparison."""
    a, b = operands(call, x, other)
    return elementwise(ufunc, a, b, bool_), None


@op("x other", examples=PAIRS, tex="y = [x = o]", method=True)
def eq(x, other):
    """Equal? y = (x == other), True or False for every element.

    Shapes:    x and other broadcast to y (bool).
    Backward:  none: truth is not continuous.
    """
    return compared("eq", np.equal, x, other)


@op("x other", examples=PAIRS, tex=r"y = [x \neq o]", method=True)
def ne(x, other):
    """Not equal? y = (x != other), True or False for every element.

    Shapes:    x and other broadcast to y (bool).
    Backward:  none: truth is not continuous.
    """
    return compared("ne", np.not_equal, x, other)


@op("x other", examples=PAIRS, tex="y = [x < o]", method=True)
def lt(x, other):
    """Less? y = (x < other), True or False for every element.

    Shapes:    x and other broadcast to y (bool).
    Backward:  none: truth is not continuous.
    """
    return compared("lt", np.less, x, other)


@op("x other", examples=PAIRS, tex=r"y = [x \le o]", method=True)
def le(x, other):
    """Less or equal? y = (x <= other), True or False for every element.

    Shapes:    x and other broadcast to y (bool).
    Backward:  none: truth is not continuous.
    """
    return compared("le", np.less_equal, x, other)


@op("x other", examples=PAIRS, tex="y = [x > o]", method=True)
def gt(x, other):
    """Greater? y = (x > other), True or False for every element.

    Shapes:    x and other broadcast to y (bool).
    Backward:  none: truth is not continuous.
    """
    return compared("gt", np.greater, x, other)


@op("x other", examples=PAIRS, tex=r"y = [x \ge o]", method=True)
def ge(x, other):
    """Greater or equal? y = (x >= other), True or False for every element.

    Shapes:    x and other broadcast to y (bool).
    Backward:  none: truth is not continuous.
    """
    return compared("ge", np.greater_equal, x, other)


def logical(call, ufunc, x, other):
    """Logic on truth values: an element is true if it is not zero."""
    same_device(call, x, other)
    broadcast_shape(call, x.shape, other.shape)
    return elementwise(ufunc, x.array, other.array, bool_), None


@op("x other", examples=TRUTHS, tex=r"y = x \land o", method=True)
def logical_and(x, other):
    """Both true? Every element that is not zero counts as true.

    Shapes:    x and other broadcast to y (bool).
    Backward:  none: truth is not continuous.
    """
    return logical("logical_and", np.logical_and, x, other)


@op("x other", examples=TRUTHS, tex=r"y = x \lor o", method=True)
def logical_or(x, other):
    """At least one true? Every element that is not zero counts as true.

    Shapes:    x and other broadcast to y (bool).
    Backward:  none: truth is not continuous.
    """
    return logical("logical_or", np.logical_or, x, other)


@op("x other", examples=TRUTHS, tex=r"y = x \oplus o", method=True)
def logical_xor(x, other):
    """Exactly one true? Every element that is not zero counts as true.

    Shapes:    x and other broadcast to y (bool).
    Backward:  none: truth is not continuous.
    """
    return logical("logical_xor", np.logical_xor, x, other)


@op("x", examples=[example(booleans(2, 3)), example(integers(0, 2, 2, 3))], tex=r"y = \lnot x", method=True)
def logical_not(x):
    """Not true? True where the element is zero.

    Shapes:    x -> y (bool), the same.
    Backward:  none: truth is not continuous.
    """
    return elementwise(np.logical_not, x.array, dtype=bool_), None


def bits(call, ufunc, x, other):
    """Logic on the bits of integers, or on booleans."""
    a, b = operands(call, x, other)
    if a.dtype.kind == "f":
        raise no_bits(call, x, other)
    return elementwise(ufunc, a, b), None


def no_bits(call, *arguments):
    """The error for floating point numbers, whose bits are not theirs to combine."""
    return explained(DTypeError, call, "only integers and booleans have bits to combine.",
                     [f"argument {k}: {t.dtype if isinstance(t, Tensor) else type(t).__name__}" for k, t in enumerate(arguments)],
                     "Compare first, as in (x > 0) & (x < 1): the brackets are needed.")


@op("x other", examples=BITS, tex=r"y = x \mathbin{\&} o", method=True)
def bitwise_and(x, other):
    """The bits set in both: y = x & other; for booleans, both true.

    Shapes:    x and other broadcast to y.
    Backward:  none: bits are not continuous.
    """
    return bits("bitwise_and", np.bitwise_and, x, other)


@op("x other", examples=BITS, tex=r"y = x \mathbin{|} o", method=True)
def bitwise_or(x, other):
    """The bits set in either: y = x | other; for booleans, at least one true.

    Shapes:    x and other broadcast to y.
    Backward:  none: bits are not continuous.
    """
    return bits("bitwise_or", np.bitwise_or, x, other)


@op("x other", examples=BITS, tex=r"y = x \oplus o", method=True)
def bitwise_xor(x, other):
    """The bits set in exactly one: y = x ^ other; for booleans, exactly one true.

    Shapes:    x and other broadcast to y.
    Backward:  none: bits are not continuous.
    """
    return bits("bitwise_xor", np.bitwise_xor, x, other)


@op("x", examples=[example(integers(0, 9, 2, 3)), example(booleans(2, 3))], tex=r"y = \mathord{\sim} x", method=True)
def bitwise_not(x):
    """Every bit flipped: y = ~x, which is −x − 1; for booleans, not.

    Shapes:    x -> y, the same.
    Backward:  none: bits are not continuous.
    """
    if x.array.dtype.kind == "f":
        raise no_bits("bitwise_not", x)
    return elementwise(np.invert, x.array), None


@op("x", examples=ONE, tex=r"y = [x \text{ is NaN}]", method=True)
def isnan(x):
    """Not a number? True where x is NaN.

    Shapes:    x -> y (bool), the same.
    Backward:  none: truth is not continuous.
    """
    return elementwise(np.isnan, x.array, dtype=bool_), None


@op("x", examples=ONE, tex=r"y = [|x| = \infty]", method=True)
def isinf(x):
    """Infinite? True where x is +∞ or −∞.

    Shapes:    x -> y (bool), the same.
    Backward:  none: truth is not continuous.
    """
    return elementwise(np.isinf, x.array, dtype=bool_), None


@op("x", examples=ONE, tex=r"y = [|x| < \infty]", method=True)
def isfinite(x):
    """Finite? True where x is neither infinite nor NaN.

    Shapes:    x -> y (bool), the same.
    Backward:  none: truth is not continuous.
    """
    return elementwise(np.isfinite, x.array, dtype=bool_), None


__all__ = ["bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "eq", "ge", "gt", "isfinite", "isinf", "isnan", "le",
           "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "ne"]
