"""Creation functions: tensors from data, from a fill value, from a range, from chance. PyTorch's names and defaults.

Python floats become float32 and integers int64; NumPy arrays keep their dtype.
"""

import math

import numpy as np

from minidl.backend.layout import empty as empty_array
from minidl.backend.layout import stored
from minidl.core.device import module_for, move
from minidl.core.dtypes import as_dtype, default_float, int64, is_floating, number_dtype
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError, describe, explained
from minidl.core.rng import default_generator, draw_normal, draw_uniform
from minidl.core.tensor import Tensor, as_constant

CPU_ARRAY = np.empty(0)  # says "on the CPU" to the layout functions


def finished(array, dtype=None, device=None, requires_grad=False):
    """A fresh array as a leaf Tensor: in its dtype, on its device, in storage order."""
    if isinstance(array, np.generic):
        array = np.asarray(array)
    array = array if dtype is None else array.astype(dtype, copy=False)
    x = Tensor(stored(array if device is None else move(array, device)))
    return x.requires_grad_() if requires_grad else x


# --- from data -------------------------------------------------------------------------------------------------

def tensor(data, dtype=None, device=None, requires_grad=False):
    """A new tensor with a copy of these numbers: nested lists, a number, a NumPy array or a Tensor."""
    dtype = as_dtype(dtype)
    array = raw_array("tensor", data, dtype)
    copy = empty_array(array.shape, dtype or array.dtype, CPU_ARRAY)
    with np.errstate(all="ignore"):
        copy[...] = array
    return finished(copy, None, device, requires_grad)


def as_tensor(data, dtype=None, device=None):
    """Like tensor(), but without a copy where none is needed: then both share memory."""
    if isinstance(data, Tensor):
        return data.to(dtype=dtype or data.dtype, device=device or data.device)
    x = Tensor(raw_array("as_tensor", data, as_dtype(dtype)))
    return x.to(dtype=dtype or x.dtype, device=device or x.device)


def from_numpy(array):
    """A tensor that shares its memory with a NumPy array: a write to one shows in the other."""
    if not isinstance(array, np.ndarray):
        raise explained(DTypeError, "from_numpy", "it takes a NumPy array.", [f"got {describe(array)}"],
                        "Use minidl.tensor(...) for anything else.")
    return as_constant(array)


def raw_array(call, data, dtype=None):
    """Any data as a NumPy array in a dtype that minidl has; Python's floats take `dtype` at once, before they lose digits."""
    wanted = dtype if dtype is not None and is_floating(dtype) else default_float
    if isinstance(data, Tensor):
        return move(data.array, "cpu")
    if isinstance(data, (list, tuple)):
        return nested(call, data, wanted)
    if isinstance(data, (bool, int, float)) and not isinstance(data, np.generic):  # np.float64 is a float too
        if not isinstance(data, float) and not -2**63 <= data < 2**63:
            raise explained(DTypeError, call, "this integer does not fit into int64.", [f"it is {data}"], "Use a float.")
        with np.errstate(over="ignore"):  # too big a float becomes inf without a word, as in PyTorch
            return np.asarray(data, wanted if isinstance(data, float) else number_dtype(data))
    array = np.asarray(data)
    if array.dtype.kind not in "biuf" and not isinstance(data, np.ndarray):  # as_constant() names an array's dtype
        raise explained(DTypeError, call, f"numbers cannot be made of {type(data).__name__}.", [f"got {describe(data)}"],
                        "Pass a number, nested lists of numbers, or a NumPy array.")
    return as_constant(array).array


def nested(call, data, wanted):
    """Nested lists as an array: Python's own numbers give minidl's default dtypes, arrays and tensors inside keep theirs."""
    first = data
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    try:
        array = np.array(plain(data))
    except (ValueError, OverflowError):
        raise explained(ShapeError, call, "nested lists must have equal lengths.", [f"got {describe(data)}"],
                        "Every row needs as many numbers as the first one.") from None
    if array.dtype.kind not in "biuf":
        raise explained(DTypeError, call, "every element must be a number.", [f"got {describe(data)}"],
                        "Remove what is not a number; integers must fit into int64.")
    if array.dtype.kind == "f" and not isinstance(first, (np.ndarray, np.generic, Tensor)):
        with np.errstate(over="ignore"):
            array = array.astype(wanted)
    return as_constant(array).array


def plain(data):
    """Nested lists in which tensors became arrays."""
    if isinstance(data, Tensor):
        return move(data.array, "cpu")
    return [plain(item) for item in data] if isinstance(data, (list, tuple)) else data


