"""What NVIDIA's compiler says of a kernel file, on a machine without a GPU: errors, registers, spills, shared memory, instructions.

NVRTC comes as a wheel (extra: kernels) and gets exactly the options that CuPy passes, so what compiles here compiles there.
"""

import collections
import ctypes
import functools
import importlib.util
import os
import re
import subprocess
import tempfile
from pathlib import Path

from minidl.backend.cuda.source import line_name, path_of, text_of
from minidl.core.errors import BackendError, explained

ARCHITECTURES = ("sm_80", "sm_90")  # A100 and H100, H200
GROUPS = {  # what an instruction is for -> the beginnings of its SASS names
    "multiply-add": ("FFMA", "FMUL", "FADD"), "double": ("DFMA", "DADD", "DMUL"), "tensor core": ("HMMA", "IMMA", "HGMMA"),
    "load global": ("LDG",), "store global": ("STG",), "load shared": ("LDS", "LDSM"), "store shared": ("STS",),
    "copy to shared": ("LDGSTS", "UBLKCP"), "local memory": ("LDL", "STL"), "barrier": ("BAR",), "shuffle": ("SHFL",),
    "atomic": ("ATOM", "ATOMG", "ATOMS", "RED"), "integer": ("IMAD", "IADD3", "LOP3", "LEA", "SHF", "ISETP"), "special": ("MUFU",),
}
SASS = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)")
ENTRY = re.compile(r"Compiling entry function '(\w+)'.*?(?=Compiling entry function|\Z)", re.DOTALL)


class Resources:
    """What one compiled kernel uses, per thread (registers, stack, spills) and per block (shared, static only)."""

    __slots__ = ("name", "arch", "registers", "spills", "stack", "shared", "mix")

    def __init__(self, name, arch, report, mix=None):
        self.name, self.arch, self.mix = name, arch, mix or {}
        self.registers = _number(r"Used (\d+) registers", report)
        self.spills = _number(r"(\d+) bytes spill stores", report) + _number(r"(\d+) bytes spill loads", report)
        self.stack = _number(r"(\d+) bytes stack frame", report)
        self.shared = _number(r"(\d+) bytes smem", report)

    def __repr__(self):
        return f"{self.name} {self.arch}: {self.registers} registers, {self.spills} bytes spilled, {self.shared} bytes shared"


def _number(pattern, text):
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


@functools.cache
def toolkit():
    """The folder of the wheels (lib, include, bin), or None."""
    try:
        found = importlib.util.find_spec("nvidia.cu13")
    except ModuleNotFoundError:  # there is no nvidia at all
        return None
    folders = [Path(place) for place in found.submodule_search_locations] if found else []
    return next((folder for folder in folders if (folder / "lib").is_dir()), None)


@functools.cache
def why_no_compiler():
    """"" if NVRTC can be used here, else the reason. Asks once."""
    root = toolkit()
    if root is None:
        return "NVIDIA's compiler is not installed (extra: kernels, as in pip install -e '.[kernels]')"
    if not (root / "include" / "cuda_runtime.h").is_file():
        return f"the CUDA headers are not in {root / 'include'} (extra: kernels)"
    try:
        _library()
    except OSError as error:
        return f"NVRTC cannot be loaded: {error}"
    return ""


def why_no_disassembler():
    """"" if kernels can be disassembled here, else the reason."""
    root = toolkit()
    missing = [tool for tool in ("cuobjdump", "nvdisasm") if root is None or not (root / "bin" / tool).is_file()]
    return f"not installed: {', '.join(missing)} (extra: kernels)" if missing else ""


@functools.cache
def _library():
    folder = toolkit() / "lib"
    for builtins in sorted(folder.glob("libnvrtc-builtins.so.13*")):
        ctypes.CDLL(str(builtins))  # first: NVRTC looks for it by its bare name
    library = ctypes.CDLL(str(folder / "libnvrtc.so.13"))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def cupy_options(arch):
    """The options that CuPy 14 adds to those of a RawModule, in its order. Its bundled CCCL folders are left out: no kernel uses them."""
    return ("--std=c++17", f"-I{toolkit() / 'include'}", "-ftz=true", f"-arch={arch}", "--device-as-default-execution-space")


def cubin(text, name, options=(), arch="sm_90"):
    """(machine code, the assembler's report) of a source text; raises with the compiler's own words if it does not compile."""
    reason = why_no_compiler()
    if reason:
        raise explained(BackendError, f"compile {name}", "there is no CUDA compiler here.", [reason], "Install the extra `kernels`.")
    library, program = _library(), ctypes.c_void_p()
    _must(library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None))
    try:
        words = [*options, *cupy_options(arch), "--ptxas-options=-v"]
        failed = library.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*[word.encode() for word in words]))
        log = _bytes(program, library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog).rstrip(b"\0").decode(errors="replace")
        if failed:
            raise explained(BackendError, f"compile {name} for {arch}", "the kernel does not compile.", log.strip().splitlines()[:40],
                            f"Options: {' '.join(options) or 'none of its own'}")
        return _bytes(program, library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _must(status):
    if status:
        raise explained(BackendError, "NVRTC", _library().nvrtcGetErrorString(status).decode(), [], "Is the installation complete?")


def _bytes(program, size_of, get):
    size = ctypes.c_size_t()
    _must(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _must(get(program, buffer))
    return buffer.raw


def resources(file, options=(), arch="sm_90", disassemble=False):
    """{kernel: Resources} of a kernel file compiled for one architecture."""
    return examined(file, options, arch, disassemble)[0]


def examined(file, options=(), arch="sm_90", disassemble=False):
    """({kernel: Resources}, the compiler's warnings as lines) of a kernel file compiled for one architecture."""
    code, log = cubin(text_of(str(file)), line_name(path_of(file)), tuple(options), arch)
    mixes = instruction_mix(code) if disassemble else {}
    found = {m[1]: Resources(m[1], arch, m[0], mixes.get(m[1])) for m in ENTRY.finditer(log)}
    return found, [line.strip() for line in log.splitlines() if re.search(r"\): warning\b", line)]


def instruction_mix(code):
    """{kernel: {SASS instruction: how many in the text}} of machine code; 16-byte accesses keep their width, as LDG.128."""
    root = toolkit()
    reason = why_no_disassembler()
    if reason:
        raise explained(BackendError, "disassemble", "there is no disassembler here.", [reason], "Install the extra `kernels`.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code)
        done = subprocess.run([root / "bin" / "cuobjdump", "-sass", path], capture_output=True, text=True, check=False,
                              env={**os.environ, "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"})
    if done.returncode:
        raise explained(BackendError, "cuobjdump", "the machine code cannot be disassembled.", done.stderr.splitlines()[:5],
                        "Is nvdisasm of the same version installed?")
    parts = re.split(r"\n\s*Function : (\w+)", done.stdout)
    return {name: dict(collections.Counter(map(_short, SASS.findall(body))).most_common())
            for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def _short(instruction):
    parts = instruction.split(".")
    wide = parts[0] in ("LDG", "STG", "LDS", "STS", "LDGSTS") and next((part for part in parts if part in ("64", "128")), "")
    return f"{parts[0]}.{wide}" if wide else parts[0]


def grouped(mix):
    """An instruction mix as {what it is for: count}; what belongs to no group is left out."""
    counts = {group: sum(n for name, n in mix.items() if name.partition(".")[0] in names) for group, names in GROUPS.items()}
    return {group: n for group, n in counts.items() if n}
