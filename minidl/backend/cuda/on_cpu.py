"""Runs a .cu file on the CPU, with the call interface of cupy.RawModule.

    module = RawModule(code=text, options=("-DBM=64",), mode="check")
    kernel = module.get_function("conv2d_v2_shared_tile")
    kernel(grid, block, (x, w, y, np.int32(N)), shared_mem=0)        # NumPy arrays, typed NumPy scalars

fast runs as fast as a CPU may, on copies between unmapped pages; check looks at every access (races, bounds, alignment,
initialisation); debug is compiled for a debugger. What a kernel does wrong is raised as KernelError, with file, line,
block and thread. How it works stands in kernels/cpu/; how to read the reports in docs/kernels/checking.md.
"""

import ctypes
import functools
import re
import threading
from pathlib import Path

import numpy as np

from minidl.backend.cuda.on_cpu_build import KERNEL, MODES, KernelError, build, build_runtime, why_no_compiler
from minidl.backend.cuda.on_cpu_report import Launch, Report, error_from
from minidl.core.errors import describe, explained

__all__ = ["KernelError", "RawKernel", "RawModule", "why_no_compiler"]

ORDERS = ("forward", "reverse", "random")
_ONE_AT_A_TIME = threading.RLock()  # the runtime runs one grid at a time
_MOST_ARRAYS = 64                   # MAX_ARRAYS of kernels/cpu/state.h
_SAME = {"l": "q", "L": "Q"}        # two letters for one type


class RawModule:
    """A kernel file, compiled on first use. `order` and `seed` say in which order threads and blocks run, where they may."""

    def __init__(self, code=None, *, path=None, options=(), mode="fast", order="forward", seed=0, guard=True, ucontext=False, **_):
        if mode not in MODES or order not in ORDERS:
            raise explained(KernelError, "RawModule", "a mode or an order that does not exist.", [f"mode {mode!r}, order {order!r}"],
                            f"Modes: {', '.join(MODES)}; orders: {', '.join(ORDERS)}.")
        self.code = Path(path).read_text(encoding="utf-8") if code is None else code
        self.name = Path(path).name if path else _first_name(self.code)
        self.options, self.mode, self.order, self.seed, self.guard, self.ucontext = tuple(options), mode, order, seed, guard, ucontext
        self._functions = {}
        self.elsewhere = None  # a function that lists (address, bytes) of memory which kernels may reach through tables of addresses

    @functools.cached_property
    def _built(self):
        return build(self.code, self.name, self.options, self.mode, self.ucontext)

    @functools.cached_property
    def _library(self):
        return ctypes.PyDLL(str(self._built[0]))  # PyDLL holds Python's lock: no other thread runs while signals are ours

    @property
    def library_path(self):
        """The shared library, for a debugger or for addr2line."""
        return self._built[0]

    @property
    def names(self):
        """The kernels in this file."""
        return list(self._built[1])

    def compile(self, log_stream=None):
        """Compile now instead of on first use."""
        return self._library

    def get_function(self, name):
        """The kernel of that name."""
        if name not in self._built[1]:
            raise explained(KernelError, self.name, "no kernel of that name.",
                            [f"asked for: {name}", f"there are: {', '.join(self._built[1])}"],
                            'A kernel is declared as: extern "C" __global__ void name(')
        if name not in self._functions:
            self._functions[name] = RawKernel(self, name)
        return self._functions[name]


