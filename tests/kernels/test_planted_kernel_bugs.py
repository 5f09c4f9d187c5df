"""Is check mode worth its name? Kernels with one planted bug each (bugs/*.cu): every one must be reported, of the right
kind and at the right line; and none of their sound twins (-DFIXED) may be.

As exercises: python tests/kernels/test_planted_kernel_bugs.py missing_barrier    (docs/kernels/checking.md)
"""

import functools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minidl.backend.cuda.on_cpu import KernelError, RawModule, why_no_compiler

BUGS = Path(__file__).parent / "bugs"
FILES = {file.stem: file.read_text(encoding="utf-8") for file in sorted(BUGS.glob("*.cu"))}
RNG = np.random.default_rng(1)
X = RNG.standard_normal(1024, np.float32)
M, N, K = 40, 36, 37
A, B = RNG.standard_normal((M, K), np.float32), RNG.standard_normal((K, N), np.float32)
INT = np.int32

pytestmark = pytest.mark.skipif(bool(why_no_compiler()), reason=why_no_compiler())


def reported(text):
    """{kernel: (kind, line)} of the `// REPORT kernel: kind` marks of one file."""
    return {m[1]: (m[2].strip(), number) for number, line in enumerate(text.splitlines(), 1)
            for m in re.finditer(r"// REPORT (\w+): ([\w -]+)", line)}


EXPECTED = {kernel: (file, *where) for file, text in FILES.items() for kernel, where in reported(text).items()}


@functools.cache
def module(file, fixed, mode="check"):
    return RawModule(code=f'#line 1 "{file}.cu"\n{FILES[file]}', options=("-DFIXED",) if fixed else (), mode=mode)


def product():
    """Sizes that tile badly."""
    return (3, 3), (16, 16), [A, B, np.zeros((M, N), np.float32), INT(M), INT(N), INT(K)], 2, A @ B


def vector(n, block, truth, size=256, grid=1, nx=1024):
    return (grid,), (block,), [X[:nx].copy(), np.zeros(size, np.float32), INT(n)], 1, truth


def tiles():
    x = RNG.standard_normal((5, 64), np.float32)
    return (1,), (64,), [x, np.zeros(64, np.float32), INT(64), INT(5)], 1, x[:, np.arange(64) ^ 1].sum(0)


def through_global():
    return (1,), (256,), [X[:256].copy(), np.zeros(256, np.float32), np.zeros(256, np.float32), INT(256)], 1, 2 * X[255::-1]


def histogram():
    bins = RNG.integers(0, 5, 100).astype(np.int32)
    return (1,), (128,), [bins, np.zeros(5, np.int32), INT(100)], 1, np.bincount(bins, minlength=5)


def stencil():
    x = X[:200].copy()
    return (1,), (200,), [x, INT(200)], 0, x + np.append(x[1:], 0)


