"""`make docs`: writes docs/ops/, one page per registered op, from the registry alone, the list of files in docs/map.md,
and the transcripts of README.md and CONTRIBUTING.md (transcripts.py). A test compares.

A page has the signature, the formula, the docstring, the source of forward and backward, the first example with its
numbers, and the implementations. Numbers have few digits, so that a page is the same on every machine.
"""

import ast
import functools
import inspect
import re
import sys
from pathlib import Path

import numpy as np

from docs import transcripts
from minidl import backend
from minidl.core.derivative import grad
from minidl.core.op import OPS
from minidl.core.tensor import Tensor

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "ops"
SHOWN = 60  # larger arrays are shown by their corners


def our_ops():
    """minidl's own ops by name; what a test or a user registered beside them has no page."""
    return {name: op for name, op in sorted(OPS.items()) if op.forward.__module__.startswith("minidl.")}


def pages():
    """Every page that belongs into docs/ops, as {file name: text}."""
    return {f"{name}.md": page(op) for name, op in our_ops().items()} | {"README.md": index()}


def page(op):
    """The page of one op."""
    first, _, rest = op.doc.partition("\n\n")
    parts = [
        f"# {op.name}",
        f"`{op.name}{inspect.signature(op.forward)}`" + (f", also `x.{op.name}(...)`" if hasattr(Tensor, op.name) else ""),
        " ".join(first.split()),
        f"$$ {op.tex} $$" if op.tex else "",
        fenced("text", inspect.cleandoc(rest)) if rest else "",
        f"## Source\n\nIn {link(op)}: arrays down to `def backward`, Tensors inside it.",
        fenced("python", inspect.getsource(op.forward)),
        f"## Worked example\n\n{worked_example(op)}" if op.examples else "",
        by_hand(op),
        f"## Implementations\n\n{implementations(op)}",
        "<sub>Written by `make docs` from the registry; edit the op, not this page.</sub>",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def by_hand(op):
    """What docs/by_hand/ tells about an op: a page written by hand, as a section of the op's page."""
    path = ROOT / "docs" / "by_hand" / f"{op.name}.md"
    return re.sub(r"^(#+) ", r"#\1 ", path.read_text(encoding="utf-8"), flags=re.MULTILINE).strip() if path.exists() else ""


def index():
    """The list of all ops, by the file they stand in."""
    files = {}
    for op in our_ops().values():
        files.setdefault(source_file(op), []).append(op)
    parts = ["# The ops", "One page each, written from the registry by `make docs`: formula, derivation, source, a worked example."]
    for path, ops in sorted(files.items()):
        rows = [f"| [{op.name}]({op.name}.md) | {' '.join(op.doc.partition(chr(10) * 2)[0].split())} |" for op in ops]
        parts.append(f"## [{path}](../../{path})\n\n| op | |\n|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def source_file(op):
    """The path of an op's source, from the top of the checkout."""
    return "/".join(op.forward.__module__.split(".")) + ".py"


def link(op):
    return f"[{source_file(op)}](../../{source_file(op)})"


def fenced(language, text):
    return f"```{language}\n{text.rstrip()}\n```"


def worked_example(op):
    """The op's smallest example: the call, its inputs, its output, and the gradients for a gradient of y."""
    built = [example.build() for example in op.examples]
    args, settings = min(built, key=lambda call: sum(np.size(value) for value in [*call[0], *call[1].values()] if hasattr(value, "size")))
    named, written = {}, []
    for name, value in [*zip(inspect.signature(op.forward).parameters, args, strict=False), *settings.items()]:
        value, text = as_input(name, value, named)
        written.append((value, f"{name}={text}" if name in settings else text))
    args, settings = [value for value, _ in written[:len(args)]], dict(zip(settings, (v for v, _ in written[len(args):]), strict=True))
    y = op.function(*args, **settings)
    outputs = {"y": y} if type(y) is not tuple else {f"y{k}": out for k, out in enumerate(y)}
    lines = [f"{name} = {values(name, x)}" for name, x in named.items()]
    lines += ["", f"{', '.join(outputs)} = {op.name}({', '.join(text for _, text in written)})"]
    lines += [f"{name} = {values(name, out)}" for name, out in outputs.items()]
    return fenced("text", "\n".join([*lines, "", *gradients(outputs, named)]))


def as_input(name, value, named):
    """An argument of an example as a Tensor with few digits (also noted in `named`), and how it is written in the call."""
    if isinstance(value, np.ndarray):
        named[name] = Tensor(np.asarray(value.round(2)), requires_grad=True) if value.dtype.kind == "f" else Tensor(value)
        return named[name], name
    if isinstance(value, (list, tuple)) and any(isinstance(v, np.ndarray) for v in value):
        parts = [as_input(f"{name}[{k}]", v, named) for k, v in enumerate(value)]
        return type(value)(v for v, _ in parts), f"[{', '.join(text for _, text in parts)}]"
    return value, repr(value)


def gradients(outputs, named):
    """Lines with a gradient for each differentiable output, and the gradients of the inputs that follow from them."""
    roots = {name: out for name, out in outputs.items() if out.requires_grad}
    if not roots:
        return ["No gradient: the result is a step function or holds no floating point numbers."]
    rng = np.random.default_rng(1)
    given = {name: Tensor(rng.choice([-2.0, -1.0, 1.0, 2.0], out.shape) if out.ndim else np.asarray(1.0)) for name, out in roots.items()}
    wanted = {name: x for name, x in named.items() if x.requires_grad}
    found = grad(list(roots.values()), list(wanted.values()), list(given.values()), allow_unused=True)
    lines = [f"grad_{name} = {values(f'grad_{name}', given_y)}" for name, given_y in given.items()]
    lines.append("")
    for name, grad_x in zip(wanted, found, strict=True):
        lines.append(f"grad_{name} = {'None' if grad_x is None else values(f'grad_{name}', grad_x)}")
    return lines


def values(name, x):
    """The numbers of a tensor, few digits, lined up under each other; its shape where there is more than one axis."""
    array = x.detach().numpy()
    if array.dtype.kind == "f":
        array = array.round(3) + 0.0  # no -0.0
    text = np.array2string(array, separator=", ", prefix=f"{name} = ", precision=3, suppress_small=True, floatmode="maxprec",
                           threshold=SHOWN, edgeitems=2, max_line_width=110)
    return f"{text}    # {x.shape}" if array.ndim > 1 and "\n" not in text else text


def implementations(op):
    """The implementations that backend.run() chooses from, and when each is taken."""
    backend.names(op.name)  # loads the launchers of the CUDA kernels too, so that a page does not depend on who asked before
    listed = backend.IMPLEMENTATIONS.get(op.name)
    if not listed:
        return "One: the source above, for NumPy and CuPy arrays alike."
    rows = [f"| {number} | `{i.name}` | {i.why} | {when(i)} |" for number, i in enumerate(listed, 1)]
    return "\n".join(["The first in this order that accepts the call is taken; `minidl.explain` prints the decision.", "",
                      "| | name | what it does | when |", "|---|---|---|---|", *rows])


def when(implementation):
    """When an implementation is taken, as its predicate's docstring says, or that it depends on the call."""
    line = first_line(implementation.accepts) if implementation.accepts else "always"
    if not line or line.startswith('"" or'):  # a predicate that many share
        line = "its reason against a call is in `minidl explain`"
    return f"on a GPU; {line}" if implementation.backend == "cuda" else line


def first_line(function):
    """The first line of a docstring; a partial function has that of its function."""
    while isinstance(function, functools.partial):
        function = function.func
    return (inspect.getdoc(function) or "").partition("\n")[0]


def file_map(text):
    """docs/map.md with its last section, every file and its opening sentence, as the files are now."""
    head = text.partition("\n## Every file\n")[0].rstrip()  # or every build would add a line
    parts = [head, "## Every file", "Written by `make docs` from the opening line of each."]
    for top in ("minidl", "kernels", "docs", "benchmarks"):
        for folder in sorted({path.parent for path in (ROOT / top).rglob("*.py")}):
            rows = [f"| [{path.name}](../{path.relative_to(ROOT).as_posix()}) | {opening(path)} |" for path in sorted(folder.glob("*.py"))]
            parts.append(f"### {folder.relative_to(ROOT).as_posix()}/\n\n| file | |\n|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def opening(path):
    """The first sentence of a file's docstring."""
    words = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    return words.partition(". ")[0].rstrip(".").replace("|", "\\|")


def all_pages():
    """Everything that is written as a whole: {path from the top: text}."""
    ops = {f"docs/ops/{name}": text for name, text in pages().items()}
    return ops | {"docs/map.md": file_map((ROOT / "docs/map.md").read_text(encoding="utf-8"))}


def stale():
    """Paths of pages that are missing, differ from what the code says, or belong to no op."""
    wanted = all_pages()
    there = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in [*FOLDER.glob("*.md"), ROOT / "docs/map.md"]}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def write():
    """Write every page, remove the pages of ops that are gone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    changed, wanted = stale(), all_pages()
    for name in changed:
        if name in wanted:
            (ROOT / name).write_text(wanted[name], encoding="utf-8")
        else:
            (ROOT / name).unlink()
    return changed


def main(check):
    """Write pages and transcripts, or with `check` only tell which are stale and exit 1."""
    if not check:
        changed = write() + transcripts.write()
        print(f"docs: {len(changed)} written, {len(all_pages()) + len(transcripts.DOCUMENTS)} in all")
    elif old := stale() + transcripts.stale():
        sys.exit(f"docs: not what the code says; run `make docs`. Stale: {', '.join(old)}")
    else:
        print(f"docs: all {len(all_pages()) + len(transcripts.DOCUMENTS)} pages are current")


if __name__ == "__main__":
    main(check="--check" in sys.argv[1:])
