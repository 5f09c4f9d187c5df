"""What `minidl bench` and `minidl explain` do with mistakes, odd sizes, files and Ctrl-C, and what keeps their comparisons honest."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from minidl import backend, cli
from minidl.bench import cases, machine, measure, page, table, timing, torch_calls, training

TINY = ("softmax", "--shape", "3,7", "--rounds", "2")


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(timing, "wake", lambda contender: None)
    monkeypatch.setattr(timing.Rounds.__init__, "__defaults__", (0.0, 1, None))
    monkeypatch.setattr(machine, "ceilings", lambda: {"copy_gb_s": 20.0, "gemm_gflop_s": 200.0, "copy_bytes": 1, "gemm_size": 1})


def minidl(*args):
    return CliRunner().invoke(cli.main, args, prog_name="minidl")


# --- whole calls are judged ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", cases.SETTINGS)
def test_whole_calls_say_how_far_they_are(name):
    case = cases.make(name, shape={4: (2, 6, 9, 8), 3: (5, 7, 3), 2: (3, 7)}[len(cases.SETTINGS[name]["shape"])])
    rows = measure.Run(1).whole(case)
    assert {row["direction"] for row in rows} == {"forward", "backward"}
    assert all(row["status"] == "ok" and row["error"] < 1e-5 and row["median"] > 0 for row in rows)


def test_a_whole_call_that_is_wrong_gets_no_speed(monkeypatch):
    """PyTorch's side too: one that leaves out a step of the work is no rival."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setitem(torch_calls.FUNCTIONS, "softmax", lambda settings, leaves: lambda x: x.softmax(-1) * 1.001)
    run = measure.Run(1, vs_torch=True)
    rows = run.whole(cases.make("softmax", shape=(3, 7)))
    wrong = [row for row in rows if row["implementation"] == "torch"]
    assert all(row["status"] == "wrong" and row.get("median") is None and "allowed 1e-04" in row["why"] for row in wrong) and wrong


def test_a_wrong_gradient_behind_a_right_output_is_caught():
    y, grad = np.ones((4, 4), np.float32), np.ones(9, np.float32)
    right = [("output", y), ("gradient of x", grad)]
    assert measure.compared(right, right)["status"] == "ok"
    verdict = measure.compared([("output", y), ("gradient of x", grad * np.float32(1.001))], right)
    assert verdict["status"] == "wrong" and "gradient of x" in verdict["why"]
    assert measure.compared([("output", y * np.float32("nan")), ("gradient of x", grad)], right)["status"] == "wrong"


# --- Ctrl-C -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("owner, name", [(training, "set_threads"), (cases, "make"), (machine, "ceilings"), (measure.Run, "request")])
def test_ctrl_c_at_any_time_is_130_and_a_file(tmp_path, monkeypatch, owner, name):
    def stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, stop)
    done = minidl("bench", *TINY, "--json", str(tmp_path / "r.json"))
    assert done.exit_code == 130 and "interrupted; no complete result" in done.stderr, done.output
    assert any("interrupted" in note for note in json.loads((tmp_path / "r.json").read_text())["notes"])


@pytest.mark.parametrize("owner, name", [(cases, "make"), (measure.Run, "request"), (measure.Run, "admit"), (timing, "wake")])
def test_ctrl_c_is_the_same_for_explain(monkeypatch, owner, name):
    def stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, stop)
    done = minidl("explain", *TINY[:3])
    assert done.exit_code == 130, done.output
    assert done.stderr.splitlines()[-1] == "interrupted; no complete result" and "Aborted" not in done.output
    assert "forward: softmax runs on" in done.stdout or owner is cases or name == "request"  # what was known by then is printed


# --- absurd sizes ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("args", [
    ("explain", "softmax", "--shape", "100000000000,100000000000"),
    ("explain", "matmul", "--shape", "1000000,1000000,1000000", "--no-time"),
    ("bench", "matmul", "--shape", "2000000,1000000,3"), ("bench", "conv2d", "--shape", "1,1,8,8", "--padding", "10000000")])
def test_what_does_not_fit_is_refused(args):
    done = minidl(*args)
    assert done.exit_code == 2 and "must fit into memory" in done.output and f"{args[0]} {args[1]}" in done.output


def test_without_times_nothing_is_computed(monkeypatch):
    """The decisions are the same ones, and no implementation runs."""
    def told():
        return minidl("explain", "conv2d", "--shape", "2,32,28,28", "--out", "32", "--no-time").output

    before = told()
    assert "conv2d runs on cpu/" in before and "conv2d_grad_w runs on cpu/" in before
    for op in ("conv2d", "conv2d_grad_x", "conv2d_grad_w"):
        for implementation in backend.IMPLEMENTATIONS[op]:
            monkeypatch.setattr(implementation, "function", lambda *arrays, **how: pytest.fail("computed"))
    assert told() == before


# --- outputs and settings -------------------------------------------------------------------------------------------------

