"""cupy.cuda of the stand-in, and what it tells about storage: one device, streams and events that have nothing to wait for,
and a count of memory in use.
"""

import time
import weakref

import numpy as _np

_owners = {}  # id of the NumPy array that owns the bytes -> (weak reference to it, its Memory)
_used = 0


class Memory:
    """One allocation; views of an array share it, as `array.data.mem` does in CuPy."""

    def __init__(self, size, pointer):
        self.size, self.ptr, self.device_id = size, pointer, 0


class Flags:
    """What CuPy tells about storage: less than NumPy."""

    def __init__(self, flags):
        self.c_contiguous, self.f_contiguous, self.owndata = flags.c_contiguous, flags.f_contiguous, flags.owndata
        self._by_name = {"C_CONTIGUOUS": self.c_contiguous, "F_CONTIGUOUS": self.f_contiguous, "OWNDATA": self.owndata}

    def __getitem__(self, name):
        return self._by_name[name]


class MemoryPointer:
    """Where an array begins in its allocation."""

    def __init__(self, memory, pointer):
        self.mem, self.ptr, self.device_id = memory, pointer, 0


def _owner(array):
    owner = array
    while getattr(array, "base", None) is not None:  # as_strided puts a helper between a view and its array
        array = array.base
        owner = array if isinstance(array, _np.ndarray) else owner
    return owner


def is_device_memory(array):
    """Is this a view of an array that is on the "device" already?"""
    return id(_owner(array)) in _owners


def memory_of(array):
    """The allocation behind a NumPy array."""
    global _used
    owner = _owner(array)
    entry = _owners.get(id(owner))
    if entry is None:
        memory = Memory(owner.nbytes, owner.ctypes.data)
        key = id(owner)
        entry = _owners[key] = (weakref.ref(owner, lambda _, key=key, size=owner.nbytes: _forget(key, size)), memory)
        _used += owner.nbytes
    return entry[1]


def allocations():
    """(address, bytes) of all there are: what a kernel may reach through a table of addresses."""
    return [(memory.ptr, memory.size) for _, memory in _owners.values()]


def _forget(key, size):
    global _used
    _owners.pop(key, None)
    _used -= size


class Device:
    """The only device."""

    compute_capability = "90"
    pci_bus_id = "0000:00:00.0"

    def __init__(self, device=None):
        self.id = int(device or 0)
        if self.id != 0:
            raise runtime.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def __eq__(self, other):
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self):
        return hash(self.id)

    def __int__(self):
        return self.id

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def use(self):
        """Make it the current one: it is."""

    def synchronize(self):
        """Wait for the device: nothing runs."""

    mem_info = property(lambda self: runtime.memGetInfo())
    attributes = property(lambda self: {"MultiProcessorCount": 1, "WarpSize": 32, "MaxSharedMemoryPerBlockOptin": 227 << 10})


class Stream:
    """A queue of work that is always empty."""

    ptr = 0
    done = True

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.null_stream = null

    def __enter__(self):
        _streams.append(self)
        return self

    def __exit__(self, *_):
        _streams.pop()
        return False

    def use(self):
        """Make it the current one."""
        _streams[-1] = self
        return self

    def synchronize(self):
        """Wait for it."""

    def record(self, event=None):
        """An event in this stream."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        """Work that follows waits for the event."""


Stream.null = Stream(null=True)
_streams = [Stream.null]


def get_current_stream(device_id=None):
    """The stream that work goes to."""
    return _streams[-1]


class Event:
    """A moment in a stream."""

    done = True

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.time = None

    def record(self, stream=None):
        """Now."""
        self.time = time.perf_counter()

    def synchronize(self):
        """Wait for it."""


def get_elapsed_time(start_event, end_event):
    """Milliseconds between two events."""
    return (end_event.time - start_event.time) * 1e3


class MemoryPool:
    """Counts what is in use; keeps nothing."""

    def used_bytes(self):
        """Bytes of living arrays."""
        return _used

    def total_bytes(self):
        """Bytes taken from the device."""
        return _used

    def free_bytes(self):
        """Bytes kept for later."""
        return 0

    def n_free_blocks(self):
        """Blocks kept for later."""
        return 0

    def free_all_blocks(self, stream=None):
        """Give back what is kept."""

    def get_limit(self):
        """0: no limit."""
        return 0

    def set_limit(self, size=None, fraction=None):
        """Not kept here."""


_POOL = MemoryPool()


def get_default_memory_pool():
    """The pool of all arrays."""
    return _POOL


def alloc_pinned_memory(size):
    """Memory on the CPU that copies may go on with by themselves: any memory here."""
    return _np.empty(size, _np.uint8)


def is_available():
    """A GPU?"""
    return True


class runtime:  # noqa: N801 - CuPy's name
    """cupy.cuda.runtime."""

    class CUDARuntimeError(RuntimeError):
        """What the CUDA runtime refuses."""

    @staticmethod
    def getDeviceCount():  # noqa: N802
        """One."""
        return 1

    @staticmethod
    def getDevice():  # noqa: N802
        """The current one."""
        return 0

    @staticmethod
    def setDevice(device):  # noqa: N802
        """Make it the current one."""
        Device(device)

    @staticmethod
    def deviceSynchronize():  # noqa: N802
        """Wait for it."""

    @staticmethod
    def memGetInfo():  # noqa: N802
        """(free, total)."""
        return (8 << 30) - _used, 8 << 30

    @staticmethod
    def driverGetVersion():  # noqa: N802
        """No driver at all."""
        return 0

    @staticmethod
    def runtimeGetVersion():  # noqa: N802
        """No runtime at all."""
        return 0

    @staticmethod
    def getDeviceProperties(device):  # noqa: N802
        """What the stand-in claims to be."""
        Device(device)
        return {"name": b"minidl's stand-in on the CPU", "major": 9, "minor": 0, "multiProcessorCount": 1, "totalGlobalMem": 8 << 30,
                "clockRate": 0, "memoryClockRate": 0, "memoryBusWidth": 0, "l2CacheSize": 0, "warpSize": 32}


class memory:  # noqa: N801 - CuPy's name
    """cupy.cuda.memory."""

    class OutOfMemoryError(MemoryError):
        """No room on the device."""


class Submodule:
    """cupy.linalg, cupy.fft, cupy.lib.stride_tricks: NumPy's functions with the stand-in's manners."""

    def __init__(self, module, call):
        self._module, self._call = module, call

    def __getattr__(self, name):
        function = getattr(self._module, name)
        if not callable(function):
            return Submodule(function, self._call)
        return function if isinstance(function, type) else lambda *a, **k: self._call(function, *a, **k)
