"""Builds kernels for the CPU: a .cu text becomes a shared library through g++, kept in the cache by what went into it.

The runtime of kernels/cpu/*.cpp is a library of its own, built once. Everything is written beside its place and then
renamed, so that two processes never see half a file.
"""

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from minidl.core.errors import BackendError, MinidlError, explained
from minidl.core.folders import cache_folder, kernels_folder

KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\(((?:[^(),]|\([^()]*\))*)(?:,[^()]*)?\)\s*)?(\w+)\s*\(')
_DYNAMIC = re.compile(r"\bextern\s+__shared__\s+((?:__align__\s*\(\s*\w+\s*\)\s*)?)([\w:]+(?:\s+[\w:]+)*?)\s+(\w+)\s*\[\s*\]\s*;")
_UNROLL = re.compile(r"^([ \t]*)#pragma[ \t]+unroll[ \t]*$", re.MULTILINE)
_WARNINGS = ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-parameter", "-Wno-unused-variable",
             "-Wno-unused-but-set-variable", "-Wno-attributes"]
_COMMON = ["-std=gnu++17", "-gdwarf-4", "-fPIC", "-fno-strict-aliasing", "-fno-gnu-unique", "-fvisibility=hidden",
           "-fno-exceptions", "-fno-rtti"]
_NATIVE = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
_NOT_FOR_GCC = ("-std", "--std", "-lineinfo", "--generate-line-info", "-ftz", "--ftz", "--use_fast_math", "-default-device")
MODES = {
    "fast": ["-O3", _NATIVE, "-ffp-contract=fast", "-g1"],
    "check": ["-O1", "-g", "-fno-tree-vectorize", "-ffp-contract=fast", "-fsanitize=thread",
              "-fsanitize=bounds,alignment,signed-integer-overflow,integer-divide-by-zero"],
    "debug": ["-O0", "-g3", "-fno-omit-frame-pointer"],
}


class KernelError(MinidlError, RuntimeError):
    """A kernel broke a rule, or does not compile. Its `kind`, `file`, `line`, `block` and `thread` say what and where."""

    kind = file = line = block = thread = kernel = other = None


@functools.cache
def compiler():
    """Path of the C++ compiler: MINIDL_CXX, else g++."""
    if platform.system() != "Linux":
        raise explained(BackendError, "kernels on the CPU", "they run on Linux only.", [f"this is {platform.system()}"],
                        "Use a container, or WSL.")
    wanted = os.environ.get("MINIDL_CXX") or "g++"
    found = shutil.which(wanted)
    if not found:
        raise explained(BackendError, "kernels on the CPU", "a C++ compiler is needed, and there is none.",
                        [f"{wanted} is not on the PATH"], "Install g++ (Debian, Ubuntu: apt install g++), or name one in MINIDL_CXX.")
    return found


def why_no_compiler():
    """"" if kernels can be built for the CPU here, else the reason."""
    try:
        compiler()
    except BackendError as error:
        return str(error)
    return ""


def translation_unit(code, name, mode="fast"):
    """The text that g++ gets: our header, the kernel file with its line numbers kept, and one door per kernel."""
    bounds = {kernel: limit or "0" for limit, kernel in KERNEL.findall(code)}
    code = _DYNAMIC.sub(r"\1\2* const \3 = (\2*)minidl_dynamic_shared;", code)
    if mode == "fast":
        code = _UNROLL.sub(r"\1#pragma GCC unroll 32", code)  # else arrays of registers would lie in memory
    taken = [kernel for kernel in bounds if any(hasattr(library, kernel) for library in _c_libraries())]
    code = "".join(f"#define {kernel} minidl_kernel_{kernel}\n" for kernel in taken) + f'#line 1 "{name}"\n{code}'
    doors = "".join(f"MINIDL_EXPORT({kernel}, ({limit}))\n" for kernel, limit in bounds.items())
    text = f'#include "on_cpu.h"\n{code}\n#line 1 "exports"\n{doors}'
    return text, list(bounds)


@functools.cache
def _c_libraries():
    """C's own: a kernel with the name of one of their functions (div, select, gamma) is given another, since g++ has seen their headers."""
    found = []
    for name in ("libc.so.6", "libm.so.6"):
        with contextlib.suppress(OSError):  # not every Linux calls them so; then such names stay refused
            found.append(ctypes.CDLL(name))
    return found


def options_for_gcc(options):
    """The -D, -U and -I among CuPy's options; g++ knows better about the rest."""
    kept = []
    for option in options:
        if option.startswith(("-D", "-U", "-I")):
            kept.append(option)
        elif not option.startswith(_NOT_FOR_GCC):
            raise explained(KernelError, "RawModule", "an option that the CPU runner does not know.", [f"option: {option!r}"],
                            "It takes -DNAME=VALUE, -UNAME and -Ifolder.")
    return kept


