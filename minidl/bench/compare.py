"""Results in files: written whole or not at all, read with their shape checked, and compared row by row with an older one."""

import contextlib
import json
import os
import sys
import tempfile

from minidl.bench.machine import SAME
from minidl.bench.measure import VERSION
from minidl.core.errors import FileError, explained
from minidl.core.show import safe

LARGEST = 1 << 26  # bytes of a result that is read
KEYS = ("case", "label", "direction", "op", "inputs", "implementation")  # what makes two rows the same


def write(text, path):
    """Text into a file, whole or not at all. Links are followed; "-", and what exists and is no regular file, is written straight."""
    path = target(path)
    try:
        if path is None:
            return spoken(text)
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            return None
        handle, name = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".bench-")
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError):
            raise unwritable(path, error) from None
        raise
    return None


def target(path):
    """The file that a path names, its links followed; None for stdout: "-", or /dev/stdout whatever that leads to."""
    if str(path) == "-":
        return None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno())):
            return None
    return os.path.realpath(path)


def check(paths):
    """Raise now if a result could not be written to one of these later, or two of them are one file."""
    targets = [target(path) for path in paths]
    for path, where in zip(paths, targets, strict=True):
        if targets.count(where) > 1:
            raise explained(FileError, "bench", "each output needs a file of its own.", [f"{safe(path)} is named twice"],
                            "Name another file.")
        if where is None:
            continue
        try:
            if os.path.isdir(where):
                raise OSError(None, "it is a folder")
            if os.path.exists(where) and not os.path.isfile(where):
                if not os.access(where, os.W_OK):
                    raise OSError(None, "it may not be written to")
                continue
            handle, name = tempfile.mkstemp(dir=os.path.dirname(where), prefix=".bench-")
            os.close(handle)
            os.unlink(name)
        except OSError as error:
            raise unwritable(path, error) from None


def spoken(text):
    """Text to stdout as it is."""
    if sys.stdout is None:
        raise OSError(None, "stdout is closed")
    sys.stdout.write(text)
    sys.stdout.flush()


def unwritable(path, error):
    """The exception for a file that cannot be written."""
    return explained(FileError, "bench", "the result cannot be written there.", [f"{safe(path)}: {error.strerror}"], "Name another file.")


def read(path):
    """A result that an earlier bench wrote."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError(None, "it is no regular file")
        if os.path.getsize(path) > LARGEST:
            raise OSError(None, f"it has more than {LARGEST >> 20} MB")
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise explained(FileError, "bench", "the earlier result cannot be read.", [f"{safe(path)}: {error.strerror}"],
                        "Check the path.") from None
    except (ValueError, RecursionError) as error:
        raise explained(FileError, "bench", "the earlier result is no JSON.", [f"{safe(path)}: {safe(error)}"],
                        "Write it with --json FILE.") from None
    wrong = malformed(found)
    if wrong:
        raise explained(FileError, "bench", "this file is no result of this bench.", [f"{safe(path)}: {wrong}"],
                        "Write it with --json FILE.")
    return found


def malformed(found):
    """"" if a result has the shape that compare() needs, else what is wrong."""
    if not isinstance(found, dict) or found.get("minidl_bench") is True or found.get("minidl_bench") != VERSION:
        return f"minidl_bench must be {VERSION}"
    if not isinstance(found.get("environment"), dict) or not all(isinstance(found.get(key), list) for key in ("rows", "steps")):
        return "it needs environment, rows and steps"
    for row in found["rows"]:
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in KEYS):
            return f"a row lacks one of {', '.join(KEYS)}"
        if not all(row.get(key) is None and key == "median" or is_time(row[key]) for key in ("median", "p20", "p80") if key in row):
            return "a median, p20 or p80 must be a number of seconds"
    for step in found["steps"]:
        if not isinstance(step, dict) or not isinstance(step.get("label"), str) or not isinstance(step.get("contenders"), dict):
            return "a step lacks label or contenders"
        for parts in step["contenders"].values():
            whole = parts.get("step") if isinstance(parts, dict) else None
            if not isinstance(whole, dict) or not all(is_time(whole.get(key)) for key in ("median", *({"p20", "p80"} & whole.keys()))):
                return "a step's median must be a number of seconds"
    return ""


def is_time(value):
    """A positive number that is no absurd one."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e9


def differences(old, new):
    """The facts of the environment in which two results differ, in words."""
    return [safe(f"{key}: {old['environment'].get(key)} then, {new['environment'].get(key)} now") for key in SAME
            if old["environment"].get(key) != new["environment"].get(key)]


def timed(result):
    """{what: (its numbers, does it count)} of everything timed: what minidl takes counts; PyTorch, loops and the rest do not."""
    found = {}
    for row in result["rows"]:
        if row.get("median"):
            counts = row.get("chosen") is True and row["implementation"] != "reference" and not row["implementation"].startswith("torch")
            found[" ".join(row[key] for key in KEYS if row[key])] = row, counts
    for step in result["steps"]:
        found |= {f"step {step['label']} {key}": (parts["step"], key == "minidl") for key, parts in step["contenders"].items()}
    return found


def compare(old, new, allowed):
    """(lines to print, what fails: slower by more than `allowed`, a share like 0.1, and its middle 60 % clear of the earlier one's).

    What counted and has no time any more fails too, if its case was measured; and so does a comparison of nothing.
    """
    before, now = timed(old), timed(new)
    measured = {(row["case"], row["label"]) for row in new["rows"]} | {step["label"] for step in new["steps"]}
    asked = {what for what in before if any((" ".join(m) if isinstance(m, tuple) else f"step {m}") + " " in what for m in measured)}
    lines, failed, common = [], [], [key for key in now if key in before]
    for what in common:
        (numbers, counts), (earlier, _) = now[what], before[what]
        change = numbers["median"] / earlier["median"] - 1
        worse = change > allowed and numbers.get("p20", numbers["median"]) > earlier.get("p80", earlier["median"])
        doubt = " (within the noise)" if change > allowed and not worse else "" if counts or not worse else " (shown, not judged)"
        lines.append(f"{change:+7.0%}  {what}{doubt}")
        if worse and counts:
            failed.append(what)
    lines += [f"    new  {what}" for what in now if what not in before]
    for what in (key for key in before if key not in now):
        lines.append(f"   gone  {what}" + ("" if what in asked else " (not asked for now)"))
        if what in asked and before[what][1]:
            failed.append(what)
    if not common:
        lines.append("nothing in the two results can be compared")
        failed.append("nothing can be compared")
    return [safe(line) for line in lines], failed
