"""Where an op's lines stand: the call, its forward, its backward; and what its docstring says in formulas."""

import functools
import inspect
import linecache
import os
import re
import textwrap
from itertools import zip_longest
from pathlib import Path

from minidl.core.site import resolve

PACKAGE = Path(__file__).resolve().parents[1]


def short_path(name):
    """A file's name as short as it stays clear: minidl/ops/..., or relative to where we are."""
    path = Path(name)
    if path.is_relative_to(PACKAGE):
        return str(path.relative_to(PACKAGE.parent))
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return name
    return name if relative.startswith("..") or not path.is_absolute() else relative


def call_line(site):
    """(file, line number, text) of a call site."""
    name, line = resolve(site)
    return short_path(name), line, linecache.getline(name, line).strip()


@functools.cache
def source(code):
    """(file, [(line number, text)]) of a function, with no more indentation than its own; no lines where there is no source."""
    try:
        lines, first = inspect.getsourcelines(code)
    except (OSError, TypeError):
        return short_path(code.co_filename), []
    lines = textwrap.dedent("".join(lines)).splitlines()
    return short_path(code.co_filename), list(enumerate(lines, first))


def body(lines):
    """A function's lines without its head, docstring and blank lines."""
    start = next((k for k, (_, text) in enumerate(lines) if text.startswith("def ")), 0)  # after the decorators
    start = next((k for k in range(start, len(lines)) if lines[k][1].rstrip().endswith(":")), start)
    lines = [(n, text) for n, text in lines[start + 1:] if text.strip()]
    quotes = [k for k, (_, text) in enumerate(lines) if '"""' in text]
    if quotes and quotes[0] == 0:
        lines = lines[1 if lines[0][1].count('"""') > 1 else quotes[1] + 1:]
    indent = min((len(text) - len(text.lstrip()) for _, text in lines), default=0)
    return [(n, text[indent:]) for n, text in lines]


def forward_lines(op):
    """(file, lines) of an op's forward: from its def, without the docstring, up to where its backward begins."""
    name, lines = source(op.forward.__code__)
    start = next((k for k, (_, text) in enumerate(lines) if text.startswith("def ")), 0)
    lines = body(lines[start:])
    end = next((k for k, (_, text) in enumerate(lines) if text.lstrip().startswith("def backward")), len(lines))
    return name, lines[:end]


def backward_lines(code):
    """(file, lines) of a backward's body."""
    name, lines = source(code)
    return name, body(lines)


def formula(op):
    """The forward's formula: the indented lines of the docstring, or else its first sentence."""
    head = op.doc.split("\n\n")
    blocks = [block for block in head if block.startswith("    ")]
    text = textwrap.dedent(blocks[0]) if blocks else head[0]
    return [" ".join(line.split()) for line in text.splitlines()]


def without(item):
    """What an op does without here though it, and its formula, know it: tensors that are None or not there, settings that are False."""
    forward = item.forward
    if "without" in forward.stored:
        return forward.stored["without"]
    told, op = " ".join(formula(forward.op)), forward.op
    names = () if op.takes_list else [name for name, x in zip_longest(op.tensors, forward.inputs) if x is None]
    return [*names, *(name for name, value in forward.settings.items() if value is False and re.search(rf"\b{re.escape(name)}\b", told))]


def gradient_formula(op):
    """The `Backward:` paragraph of the docstring, as one string."""
    _, found, text = op.doc.partition("Backward:")
    return " ".join(text.split("\n\n")[0].split()) if found else ""


def paragraph(op, label):
    """The paragraph of a docstring that begins with this label, as one string."""
    _, found, text = op.doc.partition(label)
    lines = []
    for line in text.splitlines() if found else ():
        if lines and (not line.strip() or line.split()[0].endswith(":") and not line.startswith(" " * 8)):
            break
        lines.append(line.strip())
    return " ".join(" ".join(lines).split())


def output_names(op, count):
    """What the docstring's `Shapes:` calls the outputs ("-> y as x, mean (C), var (C)"): as many names, or y1, y2, ... for all."""
    text = re.sub(r"\([^)]*\)", "", paragraph(op, "Shapes:").partition("->")[2])
    parts = [part.split() for part in re.split(r",| and ", re.split(r"[.;] ", text)[0]) if "=" not in part]
    names = [words[0] for words in parts if words and words[0].isidentifier() and words[0] not in ("the", "both")][:count]
    return names if len(names) == count else [f"y{k + 1}" for k in range(count)]


# --- of a step: what its code says, or what a saved trace said ---------------------------------------------------

def call(item):
    """{"file", "line", "text"} of the line that called, or None."""
    if "call" in item.stored:
        return item.stored["call"]
    return dict(zip(("file", "line", "text"), call_line(item.site), strict=True)) if item.site else None


def forward(item):
    """(file, lines) of what a forward step ran, or of an optimiser's rule."""
    if "forward" in item.stored:
        return item.stored["forward"]
    return backward_lines(item.code) if item.kind == "update" else forward_lines(item.op)


def backward(item):
    """(file, lines) of the backward, or None where there is none."""
    if "backward" in item.stored:
        return item.stored["backward"]
    code = None if item.kind == "update" else item.forward.backward_code
    return None if code is None else backward_lines(code)


# --- settings ------------------------------------------------------------------------------------------------------

def usual(item):
    """The names of a step's settings that are what they are by default."""
    if "usual" in item.stored:
        return item.stored["usual"]
    item = item.forward
    function = getattr(item.op, "forward", None)
    known = defaults(function) if function else {}
    return [name for name, value in item.settings.items() if name in known and same(value, known[name])]


def defaults(function):
    """{name: default} of a function."""
    code, values = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[:code.co_argcount]
    return dict(zip(names[len(names) - len(values):], values, strict=True)) | (function.__kwdefaults__ or {})


def same(value, usual):
    """Is a setting what it is by default? (1, 1) is what 1 stands for."""
    if isinstance(value, (tuple, list)) and isinstance(usual, int) and not isinstance(usual, bool):
        return all(type(v) is int and v == usual for v in value) and bool(value)
    return type(value) is type(usual) and not hasattr(value, "shape") and value == usual
