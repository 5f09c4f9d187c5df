"""`minidl kernels lint` on files that are wrong, odd or hostile: every one ends in words and with the right exit status."""

import os
import shutil

import pytest
from click.testing import CliRunner

from minidl.backend.cuda import lint, nvrtc, on_cpu_build
from minidl.backend.cuda.nvrtc import grouped
from minidl.cli import main

pytestmark = pytest.mark.skipif(bool(on_cpu_build.why_no_compiler()), reason="NO KERNEL IS RUN HERE: g++ is missing")

LINE = "n = 1 31 32 33 1000; grid = (n + 255) / 256; block = 256; x[n] y[n]; a = 2"
BODY = """extern "C" __global__ void axpy(const float* __restrict__ x, float* y, float a, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * x[i];
}
"""
ONE = "extern \"C\" __global__ void one(float* y, int n) { %s }\n// launch one: n = 4; grid = 1; block = 32; y[n]\n"


@pytest.fixture
def nvidia():
    """NVIDIA's compiler, or the test is skipped."""
    if nvrtc.why_no_compiler():
        pytest.skip(f"NO KERNEL IS COMPILED HERE: {nvrtc.why_no_compiler()}")


@pytest.fixture(autouse=True)
def no_gpu_compiler(monkeypatch, request):
    """NVIDIA's compiler only where a test asks for it: this is about the rest."""
    if "nvidia" not in request.fixturenames:
        monkeypatch.setattr(nvrtc, "why_no_compiler", lambda: "left out")


