"""`minidl kernels`: list, run, step and lint, and what they say where something is missing."""

import re
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from minidl.backend.cuda import launch, nvrtc, on_cpu_build, on_cpu_step
from minidl.cli import main
from minidl.commands import kernel_cases
from minidl.commands.kernels import known_kernels

needs_gxx = pytest.mark.skipif(bool(on_cpu_build.why_no_compiler()), reason="NO KERNEL IS RUN HERE: g++ is missing")
needs_nvrtc = pytest.mark.skipif(bool(nvrtc.why_no_compiler()), reason=f"NO KERNEL IS COMPILED HERE: {nvrtc.why_no_compiler()}")

MINE = """// launch axpy: n = 1 31 32 33 1000; grid = (n + 255) / 256; block = 256; x[n] y[n]; a = 2
extern "C" __global__ void axpy(const float* __restrict__ x, float* y, float a, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * x[i];
}
"""


def minidl(*words):
    return CliRunner().invoke(main, ["kernels", *map(str, words)])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.cu"
    path.write_text(MINE)
    return path


def test_list_shows_every_kernel_with_its_idea_and_place():
    result = minidl("list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == known_kernels()
    assert all("kernels/" in line and ".cu:" in line and len(line.split()) > 2 for line in lines)
    assert [line.split()[0] for line in minidl("list", "norm_merge").stdout.splitlines()] == ["norm_merge"]
    assert minidl("list", "no-such").exit_code == 2


@needs_gxx
def test_run_tries_a_kernel_on_the_registrys_examples():
    result = minidl("run", "im2col", "--check")
    assert result.exit_code == 0 and "all is well" in result.stderr
    assert "cuda/im2col" in result.stdout and "grid" in result.stdout and "error" in result.stdout
    result = minidl("run", "norm_merge", "--order", "random")
    assert result.exit_code == 0 and "batch_norm_train" in result.stdout


@needs_gxx
def test_run_notices_a_wrong_number_and_a_broken_rule(monkeypatch):
    right = kernel_cases.distance
    monkeypatch.setattr(kernel_cases, "distance", lambda a, b: right(a, b) + 0.5)
    result = minidl("run", "im2col")
    assert result.exit_code == 1 and "WRONG" in result.stdout and "failed" in result.stderr


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """A function that changes one text in a copy of kernels/; launches read the copy."""
    from minidl.backend.cuda import source
    from minidl.core.folders import kernels_folder
    folder = tmp_path / "kernels"
    shutil.copytree(kernels_folder(), folder)
    monkeypatch.setattr(source, "kernels_folder", lambda: folder)
    launch.reread()

    def change(file, old, new):
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    yield change
    monkeypatch.undo()
    launch.reread()


@needs_gxx
def test_run_in_check_mode_shows_its_own_report(planted):
    planted("im2col.cu", "if (at >= ", "if (at > ")
    result = minidl("run", "im2col", "--check")
    assert result.exit_code == 1 and "an access outside of its array" in result.stdout and "im2col.cu:" in result.stdout
    assert "says more" not in result.stdout and "im2col  grid" in result.stdout and "1 kernels ran" in result.stderr


@needs_gxx
def test_run_is_not_disturbed_by_other_files(planted):
    planted("softmax.cu", "__global__ void softmax_v1_thread_per_line(", "__global__ void softmax_v1_thread_per_line(what is this, ")
    planted("pool.cu", "max_pool2d_at(", "max_pool2d_at(undeclared ")
    result = minidl("run", "im2col")
    assert result.exit_code == 0 and "softmax" not in result.output and "all is well" in result.stderr
    result = minidl("list")
    assert result.exit_code == 1 and "softmax.cu: " in result.stdout and "im2col" in result.stdout
    assert minidl("run", "softmax_v1_thread_per_line").exit_code == 2


def test_every_kernel_has_a_call_that_launches_it():
    found, broken = kernel_cases.cases_of(set(known_kernels()))
    assert not broken
    assert {k.name for _, launches in found for k, _, _ in launches} == set(known_kernels())


@needs_gxx
def test_a_kernel_that_nothing_launches_is_no_success(monkeypatch):
    monkeypatch.setattr(kernel_cases, "recorded", lambda: [])
    result = minidl("run", "im2col")
    assert result.exit_code == 1 and "NOT RUN: im2col" in result.stderr and "all is well" not in result.output


@needs_gxx
@pytest.mark.slow
def test_run_all():
    result = minidl("run", "all", "--check")
    assert result.exit_code == 0 and f"{len(known_kernels())} kernels ran" in result.stderr, result.output


README = (Path(__file__).parents[1] / "docs/kernels/README.md").read_text(encoding="utf-8")
SHOWN = [line[9:].partition("#")[0].split() for line in README.splitlines() if line.startswith("$ minidl ")]


@needs_gxx
@needs_nvrtc
@pytest.mark.slow
@pytest.mark.skipif(bool(on_cpu_step.why_no_gdb()), reason="gdb is missing")
@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_what_the_page_shows_works(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = re.search(r"```c\n(// launch.*?)```\n```text\n(.*?)```", README, re.DOTALL).groups()
    Path("my.cu").write_text(code)
    result = CliRunner().invoke(main, [*words, *(["-c", "info locals"] if "step" in words else [])])
    lint = "lint" in words
    assert result.exit_code == (1 if lint else 0), result.output
    for line in {"run": ["conv2d_v2_shared_tile  grid", "error"], "step": ["warp = ", "batchnorm.cu:"], "lint": said.splitlines()}.get(
            words[1], []):
        assert line in result.stdout


def test_the_page_shows_the_commands():
    assert {words[1] for words in SHOWN if words[0] == "kernels"} == {"list", "run", "step", "lint"}


def test_names_that_do_not_exist():
    result = minidl("run", "norm_merg")
    assert result.exit_code == 2 and "Did you mean norm_merge" in result.stderr
    assert minidl("step", "norm_merg").exit_code == 2
    for option, value in (("--block", "a"), ("--thread", "1,2,3,4"), ("--thread", "-1")):
        assert minidl("step", "norm_merge", option, value).exit_code == 2


@needs_gxx
@pytest.mark.slow
@pytest.mark.skipif(bool(on_cpu_step.why_no_gdb()), reason="gdb is missing")
def test_step_stops_in_the_thread_that_was_asked_for():
    result = minidl("step", "norm_merge", "--block", "1", "--thread", "3", "-c", "next; print threadIdx.x; print blockIdx.x")
    assert result.exit_code == 0, result.output
    assert "$1 = 3" in result.stdout and "$2 = 1" in result.stdout and "batchnorm.cu" in result.stdout
    assert "auto-load" not in result.output and "\\t" not in result.stdout
    result = minidl("step", "norm_merge", "--block", "5000", "-c", "info locals")
    assert result.exit_code == 2 and "no call of norm_merge has block (5000,)" in result.stderr


@needs_gxx
@pytest.mark.slow
@pytest.mark.skipif(bool(on_cpu_step.why_no_gdb()), reason="gdb is missing")
def test_a_program_that_ends_before_the_kernel_is_told_of(tmp_path):
    (tmp_path / "program.py").write_text("print('nothing here')")
    with pytest.raises(on_cpu_build.KernelError, match="never came to this block(.|\n)*nothing here"):
        on_cpu_step.step([tmp_path / "program.py"], "norm_merge", commands=["info locals"])


def test_what_is_missing_is_said(monkeypatch, file):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    on_cpu_build.compiler.cache_clear()
    try:
        result, tried = minidl("step", "norm_merge"), minidl("run", "norm_merge")
    finally:
        monkeypatch.undo()
        on_cpu_build.compiler.cache_clear()
    assert result.exit_code == 1 and "apt install g++" in result.stderr
    assert tried.exit_code == 1 and tried.output.count("apt install g++") == 1
    monkeypatch.setattr(nvrtc, "why_no_compiler", lambda: "NVIDIA's compiler is not installed (extra: kernels)")
    result = minidl("lint", file)
    assert result.exit_code == 1 and "Install the extra `kernels`" in result.stderr and "Traceback" not in result.output


@needs_nvrtc
@needs_gxx
def test_lint_compiles_counts_and_runs(file):
    result = minidl("lint", file)
    assert result.exit_code == 0, result.output
    assert "sm_80  axpy: " in result.stdout and "sm_90  axpy: " in result.stdout and "registers" in result.stdout
    assert "5 launches, 0 broke a rule" in result.stdout
    assert bool(nvrtc.why_no_disassembler()) or "multiply-add" in result.stdout


@needs_nvrtc
@needs_gxx
def test_lint_finds_what_is_wrong(file):
    file.write_text(MINE.replace("if (i < n) ", ""))
    result = minidl("lint", file, "--arch", "sm_90")
    assert result.exit_code == 1 and "outside of its array" in result.stdout and "mine.cu:4" in result.stdout
    file.write_text(MINE.replace("y[i] +=", "z[i] +="))
    result = minidl("lint", file)
    assert result.exit_code == 1 and 'identifier "z" is undefined' in result.stderr and "mine.cu(4)" in result.stderr
    file.write_text(MINE.partition("\n")[2])
    result = minidl("lint", file, "--arch", "sm_90")
    assert result.exit_code == 0 and "no `// launch` line" in result.stderr
    assert minidl("lint", file, "-D", "BM=$(reboot)").exit_code == 2
    assert minidl("lint", file.with_name("missing.cu")).exit_code == 2


@needs_nvrtc
@pytest.mark.parametrize("line, says", [
    ("n = 1; grid = n", "grid and block are missing"), ("n = 1; grid = m; block = 1; x[n] y[n]; a = 2", "'m' has no value"),
    ("n = 1; grid = n; block = 1; x[n] y[n]", "float a has no value"), ("n = 1; grid = n; block = 1; what", "neither an array"),
    ("n = 1; grid = __import__('os'); block = 1; x[n] y[n]; a = 2", "has no value"),
    ("n = 0; grid = 1 / n; block = 1; x[1] y[1]; a = 2", "has no value"),
])
def test_launch_lines_that_cannot_be_read(file, line, says):
    file.write_text("// launch axpy: " + line + "\n" + MINE.partition("\n")[2])
    result = minidl("lint", file, "--arch", "sm_90")
    assert result.exit_code == 1 and says in result.output and "Traceback" not in result.output


def test_the_doctor_says_what_kernels_cannot(monkeypatch):
    assert CliRunner().invoke(main, ["doctor"]).stdout.count("cannot: ") <= 1
    monkeypatch.setattr(nvrtc, "why_no_compiler", lambda: "left out")
    monkeypatch.setattr(on_cpu_step, "why_no_gdb", lambda: "left out")
    result = CliRunner().invoke(main, ["doctor"])
    assert re.search("`minidl kernels` does, this machine cannot: compile for a GPU; (.*)step through", result.stdout)


def test_every_idea_is_its_own_and_whole():
    ideas = [line.split(maxsplit=2) for line in minidl("list", "conv2d").stdout.splitlines()]
    assert len(ideas) > 20 and not [row for row in ideas if "rungs" in row[2]]
    assert len({row[2] for row in ideas}) >= 8
    cut = [line for line in minidl("list").stdout.splitlines() if re.search(r"(moment|merging does|, )$", line)]
    assert not cut


def test_help_is_complete():
    for words in ([], ["list"], ["run"], ["step"], ["lint"]):
        result = minidl(*words, "--help")
        assert result.exit_code == 0 and len(result.stdout) > 150
    assert isinstance(main.get_command(click.Context(main), "kernels"), click.Group)
