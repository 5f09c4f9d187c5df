"""kernel("conv.cu", "conv2d_v2_shared_tile", BM=64)(grid, block, x=x, y=y, N=N): a kernel launch with every argument checked.

CuPy passes a Python float as 8 bytes and a strided view as its first element, without a word. So here every argument
comes by name, is held against the signature in the .cu text, and is converted or refused. Where the kernel runs
follows from the arrays: CuPy's (or its stand-in's) on that module's device, NumPy's on the CPU inside `running()`.
"""

import contextlib
import functools

import numpy as np

from minidl.backend.cuda.signature import alone, signatures
from minidl.backend.cuda.source import text_of
from minidl.core.device import array_module, on_cpu
from minidl.core.errors import ArgumentError, BackendError, DeviceError, DTypeError, ShapeError, describe, explained

STATIC_SHARED = 48 * 1024  # more dynamic shared memory than this must be asked for before the launch
LIMITS = {"grid": (2**31 - 1, 65535, 65535), "block": (1024, 1024, 64)}
WHOLE = {"int32": np.int32, "uint32": np.uint32, "int64": np.int64, "uint64": np.uint64, "int16": np.int16, "uint16": np.uint16,
         "int8": np.int8, "uint8": np.uint8, "bool": np.bool_}
REAL = {"float32": np.float32, "float64": np.float64, "float16": np.float16}
NUMPY = {"mode": None, "order": "forward"}  # how kernels on NumPy arrays run; None: not at all
RAN = set()                                 # names of the kernels that were launched in this process
WATCHERS = []                               # functions called with (kernel, grid, block, values, shared) before every launch


@contextlib.contextmanager
def running(mode="fast", order="forward"):
    """Inside, kernels take NumPy arrays: "fast", "check" and "debug" run them on the CPU, "device" on copies on the GPU.

    "dry" only checks the arguments and tells WATCHERS: nothing is compiled, and results stay as they were.
    """
    before = dict(NUMPY)
    NUMPY.update(mode=mode, order=order)
    try:
        yield
    finally:
        NUMPY.update(before)


@functools.cache
def kernel(file, name, **defines):
    """The kernel `name` of a file in kernels/, compiled with -D defines when it is first launched."""
    found = signatures(text_of(file))
    if name not in found:
        raise explained(BackendError, f"kernel({file!r}, {name!r})", "this file has no such kernel.",
                        [f"it has: {', '.join(found) or 'none'}"], "Check the spelling.")
    return Kernel(file, found[name], defines)


class Kernel:
    """One kernel with its -D settings. Call it with a grid, a block and every parameter of the .cu text by name."""

    def __init__(self, file, signature, defines):
        self.file, self.signature, self.name = file, signature, signature.name
        self.options = tuple(f"-D{key}={int(value) if isinstance(value, bool) else value}" for key, value in sorted(defines.items()))
        self.converters = [(p.name, p, _pointer if p.pointer else _whole if p.dtype in WHOLE else _real) for p in signature.parameters]
        self.names = {p.name for p in signature.parameters}
        self.compiled = {}  # (module, device or mode, how that module runs kernels) -> function

    def __repr__(self):
        return f"<kernel {self.signature} of {self.file}{' '.join(('', *self.options))}>"

    def __call__(self, grid, block, *, shared=0, **arguments):
        if arguments.keys() != self.names:
            raise self._names(arguments)
        values = [convert(self, p, arguments[name]) for name, p, convert in self.converters]
        arrays = [a for (_, p, _), a in zip(self.converters, values, strict=True) if p.pointer and a is not None]
        home = self._home(arrays)
        grid, block = self._sizes("grid", grid), self._sizes("block", block)
        if not all(grid):
            return  # no block, no work
        dry = home is np and NUMPY["mode"] == "dry"
        if not dry:
            RAN.add(self.name)
        for watcher in tuple(WATCHERS):
            watcher(self, grid, block, values, shared)
        if dry:
            return
        if home is np and NUMPY["mode"] == "device":
            self._on_copies(grid, block, values, shared)
        elif home is np:
            self._function(np, None)(grid, block, tuple(values), shared_mem=shared)
        else:
            with arrays[0].device:
                self._launch(home, arrays[0].device.id, grid, block, values, shared)

    def _launch(self, module, device, grid, block, values, shared):
        function = self._function(module, device)
        if shared > STATIC_SHARED and function.max_dynamic_shared_size_bytes < shared:
            function.max_dynamic_shared_size_bytes = shared
        values = [np.uint64(0) if value is None else value for value in values]  # a null pointer: CuPy has no word for it
        function(grid, block, tuple(values), shared_mem=shared)

    def _on_copies(self, grid, block, values, shared):
        """NumPy arrays on a real device: copied there, and back what the kernel may have written."""
        from minidl.core.device import module_for
        module = module_for("cuda")
        copies = [module.asarray(value) if isinstance(value, np.ndarray) else value for value in values]
        self._launch(module, module.cuda.Device().id, grid, block, copies, shared)
        for p, value, copy in zip(self.signature.parameters, values, copies, strict=True):
            if isinstance(value, np.ndarray) and not p.const:
                value[...] = module.asnumpy(copy)

    def on_cpu(self):
        """This kernel as running() runs it on the CPU, compiled."""
        return self._function(np, None)

    def _function(self, module, device):
        """The compiled kernel, for this module, device and way of running."""
        if module is np:
            key = (np, NUMPY["mode"], NUMPY["order"])
        else:  # CuPy has one way to run a kernel, its stand-in several
            key = (module, device, *getattr(module, "way_of_running", tuple)())
        if key not in self.compiled:
            only = self.name if self.options else None  # with options of its own it shares a module with hardly any other kernel
            self.compiled[key] = compiled(module, key, self.file, only, self.options).get_function(self.name)
            if module is np:
                self.compiled[key].order = NUMPY["order"]
        return self.compiled[key]

    def _home(self, arrays):
        """The module whose arrays these are: one for all of them, on one device."""
        if not arrays:
            raise explained(ArgumentError, self.name, "at least one array says where to run.", [repr(self.signature)], "Pass an array.")
        if on_cpu(arrays[0]):
            if not all(map(on_cpu, arrays)):
                raise self._mixed(arrays)
            if NUMPY["mode"] is None:
                raise explained(DeviceError, self.name, "a CUDA kernel takes arrays on a GPU.", [f"{describe(arrays[0])} is on the CPU"],
                                "Move it: x.to('cuda'); or run the kernel on the CPU: with minidl.backend.cuda.launch.running('check').")
            return np
        if any(not hasattr(a, "device") or on_cpu(a) or a.device != arrays[0].device for a in arrays):
            raise self._mixed(arrays)
        return array_module(arrays[0])

    def _mixed(self, arrays):
        places = [f"{p.name}: {'cpu' if on_cpu(a) else getattr(a, 'device', describe(a))}" for p, a in
                  zip([p for p in self.signature.parameters if p.pointer], arrays, strict=False)]
        return explained(DeviceError, self.name, "all arrays of a launch live on one device.", places, "Move them to one device first.")

    def _sizes(self, what, sizes):
        sizes = tuple(sizes) if isinstance(sizes, (tuple, list)) else (sizes,)
        limits = LIMITS[what]
        if not 1 <= len(sizes) <= 3 or not all(isinstance(n, (int, np.integer)) and 0 <= n <= limit
                                               for n, limit in zip(sizes, limits, strict=False)):
            raise explained(ArgumentError, self.name, f"a {what} is one to three whole numbers, at most {limits}.", [f"{what}: {sizes}"],
                            "Compute them with ceil-division from the sizes.")
        sizes = tuple(map(int, sizes))
        if what == "block" and not 1 <= functools.reduce(int.__mul__, sizes) <= 1024:
            raise explained(ArgumentError, self.name, "a block has 1 to 1024 threads.", [f"block: {sizes}"], "Use a smaller block.")
        return sizes

    def _names(self, arguments):
        known = [name for name, _, _ in self.converters]
        facts = [f"missing: {', '.join(n for n in known if n not in arguments)}"] if any(n not in arguments for n in known) else []
        facts += [f"unknown: {', '.join(n for n in arguments if n not in known)}"] if any(n not in known for n in arguments) else []
        return explained(ArgumentError, self.name, "every parameter of the kernel comes once, by its name.", [*facts, repr(self.signature)],
                         "Pass exactly these names.")


