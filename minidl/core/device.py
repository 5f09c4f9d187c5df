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


@functools.cache
def why_no_cuda():
    """"" if a GPU can be used, else the reason. Asks once: find cupy, find the driver, import, count, run one op."""
    if importlib.util.find_spec("cupy") is None:
        return "the package cupy is not installed (extras: cuda12, cuda13)"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver: libcuda.so.1 cannot be loaded"
    try:
        import cupy
        if cupy.cuda.runtime.getDeviceCount() == 0:
            return "the driver counts no device"
        if int((cupy.arange(3) + 1).sum()) != 6:  # compiles and runs: proves the compiler, the headers and the device
            return "a first small sum came out wrong on the device"
    except Exception as error:  # CuPy's failures share no base class
        return f"cupy does not work here: {type(error).__name__}: {error}"
    return ""


def _cupy():
    reason = why_no_cuda()
    if reason:
        raise explained(DeviceError, "device('cuda')", "there is no usable GPU.", [reason], "Use device='cpu'; `minidl doctor` shows every check.")
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
