"""A strict stand-in for cupy: NumPy underneath, CuPy's manners above, RawModule -> the CPU runner. For tests.

It refuses what really breaks on a GPU: implicit conversion to NumPy, mixing with NumPy arrays, names and parameters that
CuPy does not have (stand_in_names.py), out-of-range index arrays (CuPy wraps them around silently). And it forgets storage
order where CuPy does: what a function computes is C-ordered unless out= says where it goes.

    with installed():                       # or installed("check")
        y = model.to("cuda")(x.to("cuda"))  # the whole GPU path, on this machine
"""

import contextlib
import functools
import operator
import sys

import numpy as _np

from minidl.backend.cuda import stand_in_cuda, stand_in_names
from minidl.backend.cuda.on_cpu import RawModule as _Runner
from minidl.core import device as _device

__version__ = "14.2.0"
cuda = stand_in_cuda
_FUNCTIONS, _METHODS = stand_in_names.table(stand_in_names.FUNCTIONS), stand_in_names.table(stand_in_names.METHODS)
_UFUNCS, _PLAIN = set(stand_in_names.UFUNCS.split()), set(stand_in_names.PLAIN.split())
_PROPERTIES = set(stand_in_names.PROPERTIES.split())
_KEEP_ORDER = {"empty_like", "zeros_like", "ones_like", "full_like", "array", "asarray", "asanyarray", "asfortranarray", "copy", "astype",
               "ravel", "reshape", "flatten"}
_POISON = {"f": _np.nan, "c": _np.nan, "i": -1, "u": 85, "b": True}
_MODE = {"mode": "fast", "order": "forward", "guard": True}


@contextlib.contextmanager
def installed(mode="fast", order="forward", guard=True):
    """Inside, this module is `cupy` for minidl and for `import cupy`, and kernels run on the CPU in that mode and order."""
    before, in_place = dict(_MODE), sys.modules.get("cupy")
    _MODE.update(mode=mode, order=order, guard=guard)
    module = sys.modules["cupy"] = sys.modules[__name__]
    try:
        with _device.standing_in(module):
            yield module
    finally:
        _MODE.update(before)
        if in_place is None:
            sys.modules.pop("cupy", None)
        else:
            sys.modules["cupy"] = in_place


def way_of_running():
    """The mode and the order of threads, hashable. Whoever keeps a kernel keeps it under these; CuPy has no such name."""
    return tuple(_MODE.values())


def _inside(value):
    """What NumPy gets to see: the array behind a device array. NumPy's own arrays are refused, as CuPy does."""
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, _np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a NumPy array was passed to cupy")
    if isinstance(value, (list, tuple)):
        return type(value)(map(_inside, value))
    return value