class RawKernel:
    """One kernel. Called as CuPy's: kernel((grid), (block), (arguments), shared_mem=bytes)."""

    def __init__(self, module, name):
        self.module, self.name = module, name
        self.max_dynamic_shared_size_bytes = 48 << 10
        self.order = self.seed = None  # None: the module's
        self._run = getattr(module._library, f"minidl_run_{name}")
        signature = getattr(module._library, f"minidl_signature_{name}")
        signature.restype = ctypes.c_char_p
        text = signature().decode()
        half = len(text) // 2
        self.parameters = list(zip(parameter_names(module.code, name, half), text[:half], text[half:], strict=True))

    @property
    def attributes(self):
        """What CuPy tells about a compiled kernel, as far as a CPU can know it."""
        return {"max_dynamic_shared_size_bytes": self.max_dynamic_shared_size_bytes, "local_size_bytes": 0, "const_size_bytes": 0}

    num_regs = local_size_bytes = const_size_bytes = 0

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None, order=None, seed=None):
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise explained(KernelError, self.name, "more dynamic shared memory than the kernel may have.",
                            [f"shared_mem = {shared_mem} bytes", f"max_dynamic_shared_size_bytes = {self.max_dynamic_shared_size_bytes}"],
                            "Set kernel.max_dynamic_shared_size_bytes first, as on a GPU; a block can have 227 KiB (sm_80: 163).")
        with _ONE_AT_A_TIME:
            self._launch(_three(grid, "grid", self.name), _three(block, "block", self.name), args, shared_mem,
                         order or self.order or self.module.order,
                         next(s for s in (seed, self.seed, self.module.seed) if s is not None))

    def _launch(self, grid, block, args, shared_mem, order, seed):
        module = self.module
        arrays, values = self._arguments(args)
        memory = _Memory(_runtime(module.ucontext), [array for _, array, _ in arrays], [const for _, _, const in arrays],
                         module.mode == "check" or module.guard)
        try:
            for (position, _, _), address in zip(arrays, memory.addresses, strict=True):
                values[position] = ctypes.c_void_p(address)
            pointers = (ctypes.c_void_p * max(len(values), 1))(*[ctypes.addressof(v) for v in values])
            _tell_elsewhere(memory.runtime, module.elsewhere() if module.elsewhere else [])
            how = Launch((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), shared_mem, ORDERS.index(order),
                         module.mode == "check", 0, seed, ctypes.cast(pointers, ctypes.c_void_p))
            report = Report()
            failed = self._run(ctypes.byref(how), ctypes.byref(report))
        finally:
            damaged = memory.give_back()
        names = [(self.parameters[position][0], array.dtype) for position, array, _ in arrays]
        if failed:
            raise error_from(report, self.name, module.library_path, names, block, module.mode)
        for (name, _), offset in zip(names, damaged, strict=True):
            if offset:
                raise _damaged(self.name, name, offset)

    def _arguments(self, args):
        """([(position, array, is it const)], [ctypes value or None for an array])."""
        if len(args) != len(self.parameters):
            raise explained(KernelError, self.name, "the number of arguments is wrong.",
                            [f"{len(args)} given, {len(self.parameters)} wanted", ", ".join(name for name, _, _ in self.parameters)],
                            "Pass one per parameter, in order.")
        arrays, values = [], []
        for position, (value, (name, pointer, code)) in enumerate(zip(args, self.parameters, strict=True)):
            if pointer == "v":
                values.append(_scalar(self.name, name, value, code))
            elif value is None or isinstance(value, np.uint64) and not value:  # CuPy has no None: an address of 0
                values.append(ctypes.c_void_p(0))
            else:
                _check_array(self.name, name, value, code)
                arrays.append((position, value, pointer == "c"))
                values.append(None)
        if len(arrays) > _MOST_ARRAYS:
            raise explained(KernelError, self.name, "too many array arguments.", [f"{len(arrays)}, at most {_MOST_ARRAYS}"],
                            "Pass a table of addresses.")
        return arrays, values


def _tell_elsewhere(runtime, places):
    count = len(places)
    runtime.minidl_elsewhere(count, (ctypes.c_size_t * count)(*[a for a, _ in places]), (ctypes.c_size_t * count)(*[n for _, n in places]))


def _scalar(kernel, name, value, code):
    array = np.asarray(value)  # what CuPy does: a Python int has 8 bytes, a Python float is a double
    if array.ndim or _SAME.get(array.dtype.char, array.dtype.char) != code:
        raise explained(KernelError, kernel, f"argument {name} has the wrong type.",
                        [f"given: {describe(value)}, which CuPy passes as {array.dtype}", f"wanted: {np.dtype(code)}"],
                        f"Pass np.{np.dtype(code)}({name}).")
    return ctypes.create_string_buffer(array.tobytes(), array.dtype.itemsize)


def _check_array(kernel, name, value, code):
    if not isinstance(value, np.ndarray) or code != "x" and _SAME.get(value.dtype.char, value.dtype.char) != code:
        raise explained(KernelError, kernel, f"argument {name} has the wrong type.",
                        [f"given: {describe(value)}", f"wanted: an array of {'any type' if code == 'x' else np.dtype(code)}"],
                        "A kernel takes its pointers as they are: nothing is converted.")
    low, high = np.lib.array_utils.byte_bounds(value)
    if high - low != value.nbytes and value.size:
        raise explained(KernelError, kernel, f"argument {name} has holes.", [f"strides {value.strides} for shape {value.shape}"],
                        "A kernel sees memory, not strides: pass a contiguous array.")


