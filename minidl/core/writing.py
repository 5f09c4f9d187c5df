"""Writing into a tensor's memory: the one way in, so that the in-place guard sees every write. Never recorded in the graph."""

import numpy as np

from minidl.core.config import STATE, no_grad
from minidl.core.device import move, on_cpu
from minidl.core.dtypes import category
from minidl.core.errors import DTypeError, GraphError, ShapeError, explained
from minidl.core.guard import lifted, written


def write(x, call, value, place=None):
    """x[...] = value: broadcast, cast, stamped. `place(array)` gives (view, index) of the part to write, the whole by default."""
    refuse_recorded(x, call, value)
    array = getattr(value, "array", None)
    if array is None and isinstance(value, (list, tuple, np.ndarray)) and not on_cpu(x.array):
        array = np.asarray(value)
    value = value if array is None else move(array, x.device)
    with lifted(x.array):  # first: a view of a read-only array stays read-only
        target, index = (x.array, ...) if place is None else place()
        try:
            target[index] = value
        except ValueError as error:
            if "read-only" in str(error):
                raise
            raise explained(ShapeError, call, "the value must broadcast to the place it is written to.",
                            [f"place: {target[index].shape}", f"value: {getattr(value, 'shape', value)}"],
                            "Give the value that shape, or a size of 1 where it is to be repeated.") from None
    written(call, x.array)
    return x


class rewriting:  # noqa: N801 - reads like no_grad
    """Inside, a backend writes into the arrays of these tensors (None aside): checked before, stamped afterwards."""

    __slots__ = ("arrays", "call", "lifted")

    def __init__(self, call, *tensors):
        self.call, self.arrays = call, [x.array for x in tensors if x is not None]
        for x in tensors:
            if x is not None:
                refuse_recorded(x, call)

    def __enter__(self):
        self.lifted = lifted(*self.arrays)
        self.lifted.__enter__()

    def __exit__(self, failure, *_):
        self.lifted.__exit__()
        if failure is None:
            written(self.call, *self.arrays)


def recorded(x, *values):
    """Would the graph have to know of a write of these values into x?"""
    if not STATE.recording:
        return False
    return x.requires_grad or bool(values) and any(getattr(value, "requires_grad", False) for value in values)


def refuse_recorded(x, call, *values):
    """Raise if the graph would have to know of this write."""
    if recorded(x, *values):
        kind = "made by " + x.edge[0].op.name if x.edge else "a leaf that requires grad" if x.requires_grad else "a constant"
        raise explained(
            GraphError, call, "writing into a tensor is not recorded, so its gradient would be wrong.",
            [f"tensor: shape {x.shape}, {kind}"],
            "Write inside `with minidl.no_grad():`, or compute a new tensor with where(), cat() or pad().")


def augment(x, call, compute, other):
    """x += y: a new tensor where the graph has to know, a write into the array otherwise; a leaf that requires grad refuses."""
    if recorded(x, other):
        if x.edge is None and x.requires_grad:
            refuse_recorded(x, call, other)
        return compute(x, other)
    return update(x, call, compute, other)


def update(x, call, compute, *values, **settings):
    """x.add_(y) and its like: compute(x, y) written into x."""
    refuse_recorded(x, call, *values)
    with no_grad():
        result = compute(x, *values, **settings)
    if category(result.dtype) > category(x.dtype) or result.shape != x.shape:
        raise explained(DTypeError, call, "the result must fit into the tensor it is written to.",
                        [f"tensor: {x.shape}, {x.dtype}", f"result: {result.shape}, {result.dtype}"],
                        "Compute a new tensor instead, as in x = x + y.")
    return write(x, call, result)
