"""Which machine an array lives on, and moving it to another. With backend/ this is the only place that imports cupy.

`import minidl` never imports cupy: the first question about "cuda" does, and a broken CuPy becomes a reason, not a crash.
"""

import contextlib
import ctypes
import functools
import importlib.util

import numpy as np

from minidl.core.errors import DeviceError, explained

_MODULE = None  # what stands in for cupy, inside standing_in()
FIRST_USE = []  # functions called once, when arrays on a GPU are first asked for: they load what only a GPU needs


class Device:
    """`cpu`, or `cuda` with an index. Equal to its own name, so `x.device == "cpu"` works."""

    __slots__ = ("type", "index")

    def __init__(self, name="cpu", index=None):
        if isinstance(name, Device):
            name, index = name.type, name.index
        kind, _, number = str(name).partition(":")
        if kind not in ("cpu", "cuda") or number and not number.isdigit():
            raise explained(DeviceError, "device", f"{name!r} is not a device.", ["devices: 'cpu', 'cuda', 'cuda:0', 'cuda:1', ..."],
                            "Use 'cpu' or 'cuda'.")
        self.type = kind
        self.index = int(number) if number else index if index is not None else (0 if kind == "cuda" else None)

    def __repr__(self):
        return f"device({str(self)!r})"

    def __str__(self):
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other):
        if isinstance(other, str):
            other = Device(other)
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self):
        return hash((self.type, self.index))


CPU = Device("cpu")


def on_cpu(array):
    """Is this a NumPy array (and not one of CuPy's)?"""
    return isinstance(array, np.ndarray)


def device_of(array):
    """The Device that holds this array."""
    return CPU if on_cpu(array) else Device("cuda", array.device.id)


def different_devices(call, arrays):
    """None if the arrays {what: array} are all on one device, else the exception that says which one to move where."""
    if len({type(array) for array in arrays.values()}) < 2 and all(map(on_cpu, arrays.values())):
        return None
    places = {what: device_of(array) for what, array in arrays.items()}
    if len(set(places.values())) < 2:
        return None
    home = next(place for place in places.values() if place.type == "cuda")  # nearly always a tensor was forgotten on the CPU
    strays = [what for what, place in places.items() if place != home]
    return explained(DeviceError, call, "the tensors must be on one device.",
                     [f"{what}: {place}, shape {arrays[what].shape}" for what, place in places.items()],
                     f"Move {' and '.join(strays)} to {home}: x.to({str(home)!r}).")


def array_module(array):
    """numpy or cupy, whichever made this array."""
    return np if on_cpu(array) else _cupy()


def _package():
    return "" if importlib.util.find_spec("cupy") else "the package cupy is not installed (extras: cuda12, cuda13)"


def _driver():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver: libcuda.so.1 cannot be loaded"
    return ""


def _device():
    import cupy
    return "" if cupy.cuda.runtime.getDeviceCount() else "the driver counts no device"


def _first_sum():
    import cupy
    right = int((cupy.arange(3) + 1).sum()) == 6  # compiles and runs: proves the compiler, the headers and the device
    return "" if right else "a first small sum came out wrong on the device"


def cuda_checks():
    """What a usable GPU needs, in order, as (what, "" or why not); ends after the first that fails."""
    for what, why_not in (("package cupy", _package), ("NVIDIA driver", _driver), ("device", _device), ("a first small sum", _first_sum)):
        try:
            reason = why_not()
        except Exception as error:  # CuPy's failures share no base class
            reason = f"cupy does not work here: {type(error).__name__}: {error}"
        yield what, reason
        if reason:
            return


@functools.cache
def _why_no_gpu():
    return list(cuda_checks())[-1][1]


def why_no_cuda():
    """"" if a GPU can be used, else the reason. Asks once."""
    return "" if _MODULE is not None else _why_no_gpu()


@contextlib.contextmanager
def standing_in(module):
    """Inside, `module` is what cupy is elsewhere: the whole GPU path runs on it, on any machine. For tests."""
    global _MODULE
    before, _MODULE = _MODULE, module
    try:
        yield module
    finally:
        _MODULE = before


def _cupy():
    while FIRST_USE:
        FIRST_USE.pop()()
    if _MODULE is not None:
        return _MODULE
    reason = why_no_cuda()
    if reason:
        raise explained(DeviceError, "device('cuda')", "there is no usable GPU.", [reason],
                        "Use device='cpu'; `minidl doctor` shows every check.")
    import cupy
    return cupy


def module_for(device):
    """numpy for the CPU, cupy for a GPU; raises with the reason where there is none."""
    return np if Device(device).type == "cpu" else _cupy()


def move(array, device, wait=True):
    """This array on that device, its axes in the same order in memory; the same array if it is there already.

    To a GPU the copy goes through pinned memory and the CPU does not wait for it (CuPy does that by itself). To the CPU
    it waits, unless wait=False: then the values are there after minidl.cuda.synchronize().
    """
    device = Device(device)
    if device == device_of(array):
        return array
    module = _cupy()
    if device.type == "cuda" and device.index >= module.cuda.runtime.getDeviceCount():
        raise explained(DeviceError, f"device({str(device)!r})", "there is no such GPU.",
                        [f"GPUs here: {module.cuda.runtime.getDeviceCount()}, counted from cuda:0"], "Use 'cuda' for the first one.")
    order = _memory_order(array)
    base = array.transpose(order)  # the axes as they lie in memory: what is copied is one piece
    with module.cuda.Device(device.index if device.type == "cuda" else array.device.id):
        moved = module.asarray(base) if device.type == "cuda" else _to_cpu(module, base, wait)
    return moved.transpose(_inverse(order))


def _memory_order(array):
    """The axes from the one with the longest strides to the one whose elements are neighbours; channels-last if nothing says so."""
    if array.flags.c_contiguous or not array.ndim:
        return tuple(range(array.ndim))
    usual = (0, 2, 3, 1) if array.ndim == 4 else tuple(range(array.ndim))
    return tuple(sorted(usual, key=lambda k: -abs(array.strides[k]) if array.shape[k] > 1 else 0)) if _dense(array) else usual


def _dense(array):
    """Are the elements of this array all of one piece of memory, in some order of the axes?"""
    step = array.itemsize
    for stride, size in sorted((s, n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride != step:
            return False
        step *= size
    return True


def _inverse(order):
    return tuple(order.index(k) for k in range(len(order)))


def _to_cpu(module, array, wait):
    if wait or not array.nbytes or not hasattr(module.cuda, "alloc_pinned_memory"):
        return module.asnumpy(array)
    memory = module.cuda.alloc_pinned_memory(array.nbytes)  # only into pinned memory can the GPU write by itself
    pinned = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
    return module.asnumpy(array, out=pinned, blocking=False)
