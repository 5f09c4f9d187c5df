"""The CPU runner: the same answers in every mode and order, CuPy's manners with arguments, what it refuses, its cache, gdb."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from minidl.backend.cuda import on_cpu, on_cpu_build
from minidl.backend.cuda.on_cpu import KernelError, RawModule, why_no_compiler
from minidl.backend.cuda.on_cpu_step import step, why_no_gdb
from minidl.core.errors import BackendError

pytestmark = pytest.mark.skipif(bool(why_no_compiler()), reason=why_no_compiler())

INT, FLOAT = np.int32, np.float32
RNG = np.random.default_rng(0)
MODES, ORDERS = ("fast", "check", "debug"), ("forward", "reverse", "random")
KERNELS = Path(__file__).parent / "bugs" / "runner.cu"


def integers(*shape):
    return RNG.integers(-4, 5, shape).astype(FLOAT)


def module(mode="fast", **settings):
    key = (mode, tuple(settings.items()))
    if key not in _modules:
        _modules[key] = RawModule(path=KERNELS, mode=mode, **settings)
    return _modules[key]


_modules = {}


def refused(function, *args, **settings):
    with pytest.raises(KernelError) as caught:
        function(*args, **settings)
    return caught.value


@pytest.mark.parametrize("ucontext", [False, True], ids=["switch", "ucontext"])
@pytest.mark.parametrize("mode", MODES)
def test_a_product_in_every_mode_and_order(mode, ucontext):
    a, b = integers(70, 37), integers(37, 50)
    kernel = module(mode, ucontext=ucontext, options=("-DTILE=8",)).get_function("product")
    for order in ORDERS:
        c = np.full((70, 50), np.nan, FLOAT)
        kernel((7, 9), (8, 8), (a, b, c, INT(70), INT(50), INT(37)), order=order, seed=5)
        assert np.array_equal(c, a @ b)


@pytest.mark.parametrize("mode", MODES)
def test_indices_in_three_dimensions(mode):
    out = np.zeros((3, 2, 2, 2, 3, 4, 6), INT)
    module(mode).get_function("indices")((2, 2, 3), (4, 3, 2), (out,))
    block = np.indices((3, 2, 2, 2, 3, 4))
    for axis in range(6):  # stored as blockIdx.z y x, threadIdx.z y x
        assert np.array_equal(out[..., axis], block[axis])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", [32, 8, 2])
def test_shuffles(mode, width):
    x = np.arange(70, dtype=FLOAT)
    out = np.zeros((4, 70), FLOAT)
    module(mode).get_function("shuffles")((1,), (70,), (x, out, INT(3), INT(width)))
    lane = np.arange(70)
    group, within = lane // width * width, lane % width
    there = lambda source: np.where((source < 70) & (source // 32 == lane // 32), source, -1)
    wanted = [group + 3 % width, np.where(within + 3 < width, lane + 3, lane), np.where(within >= 3, lane - 3, lane),
              np.where((lane ^ 3) < group + width, lane ^ 3, lane)]
    for got, source in zip(out, wanted, strict=True):
        source = there(source)
        assert np.array_equal(got[source >= 0], x[source[source >= 0]])
        assert np.isnan(got[source < 0]).all()  # from a lane that is not there: a NaN, never a number


@pytest.mark.parametrize("mode", MODES)
def test_votes_and_atomics(mode):
    x = RNG.integers(0, 2, 96).astype(INT)
    votes, count = np.zeros((3, 96), np.uint32), np.zeros(4, INT)
    module(mode).get_function("votes")((1,), (96,), (x, votes, count))
    for warp in range(3):
        part = x[warp * 32:][:32]
        mask = int("".join(map(str, part[::-1])), 2)
        assert set(votes[0, warp * 32:][:32]) == {mask}
        assert set(votes[1, warp * 32:][:32]) == {int(part.any())} and set(votes[2, warp * 32:][:32]) == {int(part.all())}
    assert count.tolist() == [x.sum(), 95, 0, -96]


@pytest.mark.parametrize("mode", MODES)
def test_tensor_core_fragments(mode):
    """The layout of the PTX ISA, written here a second time: row and column of each register of each lane."""
    a, b, c = integers(16, 8), integers(8, 8), integers(16, 8)
    lane, register = np.indices((32, 4))
    g, t = lane // 4, lane % 4
    a_row, a_column = g + 8 * (register % 2), t + 4 * (register // 2)
    b_row, b_column = (t + 4 * register)[:, :2], g[:, :2]
    d_row, d_column = g + 8 * (register // 2), 2 * t + register % 2
    d = np.zeros((32, 4), FLOAT)
    arguments = [a[a_row, a_column], b[b_row, b_column], c[d_row, d_column], d]
    module(mode).get_function("one_mma")((1,), (32,), tuple(map(np.ascontiguousarray, arguments[:3])) + (d,))
    result = np.zeros((16, 8), FLOAT)
    result[d_row, d_column] = d
    assert np.array_equal(result, a @ b + c)


def test_tf32_rounds_to_nearest_ties_away():
    x = np.array([1, 1 + 2**-10, 1 + 2**-11, 1 + 2**-12, -1 - 2**-11, 3.1415927, np.inf, 0], FLOAT)
    y = np.zeros_like(x)
    module().get_function("rounded")((1,), (8,), (x, y))
    assert y.tolist() == [1, 1 + 2**-10, 1 + 2**-10, 1, -1 - 2**-10, FLOAT(3.140625), np.inf, 0]


@pytest.mark.parametrize("mode", MODES)
def test_ldmatrix(mode):
    x = np.arange(4 * 8 * 4, dtype=np.uint32).reshape(4, 8, 4)  # matrix, row, register of 4 bytes
    out = np.zeros((32, 4), np.uint32)
    module(mode).get_function("load_matrix")((1,), (32,), (x, out))
    lane = np.arange(32)
    for matrix in range(4):
        assert np.array_equal(out[:, matrix], x[matrix, lane // 4, lane % 4])


@pytest.mark.parametrize("mode", MODES)
def test_copies_land_at_their_wait_and_fill_with_zeros(mode):
    x = integers(64)
    out = np.zeros((2, 16, 4), FLOAT)
    module(mode).get_function("copies")((1,), (16,), (x, out, INT(10)))
    wanted = np.where(np.arange(16)[:, None] < 10, x.reshape(16, 4), 0)
    assert np.array_equal(out[1], wanted)
    if mode != "check":  # which would refuse to read before the wait, so the kernel does not
        assert np.isnan(out[0]).all()


def test_subnormals_are_flushed():
    x = np.full(4, 1e-40, FLOAT)
    module().get_function("scale")((1,), (32,), (x, FLOAT(2), INT(4)))
    assert x.tolist() == [0, 0, 0, 0]
    assert FLOAT(1e-40) * FLOAT(2) != 0  # and only in there


def test_shared_memory_begins_as_nan():
    y = np.zeros(32, FLOAT)
    module().get_function("unwritten")((3,), (32,), (y,), shared_mem=128)
    assert np.isnan(y).all()


def test_arrays_that_overlap_stay_one_memory():
    x = np.arange(100, dtype=FLOAT)
    for mode in MODES:
        y = x.copy()
        module(mode).get_function("add_into")((1,), (64,), (y[:64], y[32:96], INT(64)))
        wanted = x.copy()
        wanted[32:96] = x[32:96] + 1000  # every thread touches its own y[32 + t], which is also x[t] of another
        assert np.array_equal(y, wanted)


def test_what_cupy_would_not_take():
    x = np.zeros(8, FLOAT)
    scale = module().get_function("scale")
    assert "float32" in str(refused(scale, (1,), (8,), (x, 2.0, INT(8))))
    assert "int32" in str(refused(scale, (1,), (8,), (x, FLOAT(2), 8)))
    assert "float32" in str(refused(scale, (1,), (8,), (x.astype("f8"), FLOAT(2), INT(8))))
    assert "holes" in str(refused(scale, (1,), (4,), (x[::2], FLOAT(2), INT(4))))
    assert "2 given, 3 wanted" in str(refused(scale, (1,), (8,), (x, FLOAT(2))))
    assert "there are: product" in str(refused(module().get_function, "sclae"))
    assert "-lfoo" in str(refused(RawModule(code="", options=("-lfoo",)).compile))
    assert "quick" in str(refused(RawModule, "", mode="quick"))
    scale((1,), (8,), (None, FLOAT(2), INT(0)))
    scale((1,), (8,), (np.uint64(0), FLOAT(2), INT(0)))  # CuPy's way to pass no array


def test_launches_that_cannot_be():
    kernel = module().get_function("bounded")
    x = np.zeros(1, FLOAT)
    for grid, block, words in [((1,), (129,), "the limit is 128 (__launch_bounds__)"), ((1,), (0,), "0 threads"),
                               ((1, 65536), (1,), "65535"), ((1,), (1, 1, 65), "65 threads"), (("1",), (1,), "whole numbers")]:
        error = refused(kernel, grid, block, (x,))
        assert words in str(error)
    assert refused(module().get_function("scale"), (1,), (1025,), (x, FLOAT(1), INT(1))).kind == "launch"
    assert "max_dynamic_shared_size_bytes" in str(refused(kernel, (1,), (1,), (x,), shared_mem=50000))
    kernel.max_dynamic_shared_size_bytes = 100 << 10
    kernel((1,), (1,), (x,), shared_mem=100 << 10)
    kernel.max_dynamic_shared_size_bytes = 1 << 20
    assert refused(kernel, (1,), (1,), (x,), shared_mem=1 << 20).kind == "launch"


@pytest.mark.parametrize("mode", MODES)
def test_faults_are_exceptions_and_python_lives_on(mode):
    x = np.zeros(4, FLOAT)
    error = refused(module(mode).get_function("far_away"), (1,), (32,), (x, np.int64(1 << 40)))
    assert error.kind in ("fault", "out of bounds") and error.line == line_of("far away")
    error = refused(module(mode).get_function("deep"), (1,), (1,), (x, INT(100000)))
    assert error.kind == "stack"
    module(mode).get_function("scale")((1,), (32,), (x, FLOAT(2), INT(4)))


BIG = '''extern "C" __global__ void big(float* x, int n) {
  float kept[SIZE];
  for (int i = 0; i < n; i++) kept[i * 7 % SIZE] = i;
  x[threadIdx.x] = kept[n / 2];
}'''


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [35000, 60000, 500000])
def test_local_arrays_beyond_the_stack(mode, size):
    """However far the array reaches beyond the stack: it is reported, and no other thread's stack is written instead."""
    kernel = RawModule(code=BIG, options=(f"-DSIZE={size}",), mode=mode).get_function("big")
    for order in ORDERS:
        error = refused(kernel, (1,), (64,), (np.zeros(64, FLOAT), INT(1000)), order=order)
        assert error.kind == "stack" and error.line in (1, 3) and "128 KiB" in str(error), error


