"""Every kernel compiles for both architectures with CuPy's options, within its budget of registers and shared memory, without
spills; and every kernel has a case in the tests of its topic that really launches it."""

import functools
import importlib
import re
from pathlib import Path

import pytest

from minidl.backend.cuda import launch, nvrtc
from minidl.backend.cuda.on_cpu_build import why_no_compiler
from minidl.backend.cuda.signature import signatures
from minidl.backend.cuda.source import text_of
from minidl.core.errors import BackendError
from minidl.core.folders import kernels_folder

FILES = sorted(path.name for path in kernels_folder().glob("*.cu"))
QUICK = {"scatter.cu", "conv_parts.cu", "im2col.cu", "optim.cu", "layernorm.cu", "reduce.cu", "conv_depthwise.cu"}  # under half a second
files = pytest.mark.parametrize("file", [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in FILES])

needs_nvrtc = pytest.mark.skipif(bool(nvrtc.why_no_compiler()), reason=f"NO KERNEL IS COMPILED FOR A GPU HERE: {nvrtc.why_no_compiler()}")
needs_sass = pytest.mark.skipif(bool(nvrtc.why_no_disassembler()), reason=f"NO KERNEL IS DISASSEMBLED HERE: {nvrtc.why_no_disassembler()}")
needs_gxx = pytest.mark.skipif(bool(why_no_compiler()), reason="NO KERNEL IS RUN HERE: g++ is missing")

# (pattern, registers per thread, bytes of static shared memory). 65,536 registers on a processor: 128 are two blocks of 256 threads.
BUDGETS = [
    (r"conv2d_.*_(tf32|3xtf32)$|conv2d_v[56]_", 255, 49152),
    (r"conv2d_.*v4_double_buffered", 255, 40960),  # one block a processor: 4 k at once in registers, 82 % of its loop multiply-adds
    (r"conv2d_grad_x_v3", 168, 8448),
    (r"conv2d_.*v[23]_", 128, 8448),
    (r"norm_grad_sums_v3_float4", 128, 9216),
    (r"norm_.*v3_float4", 96, 9216),
    (r"", 80, 4096),
]


def budget_of(name):
    """The first row whose pattern fits."""
    return next((registers, shared) for pattern, registers, shared in BUDGETS if re.search(pattern, name))


def over_budget(used):
    """What a compiled kernel takes too much of, in words; "" if nothing."""
    registers, shared = budget_of(used.name)
    wrong = [f"{used.registers} registers, allowed {registers}"] if used.registers > registers else []
    wrong += [f"{used.shared} bytes of shared memory, allowed {shared}"] if used.shared > shared else []
    wrong += [f"{used.spills} bytes spilled"] if used.spills else []
    wrong += [f"{used.stack} bytes of stack"] if used.stack else []
    return ", ".join(wrong)


@needs_nvrtc
@pytest.mark.parametrize("arch", nvrtc.ARCHITECTURES)
@files
def test_a_file_compiles_within_its_budget(file, arch):
    found = nvrtc.resources(file, (), arch)
    assert set(found) == set(signatures(text_of(file))), "the parser of signatures and the compiler see the same kernels"
    assert {name: over_budget(used) for name, used in found.items() if over_budget(used)} == {}


@needs_nvrtc
@needs_sass
@pytest.mark.slow
@pytest.mark.parametrize("arch", nvrtc.ARCHITECTURES)
def test_the_instructions_are_the_ones_meant(arch):
    """Cheap signals of speed: 16-byte loads where they are promised, multiply-adds that outnumber the loads, tensor cores used."""
    blocked = nvrtc.resources("conv_blocked.cu", (), arch, disassemble=True)
    for name, used in blocked.items():
        mix = nvrtc.grouped(used.mix)
        assert used.mix.get("LDS.128", 0) >= 4, f"{name}: fragments come from shared memory 16 bytes at a time"
        assert mix["multiply-add"] >= 4 * mix["load shared"], f"{name}: {mix}"
    assert any(used.mix.get("LDGSTS.128") or used.mix.get("LDGSTS") for used in blocked.values()), "v4 copies past the registers"
    for name, used in nvrtc.resources("conv_mma.cu", (), arch, disassemble=True).items():
        assert used.mix.get("HMMA", 0) >= 8, f"{name} uses the tensor cores"
    for name, used in nvrtc.resources("batchnorm.cu", (), arch, disassemble=True).items():
        assert "float4" not in name or used.mix.get("LDG.128"), f"{name} loads 16 bytes at a time"


