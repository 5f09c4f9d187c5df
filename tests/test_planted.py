"""Planted bugs: the check notices every one and says what it claims to say; nothing stays behind; the weaker checks miss some;
and where nothing is planted there is nothing to complain about.
"""

import inspect
import json

import numpy as np
import pytest
from click.testing import CliRunner

import minidl
from docs import planted as docs_planted
from minidl import planted
from minidl.commands.check import command
from minidl.core import graph
from minidl.core.errors import ArgumentError
from minidl.core.gradcheck import check_op
from minidl.core.op import OBSERVERS, OPS
from minidl.core.rounding import float32_error
from minidl.planted.naive import NAIVE, finds
from minidl.planted.plant import Bug

ALL = list(planted.CATALOGUE)
every_bug = pytest.mark.parametrize("name", ALL)
SEEDS = 2  # of the whole registry here; benchmarks/false_alarms.py runs 1000


def traces():
    """Everything that planting could leave behind."""
    ops = {name: (op, op.forward, op.function, op.doc, tuple(op.examples)) for name, op in OPS.items()}
    return ops, list(OBSERVERS), graph._arrive, inspect.getsource(graph._arrive)


@pytest.fixture(scope="module")
def results():
    return {row["bug"]: row for row in planted.results()}


def test_there_are_enough():
    assert len(ALL) >= 28
    assert len({planted.CATALOGUE[name].op for name in ALL}) >= 28


@every_bug
def test_it_is_caught_and_named(name, results):
    row, bug = results[name], planted.CATALOGUE[name]
    assert row["caught"], f"{bug} was not noticed"
    assert row["order"] <= 2
    assert bug.guess in row["says"], row["says"]


@every_bug
def test_it_is_caught_with_another_seed(name):
    with planted.bug(name) as bug:
        assert bug.finding(seed=11, explain=False)


@every_bug
def test_it_leaves_nothing_behind(name):
    before = traces()
    with planted.bug(name) as bug:
        assert traces() != before, "nothing was planted"
    assert traces() == before
    assert bug.finding() is None, "the op is not right after the bug was taken out"


@every_bug
def test_it_says_what_it_is_and_why(name):
    bug = planted.CATALOGUE[name]
    assert bug.what.endswith(".") and bug.why.endswith((".", '"')), bug
    assert len(bug.what) <= 140 and name in repr(bug)
    assert bug.op in OPS


def test_an_exception_takes_it_out():
    before = traces()
    for name in ("weight-gradient-halved", "forward-rounds-to-float32", "second-path-replaces-the-first"):
        with pytest.raises(KeyError), planted.bug(name):
            raise KeyError("in the middle")
    assert traces() == before


def test_two_at_a_time():
    x = minidl.randn(3, 4)
    with planted.bug("cosine-with-a-minus"), planted.bug("slope-of-abs-is-one"):
        assert not minidl.check(minidl.sin, x) and not minidl.check(minidl.abs, x) and minidl.check(minidl.exp, x)
    assert minidl.check(minidl.sin, x) and minidl.check(minidl.abs, x)


def test_a_name_that_is_not_there():
    with pytest.raises(ArgumentError, match="Did you mean weight-gradient-halved"), planted.bug("weight-gradient-halfed"):
        pass
    with pytest.raises(ArgumentError, match="Print the names"), planted.bug("?"):
        pass


@pytest.mark.parametrize("weak", NAIVE)
def test_weaker_checks_miss_some_and_catch_some(weak, results):
    missed = {name for name, row in results.items() if not row[weak]}
    assert 5 <= len(missed) <= len(ALL) / 2


def test_each_weakness_shows(results):
    assert not results["softmax-gradient-is-zero"]["seeded with ones"]
    assert not results["weight-gradient-halved"]["first argument"]
    assert not results["overlapping-winners-assigned"]["one element"]
    second_order = [row for row in results.values() if row["order"] == 2]
    assert len(second_order) >= 5 and not any(row[weak] for row in second_order for weak in NAIVE)


@pytest.mark.parametrize("weak", NAIVE)
def test_weaker_checks_believe_a_right_gradient(weak):
    """Else their column would say caught where they only complain."""
    ties = {"tie-counted-for-both", "ties-counted-twice"}  # a central difference across a tie is a slope of neither side
    wrong = [name for name in ALL if name not in ties and finds(NAIVE[weak], planted.CATALOGUE[name])]
    assert wrong == []


def test_a_missed_bug_would_fail():
    """A bug that does nothing is not caught: so caught means something."""

    def harmless(right, a):
        """Nothing is wrong.

        So nothing is found.
        """
        return right

    bug = Bug(harmless, "mean", "", [], "backward", None)
    with planted.bug(bug):
        assert bug.finding() is None
        assert not any(finds(weak, bug) for weak in NAIVE.values())


@pytest.mark.parametrize("seed", range(100, 100 + SEEDS))
def test_no_false_alarm(seed):
    for name, op in sorted(OPS.items()):
        for example in op.examples:
            report = check_op(op, example, 2, seed, probes=1)
            assert report.ok, f"{name}({example}), seed {seed}\n{report}"
            error, allowed, problem = float32_error(op, example, seed)
            assert error <= allowed and not problem, f"{name}({example}), seed {seed}: {problem or error}"


