"""The text of a kernel file as every compiler gets it: `#include "x.cuh"` lines replaced by the file they name.

CuPy's cache of compiled kernels does not look into included files, so they are put in here, each one once. `#line`
lines keep every message of NVRTC, g++ and gdb at the file and line where the code really stands.
"""

import functools
import os
import re
from pathlib import Path

from minidl.core.errors import FileError, explained, safe
from minidl.core.folders import kernels_folder

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]+)"[^\n]*$', re.MULTILINE)
LARGEST = 4 << 20  # bytes of a source file
OUTSIDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+<((?:/|[^>\n]*\.\.)[^>\n]*)>', re.MULTILINE)
ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once[^\n]*$", re.MULTILINE)


def path_of(file):
    """Where a kernel file is: a name in kernels/, or a path of one's own."""
    path = Path(file)
    return path if path.is_absolute() or path.is_file() and len(path.parts) > 1 else kernels_folder() / path


@functools.cache
def text_of(file):
    """The whole text of a kernel file, includes spliced in. Read once per process."""
    path = path_of(file)
    return splice(path, set(), path.parent, f"kernel file {line_name(path)}")


def line_name(path):
    """The name of a file as it can stand in a #line, where quotes and backslashes mean something else, and as a compiler's argument."""
    name = "".join(c if c.isprintable() and c not in '"\\' else "_" for c in path.name)
    return "_" + name[1:] if name.startswith("-") else name


def splice(path, seen, root, asked):
    """The text of one file with its own includes in place; a file that is there already (`seen`) leaves an empty line."""
    seen.add(path.resolve())
    text, name = ONCE.sub("", _read(path, asked)), line_name(path)
    outside = OUTSIDE.search(text)
    if outside:  # whatever a compiler cannot read as C it would print
        raise _leaves(name, text.count("\n", 0, outside.start()) + 1, outside[1], root)
    parts, done = [f'#line 1 "{name}"\n'], 0
    for found in INCLUDE.finditer(text):
        inner, line = path.parent / found[1], text.count("\n", 0, found.start()) + 1
        after = text.count("\n", 0, found.end()) + 2  # the number of the line below this one
        if not Path(os.path.normpath(inner.absolute())).is_relative_to(os.path.normpath(root.absolute())):
            raise _leaves(name, line, found[1], root)
        parts.append(text[done:found.start()])
        there = inner.resolve() in seen
        parts.append("\n" if there else f'{splice(inner, seen, root, f"{name}:{line} includes {found[1]}")}\n#line {after} "{name}"\n')
        done = min(found.end() + 1, len(text))
    return "".join([*parts, text[done:]])


def _leaves(name, line, included, root):
    return explained(FileError, f"{name}:{line}", "an include leaves the folder of the kernel file.", [f"it includes: {included}"],
                     f"Kernel files include only what lies in their own folder: {root}")


def _read(path, asked):
    try:
        if path.exists() and not path.is_file():  # a device could be read for ever
            raise OSError(0, "it is no plain file")
        if path.stat().st_size > LARGEST:
            raise OSError(0, f"it has more than {LARGEST:,} bytes")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        facts = [f"{safe(path)}: {safe(reason)}"]
        if path.parent == kernels_folder():
            facts.append(f"kernels/ has: {', '.join(sorted(p.name for p in path.parent.glob('*.cu'))) or 'none'}")
        raise explained(FileError, asked, "this file cannot be read.", facts, "Check the name.") from None