def reread():
    """Forget every source text and every compiled kernel: files have changed since they were read."""
    for cached in (text_of, kernel, compiled):
        cached.cache_clear()


@functools.cache
def compiled(module, key, file, only, options):
    """The module of one file, or of one kernel of it, with these options: CuPy's or the stand-in's RawModule, or the CPU runner's."""
    text = alone(text_of(file), only) if only else text_of(file)
    if module is not np:
        return module.RawModule(code=text, options=options)
    from minidl.backend.cuda.on_cpu import RawModule
    return RawModule(code=text, options=options, mode=key[1])


def _pointer(kernel, p, array):
    if array is None:
        return None
    if not hasattr(array, "dtype") or not hasattr(array, "flags"):
        raise explained(DTypeError, kernel.name, f"{p.name} must be an array.", [f"parameter: {p!r}", f"it is {describe(array)}"],
                        "Did you mean x.array?" if hasattr(array, "array") else "Pass an array of the device.")
    if p.dtype is not None and array.dtype != p.dtype:
        raise explained(DTypeError, kernel.name, f"{p.name} must be an array of {p.dtype}.",
                        [f"parameter: {p!r}", f"it is {describe(array)}"], "Convert it first: array.astype(...).")
    if array.ndim == 4:  # stored channels-last: the kernel sees the memory, so it gets the axes in the order in which they lie
        array = array.transpose(0, 2, 3, 1)
    if array.flags.c_contiguous:
        return array
    rule = f"the memory of {p.name} must be one piece, images channels-last, all else in C order."
    raise explained(ShapeError, kernel.name, rule,
                    [f"it is {describe(array)}{', axes turned to N H W C' * (array.ndim == 4)}", f"strides: {array.strides}"],
                    "Use minidl.backend.layout.stored(array).")


_TYPED = {}  # (dtype, int) -> the same number as a NumPy scalar: sizes come again and again


def _whole(kernel, p, value):
    typed = _TYPED.get((p.dtype, value)) if type(value) is int else None
    if typed is not None:
        return typed
    if not isinstance(value, (int, np.integer, np.bool_)):
        raise explained(DTypeError, kernel.name, f"{p.name} must be a whole number.", [f"parameter: {p!r}", f"it is {describe(value)}"],
                        "Convert it: int(...).")
    try:
        typed = WHOLE[p.dtype](int(value))
        if type(value) is int and len(_TYPED) < 4096:
            _TYPED[p.dtype, value] = typed
        return typed
    except OverflowError:
        raise explained(ArgumentError, kernel.name, f"{p.name} does not fit into {p.type}.", [f"parameter: {p!r}", f"it is {value}"],
                        "Split the work into several launches, or use long long in the kernel.") from None


def _real(kernel, p, value):
    if not isinstance(value, (int, float, np.integer, np.floating)):
        raise explained(DTypeError, kernel.name, f"{p.name} must be a number.", [f"parameter: {p!r}", f"it is {describe(value)}"],
                        "Convert it: float(...).")
    return REAL[p.dtype](value)
