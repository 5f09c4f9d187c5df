"""How arrays are stored: 4-D results channels-last, everything else C-contiguous. Shapes stay N C H W everywhere.

Channels-last because an im2col row is then a few long copies, a 1×1 convolution is one matrix product, and a
normalisation reads each row once. NumPy forgets the order for mixed operands and CuPy always does, so whoever
makes a 4-D result allocates it here and fills it with out=.
"""

import numpy as np

from minidl.backend.counters import COUNTS
from minidl.backend.threads import parallel_for, spans
from minidl.core.device import array_module, on_cpu
from minidl.core.errors import no_broadcast

LINE = 64        # bytes in a cache line
LARGE = 1 << 19  # elements from which a pass over memory goes to all cores; a second thread takes 35 µs to wake up
PIECE = 1 << 18  # elements of such a pass that a thread takes up at once
STREAM = 1 << 22  # elements from which this pays for a pass that only reads and writes: one core alone keeps the memory nearly busy
JOINED = 1 << 21  # the same for copies end to end


def empty(shape, dtype, like):
    """An uninitialised array on `like`'s device, in the storage order of its number of axes."""
    xp = array_module(like)
    if len(shape) == 4:
        n, c, h, w = shape
        return xp.empty((n, h, w, c), dtype).transpose(0, 3, 1, 2)
    return xp.empty(shape, dtype)


def is_stored_right(array):
    """Is this array in the storage order of its number of axes?"""
    if array.ndim == 4:
        return array.transpose(0, 2, 3, 1).flags.c_contiguous
    return array.flags.c_contiguous


def stored(array):
    """The same values in storage order; a copy only where it must be."""
    if is_stored_right(array):
        return array
    COUNTS["layout conversion"] += 1
    result = empty(array.shape, array.dtype, array)
    if array.size >= LARGE and array.shape[0] > 1 and on_cpu(array):
        parallel_for(lambda n: np.copyto(result[n], array[n]), range(array.shape[0]))
    else:
        result[...] = array
    return result


def join(arrays, axis, out):
    """Arrays end to end along an axis; a large batch sample by sample on all cores."""
    if out.size < JOINED or axis == 0 or not on_cpu(out):
        array_module(out).concatenate(arrays, axis, out=out)
    else:
        parallel_for(lambda n: np.concatenate([array[n] for array in arrays], axis - 1, out=out[n]), range(out.shape[0]))
    return out


def flat(arrays):
    """One-dimensional views of arrays of one shape, element k the same everywhere; the arrays themselves if one is in another order."""
    if not all(is_stored_right(array) for array in arrays):
        return list(arrays)
    return [(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array).reshape(-1) for array in arrays]


def as_array(y):
    """A result as an array: NumPy's ufuncs turn 0-d arrays into scalars."""
    return np.asarray(y) if isinstance(y, np.generic) else y


def elementwise(ufunc, x, other=None, dtype=None):
    """ufunc(x) or ufunc(x, other) with a 4-D result stored channels-last.

    The two arrays share one dtype; `dtype` is the result's, if it is another (comparisons).
    """
    if other is None:
        return ufunc(x) if x.ndim != 4 else in_pieces(ufunc, empty(x.shape, dtype or x.dtype, x), x)
    try:
        if x.ndim == 4 or other.ndim == 4:
            shape = array_module(x).broadcast_shapes(x.shape, other.shape)
            if len(shape) == 4:
                return in_pieces(ufunc, empty(shape, dtype or x.dtype, x), x, other)
        return ufunc(x, other)
    except ValueError:
        name = _OP_NAMES.get(ufunc.__name__, ufunc.__name__)
        raise no_broadcast(name, x.shape, other.shape) from None


def in_pieces(ufunc, out, *operands):
    """ufunc(*operands, out=out), a large NumPy array on all cores; operands of another shape or order leave it to one."""
    if out.size < (STREAM if ufunc in LIGHT else LARGE) or not on_cpu(out) or any(a.ndim and a.shape != out.shape for a in operands):
        return ufunc(*operands, out=out)
    target, *views = flat([out, *(a for a in operands if a.ndim)])
    if target.ndim != 1:
        return ufunc(*operands, out=out)
    views = iter(views)
    operands = [next(views) if a.ndim else a for a in operands]
    parallel_for(lambda piece: ufunc(*[a[piece] if a.ndim else a for a in operands], out=target[piece]), spans(out.size, PIECE, LINE))
    return out


def add_into(total, more):
    """total += more, a large one on all cores."""
    if total.size < STREAM:
        total += more
    else:
        in_pieces(np.add, total, total, more)


LIGHT = {np.add, np.subtract, np.multiply, np.maximum, np.minimum, np.negative, np.absolute}  # memory takes longer than computing these
_OP_NAMES = {"multiply": "mul", "arctan2": "atan2", "subtract": "sub", "divide": "div", "true_divide": "div", "power": "pow",
             "equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge"}