# --- is every kernel tested? --------------------------------------------------------------------------------------------

@functools.cache
def cases():
    """{kernel: function(mode, order)} of all topics."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("test_*_kernels.py")):
        found.update(getattr(importlib.import_module(path.stem), "CASES", {}))
    return found


KERNELS = [name for file in FILES for name in signatures(text_of(file))]


def untested(kernels, tested):
    """The kernels without a case, and the cases without a kernel."""
    return sorted(set(kernels) ^ set(tested))


def test_every_kernel_has_a_case():
    assert untested(KERNELS, cases()) == []
    assert len(KERNELS) == len(set(KERNELS)), "a name belongs to one kernel"


def launched_by(case, mode, order):
    """The names of the kernels that a case launches."""
    names = set()
    watcher = lambda kernel, *_: names.add(kernel.name)
    launch.WATCHERS.append(watcher)
    try:
        case(mode, order)
    finally:
        launch.WATCHERS.remove(watcher)
    return names


@needs_gxx
@pytest.mark.parametrize("name", KERNELS)
def test_a_case_launches_its_kernel(name):
    assert name in launched_by(cases()[name], "fast", "random")


@needs_gxx
@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_a_case_breaks_no_rule(name):
    cases()[name]("check", "forward")


# --- do these tests notice? ---------------------------------------------------------------------------------------------

def test_a_kernel_without_a_case_is_noticed():
    assert untested([*KERNELS, "conv2d_v9_new"], KERNELS) == ["conv2d_v9_new"]


SPILLS = """extern "C" __global__ void __launch_bounds__(1024, 2) planted(const float* x, float* y, int n) {
  float a[64];
#pragma unroll
  for (int k = 0; k < 64; k++) a[k] = x[k * n + threadIdx.x];
  for (int j = 0; j < n; j++)
#pragma unroll
    for (int k = 0; k < 64; k++) a[k] = a[k] * a[(k + 7) % 64] + y[j];
#pragma unroll
  for (int k = 0; k < 64; k++) y[k * n + threadIdx.x] = a[k];
}
"""


@needs_nvrtc
def test_spills_and_too_many_registers_are_noticed(tmp_path):
    (tmp_path / "planted.cu").write_text(SPILLS)
    assert "spilled" in over_budget(nvrtc.resources(tmp_path / "planted.cu")["planted"])
    (tmp_path / "wide.cu").write_text(SPILLS.replace("__launch_bounds__(1024, 2)", "").replace("planted", "wide").replace("64", "100"))
    assert "registers, allowed 80" in over_budget(nvrtc.resources(tmp_path / "wide.cu")["wide"])


@needs_nvrtc
def test_an_error_in_an_included_file_is_found_there(tmp_path):
    (tmp_path / "inner.cuh").write_text("#pragma once\n\nnonsense here;\n")
    (tmp_path / "outer.cu").write_text('// outer\n#include "inner.cuh"\nextern "C" __global__ void outer(float* x) { x[0] = 1; }\n')
    with pytest.raises(BackendError, match=r"inner\.cuh\(3\)"):
        nvrtc.resources(tmp_path / "outer.cu")
    (tmp_path / "inner.cuh").write_text("#define TWO 2\n")
    (tmp_path / "late.cu").write_text('// late\n#include "inner.cuh"\nextern "C" __global__ void late(float* x) { x[0] = THREE; }\n')
    with pytest.raises(BackendError, match=r"late\.cu\(3\)"):
        nvrtc.resources(tmp_path / "late.cu")
