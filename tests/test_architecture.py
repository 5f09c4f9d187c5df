"""The shape of the source itself: who may import whom, where cupy is allowed, how long files and functions may be.

Each rule is a function of source text that returns what is wrong; each is shown to fail on a planted violation.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES, FUNCTION_LINES = 400, 60
TEST_LINES = 600  # a test file is read one test at a time

# Lowest first: a module may import from its own row and from the rows above it, never from below.
# The longest name that fits a module decides its row.
ROWS = [
    "minidl.core.errors minidl.core.config minidl.core.examples minidl.core.folders minidl.core.rng minidl.core.site minidl.core.version",
    "minidl.core.device minidl.core.dtypes",
    "minidl.core.later",
    "minidl.backend",
    "minidl.core.show",
    "minidl.core.guard",
    "minidl.core.writing",
    "minidl.core.graph",
    "minidl.core.tensor minidl.core.derivative",
    "minidl.core.op",
    "minidl.ops",
    "minidl.core minidl.nn minidl.optim",  # minidl.core here: what is built on the ops, like gradcheck
    "minidl.models minidl.data minidl.train minidl.stepper minidl.bench minidl.planted",
    "minidl minidl.autograd minidl.cuda",  # the public doors
    "minidl.commands minidl.lessons",  # lessons are programs as users write them
    "minidl.cli",
    "minidl.__main__",
]
RANK = {name: row for row, names in enumerate(ROWS) for name in names.split()}
CYCLE = ("minidl.core.tensor", ("minidl.ops", "minidl.core.derivative"))  # allowed, on the file's last lines


def row_of(module):
    """The row of ROWS that a module belongs to."""
    while module not in RANK:
        module = module.rpartition(".")[0]
    return RANK[module]


def module_name(path):
    """minidl/core/op.py -> minidl.core.op, minidl/ops/__init__.py -> minidl.ops."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def exists(module):
    return (ROOT / module.replace(".", "/")).is_dir() or (ROOT / (module.replace(".", "/") + ".py")).is_file()


def imports(source):
    """(module, line) of every import anywhere in the source; `from a import b` counts as a.b where that is a module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write imports in full, so that grep finds them"
            found += [(f"{node.module}.{a.name}" if exists(f"{node.module}.{a.name}") else node.module, node.lineno) for a in node.names]
    return found


def wrong_directions(module, source):
    """Imports that point from a lower layer to a higher one."""
    wrong = []
    tail = max((getattr(n, "end_lineno", 0) for n in ast.parse(source).body if isinstance(n, (ast.ClassDef, ast.FunctionDef))), default=0)
    for other, line in imports(source):
        if other.partition(".")[0] != "minidl" or row_of(other) <= row_of(module):
            continue
        if not (module == CYCLE[0] and other in CYCLE[1] and line > tail):
            wrong.append(f"{module} line {line} imports {other}, which stands higher")
    return sorted(set(wrong))


def stray_cupy(module, source):
    """`import cupy` outside core/device.py and backend/."""
    if module == "minidl.core.device" or module.startswith("minidl.backend"):
        return []
    return [f"{module} line {line} imports {other}" for other, line in imports(source) if other.partition(".")[0] in ("cupy", "cupyx")]


def too_long(module, source):
    """Files and functions longer than a reader wants."""
    lines = source.count("\n")
    limit = TEST_LINES if module.startswith("tests.") else FILE_LINES
    wrong = [f"{module} has {lines} lines, more than {limit}"] if lines > limit else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno - node.lineno + 1 > FUNCTION_LINES:
            wrong.append(f"{module}.{node.name} has {node.end_lineno - node.lineno + 1} lines, more than {FUNCTION_LINES}")
    return wrong


def no_opening(module, source):
    """A file that does not say what it is."""
    return [] if ast.get_docstring(ast.parse(source)) else [f"{module} opens without a docstring"]


SOURCES = [path for folder in ("minidl", "kernels", "benchmarks", "docs", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
PACKAGE = [path for path in SOURCES if path.is_relative_to(ROOT / "minidl")]


def test_every_part_has_a_row():
    assert [] == [name for name in RANK if name != "minidl.core" and RANK[name] < row_of("minidl") and name.startswith("minidl.core")
                  and not exists(name)]
    unplaced = [module_name(p) for p in PACKAGE if p.parent != ROOT / "minidl" and module_name(p).count(".") >= 1
                and row_of(module_name(p)) == RANK["minidl"] and module_name(p) not in RANK]
    assert unplaced == [], "new packages need a row in ROWS"


@pytest.mark.parametrize("rule", [wrong_directions, stray_cupy], ids=lambda rule: rule.__name__)
def test_imports(rule):
    assert [] == [fault for path in PACKAGE for fault in rule(module_name(path), path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("rule", [too_long, no_opening], ids=lambda rule: rule.__name__)
def test_every_file(rule):
    assert [] == [fault for path in SOURCES for fault in rule(module_name(path), path.read_text(encoding="utf-8"))]


PLANTED = {
    "graph imports tensor": (wrong_directions, "minidl.core.graph", "from minidl.core.tensor import Tensor\n"),
    "backend imports an op": (wrong_directions, "minidl.backend.generic.conv", "import minidl.ops.elementwise\n"),
    "from package import module": (wrong_directions, "minidl.core.errors", "from minidl.core import op\n"),
    "an import hidden in a function": (wrong_directions, "minidl.ops.reduce", "def f():\n    from minidl.cli import main\n"),
    "the public door is no shortcut": (wrong_directions, "minidl.ops.reduce", "import minidl\n"),
    "the cycle, but not on the last lines": (wrong_directions, "minidl.core.tensor", "from minidl import ops\nclass Tensor:\n    pass\n"),
    "cupy in an op": (stray_cupy, "minidl.ops.reduce", "def f():\n    import cupy\n"),
    "a part of cupy": (stray_cupy, "minidl.stepper.trace", "from cupy.cuda import Device\n"),
    "a long file": (too_long, "minidl.ops.reduce", "x = 1\n" * (FILE_LINES + 1)),
    "a long function": (too_long, "minidl.ops.reduce", "def f():\n" + "    x = 1\n" * FUNCTION_LINES),
    "no docstring": (no_opening, "minidl.ops.reduce", "import numpy\n"),
}


@pytest.mark.parametrize("rule, module, source", PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_found(rule, module, source):
    assert len(rule(module, source)) == 1


def test_the_cycle_is_allowed_on_the_last_lines():
    source = "class Tensor:\n    pass\n\nfrom minidl import ops\nfrom minidl.core import derivative\n"
    assert wrong_directions("minidl.core.tensor", source) == []


HEAVY = {"cupy", "click", "rich", "torch", "matplotlib", "safetensors", "threadpoolctl"}


def loaded_by(statement):
    """Which of the heavy packages a fresh Python has loaded after a statement."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return HEAVY & set(done.stdout.split())


def test_import_is_light():
    assert loaded_by("import minidl") == set()


def test_import_is_light_notices():
    assert loaded_by("import minidl, click") == {"click"}
