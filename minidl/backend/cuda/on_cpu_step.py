"""The door to gdb: stop at the first line of a kernel, in the thread of your choice, and walk on from there.

    step(["my_script.py"], "conv2d_v2_shared_tile", block=(1, 0, 0), thread=(3, 0, 0))

The program is any Python program that launches the kernel in mode="debug". In gdb: next, step, print tile[2], print
threadIdx, continue. threadIdx, blockIdx, blockDim and gridDim are plain variables.
"""

import re
import shutil
import subprocess
import sys

from minidl.backend.cuda.on_cpu_build import KernelError, compiler
from minidl.core.errors import BackendError, explained
from minidl.core.folders import kernels_folder


def why_no_gdb():
    """"" if kernels can be stepped through here, else the reason."""
    return "" if shutil.which("gdb") else "gdb is not on the PATH (Debian, Ubuntu: apt install gdb)"


def step(program, kernel, block=(0, 0, 0), thread=(0, 0, 0), commands=None, folders=()):
    """Start gdb on `python *program` and stop where `kernel` begins in that block and thread.

    With `commands` it does these and ends, and what it printed is returned; without, it is yours, and its exit code is
    returned. `folders` are searched for the kernel's source besides kernels/.
    """
    compiler()  # says what is missing, before gdb starts
    if why_no_gdb():
        raise explained(BackendError, "stepping through a kernel", "gdb is needed, and there is none.", [why_no_gdb()],
                        'Install gdb; or put printf("%d\\n", i) into the kernel, which works in every mode.')
    if not re.fullmatch(r"[A-Za-z_]\w*", kernel):
        raise explained(KernelError, "stepping through a kernel", "this cannot be the name of a kernel.", [f"name: {kernel!r}"],
                        "`minidl kernels list` shows the names.")
    conditions = [f"{index}.{axis} == {int(value)}" for index, values in (("blockIdx", block), ("threadIdx", thread))
                  for axis, value in zip("xyz", (*values, 0, 0), strict=False)]
    settings = ["set breakpoint pending on", "set print thread-events off", "set confirm off", "set startup-with-shell off",
                "set debuginfod enabled off", f"break {kernel} if {' && '.join(conditions)}", "run"]
    scripted, quiet = commands is not None, ["-iex", "set auto-load off"]  # else gdb says of every library what it did not load
    orders = [part for setting in [*settings, *(commands or ())] for part in ("-ex", setting)]
    places = [part for folder in (kernels_folder(), *folders) for part in ("-d", str(folder))]
    manner = ["-nx", "-batch"] if scripted else []
    gdb = [shutil.which("gdb"), "-q", *quiet, *manner, *places, *orders, "--args", sys.executable, *map(str, program)]
    if not scripted:
        return subprocess.call(gdb)
    done = subprocess.run(gdb, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    if not re.search(rf"^(?:Thread .* hit )?Breakpoint 1, .*\b{kernel}\b", done.stdout, re.MULTILINE):
        facts = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()][-12:]
        raise explained(KernelError, kernel, "the program ended and never came to this block and thread.", facts,
                        "Does it launch the kernel in mode=\"debug\", with a grid that has this block?")
    return done.stdout
