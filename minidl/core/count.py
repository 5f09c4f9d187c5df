"""What one executed op costs: its multiply-adds, and the arrays it keeps for its backward. For observers."""

import contextlib
import math

import numpy as np

from minidl.core.op import OBSERVERS
from minidl.core.tensor import Tensor


def multiply_adds(call):
    """The multiply-adds of one Call, from its shapes alone. Additions, maxima, exponentials and divisions count nothing.

        conv2d     N·O·OH·OW · (C/groups)·KH·KW          every output is a dot product with its filter
        linear     rows · O · K
        matmul     batch · N · M · K
        einsum     the product of the sizes of all its letters
    """
    inputs, y = call.inputs, call.outputs[0]
    if call.op.name == "conv2d":
        return y.numel() * math.prod(inputs[1].shape[1:])
    if call.op.name == "conv_transpose2d":
        return inputs[0].numel() * math.prod(inputs[1].shape[1:])
    if call.op.name == "linear":
        return y.numel() * inputs[1].shape[1]
    if call.op.name == "matmul":
        return y.numel() * inputs[0].shape[-1]
    if call.op.name == "einsum":
        sizes = {}
        for letters, x in zip(_equation(call).split("->")[0].split(","), inputs, strict=True):
            sizes.update(zip(letters, x.shape, strict=True) if "." not in letters else ())
        return math.prod(sizes.values()) if len(inputs) > 1 else 0
    return 0


def _equation(call):
    """einsum's letters."""
    found = [value for value in (*call.args, *call.settings.values()) if isinstance(value, str)]
    return found[0].replace(" ", "")


def kept_arrays(node):
    """{id: array} that this node's backward closure and saved output hold, each piece of memory once."""
    found, seen = {}, set()

    def look(value):
        if id(value) in seen:
            return
        seen.add(id(value))
        array = value.array if isinstance(value, Tensor) else value
        if isinstance(array, np.ndarray):
            array = owner(array)  # a view keeps the whole memory alive
            found[id(array)] = array
        elif isinstance(value, (list, tuple, set)):
            for part in value:
                look(part)
        elif isinstance(value, dict):
            for part in value.values():
                look(part)
        elif callable(value) and getattr(value, "__closure__", None):
            for cell in value.__closure__:
                with contextlib.suppress(ValueError):  # a name that was never bound
                    look(cell.cell_contents)

    look(node.backward)
    look(node.saved_output)
    return found


def owner(array):
    """The array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@contextlib.contextmanager
def observed(observer):
    """Call observer(call) after every op inside."""
    OBSERVERS.append(observer)
    try:
        yield
    finally:
        OBSERVERS.remove(observer)


__all__ = ["kept_arrays", "multiply_adds", "observed", "owner"]
