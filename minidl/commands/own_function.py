"""`minidl check MODULE:FUNCTION --shape ...`: finding a function of the user's, calling it, checking it.

What goes wrong in the user's own file is told in one message with the file and the line; nothing of it ends the command
as if all were well, sys.exit(0) included.
"""

import difflib
import importlib
import importlib.util
import json
import os
import re
import sys
import traceback
from pathlib import Path

import numpy as np

from minidl.commands.output import say, talk, usage

SHAPE = re.compile(r"\(\s*\)|[(\[]?\s*(\d+(?:\s*[,x]\s*\d+)*)\s*,?\s*[)\]]?", re.ASCII)
LARGEST = 2**27  # elements of one argument: a gigabyte, of which a check needs many copies
NAMES = 12       # so many names of a module are listed


def load(target):
    """The function that `package.module:name`, or `path/to/file.py:name`, stands for, found from the current directory."""
    module_name, _, path = target.rpartition(":")
    if not module_name or not path:
        raise usage(f"{target!r} is not MODULE:FUNCTION.\n    Example: minidl check my_package.my_module:my_op --shape 2,3")
    module = found = guarded(f"{module_name} cannot be imported", import_file if is_file(module_name) else import_module, module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise usage(f"{module_name} has no {part!r}.\n    {names_of(found, module.__name__, part)}")
        found = getattr(found, part)
    if not callable(found):
        raise usage(f"{target} is a {type(found).__name__}, not a function.")
    return found


def guarded(what, call, *args):
    """Call something of the user's; whatever it raises becomes one message. sys.exit() too: nothing was checked."""
    try:
        return call(*args)
    except (Exception, SystemExit) as error:
        if type(error).__name__ == "UsageError":
            raise
        said = "it called sys.exit()" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_ours(f.filename)]
        where = f"\n    at {frames[-1].filename}:{frames[-1].lineno}" if frames and not isinstance(error, SyntaxError) else ""
        raise usage(f"{what}\n    {said}{where}") from error


def is_ours(filename):
    """Is this file minidl's, or Python's import machinery?"""
    return filename.startswith(("<", str(Path(__file__).parents[1]))) or "importlib" in filename


def is_file(name):
    """Does it name a file, and not a module?"""
    return name.endswith(".py") or "/" in name


def import_file(name):
    """The module in a file, whose directory is where it finds its neighbours."""
    path = Path(name if name.endswith(".py") else name + ".py").resolve()
    if not path.is_file():
        raise usage(f"there is no file {name}.\n    looked in: {os.getcwd()}")
    package, top = [path.stem], path.parent
    while (top / "__init__.py").is_file():  # a part of a package is imported as that
        package.insert(0, top.name)
        top = top.parent
    sys.path.insert(0, str(top))
    if len(package) > 1:
        return importlib.import_module(".".join(package))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def import_module(name):
    """A module by its dotted name."""
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name + ".").startswith(error.name + "."):
            raise usage(f"there is no module {error.name!r}.\n    looked in: {os.getcwd()}, and the installed packages\n"
                        "    Run the command from the directory that holds it, or name the file: path/to/it.py:function") from error
        raise


def names_of(found, module_name, wanted):
    """What a module has, its own functions before those it imported."""
    names = [n for n in dir(found) if not n.startswith("_") and callable(getattr(found, n))]
    names.sort(key=lambda n: getattr(getattr(found, n), "__module__", None) != module_name)
    near = difflib.get_close_matches(wanted, names, 1)
    more = f", ... and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return f"it has: {', '.join(names[:NAMES]) or 'no functions'}{more}" + (f"\n    Did you mean {near[0]}?" if near else "")


def parse_shape(text):
    """2,3 or (2, 3) or 2x3 as a tuple of sizes; () is a single number."""
    match = SHAPE.fullmatch(text.strip())
    if not match:
        raise usage(f"--shape {text!r}: sizes are whole numbers separated by commas, as in --shape 2,3,8,8")
    shape = tuple(int(size) for size in re.split(r"[,x]", match[1])) if match[1] else ()
    count = int(np.prod([float(n) for n in shape])) if shape else 1
    if count > LARGEST:
        raise usage(f"--shape {text}: {count:.3g} elements, {count * 8 / 2**30:.3g} GiB for every copy, are too many to check.\n"
                    "    A gradient that is right for a few elements of every axis is right for many: use smaller sizes.")
    return shape


def check_function(target, shapes, order, seed, scale, as_json):
    """Check one function of the user's and print its report."""
    fn = load(target)
    shapes = [parse_shape(s) for s in shapes]
    if not shapes:
        raise usage(f"say the shapes of {target}'s tensor arguments.\n    Example: minidl check {target} --shape 2,3,8,8")
    from minidl.core.gradcheck import check
    from minidl.core.tensor import Tensor

    rng = np.random.default_rng(seed)
    inputs = [Tensor(np.asarray(rng.standard_normal(shape) * scale)) for shape in shapes]
    listed = ", ".join(str(s) for s in shapes)
    talk(f"{target}: {len(inputs)} argument{'s' if len(inputs) > 1 else ''} of shape {listed}, N(0, 1)"
         f"{f' · {scale:g}' if scale != 1 else ''}, orders 1 to {order}, float64, seed {seed}")
    result = guarded(f"{target} does not accept these shapes: {listed}", fn, *inputs)
    if not all(isinstance(y, Tensor) for y in (result if isinstance(result, (tuple, list)) else (result,))):
        raise usage(f"{target} must return a Tensor or a tuple of Tensors.\n    it returned a {type(result).__name__}")
    report = guarded(f"{target} raised while it was checked", lambda: check(
        fn, inputs, order, seed, progress=lambda row: talk(f"    order {row.order}  {row.argument}  {row.verdict}")))
    if as_json:
        say(json.dumps({"function": target, "ok": report.ok, "rows": [row.as_dict() for row in report.rows]}, indent=1))
    else:
        say(str(report))
    return report.ok