# --- from a fill value --------------------------------------------------------------------------------------------

def shape_from(call, sizes, size=None):
    """(2, 3) from f(2, 3), f((2, 3)), f([2, 3]) and f(size=(2, 3))."""
    if size is not None:
        sizes = (size,)
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    for n in sizes:
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 0:
            raise explained(ShapeError, call, "a size is a whole number, 0 or more.", [f"size: {tuple(sizes)}"], "Check the shape.")
    return tuple(int(n) for n in sizes)


def filled(shape, value, dtype, device=None, requires_grad=False):
    """A tensor of one repeated value; None leaves whatever the memory held."""
    array = empty_array(shape, dtype, module_for(device or "cpu").empty(0))
    if value is not None:
        array.fill(value)
    return finished(array, None, device, requires_grad)


def zeros(*sizes, size=None, dtype=None, device=None, requires_grad=False):
    """A tensor of zeros."""
    return filled(shape_from("zeros", sizes, size), 0, as_dtype(dtype) or default_float, device, requires_grad)


def ones(*sizes, size=None, dtype=None, device=None, requires_grad=False):
    """A tensor of ones."""
    return filled(shape_from("ones", sizes, size), 1, as_dtype(dtype) or default_float, device, requires_grad)


def empty(*sizes, size=None, dtype=None, device=None, requires_grad=False):
    """A tensor whose values are whatever the memory held: write every element before reading one."""
    return filled(shape_from("empty", sizes, size), None, as_dtype(dtype) or default_float, device, requires_grad)


def full(size, fill_value, dtype=None, device=None, requires_grad=False):
    """A tensor of one repeated value; its dtype is the value's own: bool, int64 or float32."""
    sizes = size if isinstance(size, (tuple, list)) else (size,)
    fill_value = fill_value.item() if isinstance(fill_value, Tensor) else fill_value
    return filled(shape_from("full", tuple(sizes)), fill_value, as_dtype(dtype) or number_dtype(fill_value), device, requires_grad)


def zeros_like(x, dtype=None, device=None, requires_grad=False):
    """Zeros in the shape, dtype and device of x."""
    return filled(x.shape, 0, as_dtype(dtype) or x.dtype, device or x.device, requires_grad)


def ones_like(x, dtype=None, device=None, requires_grad=False):
    """Ones in the shape, dtype and device of x."""
    return filled(x.shape, 1, as_dtype(dtype) or x.dtype, device or x.device, requires_grad)


def empty_like(x, dtype=None, device=None, requires_grad=False):
    """Uninitialised memory in the shape, dtype and device of x."""
    return filled(x.shape, None, as_dtype(dtype) or x.dtype, device or x.device, requires_grad)


def full_like(x, fill_value, dtype=None, device=None, requires_grad=False):
    """One repeated value in the shape, dtype and device of x."""
    return filled(x.shape, fill_value, as_dtype(dtype) or x.dtype, device or x.device, requires_grad)


def eye(n, m=None, dtype=None, device=None, requires_grad=False):
    """The identity matrix of n rows (and m columns)."""
    return finished(np.eye(n, m), as_dtype(dtype) or default_float, device, requires_grad)


# --- from a range -------------------------------------------------------------------------------------------------

def arange(start=0, end=None, step=1, dtype=None, device=None, requires_grad=False):
    """start, start + step, ... below end; int64 if all three are whole numbers, else float32."""
    if end is None:
        start, end = 0, start
    start, end, step = (t.item() if isinstance(t, Tensor) else t for t in (start, end, step))
    if not step or (end - start) / step < 0:
        raise explained(ArgumentError, "arange", "step must lead from start to end.", [f"start {start}, end {end}, step {step}"],
                        "A step of 0 never arrives; count down with a negative step.")
    whole = all(isinstance(t, (int, np.integer)) for t in (start, end, step))
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    return finished(start + step * np.arange(count), as_dtype(dtype) or (int64 if whole else default_float), device, requires_grad)


def linspace(start, end, steps, dtype=None, device=None, requires_grad=False):
    """`steps` numbers from start to end, both included, evenly spaced."""
    return finished(np.linspace(start, end, steps), as_dtype(dtype) or default_float, device, requires_grad)


