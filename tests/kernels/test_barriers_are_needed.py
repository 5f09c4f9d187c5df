"""Take out one barrier, or one wait for a copy, of the kernels in kernels/: check mode must notice. So none of them is there for
luck, and the checker sees what it must in real kernels, not only in planted ones. Cases come from the tests of each topic.
"""

import importlib
import re
import sys
from pathlib import Path

import pytest

from minidl.backend.cuda import launch
from minidl.backend.cuda.on_cpu import KernelError, why_no_compiler
from minidl.backend.cuda.on_cpu_build import KERNEL
from minidl.backend.cuda.source import text_of
from minidl.core.folders import kernels_folder

HERE = Path(__file__).parent
WAITS = re.compile(r"__syncthreads\(\);|__syncwarp\([^;]*\);|wait_for_groups<[^;]*;")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_no_compiler()), reason=why_no_compiler())]


def cases():
    """{kernel: what runs it}, from the test modules of all topics."""
    sys.path.insert(0, str(HERE))
    try:
        modules = [importlib.import_module(file.stem) for file in sorted(HERE.glob("test_*_kernels.py"))]
    finally:
        sys.path.remove(str(HERE))
    return {name: case for module in modules for name, case in getattr(module, "CASES", {}).items()}


def spots():
    """{"tile.cuh:141": [(file, text without that wait)]}: every wait of every kernel file, includes in place."""
    found = {}
    for path in sorted(kernels_folder().glob("*.cu")):
        text = text_of(path.name)
        for match in WAITS.finditer(text):
            before = text[:match.start()]
            if "//" in before[before.rfind("\n") + 1:]:
                continue
            mark = list(re.finditer(r'#line (\d+) "([^"\n]+)"\n', before))[-1]
            line = int(mark[1]) + before.count("\n", mark.end())
            found.setdefault(f"{mark[2]}:{line}", []).append((path.name, before + ";" + text[match.end():]))
    return found


SPOTS = spots()


def reports(file, broken, monkeypatch):
    """What the kernels of one file are told in check mode, until one is told something."""
    runnable = cases()
    monkeypatch.setattr(launch, "text_of", lambda name: broken if name == file else text_of(name))
    launch.kernel.cache_clear()
    launch.compiled.cache_clear()
    try:
        for _, name in KERNEL.findall(broken):
            try:
                runnable.get(name, lambda mode, order: None)("check", "forward")
            except KernelError as error:
                return error.kind
            except AssertionError:
                return "a wrong result"
    finally:
        launch.kernel.cache_clear()
        launch.compiled.cache_clear()
    return ""


@pytest.mark.parametrize("spot", SPOTS)
def test_each_one_is_missed(spot, monkeypatch):
    assert any(reports(file, broken, monkeypatch) for file, broken in SPOTS[spot]), \
        f"{spot}: without it, nothing is reported: is it needed, and is there a case that runs it?"


def test_there_are_some():
    assert len(SPOTS) >= 15
