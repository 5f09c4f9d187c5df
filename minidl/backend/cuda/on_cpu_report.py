"""Turns what the runtime noticed into a KernelError that a person can act on: the rule, the place, the other party, the fix."""

import ctypes
import functools
import re
import shutil
import subprocess

from minidl.backend.cuda.on_cpu_build import KernelError
from minidl.core.errors import explained

_uint3 = ctypes.c_uint * 3


class Launch(ctypes.Structure):
    """struct MinidlLaunch of kernels/cpu/runtime.h."""

    _fields_ = [("grid", _uint3), ("block", _uint3), ("shared_bytes", ctypes.c_size_t), ("order", ctypes.c_int), ("check", ctypes.c_int),
                ("max_threads", ctypes.c_int), ("seed", ctypes.c_uint64), ("arguments", ctypes.c_void_p)]


class Report(ctypes.Structure):
    """struct MinidlReport of kernels/cpu/runtime.h."""

    _fields_ = [("kind", ctypes.c_int), ("write", ctypes.c_int), ("bytes", ctypes.c_int), ("region", ctypes.c_int),
                ("offset", ctypes.c_int64), ("size", ctypes.c_int64), ("pc", ctypes.c_uint64), ("other_pc", ctypes.c_uint64),
                ("other_thread", ctypes.c_int),
                ("other_write", ctypes.c_int), ("other_block", ctypes.c_int), ("file", ctypes.c_char_p), ("line", ctypes.c_int),
                ("block", _uint3), ("thread", _uint3), ("text", ctypes.c_char * 1024)]


# MinidlKind in order: kind, the rule, the fix.
KINDS = [
    ("", "", ""),
    ("launch", "this launch is not possible.", "Change the grid, the block or the shared memory."),
    ("out of bounds", "an access outside of its array.", "Guard it with the true size: the last tile is ragged."),
    ("misaligned", "a vector access at an address that its size does not divide.",
     "Load single elements, or start at a multiple of the vector."),
    ("race", "two threads touch the same memory, one of them writes, and nothing orders them.",
     "Put a barrier between the two: __syncthreads(), or __syncwarp() within one warp."),
    ("uninitialised", "a read of shared memory that nobody has written.",
     "Fill the whole tile before the barrier, the ragged part with zeros."),
    ("read-only", "a write into an array that is read-only.", "Write into an output, or drop the const of the parameter."),
    ("in flight", "shared memory is touched before the copy into it has landed.", "Wait for the copy's group, then __syncthreads()."),
    ("divergent barrier", "not all threads of the block come to the same __syncthreads.",
     "Move the barrier out of the branch; let threads beyond the edge stay until the last barrier."),
    ("warp", "not all lanes of the mask come to the same warp operation.",
     "Move it out of the branch, or give the mask of the lanes that come."),
    ("index", "an array index outside of its axis.", "Compare the loop's end with the size of the axis."),
    ("overflow", "a whole number does not fit its type.", "Compute offsets with (size_t) or long long."),
    ("fault", "an access to memory that is not there.", 'mode="check" says more.'),
    ("stack", "a thread's local arrays do not fit its stack.", "A thread has 128 KiB here, and registers on a GPU: make the tile smaller."),
    ("arithmetic", "a division by zero, or one that does not fit.", "Guard the divisor."),
    ("interrupted", "interrupted.", ""),
    ("trap", "the kernel stopped itself.", ""),
]
NOWHERE, DYNAMIC, STATIC = -3, -2, -1


def error_from(report, kernel, library, arrays, block, mode):
    """The exception for a report. `arrays` are the (name, dtype) of the array arguments, `block` is the shape of a block."""
    kind, rule, fix = KINDS[report.kind]
    places = source_lines(library, report.pc)
    if kind == "interrupted":
        where = f", at {_at(places[0])}" if places else ""
        return KeyboardInterrupt(f"{kernel}: in block {tuple(report.block)}, thread {tuple(report.thread)}{where}")
    place = (report.file.decode(errors="replace"), report.line) if report.file else places[0] if places else None
    facts = [] if kind == "launch" else [f"at {_at(place)}, block {tuple(report.block)}, thread {tuple(report.thread)}"]
    facts += [f"called from {_at(p)}" for p in places[1:] if p != place]
    access = _access(report, library, arrays)
    facts += [access] if access else []
    other = source_lines(library, report.other_pc)
    facts += _other_party(report, other[0] if other else None, kind, block)
    facts += report.text.decode(errors="replace").splitlines()
    error = explained(KernelError, kernel, rule, facts, _better_fix(report, kind, mode) or fix)
    error.kind, error.kernel = kind, kernel
    error.file, error.line = place or (None, None)
    error.block, error.thread = (None, None) if kind == "launch" else (tuple(report.block), tuple(report.thread))
    error.other = other[0] if other else None
    return error