class _Memory:
    """The arguments of one launch as the kernel sees them: copies between unmapped pages, one for all arrays that overlap."""

    def __init__(self, runtime, arrays, const, copied):
        self.runtime, self.arrays, self.groups, self.copied = runtime, arrays, [], copied
        bounds = [np.lib.array_utils.byte_bounds(a) for a in arrays]
        region = list(range(len(arrays)))
        for i in sorted(range(len(arrays)), key=lambda i: bounds[i]):
            last = self.groups[-1] if self.groups else None
            if last and bounds[i][0] < last["end"]:
                last["end"] = max(last["end"], bounds[i][1])
                last["members"].append(i)
            else:
                self.groups.append({"begin": bounds[i][0], "end": bounds[i][1], "members": [i]})
            region[i] = self.groups[-1]["members"][0]
        read_only = [c or not a.flags.writeable for a, c in zip(arrays, const, strict=True)]
        self.addresses = [0] * len(arrays)
        for group in self.groups:
            self._place(group, all(read_only[i] for i in group["members"]))
        count = len(arrays)
        starts = [self.addresses[i] - (a.ctypes.data - bounds[i][0]) for i, a in enumerate(arrays)]
        runtime.minidl_arrays(count, (ctypes.c_void_p * count)(*starts), (ctypes.c_size_t * count)(*[a.nbytes for a in arrays]),
                              (ctypes.c_int * count)(*read_only), (ctypes.c_int * count)(*region))

    def _place(self, group, read_only):
        size = group["end"] - group["begin"]
        group["copy"] = None
        shift = 0
        if self.copied:
            group["copy"] = self.runtime.minidl_array_new(size, group["begin"] % 16)
            if not group["copy"]:
                raise MemoryError(f"{size} bytes for a kernel's argument")
            ctypes.memmove(group["copy"], group["begin"], size)
            if read_only:
                self.runtime.minidl_array_protect(group["copy"], size)
            shift = group["copy"] - group["begin"]
        group["read_only"] = read_only
        for i in group["members"]:
            self.addresses[i] = self.arrays[i].ctypes.data + shift

    def give_back(self):
        """Copy the results back and free the copies; per array, by how many bytes the kernel wrote beside it (0: not)."""
        damaged = [0] * len(self.arrays)
        for group in self.groups:
            if group["copy"]:
                size = group["end"] - group["begin"]
                if not group["read_only"]:
                    ctypes.memmove(group["begin"], group["copy"], size)
                damaged[group["members"][0]] = self.runtime.minidl_array_free(group["copy"], size)
        return damaged


@functools.cache
def _runtime(ucontext=False):
    library = ctypes.PyDLL(str(build_runtime(ucontext)))
    library.minidl_array_new.restype = ctypes.c_void_p
    library.minidl_array_new.argtypes = [ctypes.c_size_t, ctypes.c_uint]
    library.minidl_array_protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.minidl_array_free.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.minidl_array_free.restype = ctypes.c_long
    library.minidl_arrays.argtypes = [ctypes.c_int] + [ctypes.c_void_p] * 4
    library.minidl_elsewhere.argtypes = [ctypes.c_int] + [ctypes.c_void_p] * 2
    return library


def _damaged(kernel, name, offset):
    where = f"{offset} bytes behind its end" if offset > 0 else f"{-offset} bytes before its beginning"
    error = explained(KernelError, kernel, f"something was written outside of {name}.", [f"at about {where}"],
                      'mode="check" names the line and the thread.')
    error.kind, error.kernel = "out of bounds", kernel
    return error


def _three(size, what, kernel):
    size = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    if not 1 <= len(size) <= 3 or not all(isinstance(n, (int, np.integer)) and 0 <= n < 1 << 32 for n in size):
        raise explained(KernelError, kernel, f"{what} is one to three whole numbers.", [f"{what} = {size}"],
                        f"For example {what}=(16, 16).")
    return (*map(int, size), 1, 1)[:3]


def parameter_names(code, kernel, count):
    """The names of a kernel's parameters, read from its text."""
    for match in KERNEL.finditer(code):
        if match[2] == kernel:
            text = re.sub(r"//[^\n]*|/\*.*?\*/", "", code[match.end():code.index(")", match.end())], flags=re.DOTALL)
            names = [re.findall(r"\w+", part)[-1] for part in text.split(",") if part.strip()]
            if len(names) == count:
                return names
    return [f"argument {i}" for i in range(count)]


def _first_name(code):
    match = re.match(r'\s*#line\s+\d+\s+"([^"\n]*)"', code)
    return match[1] if match else "kernel.cu"