def test_a_fault_in_check_mode_does_not_send_the_reader_to_check_mode():
    code = 'extern "C" __global__ void jump(float* x) { ((void (*)())(size_t)64)(); }'
    for mode, sent in (("fast", True), ("check", False)):
        error = refused(RawModule(code=code, mode=mode).get_function("jump"), (1,), (1,), (np.zeros(1, FLOAT),))
        assert error.kind == "fault" and ('mode="check"' in str(error)) == sent, error


def test_a_null_pointer():
    assert refused(module("check").get_function("scale"), (1,), (8,), (None, FLOAT(2), INT(8))).line == line_of("scaled")


def test_assert_and_trap():
    error = refused(module().get_function("asserting"), (1,), (8,), (INT(5),))
    assert error.kind == "trap" and error.thread == (5, 0, 0) and "t != n" in str(error)


def test_a_read_only_array_is_not_written():
    x = np.zeros(4, FLOAT)
    x.flags.writeable = False
    for mode, kind in (("check", "read-only"), ("fast", "fault")):
        assert refused(module(mode).get_function("scale"), (1,), (4,), (x, FLOAT(2), INT(4))).kind == kind


def test_ctrl_c_stops_an_endless_kernel():
    endless = module().get_function("endless")
    endless((1,), (32,), (np.ones(1, INT),))  # compiled and loaded now: that may take longer than the signal needs
    with subprocess.Popen(["sh", "-c", f"sleep 0.4; kill -INT {os.getpid()}"]) as killer:
        with pytest.raises(KeyboardInterrupt, match="endless"):
            endless((1,), (32,), (np.zeros(1, INT),))
        killer.wait()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    module().get_function("scale")((1,), (32,), (np.zeros(4, FLOAT), FLOAT(2), INT(4)))


