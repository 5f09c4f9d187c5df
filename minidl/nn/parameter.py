"""Parameter: a Tensor that a Module counts as its own when it is assigned to an attribute."""

import copy

import numpy as np

from minidl.backend.layout import empty, stored
from minidl.core import dtypes
from minidl.core.device import module_for
from minidl.core.errors import DTypeError, describe, explained
from minidl.core.tensor import Tensor, as_constant


class Parameter(Tensor):
    """A leaf Tensor to be trained. Assigned to an attribute of a Module, it appears in parameters() and state_dict().

    It shares the array of `data`, except that a 4-D array comes into storage order (channels-last) here, once.
    """

    __slots__ = ()

    def __init__(self, data=None, requires_grad=True):
        if data is None:
            data = np.empty(0, dtypes.default_float)
        if isinstance(data, np.ndarray):
            data = as_constant(data)
        if not isinstance(data, Tensor):
            raise explained(DTypeError, "Parameter", "a parameter is made from a Tensor.", [f"it is {describe(data)}"],
                            "Wrap it in minidl.tensor(...).")
        super().__init__(stored(data.array))
        if requires_grad:
            self.requires_grad_()

    def __deepcopy__(self, memo):
        twin = Parameter(Tensor(self.array.copy(order="K")), requires_grad=self.requires_grad)
        twin.grad = copy.deepcopy(self.grad, memo)
        memo[id(self)] = twin
        return twin

    def __reduce__(self):
        return Parameter, (Tensor(self.array), self.requires_grad)

    def __repr__(self):
        return f"Parameter containing:\n{super().__repr__()}"


def empty_parameter(shape, device=None, dtype=None):
    """An uninitialised Parameter, in storage order, on a device; what every layer starts with."""
    return Parameter(empty_tensor(shape, device, dtype))


def empty_tensor(shape, device=None, dtype=None):
    """An uninitialised Tensor, in storage order, on a device."""
    dtype = dtypes.as_dtype(dtype) or dtypes.default_float
    return Tensor(empty(tuple(shape), dtype, module_for(device or "cpu").empty(0)))
