"""Element types and PyTorch's promotion table.

NumPy 2 turns float32 × int64, int64 / 2 and float32 × (0-d float64) into float64; PyTorch does not. So the ops ask
result_type() and cast before they compute: a float32 network stays float32.
"""

import numpy as np

from minidl.core.errors import DTypeError, explained

bool_ = np.dtype("bool")
uint8, int8, int16, int32, int64 = (np.dtype(n) for n in ("uint8", "int8", "int16", "int32", "int64"))
float16, float32, float64 = (np.dtype(n) for n in ("float16", "float32", "float64"))

DTYPES = (bool_, uint8, int8, int16, int32, int64, float16, float32, float64)
BY_NAME = {d.name: d for d in DTYPES} | {
    "float": float32, "double": float64, "half": float16, "long": int64, "int": int32, "short": int16,
}
default_float = float32  # what Python floats and integer divisions become

_CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2}  # bool < integers < floats


def category(dtype):
    """0 for bool, 1 for integers, 2 for floating point."""
    return _CATEGORY[dtype.kind]


def is_floating(dtype):
    """Can a tensor of this dtype carry a gradient?"""
    return dtype.kind == "f"


def promote_types(a, b):
    """The smallest dtype that holds both, by PyTorch's table: a float wins over any integer, whatever its size."""
    if a is b:
        return a
    if category(a) != category(b):
        return a if category(a) > category(b) else b
    return np.promote_types(a, b)  # within one category NumPy agrees (uint8 with int8 gives int16)


def number_dtype(value):
    """The dtype a Python number has by itself."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, (int, np.integer)):
        return int64
    return default_float


def result_type(*operands):
    """The dtype of an operation on tensors, arrays and Python numbers.

    Tensors with axes decide; a 0-d tensor, and then a Python number, only matters if its category (bool, integer,
    float) is higher.
    """
    with_axes = zero_axes = number = None
    for x in operands:
        if hasattr(x, "dtype") and hasattr(x, "ndim") and not isinstance(x, np.generic):
            if x.ndim:
                with_axes = x.dtype if with_axes is None else promote_types(with_axes, x.dtype)
            else:
                zero_axes = x.dtype if zero_axes is None else promote_types(zero_axes, x.dtype)
        else:
            dtype = number_dtype(x)
            number = dtype if number is None else promote_types(number, dtype)
    result = with_axes
    for weaker in (zero_axes, number):
        if weaker is not None and (result is None or category(weaker) > category(result)):
            result = weaker if result is None else promote_types(result, weaker)
    return result


def as_dtype(dtype):
    """A minidl dtype from a dtype, a NumPy scalar type, a Python type or a name; None stays None."""
    if dtype is None or isinstance(dtype, np.dtype) and dtype in DTYPES:
        return dtype
    if dtype in (bool, int, float):  # Python's own types are bool, int64 and float64, as in PyTorch
        return np.dtype(dtype)
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
    if name.replace("torch.", "") in BY_NAME:
        return BY_NAME[name.replace("torch.", "")]
    raise explained(DTypeError, "dtype", f"{name} is not an element type of minidl.",
                    [f"it has: {', '.join(d.name for d in DTYPES)}"], "Convert to one of these first.")