def test_outputs_are_checked_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "Run", None)
    for more in (("--json", str(tmp_path / "none" / "x.json")), ("--html", str(tmp_path)),
                 ("--json", str(tmp_path / "a"), "--html", str(tmp_path / "." / "a")), ("--json", "-", "--markdown", "-")):
        done = minidl("bench", *TINY, *more)
        assert done.exit_code == 2 and ("cannot be written" in done.output or "a file of its own" in done.output), done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more, text", [
    (("--batch", "3"), "describes a step"), (("--threads", "100000"), "four times"), (("--fail-over", "5%"), "--fail-over needs --compare"),
    (("--fail-over", "10%"), "--fail-over needs --compare"), (("--force",), "--force needs --compare"),
    (("--compare", "x.json", "--fail-over", "1_0%"), "a share like 10%"),
    (("--compare", "x.json", "--fail-over", "٣%"), "a share like 10%")])
def test_settings_that_mean_nothing_are_refused(more, text):
    done = minidl("bench", *TINY, *more)
    assert done.exit_code == 2 and text in done.output


@pytest.mark.parametrize("command", ["bench", "explain"])
@pytest.mark.parametrize("shape", ["1_0,3", "1٣,9", "²,9", "+3,9", "-3,9", "3,", "", "3,\u20039"])
def test_a_shape_is_ascii_digits(command, shape):
    done = minidl(command, "softmax", "--shape", shape)
    assert done.exit_code == 2 and "whole numbers with commas" in done.output, done.output


@pytest.mark.parametrize("shape", ["3,7", "3, 7", "3x7", "3×7"])
def test_a_shape_has_commas_or_crosses(shape):
    done = minidl("explain", "softmax", "--no-time", "--shape", shape)
    assert done.exit_code == 0 and done.stdout.startswith("softmax 3×7"), done.output


@pytest.mark.parametrize("name", cases.SETTINGS)
@pytest.mark.parametrize("command", ["bench", "explain"])
def test_the_settings_that_are_named_are_options(command, name):
    done, options = minidl(command, name, "--shape", "3"), minidl(command, "--help").output
    assert done.exit_code == 2
    named = " ".join(done.output.split()).split("its settings are ")[1].split(", and its shape")[0].split(", ")
    assert "shape" in named and all(f"--{one} " in options for one in named), named


# --- what makes times doubtful ----------------------------------------------------------------------------------------------

def row(name="cpu/x", **more):
    of = {"case": "softmax", "label": "3×7", "direction": "forward", "op": "softmax", "inputs": "", "implementation": name, "chosen": True}
    return of | {"status": "ok", "device": "cpu", "median": 1.0, "p20": 0.99, "p80": 1.01, "n": 5, "why": ""} | more


def test_noise_is_counted_among_what_has_a_time():
    run = measure.Run(1)
    noisy = {"median": 1.0, "p20": 0.6, "p80": 1.4, "n": 5}
    run.result["rows"] = [row(), row(median=None, status="missing"), row(median=None, status="missing")]
    run.result["steps"] = [{"label": "a step", "status": "ok", "contenders": {"minidl": {"step": noisy}}}]
    assert any(note.startswith("1 of 2 times are noisy") for note in run.finish()["notes"])


@pytest.mark.parametrize("name, doubtful", [("cpu/im2col_blocked", True), ("cpu/winograd", False)])
def test_a_direct_method_above_the_ceiling_is_told(name, doubtful):
    run = measure.Run(1)
    run.prepare()
    run.result["rows"] = [row(name, gflop_s=300.0, gb_s=1.0)]
    assert any("above 100 %" in note for note in run.finish()["notes"]) is doubtful


# --- hostile names --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("made, args", [
    ("nothing", ("--compare", "{}")), ("text", ("--compare", "{}")), ("json", ("--compare", "{}")), ("nothing", ("--json", "{}")),
    ("folder", ("--json", "{}")), ("nothing", ("--json", "{}", "--html", "{}"))])
def test_a_newline_in_a_file_name_begins_no_line(tmp_path, made, args):
    path = tmp_path / "old\nok: nothing became slower"
    if made == "folder":
        path.mkdir()
    elif made != "nothing":
        path.write_text("{}" if made == "json" else "no JSON")
    said = minidl("bench", *TINY, *(part.format(path) for part in args)).output
    assert "old\\nok:" in said and not any(line.lstrip().startswith("ok:") for line in said.splitlines())


def test_a_newline_in_a_label_begins_no_row():
    result = measure.Run(1).finish()
    result["environment"]["processor"] = "good\nfalse"
    result["notes"].append("true\nfalse")
    case = cases.make("softmax", shape=(3, 7))
    result["rows"] = [row | {"implementation": "good\nfalse", "label": "3\nfalse"} for row in measure.Run(1).whole(case)]
    for said in (table.text(result), table.markdown(result), page.html(result)):
        assert "good\\nfalse" in said and not any(line.lstrip().startswith("false") for line in said.splitlines())