def _outside(value, keep_order=False):
    """A result as device arrays: never a NumPy scalar, and in C order unless it is a view."""
    if isinstance(value, _np.generic):
        value = _np.asarray(value)
    if isinstance(value, _np.ndarray):
        if not (keep_order or value.flags.c_contiguous or stand_in_cuda.is_device_memory(value)):  # new, and no view
            value = value.copy()
        return ndarray._of(value)
    if isinstance(value, (list, tuple)):
        parts = [_outside(v, keep_order) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _call(name, function, arguments, settings):
    """Call NumPy's function the way CuPy's would behave."""
    out = settings.get("out")
    arguments, settings = _inside(tuple(arguments)), {key: _inside(value) for key, value in settings.items()}
    with _np.errstate(all="ignore"):  # a GPU raises no floating-point warnings
        result = function(*arguments, **settings)
    if out is not None:
        return out
    return _outside(result, name in _KEEP_ORDER)


class ufunc:  # noqa: N801 - CuPy's name
    """An elementwise function, as CuPy has it."""

    def __init__(self, name):
        self._numpy, self.__name__ = getattr(_np, name), name
        self.name = f"cupy_{name}"
        self.nin, self.nout = getattr(self._numpy, "nin", 1), getattr(self._numpy, "nout", 1)

    def __repr__(self):
        return f"<ufunc '{self.name}'>"

    def __call__(self, *arguments, **settings):
        stand_in_names.check_parameters(self.__name__, ["*x", "out", "dtype", "casting", "where"], arguments, settings)
        if settings.get("out", 0) is None:
            settings.pop("out")
        if isinstance(settings.get("out"), _np.ndarray):
            raise TypeError("out must be a cupy array, not a NumPy array")
        return _call(self.__name__, self._numpy, arguments, settings)

    def at(self, array, indices, values=None):
        """array[indices] ∘= values, duplicates included."""
        if self.__name__ not in ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"):
            raise NotImplementedError(f"`cupy.{self.__name__}.at` is not supported")
        with _wraps_around(indices):
            self._numpy.at(_inside(array), _inside(indices), _inside(values))

    def reduce(self, array, axis=0, dtype=None, out=None, keepdims=False):
        """Along one axis."""
        return _call(self.__name__, self._numpy.reduce, (array,), {"axis": axis, "dtype": dtype, "out": out, "keepdims": keepdims})

    def accumulate(self, array, axis=0, dtype=None, out=None):
        """Running results along one axis."""
        return _call(self.__name__, self._numpy.accumulate, (array,), {"axis": axis, "dtype": dtype, "out": out})


class ndarray:  # noqa: N801 - CuPy's name
    """An array "on the device"."""

    __slots__ = ("_array", "_memory", "__weakref__")

    def __new__(cls, shape, dtype=float, memptr=None, strides=None, order="C"):
        if memptr is not None or strides is not None:
            raise NotImplementedError("the stand-in makes arrays from a shape alone")
        return empty(shape, dtype, order)

    @classmethod
    def _of(cls, array):
        if array.dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {array.dtype}")
        self = object.__new__(cls)
        self._array, self._memory = array, stand_in_cuda.memory_of(array)
        return self

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly.")

    def __array_ufunc__(self, function, method, *arguments, **settings):
        if method != "__call__" or function.__name__ not in _UFUNCS:
            return NotImplemented
        if isinstance(settings.get("out"), tuple):
            settings["out"] = settings["out"][0] if len(settings["out"]) == 1 else settings["out"]
        return _ufunc(function.__name__)(*arguments, **settings)

    def __array_function__(self, function, types, arguments, settings):
        if function.__name__ not in _FUNCTIONS or any(t is not ndarray for t in types):
            return NotImplemented
        return __getattr__(function.__name__)(*arguments, **settings)

    def __getattr__(self, name):
        if name in _METHODS and name not in ("scatter_add", "scatter_max", "scatter_min", "reduced_view", "mdspan", "toDlpack"):
            return functools.partial(self._method, name)
        if name in _PROPERTIES:
            return _outside(getattr(self._array, name), keep_order=True)
        raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")

    def _method(self, name, *arguments, **settings):
        if name == "astype" and "casting" in settings and settings["casting"] is None:
            settings.pop("casting")
        known = _METHODS[name]
        stand_in_names.check_parameters(f"ndarray.{name}", known, arguments, settings)
        settings = {key: value for key, value in settings.items() if not (key == "out" and value is None)}
        return _call(name, getattr(self._array, name), arguments, settings)

    device = property(lambda self: stand_in_cuda.Device(0))
    data = property(lambda self: stand_in_cuda.MemoryPointer(self._memory, self._array.ctypes.data))
    flags = property(lambda self: stand_in_cuda.Flags(self._array.flags))
    base = property(lambda self: None if self._array.base is None else ndarray._of(_np.asarray(self._array.base)))

    def get(self, stream=None, order="C", out=None, blocking=True):
        """A copy on the CPU."""
        if out is None:
            return self._array.copy(order=order)
        out[...] = self._array
        return out

    def set(self, arr, stream=None):
        """Overwrite with a NumPy array."""
        if not isinstance(arr, _np.ndarray) or arr.dtype != self._array.dtype or arr.shape != self._array.shape:
            raise TypeError("set() takes a NumPy array of the same shape and dtype")
        self._array[...] = arr

    def item(self):
        """The one value, as a Python number."""
        return self._array.item()

    def tolist(self):
        """The values as Python numbers."""
        return self._array.tolist()

    def copy(self, order="C"):
        """A copy; C order unless asked otherwise, as in CuPy."""
        return ndarray._of(self._array.copy(order=order))

    def __getitem__(self, index):
        with _wraps_around(index):
            index = index if isinstance(index, tuple) else (index,)
            if not any(part is Ellipsis for part in index):
                index = (*index, Ellipsis)  # so that one element is a view of 0 axes, not a NumPy scalar
            found = self._array[_inside(index)]
            return ndarray._of(_np.asarray(found))

    def __setitem__(self, index, value):
        if isinstance(value, _np.ndarray) and value.ndim:
            raise TypeError(f"Unsupported type {type(value)}: a NumPy array was assigned into a cupy array")
        with _wraps_around(index), _np.errstate(all="ignore"):
            self._array[_inside(index)] = _inside(value) if not isinstance(value, _np.ndarray) else value

    def __iter__(self):
        if not self._array.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self._array)))

    def __len__(self):
        return len(self._array)

    def __bool__(self):
        return bool(self._array)

    def __float__(self):
        return float(self._array)

    def __int__(self):
        return int(self._array)

    def __index__(self):
        return operator.index(self._array)

    def __complex__(self):
        return complex(self._array)

    def __repr__(self):
        return repr(self._array)

    def __str__(self):
        return str(self._array)

    def __format__(self, form):
        return format(self._array.item() if not self._array.ndim else str(self._array), form)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    __hash__ = None
    __array_priority__ = 100