# --- what ties, kept arrays and edges taught the check --------------------------------------------------------------------

def test_a_right_tie_is_believed():
    x = np.array([[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 0.0, 1.0]])
    for fn in (lambda x: x.amax(1), lambda x: x.max(1).values, lambda x: minidl.maximum(x, x * 1.0)):
        report = minidl.check(fn, [minidl.tensor(x)], order=1)
        assert not [row for row in report.rows if row.verdict == "wrong"], str(report)


def test_a_wrong_tie_is_explained():
    with planted.bug("ties-counted-twice") as bug:
        found = bug.finding()
    assert "equal elements do not add up" in found.reason and "tie with" in str(found.report)


def test_an_array_that_is_used_again_is_noticed():
    with planted.bug("scratch-buffer-returned"):
        report = minidl.check(minidl.square, minidl.randn(2, 3), order=1)
    assert "a later backward changed a gradient" in str(report)


def square_below_one(x):
    """A function that refuses what lies outside its domain."""
    if x.array.max() >= 1:
        raise ValueError("x must be below 1")
    return x * x


@pytest.mark.parametrize("edge", [0.1, 1e-2, 1e-4])
def test_a_probe_that_leaves_the_domain_is_passed_over(edge):
    report = minidl.check(square_below_one, minidl.tensor([0.3, 1 - edge], dtype=minidl.float64))
    assert report.ok, str(report)
    with pytest.raises(ValueError, match="below 1"):
        minidl.check(square_below_one, minidl.tensor([0.3, 1.5]))


# --- the command ------------------------------------------------------------------------------------------------------

def run(*args):
    return CliRunner().invoke(command, args)


def test_the_table(monkeypatch):
    few = {name: planted.CATALOGUE[name] for name in ("weight-gradient-halved", "exp-detaches-its-output")}
    monkeypatch.setattr("minidl.planted.table.CATALOGUE", few)
    result = run("--planted")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 3 and lines[0].startswith("bug")
    assert lines[1].split()[:2] == ["weight-gradient-halved", "matmul"] and lines[1].endswith("missed")
    assert "order 2: constant during the second derivative" in lines[2]
    assert "2 of 2 planted bugs caught" in result.stderr
    bugs = json.loads(run("--planted", "--json").stdout)["bugs"]
    assert [row["bug"] for row in bugs] == list(few) and bugs[0]["guess"]


def test_a_missed_bug_is_exit_status_1(monkeypatch):
    few = {"sign": Bug(right_backward, "neg", "", [], "backward", None)}
    monkeypatch.setattr("minidl.planted.table.CATALOGUE", few)
    result = run("--planted")
    assert result.exit_code == 1 and "MISSED" in result.stdout


def right_backward(right, a):
    """Nothing is wrong.

    A bug that no check can find.
    """
    return right


def test_exercises_repeat_and_hide_the_answer():
    result = run("--exercise", "2", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert result.stdout == run("--exercise", "2", "--seed", "3", "--answer").stdout != run("--exercise", "2", "--seed", "4").stdout
    exercise = next(planted.exercises(1, 3))
    assert exercise.question in result.stdout and exercise.answer in result.stdout
    assert result.stdout.index(exercise.question) < result.stdout.index("-" * 80) < result.stdout.index(exercise.answer)
    assert exercise.bug.name not in exercise.question and "guess:" not in exercise.question
    assert exercise.choices[exercise.right - 1] is exercise.bug and exercise.bug.what in exercise.question


def test_exercises_differ_and_have_answers():
    seen = {exercise.bug.name: exercise for exercise in planted.exercises(12, 0)}
    assert len(seen) == 12 and set(seen) < set(ALL)
    assert all(exercise.found and "def " in exercise.answer for exercise in seen.values())


@pytest.mark.parametrize("typed, said", [("{right}\n", "Right."), ("{wrong}\n", "No, it is"), ("9\n{right}\n", "Right.")])
def test_on_a_terminal_it_asks(monkeypatch, typed, said):
    exercise = next(planted.exercises(1, 3))
    monkeypatch.setattr("minidl.commands.check.on_a_terminal", lambda: True)
    typed = typed.format(right=exercise.right, wrong=exercise.right % 4 + 1)
    result = CliRunner().invoke(command, ["--exercise", "1", "--seed", "3"], input=typed)
    assert result.exit_code == 0 and said in result.stdout and "-" * 80 not in result.stdout
    assert f"{int(said == 'Right.')} of 1 right" in result.stderr


@pytest.mark.parametrize("args", [("--planted", "--op", "tanh"), ("--exercise", "1", "--shape", "2"), ("--exercise", "0"),
                                  ("--planted", "my:op")])
def test_what_does_not_go_together(args):
    assert run(*args).exit_code == 2


def test_the_page_is_current(results):
    assert docs_planted.is_current(list(results.values())), "run python -m docs.planted"
