"""OpenBLAS is told to use AVX-512 exactly where it would not by itself, and only while NumPy is being imported."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minidl.core.blas import NEEDED, reason_against

ZEN5 = "processor : 0\nvendor_id : AuthenticAMD\nflags : fpu " + " ".join(sorted(NEEDED)) + " avx512_bf16\n"


@pytest.mark.parametrize("cpuinfo, environ, modules, reason", [
    (ZEN5, {}, {}, ""),
    (ZEN5, {}, {"numpy": np}, "NumPy was imported before minidl"),
    (ZEN5, {"OPENBLAS_CORETYPE": "Zen"}, {}, "OPENBLAS_CORETYPE is set: Zen"),
    (ZEN5.replace("AuthenticAMD", "GenuineIntel"), {}, {}, "only on AMD's processors does OpenBLAS need to be told"),
    (ZEN5.replace("avx512bw", ""), {}, {}, "the processor lacks avx512bw"),
    ("", {}, {}, "only on AMD's processors does OpenBLAS need to be told"),
])
def test_where(cpuinfo, environ, modules, reason):
    assert reason_against(cpuinfo, environ, modules) == reason


def test_a_fresh_process():
    """minidl first: the kernels are AVX-512's if this machine is one to be told, and the variable is gone afterwards."""
    code = ("import minidl, os, threadpoolctl; from minidl.core.blas import REASON;"
            "print(repr(REASON), os.environ.get('OPENBLAS_CORETYPE'), threadpoolctl.threadpool_info()[0].get('architecture'))")
    environ = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    said = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True).stdout.split()
    if said[0] == "''":
        assert said[1:] == ["None", "SkylakeX"]
    else:
        assert said[-2] == "None"