def _better_fix(report, kind, mode):
    """What to do where the usual advice does not help."""
    if kind == "race" and report.other_block:
        return "Nothing orders blocks: give each its own part of the memory, or let a second launch bring the parts together."
    if kind == "out of bounds" and report.region == DYNAMIC:
        return "Launch with more shared_mem, or guard the index."
    if kind == "fault" and mode == "check":
        return "No array is near: look at how the address on this line comes about."
    return ""


def _at(place):
    return f"{place[0]}:{place[1]}" if place else "an unknown line"


def _access(report, library, arrays):
    """"it writes 4 bytes, y[64]: the array ends at y[63]"."""
    if report.region == NOWHERE:
        return "it touches memory of nobody" if KINDS[report.kind][0] in ("out of bounds", "fault") else ""
    doing = f"it {'writes' if report.write else 'reads'}" + (f" {report.bytes} bytes," if report.bytes else "")
    if report.region >= 0:
        name, dtype = arrays[report.region]
        index, rest = divmod(report.offset, dtype.itemsize)
        where = f"{name}[{index}]" + (f" + {rest} bytes" if rest else "")
        last = report.size // dtype.itemsize - 1
        if 0 <= report.offset < report.size:
            return f"{doing} {where}"
        return f"{doing} {where}, and {name} ends with {name}[{last}]" if last >= 0 else f"{doing} {where}, and {name} is empty"
    if report.region == DYNAMIC:
        return f"{doing} byte {report.offset} of the dynamic shared memory ({report.size} bytes)"
    return f"{doing} {shared_name(library, report.offset)}"


def _other_party(report, place, kind, block):
    if report.other_thread == -2:
        return []
    did = "wrote it" if report.other_write else "read it"
    if kind == "in flight":
        did = "began to copy into it"
    x, y, _ = block
    number = report.other_thread
    who = "several threads" if number < 0 else f"thread {(number % x, number // x % y, number // x // y)}"
    return [f"{who}{' of another block' if report.other_block else ''} {did} before, at {_at(place)}"]


@functools.lru_cache(256)
def source_lines(library, pc):
    """[(file, line)] of an address in a kernel's library: the line itself, then the lines that its inlined functions were called from."""
    tool = shutil.which("addr2line")
    if not pc or not tool:
        return []
    text = subprocess.run([tool, "-e", str(library), "-i", hex(pc)], capture_output=True, text=True).stdout
    found = []
    for line in text.splitlines():
        file, _, number = re.sub(r" \(discriminator \d+\)$", "", line).rpartition(":")
        if number.isdigit() and not re.search(r"/cpu/\w+\.h$", file):  # our own headers are no place of the kernel's
            found.append((file.rpartition("/")[2], int(number)))
    return found


@functools.lru_cache(64)
def _shared_symbols(library):
    """[(offset from the start of .bss, bytes, name)] of the static shared arrays."""
    tool = shutil.which("nm")
    text = subprocess.run([tool, "-SC", "--defined-only", str(library)], capture_output=True, text=True).stdout if tool else ""
    start = next((int(line.split()[0], 16) for line in text.splitlines() if line.endswith(" __bss_start")), 0)
    pattern = re.compile(r"([0-9a-f]+) ([0-9a-f]+) [bBuVvwW] (.*)")
    found = [(int(m[1], 16) - start, int(m[2], 16), m[3]) for m in map(pattern.match, text.splitlines()) if m]
    return [entry for entry in found if entry[0] >= 0]


def shared_name(library, offset):
    """"byte 64 of the shared array tile (1024 bytes)" for an offset into the static shared memory."""
    for start, size, name in _shared_symbols(library):
        if start <= offset < start + size:
            return f"byte {offset - start} of the shared array {name.rpartition('::')[2]} ({size} bytes)"
    return f"byte {offset} of the static shared memory"
