"""`minidl check`: what it prints, where, and its exit status."""

import json

import pytest
from click.testing import CliRunner
from test_every_op import planted

from minidl.commands.check import command
from minidl.core.op import OPS

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
    (["ops_of_mine:rihgt", "--shape", "2"], "ops_of_mine has no 'rihgt'.\n    it has: of_numbers, right, wrong, op\n    Did you mean right?"),
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
