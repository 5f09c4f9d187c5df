"""The text of a kernel file as every compiler gets it: `#include "x.cuh"` lines replaced by the file they name.

CuPy's cache of compiled kernels does not look into included files, so they are put in here, each one once. `#line`
lines keep every message of NVRTC, g++ and gdb at the file and line where the code really stands.
"""

import functools
import re
from pathlib import Path

from minidl.core.errors import FileError, explained
from minidl.core.folders import kernels_folder

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"[^\n]*$', re.MULTILINE)
ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once[^\n]*$", re.MULTILINE)


def path_of(file):
    """Where a kernel file is: a name in kernels/, or a path of one's own."""
    path = Path(file)
    return path if path.is_absolute() or path.is_file() and len(path.parts) > 1 else kernels_folder() / path


@functools.cache
def text_of(file):
    """The whole text of a kernel file, includes spliced in. Read once per process."""
    return splice(path_of(file), set())


def splice(path, seen):
    """The text of one file with its own includes in place; a file that is there already (`seen`) leaves an empty line."""
    seen.add(path.resolve())
    try:
        text = ONCE.sub("", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        listed = ", ".join(sorted(p.name for p in kernels_folder().glob("*.cu"))) or "none"
        facts = [f"{path}: {reason}", f"kernels/ has: {listed}"]
        raise explained(FileError, f"kernel file {path.name}", "this file cannot be read.", facts, "Check the name.") from None
    parts, done = [f'#line 1 "{path.name}"\n'], 0
    for found in INCLUDE.finditer(text):
        inner = path.parent / found[1]
        after = text.count("\n", 0, found.end()) + 2  # the number of the line below this one
        parts.append(text[done:found.start()])
        parts.append("\n" if inner.resolve() in seen else f'{splice(inner, seen)}\n#line {after} "{path.name}"\n')
        done = min(found.end() + 1, len(text))
    return "".join([*parts, text[done:]])