def mean():
    total, count = np.arange(10, dtype=np.int32), np.array([1, 2, 0, 3, 1, 1, 1, 1, 1, 1], np.int32)
    return (1,), (32,), [total, count, np.zeros(10, np.int32), INT(10)], 2, np.where(count, total // np.maximum(count, 1), 0)


SHARED = {"shared_too_small": 255 * 4}
CASES = {  # kernel: a function that makes (grid, block, arguments, which of them is the result, what it must be)
    **dict.fromkeys(("missing_barrier", "missing_second_barrier", "ragged_depth", "ragged_row"), product),
    "divergent_barrier": lambda: vector(256, 256, X[255::-1]),
    "early_return": lambda: vector(200, 256, np.append(X[199::-1], np.zeros(56))),
    "two_barriers": lambda: vector(256, 256, X[:256]),
    "scratch_reused": lambda: vector(256, 256, np.append([X[:256].sum(), X[256:512].sum()], np.zeros(254))),
    "through_global": through_global,
    "off_by_one": lambda: vector(500, 128, 2 * X[:500], size=500, grid=4, nx=500),
    "misaligned_vector": lambda: vector(0, 64, X[:64] + X[3:67], size=64),
    "two_blocks": lambda: vector(128, 128, X[:512], size=512, grid=4),
    "read_by_all_blocks": lambda: vector(128, 128, np.append(X[:512], 1), size=513, grid=4),
    "uninitialised_tile": lambda: vector(250, 256, np.append(X[:250], np.zeros(6))[np.arange(256) ^ 1]),
    "shared_too_small": lambda: vector(256, 256, np.zeros(256)),
    "one_row_too_many": lambda: vector(256, 256, X[:256]),
    "input_written": lambda: vector(256, 256, 2 * X[:256]),
    "index_overflow": lambda: vector(1024, 4, np.append(X[0], np.zeros(255))),
    "plain_histogram": histogram,
    "stencil_in_place": stencil,
    "empty_mean": mean,
    "shuffle_in_branch": lambda: vector(0, 256, np.where(np.arange(256) % 32 < 16, X[:256] + X[8:264], X[:256])),
    "wrong_mask": lambda: vector(0, 64, X[:64] + X[np.arange(64) ^ 1], size=64),
    "lane_gone": lambda: vector(30, 32, np.append(X[:30].sum(), np.zeros(255))),
    "missing_syncwarp": lambda: vector(0, 32, np.append(X[:64].sum(), np.zeros(255))),
    "shuffle_is_no_fence": lambda: vector(0, 32, X[31::-1], size=32),
    "half_a_syncwarp": lambda: vector(0, 32, X[31::-1], size=32),
    "syncwarp_for_a_block": lambda: vector(0, 64, X[63::-1], size=64),
    **dict.fromkeys(("no_wait", "too_short_a_wait", "no_barrier_after_wait", "stale_buffer", "no_second_barrier"), tiles),
}


def run(kernel, fixed, mode="check", order="forward"):
    """(what came out, what must come out)."""
    grid, block, arguments, result, truth = CASES[kernel]()
    shared = SHARED.get(kernel, 0)
    module(EXPECTED[kernel][0], fixed, mode).get_function(kernel)(grid, block, tuple(arguments), shared_mem=shared, order=order, seed=3)
    return arguments[result].astype(np.float64).ravel(), np.asarray(truth, np.float64).ravel()


def test_there_are_enough():
    assert len(EXPECTED) >= 18
    assert set(EXPECTED) == set(CASES)
    pages = Path(__file__).parents[2] / "docs/kernels"
    assert f"{len(CASES)} broken kernels" in (pages / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[\w+\.cu\].*\| (.*) \|$", (pages / "checking.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(", ".join(rows).split(", ")) == sorted(CASES)


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
@pytest.mark.parametrize("kernel", sorted(CASES))
def test_the_bug_is_caught(kernel, order):
    file, kind, line = EXPECTED[kernel]
    with pytest.raises(KernelError) as caught:
        run(kernel, fixed=False, order=order)
    error = caught.value
    assert error.kind == kind, error
    # A race has two ends, and the order of threads decides which of them is noticed: the message names both.
    assert (f"{file}.cu", line) in ((error.file, error.line), error.other), error
    assert f"{file}.cu:{line}" in str(error)
    assert error.kernel == kernel and len(error.block) == 3 and len(error.thread) == 3


@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
@pytest.mark.parametrize("kernel", sorted(CASES))
def test_no_false_alarm_on_the_sound_twin(kernel, order):
    got, wanted = run(kernel, fixed=True, order=order)
    error = np.abs(got - wanted).max()
    assert error <= 64 * np.finfo(np.float32).eps * max(np.abs(wanted).max(), 1) * 8  # sums of 64 to 256 terms of size one


def test_the_documentation_shows_what_is_really_said():
    text = (Path(__file__).parents[2] / "docs/kernels/checking.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```text\n(\w+: .*?)\n```$", text, flags=re.DOTALL | re.MULTILINE)
    assert len(shown) >= 6
    for report in shown:
        with pytest.raises(KernelError) as caught:
            run(report.partition(":")[0], fixed=False)
        assert str(caught.value) == report


def exercise(kernel):
    """Run one in check mode and say what happened."""
    try:
        got, wanted = run(kernel, fixed=False)
    except KernelError as error:
        return str(error)
    return f"{kernel}: no report, and the result is {'right' if np.abs(got - wanted).max() <= 1e-3 else 'wrong'}."


def test_an_exercise_is_named_or_the_names_are_shown():
    for names, status, words in [(["off_by_one"], 0, "off_by_one: an access outside of its array."),
                                 (["off_by_one", "nosuch"], 2, "there is no kernel nosuch; there are: divergent_barrier, ")]:
        done = subprocess.run([sys.executable, __file__, *names], capture_output=True, text=True, cwd=Path(__file__).parents[2])
        assert done.returncode == status and words in done.stdout + done.stderr, done
        assert "Traceback" not in done.stderr and (status == 0) == (done.stderr == "")


def main(names):
    """The reports of the kernels of those names, or of all."""
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"there is no kernel {', '.join(unknown)}; there are: {', '.join(sorted(CASES))}", file=sys.stderr)
        return 2
    if why_no_compiler():
        print(why_no_compiler(), file=sys.stderr)
        return 1
    print("\n".join(exercise(kernel) for kernel in names or sorted(CASES)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
