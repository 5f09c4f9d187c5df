"""Helpers that elementwise ops share: operands of one dtype going in, sums over broadcast axes coming back."""

import numpy as np

from minidl.core.device import array_module, different_devices, on_cpu
from minidl.core.dtypes import default_float, is_floating, number_dtype, result_type
from minidl.core.errors import DTypeError, describe, explained, no_broadcast
from minidl.core.tensor import TENSORS, Tensor


def operands(call, x, other, division=False):
    """The arrays of two operands, cast to the dtype of the result; a Python number becomes a 0-d array."""
    if type(x) in TENSORS and type(other) in TENSORS:
        a, b = x.array, other.array
        if a.dtype is b.dtype and type(a) is type(b) and (not division or a.dtype.kind == "f"):
            return a, b
    elif type(x) in TENSORS and type(other) in (int, float) and x.array.dtype.kind == "f" and on_cpu(x.array):
        return x.array, np.asarray(other, x.array.dtype)
    elif type(other) in TENSORS and type(x) in (int, float) and other.array.dtype.kind == "f" and on_cpu(other.array):
        return np.asarray(x, other.array.dtype), other.array
    tensors = [t for t in (x, other) if isinstance(t, Tensor)]
    if not tensors:
        raise explained(DTypeError, call, "one of the operands must be a Tensor.", [f"got {describe(x)} and {describe(other)}"],
                        "Wrap one in minidl.tensor(...).")
    same_device(call, *tensors)
    dtype = result_type(*(t.array if isinstance(t, Tensor) else t for t in (x, other)))
    if division and not is_floating(dtype):
        dtype = default_float
    xp = array_module(tensors[0].array)

    def cast(t):
        return t.array.astype(dtype, copy=False) if isinstance(t, Tensor) else xp.asarray(_fitting(t, dtype, call), dtype)

    return cast(x), cast(other)


def _fitting(number, dtype, call):
    """A Python number that the dtype of the other operand can hold."""
    if dtype.kind in "iu" and number_dtype(number).kind in "iu" and not np.iinfo(dtype).min <= number <= np.iinfo(dtype).max:
        raise explained(DTypeError, call, f"{number} does not fit into {dtype}.",
                        [f"range: {np.iinfo(dtype).min} to {np.iinfo(dtype).max}"], "Convert the tensor to a wider integer type first.")
    return number


def same_device(call, *tensors):
    """All tensors must live on one device."""
    reason = different_devices(call, {f"argument {k}": t.array for k, t in enumerate(tensors)})
    if reason is not None:
        raise reason


def floating(x):
    """The array of x; integers and bools become the default floating dtype."""
    return x.array if x.array.dtype.kind == "f" else x.array.astype(default_float)


def shape_of(x):
    """The shape of a tensor; () for a number."""
    return x.array.shape if isinstance(x, Tensor) else ()


def broadcast_shape(call, *shapes):
    """The common shape, or an error that names the axis that does not fit."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise no_broadcast(call, *shapes) from None


def sum_to(grad, shape):
    """Undo broadcasting: sum a gradient over the axes along which a value of this shape was repeated."""
    if grad.array.shape == shape:
        return grad
    lead = grad.ndim - len(shape)
    axes = (*range(lead), *(lead + k for k, n in enumerate(shape) if n == 1 and grad.shape[lead + k] != 1))
    return grad.sum(axes).reshape(shape) if axes else grad.reshape(shape)