def said(tmp_path, text, name="mine.cu", *words):
    """(exit status, everything that was said) of lint on a text."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = CliRunner().invoke(main, ["kernels", "lint", str(path), *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("line, says", [
    ("n = -5; grid = 1; block = 32; x[n] y[n]; a = 2", "the size of x is -5, and must be a whole number"),
    ("n = 99999999999; grid = 1; block = 32; x[n] y[n]; a = 2", "the size of x is 99999999999"),
    ("n = 1.5; grid = 1; block = 32; x[n] y[n]; a = 2", "the size of x is 1.5"),
    ("n = 1e3; grid = 1; block = 32; x[n] y[n]; a = 2", "the size of x is 1000.0"),
    ("n = 4; grid = 1; block = 32; x[n] y[n] zz[n]; a = 2", "the kernel has no array zz; it has x, y"),
    ("n = 4; grid = 9**9; block = 32; x[n] y[n]; a = 2", "'9**9' has no value"),
    ("n = 4; grid = 999999 * 999999; block = 32; x[n] y[n]; a = 2", "grid is 999998000001"),
    ("n = 4; grid = 1; block = 0; x[n] y[n]; a = 2", "block is 0"),
    ("n = 4; grid = 1; block = 64, 32; x[n] y[n]; a = 2", "has 2048 threads, at most 1024"),
    ("n = 4; grid = 1; block = 32; shared = 9 * 99999; x[n] y[n]; a = 2", "shared is 899991"),
    ("n = " + "(" * 500 + "4" + ")" * 500 + "; grid = n; block = 32; x[n] y[n]; a = 2", "too many brackets"),
    ("n = 1 2 3 4 5 6 7 8; grid = 1; block = 32; x[n] y[n]; a = 1 2 3 4 5 6 7 8; k = 1 2 3 4 5", "320 combinations of sizes, at most 200"),
])
def test_launch_lines_that_make_no_sense(tmp_path, line, says):
    status, text = said(tmp_path, f"// launch axpy: {line}\n{BODY}")
    assert status == 1 and says in text and "broke a rule" not in text


@pytest.mark.parametrize("name", ["div", "select", "gamma", "y1", "index"])
def test_a_kernel_may_have_the_name_of_a_function_of_c(tmp_path, name):
    _, text = said(tmp_path, f"// launch {name}: {LINE}\n" + BODY.replace("axpy", name))
    assert "5 launches, 0 broke a rule" in text
    _, text = said(tmp_path, f"// launch {name}: {LINE}\n" + BODY.replace("axpy", name).replace("if (i < n) ", ""))
    assert "mine.cu:4" in text and f"{name}: an access outside" in text


@pytest.mark.parametrize("text, says", [
    ("__global__ void t(float* y, int n) { y[0] = n; }\n", 'mine.cu:1: t needs extern "C" right before its __global__'),
    ('extern "C" {\n__global__ void __launch_bounds__(32) t(float* y) { }\n}\n', 'mine.cu:2: t needs extern "C"'),
    ("int x;\n", "there is no kernel in mine.cu"), ("", "there is no kernel in mine.cu"),
    ('extern "C" __global__ void t', "has no brackets"), ("\0\1\2", "there is no kernel"),
])
def test_files_without_a_kernel(tmp_path, text, says):
    status, output = said(tmp_path, text)
    assert status == 1 and says in output


def test_a_launch_line_of_a_kernel_without_extern_c(tmp_path):
    status, text = said(tmp_path, f"// launch t: n = 1; grid = 1; block = 1; y[n]\n__global__ void t(float* y, int n) {{ }}\n{BODY}")
    assert status == 1 and 't needs extern "C" right before' in text


@pytest.mark.parametrize("name", ["it's \"q\".cu", "back\\slash.cu", "new\nline.cu", "-D.cu", "red\x1b[31m.cu", "$(touch pwned);.cu",
                                  os.fsdecode(b"latin\xff.cu"), "a b.cu"])
def test_odd_file_names(tmp_path, name):
    status, text = said(tmp_path, f"// launch axpy: {LINE}\n{BODY.replace('if (i < n) ', '')}", name)
    assert status == 1 and "5 broke a rule" in text and ".cu:4, block" in text and "\x1b" not in text
    assert sorted(os.listdir(tmp_path)) == [name]


@pytest.mark.usefixtures("nvidia")
@pytest.mark.parametrize("name", ["it's \"q\".cu", "back\\slash.cu", "-D.cu", os.fsdecode(b"latin\xff.cu")])
def test_odd_file_names_for_nvidias_compiler(tmp_path, name):
    assert said(tmp_path, f"// launch axpy: {LINE}\n{BODY}", name, "--arch", "sm_90")[0] == 0


def test_a_byte_order_mark_is_no_text(tmp_path):
    assert "5 launches, 0 broke a rule" in said(tmp_path, b"\xef\xbb\xbf" + f"// launch axpy: {LINE}\n{BODY}".encode())[1]


@pytest.mark.parametrize("include, says", [
    ("/etc/passwd", "an include leaves the folder"), ("../x.cuh", "an include leaves the folder"), ("a/../../x", "an include leaves"),
    ("missing.cuh", "mine.cu:1 includes missing.cuh: this file cannot be read"), (".", "no plain file"),
])
def test_includes_stay_in_their_folder(tmp_path, include, says):
    status, text = said(tmp_path, f'#include "{include}"\n{BODY}')
    assert status == 1 and says in text and "kernels/ has" not in text and "root:" not in text


@pytest.mark.parametrize("include", ["</etc/passwd>", "<../../../../../etc/passwd>"])
def test_includes_of_the_system_stay_in_the_system(tmp_path, include):
    status, text = said(tmp_path, f"#  include {include}\n{BODY}")
    assert status == 1 and "mine.cu:1: an include leaves the folder" in text and "root:" not in text


def test_a_device_is_not_read(tmp_path):
    (tmp_path / "zero.cuh").symlink_to("/dev/zero")
    status, text = said(tmp_path, f'#include "zero.cuh"\n{BODY}')
    assert status == 1 and "no plain file" in text


def test_the_same_bug_is_said_once(tmp_path):
    sizes = " ".join(map(str, range(1, 37)))
    _, text = said(tmp_path, f"// launch axpy: n = {sizes}; grid = 1; block = 64; x[n] y[n]; a = 2\n{BODY.replace('if (i < n) ', '')}")
    assert text.count("an access outside of its array") == 1 and "and with 35 more sizes" in text and "36 broke a rule" in text


def test_an_endless_loop_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(lint, "SECONDS", 0.5)
    monkeypatch.setattr(lint.checked, "__defaults__", (None, "check", "forward", 0.5))
    status, text = said(tmp_path, ONE % "int i = 0; while (i >= 0) { i = (i + 1) % 1000; y[i % n] = 1; }")
    assert status == 1 and "still running after 0.5 s" in text and "in block (0, 0, 0), thread (0, 0, 0)" in text


def test_what_the_compiler_warns_of_is_shown(tmp_path):
    for _ in range(2):  # the second time out of the cache
        _, text = said(tmp_path, ONE % "if (n = 4) if (threadIdx.x == 0) y[0] = 1;")
        assert "mine.cu:1" in text and "suggest parentheses" in text
    assert "compare it with results that you know" in text


@pytest.mark.usefixtures("nvidia")
def test_what_nvidias_compiler_warns_of_is_shown(tmp_path):
    _, text = said(tmp_path, ONE % "int unused_number = 3; y[0] = n;", "mine.cu", "--arch", "sm_90")
    assert "warning" in text and "unused_number" in text


@pytest.mark.usefixtures("nvidia")
@pytest.mark.skipif(bool(nvrtc.why_no_disassembler()), reason="no disassembler")
def test_an_array_in_local_memory_is_no_spill(tmp_path):
    body = "float big[600]; for (int i = 0; i < 600; i++) big[i] = i * n; y[threadIdx.x % n] = big[(threadIdx.x * 77) % 600];"
    status, text = said(tmp_path, ONE % body, "mine.cu", "--arch", "sm_90", "--no-run")
    assert status == 0 and "bytes stack" in text and "local memory" in text and "spill" not in text.lower()
    assert grouped({"STL": 2, "LDL.64": 1}) == {"local memory": 3}


def test_without_gxx_nothing_is_counted_as_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    on_cpu_build.compiler.cache_clear()
    try:
        status, text = said(tmp_path, f"// launch axpy: {LINE}\n{BODY}")
    finally:
        monkeypatch.undo()
        on_cpu_build.compiler.cache_clear()
    assert status == 1 and text.count("apt install g++") == 1 and "broke a rule" not in text


def test_without_nvidias_compiler_the_rest_is_done(tmp_path):
    status, text = said(tmp_path, f"// launch axpy: {LINE}\n{BODY}")
    assert status == 1 and "NOT COMPILED for a GPU: left out" in text and "5 launches, 0 broke a rule" in text


def test_a_compiler_that_fails_without_a_word(tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "silent"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("MINIDL_CXX", str(fake))
    for cached in (on_cpu_build.compiler, on_cpu_build.build_runtime):
        cached.cache_clear()
    try:
        status, text = said(tmp_path, f"// launch axpy: {LINE}\n{BODY}")
    finally:
        monkeypatch.undo()
        for cached in (on_cpu_build.compiler, on_cpu_build.build_runtime):
            cached.cache_clear()
    assert status == 1 and "ended with exit code 3" in text and "PTX" not in text
