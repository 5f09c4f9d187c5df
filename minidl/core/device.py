"""Which machine an array lives on. With backend/cuda this is the only place that imports cupy.

`import minidl` never imports cupy: the first question about "cuda" does, and a broken CuPy becomes a reason, not a crash.
"""

import ctypes
import functools
import importlib.util

import numpy as np

from minidl.core.errors import DeviceError, explained


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
def why_no_cuda():
    """"" if a GPU can be used, else the reason. Asks once."""
    return list(cuda_checks())[-1][1]


def _cupy():
    reason = why_no_cuda()
    if reason:
        raise explained(DeviceError, "device('cuda')", "there is no usable GPU.", [reason],
                        "Use device='cpu'; `minidl doctor` shows every check.")
    import cupy
    return cupy


def module_for(device):
    """numpy for the CPU, cupy for a GPU; raises with the reason where there is none."""
    return np if Device(device).type == "cpu" else _cupy()


def move(array, device):
    """This array on that device; the same array if it is there already."""
    device = Device(device)
    if device == device_of(array):
        return array
    if device.type == "cpu":
        return _cupy().asnumpy(array)
    with _cupy().cuda.Device(device.index):
        return _cupy().asarray(array)