def build(code, name, options=(), mode="fast", ucontext=False):
    """The library of a kernel file and the names of its kernels: (path, names). Compiles only what is not in the cache."""
    text, kernels = translation_unit(code, name, mode)
    headers = kernels_folder() / "cpu"
    runtime = build_runtime(ucontext)
    flags = [*_COMMON, *MODES[mode], *_WARNINGS, *options_for_gcc(options)]
    texts = [(headers / header).read_text(encoding="utf-8") for header in sorted(p.name for p in headers.glob("*.h"))]
    target = _target(f"{Path(name).stem}.{mode}", [text, *flags, *texts, runtime.name])
    if not target.exists():
        linking = ["-shared", str(runtime), "-Wl,-rpath,$ORIGIN"]
        _compile(target, {target.stem + ".cpp": text}, [*flags, f"-I{headers}"], linking, name)
    return target, kernels


@functools.cache
def build_runtime(ucontext=False):
    """The library of kernels/cpu/*.cpp. With `ucontext` the portable way of switching stacks, also where ours exists."""
    headers = kernels_folder() / "cpu"
    sources = {p.name: p.read_text(encoding="utf-8") for p in sorted(headers.iterdir()) if p.suffix in (".h", ".cpp")}
    flags = ["-std=gnu++17", "-O2", "-g", "-fPIC", "-fvisibility=hidden", "-U_FORTIFY_SOURCE", "-D_GNU_SOURCE", "-fno-exceptions",
             "-fno-rtti", *(["-fcf-protection=none"] if platform.machine() == "x86_64" else []),
             *(["-DMINIDL_UCONTEXT"] if ucontext else [])]
    target = _target("runtime", [*flags, *sources.values()])
    if not target.exists():
        cpp = {n: t for n, t in sources.items() if n.endswith(".cpp")}
        _compile(target, cpp, [*flags, f"-I{headers}"], ["-shared", f"-Wl,-soname,{target.name}"], "the runtime")
    return target


def _target(stem, ingredients):
    """Where a library lies that is made of these texts, by this compiler, on this kind of processor."""
    found = Path(compiler()).resolve()
    how = Path(__file__).read_text(encoding="utf-8")  # a change in this very file may change what is built
    recipe = [*ingredients, how, str(found), str(found.stat().st_mtime_ns), platform.machine(), _processor()]
    digest = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:20]
    safe_stem = re.sub(r"[^\w.]", "_", stem)
    return _folder() / f"{safe_stem}.{digest}.so"


@functools.cache
def _folder():
    folder = cache_folder() / "on_cpu"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:  # a cache that cannot be written: build for this process alone
        folder = Path(tempfile.mkdtemp(prefix="minidl_on_cpu_"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder


@functools.cache
def _processor():
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.lower().startswith(("model name", "flags", "features", "cpu part"))}))


def _compile(target, sources, flags, linking, name):
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building_") as work:
        paths = []
        for file, text in sources.items():
            paths.append(Path(work) / file)
            paths[-1].write_text(text, encoding="utf-8")
        made, said = Path(work) / target.name, []
        objects = [str(path) + ".o" for path in paths]
        # Linked without the flags: -fsanitize would link the real libtsan, where our own functions belong.
        steps = [[*flags, "-c", str(path), "-o", made_object] for path, made_object in zip(paths, objects, strict=True)]
        for step in [*steps, [*objects, *linking, "-o", str(made)]]:
            run = subprocess.run([compiler(), *step], capture_output=True, text=True, cwd=work)
            if run.returncode:
                raise _does_not_compile(name, run.stderr, run.returncode)
            said += [line.replace(f"{work}/", "") for line in run.stderr.splitlines() if ": warning: " in line]
        if said:  # beside the library: whoever finds that in the cache wants to see them too
            log = Path(work) / "log"
            log.write_text("\n".join(said), encoding="utf-8")
            os.replace(log, target.with_suffix(".log"))
        os.replace(made, target)


def warnings_of(library):
    """What the compiler warned of when it built a library, as lines."""
    try:
        return library.with_suffix(".log").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _does_not_compile(name, log, code):
    if not log.strip():
        return explained(BackendError, name, "the C++ compiler failed and did not say why.", [f"{compiler()} ended with exit code {code}"],
                         f"Does it work by itself? {Path(compiler()).name} --version")
    errors = [line for line in log.splitlines() if re.search(r"\b(error|undefined reference)\b", line)] or log.splitlines()
    error = explained(KernelError, name, "g++ does not accept it.", errors[:8],
                      "Only what the device's compiler and g++ both know: no host headers, PTX only in wrappers with a CPU body.")
    place = re.match(r"(.+?):(\d+):", errors[0]) if errors else None
    error.kind = "compile"
    if place:
        error.file, error.line = place[1], int(place[2])
    return error
