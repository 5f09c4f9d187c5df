"""The GPU benchmark on a machine without a GPU: it survives whatever happens to one job, keeps its time, and says what it left out."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from benchmarks import gpu, gpu_part
from minidl.backend.cuda.on_cpu_build import why_no_compiler


def script(monkeypatch, *runs):
    """Each run of a part's process: a function of (path of the log, jobs that are in it) that returns the exit status."""
    left = list(runs)

    def run(command, **_):
        log = command[4]
        with open(log, encoding="utf-8") as file:
            done = [entry["job"] for entry in map(json.loads, file) if "job" in entry]
        return SimpleNamespace(returncode=left.pop(0)(log, done), stderr="Segmentation fault")

    monkeypatch.setattr(subprocess, "run", run)


def write(log, *entries):
    with open(log, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def row(name, **more):
    return {**gpu.empty_row(name), **more}


def test_a_job_that_kills_its_process_costs_only_itself(monkeypatch):
    def dies(log, done):
        write(log, {"started": "a"}, {"job": "a", "rows": [row("a", ours_ms=1.0)]}, {"started": "b"})
        return -11

    def goes_on(log, done):
        assert done == ["a", "b"], "what was done, and what died, is not tried again"
        write(log, {"started": "c"}, {"job": "c", "rows": [row("c")]}, {"left_out": ["d"]})
        return 0

    script(monkeypatch, dies, goes_on)
    rows, left_out, note = gpu.run_part("conv", 60, False)
    assert [(r["name"], "error" in r) for r in rows] == [("a", False), ("b", True), ("c", False)] and left_out == ["d"]
    assert "died 1 times" in note and "Segmentation fault" in rows[1]["error"] and all(r["part"] == "conv" for r in rows)


def test_a_part_that_always_dies_ends(monkeypatch):
    script(monkeypatch, *[lambda log, done: 1] * (gpu.RESTARTS + 1))
    rows, _, note = gpu.run_part("conv", 60, False)
    assert all("died" in r["error"] for r in rows) and rows and "5 times" in note


def test_a_job_that_does_not_end_is_stopped(monkeypatch):
    def hangs(log, done):
        write(log, {"started": "a"})
        raise subprocess.TimeoutExpired("x", 1)

    script(monkeypatch, hangs)
    rows, _, note = gpu.run_part("conv", 60, False)
    assert rows[0]["name"] == "a" and "did not end" in rows[0]["error"] and "stopped" in note


@pytest.mark.parametrize("dry_run, patience", [(False, (0, 15)), (True, (100, 300))])
def test_a_dry_run_waits_for_a_busy_machine(monkeypatch, dry_run, patience):
    """On a GPU a job that has not ended soon never will; on a CPU that others use too it may just be slow."""
    asked = []

    def run(command, timeout, **_):
        asked.append((float(command[5]), timeout))
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    assert gpu.run_part("steps", 32, dry_run) == ([], [], "")
    (begins_jobs_for, timeout), = asked
    assert begins_jobs_for <= 32 and patience[0] <= timeout - begins_jobs_for <= patience[1]


def test_an_error_becomes_a_row():
    def wrong():
        raise ValueError("off by one")

    (found,), fatal = gpu_part.attempt("a", wrong)
    assert found["error"].startswith("ValueError: off by one (test_gpu_benchmark.py:") and not fatal

    def poisoned():
        raise RuntimeError("CUDARuntimeError: cudaErrorIllegalAddress: an illegal memory access was encountered")

    assert gpu_part.attempt("a", poisoned)[1], "nothing works in this process any more"


def test_the_parts_fit_into_the_time():
    assert sum(gpu.PARTS.values()) <= gpu.LIMIT <= 470


def test_the_report(tmp_path):
    result = {**gpu.machine(True), "dry_run": False, "left_out": [], "rows": [
        {"part": "conv", **row("l conv2d · v1", precision="fp32", ours_ms=2.0, torch_ms=1.0, ratio=0.5, max_err=1e-7)},
        {"part": "conv", **row("l conv2d · v4", precision="fp32", ours_ms=1.0, torch_ms=1.0, ratio=1.0, max_err=1e-7)},
        {"part": "conv", **row("k"), "error": "AssertionError: off\nmore"}],
        "parts": {"conv": {"seconds": 1.0, "rows": 3, "failed": 1, "left_out": 0, "note": ""}}}
    text, short = gpu.report(result), gpu.report(result, short=True)
    assert "| l conv2d · v1 | fp32 | 2 | 1 | 0.5 | 1e-07 |" in text and "v1" not in short and "v4" in short
    assert "FAILED k: AssertionError: off" in text and "more" not in text


@pytest.mark.slow
@pytest.mark.skipif(bool(why_no_compiler()), reason="NO KERNEL IS RUN HERE: g++ is missing")
def test_a_dry_run(tmp_path):
    out = tmp_path / "gpu.json"
    command = [gpu.sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--parts", "kernels", "tiles", "batchnorm", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=gpu.ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert {"device", "driver", "commit", "rows", "versions"} <= result.keys() and result["dry_run"]
    for found in result["rows"]:
        assert {"name", "precision", "ours_ms", "torch_ms", "ratio", "max_err"} <= found.keys() and "error" not in found
    assert {found["part"] for found in result["rows"]} == {"kernels", "tiles", "batchnorm"}
    assert "A DRY RUN" in done.stdout and out.with_suffix(".md").is_file()