def one_hot(x, num_classes=-1):
    """A new last axis of num_classes zeros with a 1 at the class; int64, as in PyTorch."""
    if is_floating(x.dtype):
        raise explained(DTypeError, "one_hot", "classes are whole numbers.", [f"x: shape {x.shape}, {x.dtype}"], "Convert first: x.long().")
    if num_classes < 0 and not x.numel():
        raise explained(ArgumentError, "one_hot", "without any class their number cannot be guessed.", [f"x: shape {x.shape}"],
                        "Pass num_classes.")
    n = int(x.array.max()) + 1 if num_classes < 0 else num_classes
    if x.numel() and not (int(x.array.min()) >= 0 and int(x.array.max()) < n):
        raise explained(RangeError, "one_hot", f"a class must lie between 0 and num_classes − 1 = {n - 1}.",
                        [f"smallest: {int(x.array.min())}", f"largest: {int(x.array.max())}"], "Raise num_classes, or check the labels.")
    classes = module_for(x.device).arange(n)
    return finished(x.array[..., None] == classes, int64)


# --- from chance --------------------------------------------------------------------------------------------------

def floating_dtype(call, dtype):
    """The dtype for random real numbers."""
    dtype = as_dtype(dtype) or default_float
    if not is_floating(dtype):
        raise explained(DTypeError, call, "these random numbers are floating point.", [f"dtype: {dtype}"],
                        "Use randint() for whole numbers.")
    return dtype


def rand(*sizes, size=None, dtype=None, device=None, requires_grad=False, generator=None):
    """Random numbers, evenly spread from 0 (included) to 1 (not included)."""
    numbers = draw_uniform(shape_from("rand", sizes, size), floating_dtype("rand", dtype), generator=generator)
    return finished(numbers, None, device, requires_grad)


def randn(*sizes, size=None, dtype=None, device=None, requires_grad=False, generator=None):
    """Random numbers, normally distributed with mean 0 and standard deviation 1."""
    numbers = draw_normal(shape_from("randn", sizes, size), floating_dtype("randn", dtype), generator=generator)
    return finished(numbers, None, device, requires_grad)


def rand_like(x, dtype=None, device=None, requires_grad=False):
    """rand() in the shape, dtype and device of x."""
    return rand(x.shape, dtype=dtype or x.dtype, device=device or x.device, requires_grad=requires_grad)


def randn_like(x, dtype=None, device=None, requires_grad=False):
    """randn() in the shape, dtype and device of x."""
    return randn(x.shape, dtype=dtype or x.dtype, device=device or x.device, requires_grad=requires_grad)


def randint(low, high=None, size=None, dtype=None, device=None, requires_grad=False, generator=None):
    """Random whole numbers from low (0 if left out) to high − 1; int64."""
    if size is None or isinstance(high, (tuple, list)):
        low, high, size = (0, low, high) if size is None else (low, high, size)
    elif high is None:
        low, high = 0, low
    shape = shape_from("randint", (size,))
    if not low < high:
        raise explained(ArgumentError, "randint", "low must be below high.", [f"low {low}, high {high}"], "high itself is never drawn.")
    return finished((generator or default_generator).numpy.integers(low, high, shape), as_dtype(dtype) or int64, device, requires_grad)


def randperm(n, dtype=None, device=None, generator=None):
    """The numbers 0 to n − 1 in random order; int64."""
    return finished((generator or default_generator).numpy.permutation(n), as_dtype(dtype) or int64, device)


def normal(mean, std=1.0, size=None, dtype=None, device=None, requires_grad=False, generator=None):
    """Normally distributed numbers; mean and std are numbers (with size) or tensors that broadcast."""
    shape = np.broadcast_shapes(*(getattr(t, "shape", ()) for t in (mean, std))) if size is None else shape_from("normal", (size,))
    dtype = as_dtype(dtype) or next((t.dtype for t in (mean, std) if isinstance(t, Tensor) and is_floating(t.dtype)), default_float)
    mean, std = (move(t.array, "cpu") if isinstance(t, Tensor) else t for t in (mean, std))
    return finished(draw_normal(shape, dtype, generator=generator) * std + mean, dtype, device, requires_grad)


def bernoulli(x, generator=None):
    """1 with the probability that x says, element by element, else 0; in the dtype of x."""
    p = move(x.array, "cpu")
    if not ((p >= 0) & (p <= 1)).all():
        raise explained(ArgumentError, "bernoulli", "a probability lies between 0 and 1.", [f"smallest {p.min()}, largest {p.max()}"],
                        "Did you mean bernoulli(x.sigmoid())?")
    return finished((generator or default_generator).numpy.random(x.shape) < p, x.dtype, x.device)


__all__ = ["arange", "as_tensor", "bernoulli", "empty", "empty_like", "eye", "from_numpy", "full", "full_like", "linspace", "normal",
           "ones", "ones_like", "rand", "rand_like", "randint", "randn", "randn_like", "randperm", "tensor", "zeros", "zeros_like"]
