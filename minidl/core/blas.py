"""Importing NumPy so that its OpenBLAS uses AVX-512 where the processor has it: products run at 450 GFLOP/s instead of 240.

OpenBLAS picks its kernels once, when it is loaded, from a list of known processors. AMD's Zen 5 is missing in it (OpenBLAS
issue 6029; the releases up to 0.3.31, NumPy 2.4 among them), and gets the AVX2 kernels of 2013. The documented way to
say otherwise is the variable OPENBLAS_CORETYPE, which is set here for as long as NumPy's import takes. What the user has set stays.
Where NumPy was imported before minidl nothing can be done any more: `minidl doctor` says so.

Measured: two Zen 5 cores, 6272×512 @ 512×128 in float32: 233 -> 442 GFLOP/s (PyTorch: 504).
"""

import os
import sys

NEEDED = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what OpenBLAS's SkylakeX kernels are compiled for


def reason_against(cpuinfo, environ, modules):
    """"" if OpenBLAS should be told to use AVX-512 before NumPy loads it, or why not."""
    if "numpy" in modules:
        return "NumPy was imported before minidl"
    if environ.get("OPENBLAS_CORETYPE"):
        return "OPENBLAS_CORETYPE is set: " + environ["OPENBLAS_CORETYPE"]
    if "AuthenticAMD" not in cpuinfo:
        return "only on AMD's processors does OpenBLAS need to be told"
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    missing = NEEDED - set(flags.split())
    return "the processor lacks " + ", ".join(sorted(missing)) if missing else ""


def _cpuinfo():
    """What Linux says of the first core."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return file.read(1 << 13)  # one core's: a large machine writes milliseconds of them
    except OSError:
        return ""


def _import_numpy():
    reason = reason_against(_cpuinfo(), os.environ, sys.modules)
    if reason:
        return reason
    os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"
    try:
        import numpy  # noqa: F401 - for its OpenBLAS, which reads the variable now and never again
    finally:
        del os.environ["OPENBLAS_CORETYPE"]
    return ""


REASON = _import_numpy()  # why OpenBLAS was left to choose; "" if it was told