def _define_operators():
    for short, name in stand_in_names.OPERATORS.items():
        setattr(ndarray, f"__{short}__", lambda x, y, name=name: _ufunc(name)(x, y))
        if short not in ("lt", "le", "gt", "ge", "eq", "ne"):
            setattr(ndarray, f"__r{short}__", lambda x, y, name=name: _ufunc(name)(y, x))
            setattr(ndarray, f"__i{short}__", lambda x, y, name=name: _ufunc(name)(x, y, out=x))
    for short, name in {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}.items():
        setattr(ndarray, f"__{short}__", lambda x, name=name: _ufunc(name)(x))
    ndarray.__matmul__ = lambda x, y: __getattr__("matmul")(x, y)
    ndarray.__rmatmul__ = lambda x, y: __getattr__("matmul")(y, x)


@contextlib.contextmanager
def _wraps_around(index):
    """An index array out of range raises in NumPy; on a GPU nothing would, so here the error says that."""
    try:
        yield
    except IndexError as error:
        if any(isinstance(part, (ndarray, list)) for part in (index if isinstance(index, tuple) else (index,))):
            raise RuntimeError(f"CuPy would wrap this index around without a word: {error}") from None
        raise


@functools.cache
def _ufunc(name):
    return ufunc(name)


@functools.cache
def _function(name):
    numpys, known = getattr(_np, name), _FUNCTIONS[name]

    def function(*arguments, **settings):
        stand_in_names.check_parameters(name, known, arguments, settings)
        if settings.get("out", 0) is None:
            settings.pop("out")
        with _wraps_around(arguments):
            return _call(name, numpys, arguments, settings)

    function.__name__ = name
    return function


def __getattr__(name):
    if name in _UFUNCS:
        return _ufunc(name)
    if name in _FUNCTIONS:
        return _function(name)
    if name in _PLAIN:
        return getattr(_np, name)
    if name in ("linalg", "fft", "lib"):
        return stand_in_cuda.Submodule(getattr(_np, name), lambda function, *a, **k: _call(function.__name__, function, a, k))
    raise AttributeError(f"module 'cupy' has no attribute {name!r} (or the stand-in does not know it)")


def empty(shape, dtype=float, order="C"):
    """Filled with NaN or −1: nobody finds zeros that nobody wrote."""
    array = _np.empty(shape, dtype, order)
    array.fill(_POISON[array.dtype.kind])
    return ndarray._of(array)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    """A device array: the same one if it is one already, else a copy on the device (of a NumPy array too)."""
    if isinstance(a, ndarray) and (dtype is None or a.dtype == dtype) and order in (None, "K", "A") and not copy:
        return a
    return array(a, dtype, order=order or "K")


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """A new device array."""
    if isinstance(obj, (list, tuple)) and any(isinstance(part, ndarray) for part in obj):
        obj = [part._array if isinstance(part, ndarray) else part for part in obj]
    made = _np.array(obj._array if isinstance(obj, ndarray) else obj, dtype, order=order or "K", ndmin=ndmin)
    return ndarray._of(made)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    """A copy on the CPU."""
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else _np.asarray(a, order=order)


def get_array_module(*arrays):
    """This module if any of them is a device array, else numpy."""
    return sys.modules[__name__] if any(isinstance(a, ndarray) for a in arrays) else _np


def is_available():
    """A GPU to be used?"""
    return True


get_default_memory_pool, get_default_pinned_memory_pool = stand_in_cuda.get_default_memory_pool, stand_in_cuda.get_default_memory_pool


class _Kernel:
    """A kernel as CuPy hands it out: it takes device arrays and typed scalars."""

    def __init__(self, kernel):
        self.kernel = kernel

    max_dynamic_shared_size_bytes = property(lambda self: self.kernel.max_dynamic_shared_size_bytes,
                                             lambda self, size: setattr(self.kernel, "max_dynamic_shared_size_bytes", size))

    def __getattr__(self, name):
        return getattr(self.kernel, name)

    def __call__(self, grid, block, args, *, shared_mem=0):
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError("grid and block must be tuples")  # as CuPy's C code says, in other words
        self.kernel(grid, block, _inside(tuple(args)), shared_mem=shared_mem)


class RawModule:
    """cupy.RawModule on the CPU runner, in the mode that installed() sets."""

    def __init__(self, code=None, *, path=None, options=(), backend="nvrtc", translate_cucomplex=False, enable_cooperative_groups=False,
                 name_expressions=None, jitify=False):
        if not isinstance(options, tuple):
            raise TypeError("options must be a tuple of strings")
        self._arguments, self._runners = {"code": code, "path": path, "options": options}, {}

    def get_function(self, name):
        """The kernel of that name."""
        runner = self._runners.setdefault(way_of_running(), _Runner(**self._arguments, **_MODE))  # making one costs nothing
        runner.elsewhere = stand_in_cuda.allocations
        return _Kernel(runner.get_function(name))

    def compile(self, log_stream=None):
        """Now instead of on first use."""
        _Runner(**self._arguments, **_MODE).compile()


def RawKernel(code, name, options=(), **_):  # noqa: N802 - CuPy's name
    """One kernel of a text."""
    return RawModule(code=code, options=options).get_function(name)


_define_operators()
