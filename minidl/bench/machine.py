"""What this machine can do at best, and what it is: measured ceilings, and the environment that a result was measured in."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np

from minidl.backend import threads
from minidl.core.version import __version__

COPY_BYTES = 1 << 26   # 64 MB: far beyond the caches
GEMM_SIZE = 1536


def ceilings():
    """{"copy_gb_s", "gemm_gflop_s"}: the best of several tries, with all threads that minidl may use."""
    return {"copy_gb_s": copy_bandwidth(), "gemm_gflop_s": gemm(), "copy_bytes": COPY_BYTES, "gemm_size": GEMM_SIZE}


def copy_bandwidth(tries=15):
    """GB/s of copying a large array in slices over the threads: bytes read plus bytes written."""
    source, target = np.ones(COPY_BYTES // 4, np.float32), np.zeros(COPY_BYTES // 4, np.float32)
    step = len(source) // 64
    best = 0.0
    for _ in range(tries):
        started = time.perf_counter()
        threads.parallel_for(lambda k: np.copyto(target[k * step:(k + 1) * step], source[k * step:(k + 1) * step]), range(64))
        best = max(best, 2 * source.nbytes / (time.perf_counter() - started) / 1e9)
    return best


def gemm(seconds=0.6, least=5):
    """GFLOP/s of BLAS's float32 product of square matrices, on as many threads as BLAS takes: warm, the best of so many seconds."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((GEMM_SIZE, GEMM_SIZE), np.float32) for _ in range(2))
    out = np.empty_like(a)
    np.matmul(a, b, out=out)  # wakes the threads, and touches the result
    best, tries, over = 0.0, 0, time.perf_counter() + seconds
    while tries < least or time.perf_counter() < over:
        started = time.perf_counter()
        np.matmul(a, b, out=out)
        best, tries = max(best, 2 * GEMM_SIZE**3 / (time.perf_counter() - started) / 1e9), tries + 1
    return best


def environment(torch=False):
    """Everything that two results must share to be comparable, and when and from what they were made."""
    return {
        "processor": processor(), "cores": threads.available_cores(), "system": f"{platform.system()} {platform.machine()}",
        "threads": threads.get_num_threads(), "python": platform.python_version(), "numpy": np.__version__, "blas": blas(),
        "torch": version("torch") if torch else None, "minidl": __version__, "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"), "load": load(),
    }


SAME = ("processor", "cores", "system", "threads", "python", "numpy", "blas", "torch")  # what must agree for --compare


def processor():
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(("model name", "Model"))]
    return named[0] if named else platform.machine()


def blas():
    """BLAS's name, version and threads."""
    import threadpoolctl

    found = [f"{i['internal_api']} {i.get('version') or ''}, {i['num_threads']} threads"
             for i in threadpoolctl.threadpool_info() if i["user_api"] == "blas"]
    return found[0] if found else "unknown"


def version(name):
    """The installed version of a distribution, or None. It is not imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit():
    """The commit of the checkout that runs, with +changes where files differ; None for an installed package."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None

    def git(*args):
        return subprocess.run(["git", *args], capture_output=True, text=True, cwd=folder, timeout=20).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "minidl", "kernels")
        return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def load():
    """How busy the machine was over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
