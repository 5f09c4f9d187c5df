"""Sums and extremes over axes: NumPy's own on the CPU, where asking the registry would cost as much as a small sum; the registry's
choice on a GPU and for the sums of large arrays.
"""

import numpy as np

from minidl.backend import implements, run
from minidl.backend.threads import BIG
from minidl.core.device import array_module, on_cpu


def add_up(array, axes, keepdim, dtype):
    """Σ array over axes, added up in `dtype`."""
    return (sum_over if on_cpu(array) and array.size < BIG else _chosen("sum"))(array, axes=axes, keepdim=keepdim, dtype=dtype)


def furthest(array, axes, keepdim, sign):
    """The largest (sign 1) or smallest (sign −1) over axes; a NaN is both."""
    return (extreme if on_cpu(array) else _chosen("extreme"))(array, axes=axes, keepdim=keepdim, sign=sign)


def first_furthest(array, axis, keepdim, sign):
    """Where the first of the largest (or smallest) stands along an axis, or in the flattened array."""
    return (position if on_cpu(array) else _chosen("position"))(array, axis=axis, keepdim=keepdim, sign=sign)


def _chosen(op):
    return lambda array, **how: run(op, array, **how)


@implements("sum", "generic")
@implements("sum", "reference")
def sum_over(array, axes, keepdim, dtype):
    """NumPy's or CuPy's own."""
    with np.errstate(all="ignore"):  # NumPy's own Python file warns here, which the filter in minidl/__init__.py does not cover
        return array.sum(axes, dtype=dtype, keepdims=keepdim)


@implements("extreme", "generic")
@implements("extreme", "reference")
def extreme(array, axes, keepdim, sign):
    """NumPy's or CuPy's own."""
    return (array.max if sign > 0 else array.min)(axes, keepdims=keepdim)


@implements("position", "generic")
@implements("position", "reference")
def position(array, axis, keepdim, sign):
    """NumPy's or CuPy's own."""
    xp = array_module(array)
    return (xp.argmax if sign > 0 else xp.argmin)(array, axis, keepdims=keepdim)