def test_from_many_threads():
    x = [np.ones(256, FLOAT) for _ in range(8)]
    kernel = module().get_function("scale")
    threads = [threading.Thread(target=lambda a=a: [kernel((8,), (32,), (a, FLOAT(2), INT(256))) for _ in range(20)]) for a in x]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((a == 2.0**20).all() for a in x)


def test_what_does_not_compile_says_where():
    error = refused(RawModule(code='#line 1 "mine.cu"\nextern "C" __global__ void k(float* x) {\n  x[0] = nothing;\n}\n').compile)
    assert (error.kind, error.file, error.line) == ("compile", "mine.cu", 2) and "nothing" in str(error)


def test_names_come_from_line_marks_and_helpers_say_who_called():
    error = refused(module("check").get_function("through_a_helper"), (1,), (8,), (np.zeros(4, FLOAT),))
    assert error.file == "runner.cu" and f"called from runner.cu:{line_of('the caller')}" in str(error)
    assert "x[4], and x ends with x[3]" in str(error)


def line_of(mark):
    return next(n for n, line in enumerate(KERNELS.read_text(encoding="utf-8").splitlines(), 1) if f"// {mark}" in line)


def test_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    on_cpu_build._folder.cache_clear(), on_cpu_build.build_runtime.cache_clear()
    try:
        code = 'extern "C" __global__ void k(int* x) { x[0] = VALUE; }\n'
        first, again, other = (RawModule(code=code, options=(f"-DVALUE={v}",)) for v in (1, 1, 2))
        first.compile()
        with monkeypatch.context() as patch:
            patch.setattr(on_cpu_build, "_compile", None)  # compiling would fail now
            assert again.library_path == first.library_path
        assert other.library_path != first.library_path
        assert first.library_path.is_relative_to(tmp_path)
        assert not [p for p in first.library_path.parent.iterdir() if p.suffix != ".so"]  # nothing half made is left
        on_cpu_build._folder.cache_clear(), on_cpu_build.build_runtime.cache_clear()
        monkeypatch.setenv("MINIDL_CACHE", str(first.library_path))  # a file: no folder can be made in it
        x = np.zeros(1, INT)
        elsewhere = RawModule(code=code, options=("-DVALUE=3",))
        elsewhere.get_function("k")((1,), (1,), (x,))
        assert x[0] == 3 and not elsewhere.library_path.is_relative_to(tmp_path)
    finally:
        on_cpu_build._folder.cache_clear(), on_cpu_build.build_runtime.cache_clear()


