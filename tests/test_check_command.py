"""`minidl check`: what it prints, where, and its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_every_op import planted

from minidl.commands.check import command
from minidl.core.op import OPS

ROOT = Path(__file__).resolve().parents[1]
MINE = '''
from minidl.core.op import op

def right(x, w):
    return (x @ w).tanh()

def wrong(x):
    return _wrong(x)

def of_numbers(x):
    return 3.0

two = 2

@op("x", name="wrong_op_of_a_test")
def _wrong(x):
    """x squared."""
    def backward(grad_y):
        return grad_y * x
    return x.array ** 2, backward
'''


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command in a directory that holds a module of the user's."""
    (tmp_path / "ops_of_mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(OPS)
    yield lambda *args: CliRunner().invoke(command, args)
    OPS.clear()
    OPS.update(before)


def test_one_op(run):
    result = run("--op", "tanh")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["op", "order", "dtype", "device", "worst", "error", "time", "verdict"]
    assert [line.split()[1:4] for line in lines[1:4]] == [["1", "float64", "cpu"], ["2", "float64", "cpu"], ["1", "float32", "cpu"]]
    assert "checking 1 op" in result.stderr and "checking" not in result.stdout


def test_a_wrong_op_fails(run):
    with planted(OPS["tanh"], lambda g: g * 1.01):
        result = run("--op", "tanh", "--op", "mul")
    assert result.exit_code == 1
    assert "off by the factor 1.01" in result.stdout and "worst entry" in result.stdout


def test_json(run):
    result = run("--op", "tanh", "--order", "1", "--json")
    found = json.loads(result.stdout)
    assert found["ok"] and {line["dtype"] for line in found["lines"] if line["op"] == "tanh"} == {"float64", "float32"}
    result = run("ops_of_mine:wrong", "--shape", "2,3", "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["rows"][0]["guess"].startswith("off by the factor 0.5")


def test_a_function_of_the_users(run):
    result = run("ops_of_mine:right", "--shape", "2,3", "--shape", "3,4")
    assert result.exit_code == 0, result.output
    assert "order  argument" in result.stdout
    assert "ops_of_mine:right: 2 arguments of shape (2, 3), (3, 4)" in result.stderr
    result = run("ops_of_mine:wrong", "--shape", "2x3")
    assert result.exit_code == 1 and "guess: off by the factor 0.5" in result.stdout


@pytest.mark.parametrize("args, text", [
    (["ops_of_mine", "--shape", "2"], "is not MODULE:FUNCTION"),
    (["nowhere.at_all:f", "--shape", "2"], "there is no module 'nowhere'"),
    (["ops_of_mine:rihgt", "--shape", "2"], "ops_of_mine has no 'rihgt'.\n    it has: of_numbers, right, wrong, op\n"),
    (["ops_of_mine:two", "--shape", "2"], "is a int, not a function"),
    (["ops_of_mine:right"], "say the shapes of"),
    (["ops_of_mine:right", "--shape", "2,3", "--shape", "2,4"], "does not accept these shapes: (2, 3), (2, 4)"),
    (["ops_of_mine:right", "--shape", "2,-3"], "sizes are whole numbers"),
    (["ops_of_mine:right", "--op", "mul"], "leave it out"),
    (["--op", "tahn"], "there is no op 'tahn'.\n    Did you mean tanh"),
    (["--shape", "2,3"], "--shape belongs to a function of yours"),
    (["ops_of_mine:of_numbers", "--shape", "2"], "must return a Tensor"),
])
def test_what_cannot_be_understood(run, args, text):
    result = run(*args)
    assert result.exit_code == 2 and text in result.stderr and not result.stdout, result.output


def test_help(run):
    text = run("--help").stdout
    for word in ("minidl check package.module:my_op --shape 2,3", "Exit status", "--json", "--order"):
        assert word in text


# --- what a user's file can do to the command ---------------------------------------------------------------------------

TROUBLE = {
    "quits.py": "import sys\nsys.exit(0)\n",
    "raises.py": "raise RuntimeError('at import \\x1b[2J')\n",
    "broken.py": "def f(:\n",
    "late.py": "import sys\ncalls = []\n\ndef f(x):\n    calls.append(1)\n    return x.tanh() if len(calls) < 5 else sys.exit(0)\n",
    "crowded.py": "from math import *\n\ndef mine(x):\n    return x\n",
}


@pytest.fixture
def shell(tmp_path):
    """Run the command as a program, where stdout is a real one."""
    (tmp_path / "ops_of_mine.py").write_text(MINE)
    for name, text in TROUBLE.items():
        (tmp_path / name).write_text(text)

    def run(line):
        return subprocess.run(["bash", "-c", line.replace("CHECK", f"{sys.executable} -m minidl check")], cwd=tmp_path, text=True,
                              capture_output=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})

    return run


@pytest.mark.parametrize("line, text", [
    ("CHECK quits:f --shape 2", "it called sys.exit()"),
    ("CHECK late:f --shape 2", "late:f raised while it was checked\n    it called sys.exit()"),
    ("CHECK raises:f --shape 2", "raises cannot be imported\n    RuntimeError: at import \\x1b[2J\n    at"),
    ("CHECK broken:f --shape 2", "SyntaxError: invalid syntax (broken.py, line 1)"),
    ("CHECK nowhere.py:f --shape 2", "there is no file nowhere.py"),
    ("CHECK crowded:mime --shape 2", "it has: mine, acos,"),
    ("CHECK crowded:mime --shape 2", "more\n    Did you mean mine?"),
    ("CHECK ops_of_mine:right --shape 4,x", "sizes are whole numbers"),
    ("CHECK ops_of_mine:right --shape ²", "sizes are whole numbers"),
    ("CHECK ops_of_mine:right --shape 100000,100000", "74.5 GiB for every copy"),
    ("CHECK ops_of_mine:right --shape 2 --seed -1", "-1 is not in the range"),
])
def test_trouble_is_told_in_words(shell, line, text):
    result = shell(line)
    assert result.returncode == 2 and text in result.stderr and "Traceback" not in result.stderr, result.stderr


@pytest.mark.parametrize("line, status, text", [
    ("CHECK ops_of_mine:right --shape 2,3 --shape 3,4 >&-", 1, "stdout is closed"),
    ("CHECK --op tanh >/dev/full", 1, "No space left on device"),
    ("CHECK --op tanh | head -1; exit ${PIPESTATUS[0]}", 0, "every gradient agrees"),
])
def test_a_stdout_that_takes_nothing(shell, line, status, text):
    result = shell(line)
    assert result.returncode == status and text in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert "Exception ignored" not in result.stderr


@pytest.mark.parametrize("name", ["ops_of_mine.py:right", "./ops_of_mine.py:right", "{here}/ops_of_mine.py:right"])
def test_a_file_is_found(run, tmp_path, name):
    result = run(name.format(here=tmp_path), "--shape", "2,3", "--shape", "(3, 4)", "--scale", "3")
    assert result.exit_code == 0 and "N(0, 1) · 3" in result.stderr, result.output


def test_the_scale_is_used(run):
    assert run("ops_of_mine:right", "--shape", "2,3", "--shape", "3,4", "--scale", "1e-3").exit_code == 0
    text = " ".join(run("--help").stdout.split())
    assert "drawn from N(0, 1)" in text and "--scale 3" in text


def test_one_op_is_not_ops(run):
    assert "1 op: every gradient" in run("--op", "tanh").stderr