def test_without_a_compiler(monkeypatch):
    monkeypatch.setenv("MINIDL_CXX", "no-such-compiler")
    on_cpu_build.compiler.cache_clear()
    try:
        with pytest.raises(BackendError, match="Install g\\+\\+"):
            RawModule(code='extern "C" __global__ void k(int* x) {}').compile()
        assert "no-such-compiler is not on the PATH" in on_cpu.why_no_compiler()
    finally:
        monkeypatch.undo()
        on_cpu_build.compiler.cache_clear()


@pytest.mark.skipif(bool(why_no_gdb()), reason=why_no_gdb())
def test_gdb_stops_in_the_thread_that_was_asked_for(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"""import numpy as np
from minidl.backend.cuda.on_cpu import RawModule
x = np.arange(256, dtype=np.float32)
RawModule(path={str(KERNELS)!r}, mode="debug").get_function("scale")((8,), (32,), (x, np.float32(3), np.int32(256)))
print("x[103] =", x[103])
""")
    commands = ["print blockIdx", "print threadIdx", "next", "next", "print i", "print x[i]", "delete", "continue"]
    said = step([program], "scale", (3,), (7, 0), commands, folders=[KERNELS.parent])
    for words in ("hit Breakpoint 1", "$1 = {x = 3, y = 0, z = 0}", "$2 = {x = 7, y = 0, z = 0}", "$3 = 103", "$4 = 103", "x[103] = 309.0",
                  f"{line_of('scaled')}\t"):
        assert words in said, said


def test_gdb_is_asked_for_clearly(monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(BackendError, match="Install gdb"):
        step(["x.py"], "scale")
    monkeypatch.undo()
    if not why_no_gdb():
        with pytest.raises(KernelError, match="cannot be the name"):
            step(["x.py"], "scale; shell ls")
