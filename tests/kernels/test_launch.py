"""Launching kernels: signatures read from the text, includes spliced, every argument checked by name, converted and passed on."""

import json

import numpy as np
import pytest

from minidl.backend.cuda import launch, source, stand_in, tiles
from minidl.backend.cuda.launch import kernel, running
from minidl.backend.cuda.on_cpu_build import why_no_compiler
from minidl.backend.cuda.signature import alone, signatures
from minidl.backend.layout import empty
from minidl.core.errors import ArgumentError, BackendError, DeviceError, DTypeError, FileError, ShapeError

needs_gxx = pytest.mark.skipif(bool(why_no_compiler()), reason="NO KERNEL IS RUN HERE: g++ is missing")

AXPY = """// y += a · x · SCALE
#ifndef SCALE
#define SCALE 1
#endif
extern "C" __global__ void __launch_bounds__(256) axpy(const float* __restrict__ x,  // may be null: then 1
    float* __restrict__ y, float a /* (the factor) */, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * (x ? x[i] : 1.f) * SCALE;
}
extern "C" __global__ void types(const double* d, const long long* l, unsigned char* b, unsigned u, long long big, double r,
                                 const void* any, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) b[i] = (unsigned char)(d[i] + l[i] + u + big + r);
}
"""


@pytest.fixture
def axpy(tmp_path):
    path = tmp_path / "axpy.cu"
    path.write_text(AXPY)
    return str(path)


def ones(n=5, dtype=np.float32):
    return np.ones(n, dtype)


# --- signatures and includes ----------------------------------------------------------------------------------------------

def test_signatures_are_read_from_the_text():
    found = signatures(AXPY)
    assert [repr(s) for s in found.values()] == [
        "axpy(const float* x, float* y, float a, int n)",
        "types(const double* d, const long long* l, unsigned char* b, unsigned u, long long big, double r, const void* any, int n)"]
    assert found["axpy"].line == 5


@pytest.mark.parametrize("text, shown", [
    ('extern "C" __global__ void f(float*x,int const n){}', "f(float* x, const int n)"),
    ('extern "C" __global__ void __launch_bounds__(BM * BN / (TM * TN), 2)\nf(const float * __restrict__ x) {}', "f(const float* x)"),
    ('extern "C" __global__ __launch_bounds__(32) void f(float4* x, unsigned long long n) {}', "f(float4* x, unsigned long long n)"),
    ('// extern "C" __global__ void no(int a)\n/* extern "C" __global__ void neither(int b) */ extern "C" __global__ void f() {}', "f()"),
])
def test_ways_to_write_a_signature(text, shown):
    (found,) = signatures(text).values()
    assert repr(found) == shown


@pytest.mark.parametrize("parameters", ["Shape s", "float** x", "int (*f)(int)", "std::size_t n"])
def test_a_parameter_of_another_kind_is_refused(parameters):
    with pytest.raises(ArgumentError, match="a pointer or a number of a plain type"):
        signatures(f'extern "C" __global__ void f({parameters}) {{}}')


def test_includes_are_spliced_once_and_lines_keep_their_numbers(tmp_path):
    (tmp_path / "a.cuh").write_text("#pragma once\nint a;\n")
    (tmp_path / "b.cuh").write_text('#include "a.cuh"\nint b;\n')
    (tmp_path / "c.cu").write_text('// c\n#include "a.cuh"\n#include "b.cuh"\nextern "C" __global__ void c(int n) {}\n')
    text = source.text_of(str(tmp_path / "c.cu"))
    assert text.count("int a;") == text.count("int b;") == 1 and "#include" not in text and "pragma once" not in text
    found = signatures(text)["c"]
    assert (found.file, found.line) == ("c.cu", 4)


TWO = """// two kernels, and a comment: extern "C" __global__ void none(int n) {
#define SCALE 2
extern "C" __global__ void __launch_bounds__(32, 1) first(float* x, int n) {
  if (n > 0) { x[0] = SCALE; }      // }
}
extern "C" __global__ void second(float* x, int n) { x[0] = n; }
int after;
"""


def test_one_kernel_alone_keeps_its_lines_and_everything_around():
    for name, other in (("first", "second"), ("second", "first")):
        text = alone(TWO, name)
        assert list(signatures(text)) == [name] and signatures(text)[name].line == signatures(TWO)[name].line
        assert other not in text and "int after;" in text.splitlines()[6] and "#define SCALE" in text.splitlines()[1]
        assert set(text) <= set(TWO) and text.count("\n") == TWO.count("\n")
    assert text.splitlines()[2:6] == ["", "", "", 'extern "C" __global__ void second(float* x, int n) { x[0] = n; }']


@needs_gxx
def test_a_kernel_with_options_is_compiled_alone(axpy, monkeypatch):
    seen = []
    monkeypatch.setattr(launch, "alone", lambda text, name: seen.append(name) or alone(text, name))
    with running():
        for defines in ({}, {"SCALE": 11}):
            kernel(axpy, "axpy", **defines)(1, 32, x=None, y=ones(), a=1.0, n=5)
    assert seen == ["axpy"]


def test_a_file_that_is_not_there():
    with pytest.raises(FileError, match="kernels/ has: batchnorm.cu"):
        kernel("nothing.cu", "f")
    with pytest.raises(BackendError, match="it has: "):
        kernel("scatter.cu", "f")


# --- arguments ------------------------------------------------------------------------------------------------------------

WRONG = [
    ({"x": ones(), "y": ones(), "a": 1.0}, ArgumentError, "missing: n"),
    ({"x": ones(), "y": ones(), "a": 1.0, "N": 5}, ArgumentError, "missing: n\n.*unknown: N"),
    ({"x": ones(), "y": ones(), "a": 1.0, "n": 5, "m": 1}, ArgumentError, "unknown: m"),
    ({"x": ones(dtype=np.float64), "y": ones(), "a": 1.0, "n": 5}, DTypeError, "x must be an array of float32"),
    ({"x": ones(10)[::2], "y": ones(), "a": 1.0, "n": 5}, ShapeError, "the memory of x must be one piece"),
    ({"x": 3.0, "y": ones(), "a": 1.0, "n": 5}, DTypeError, "x must be an array"),
    ({"x": ones(), "y": ones(), "a": 1.0, "n": 5.0}, DTypeError, "n must be a whole number"),
    ({"x": ones(), "y": ones(), "a": ones(1), "n": 5}, DTypeError, "a must be a number"),
    ({"x": ones(), "y": ones(), "a": 1.0, "n": 2**31}, ArgumentError, "n does not fit into int"),
    ({"x": ones(), "y": ones(), "a": "2", "n": 5}, DTypeError, "a must be a number"),
]


@pytest.mark.parametrize("arguments, kind, match", WRONG)
def test_wrong_arguments_are_refused_by_name(axpy, arguments, kind, match):
    with running(), pytest.raises(kind, match=match):
        kernel(axpy, "axpy")(1, 32, **arguments)


@pytest.mark.parametrize("grid, block", [((1, 1, 1, 1), 32), (1.5, 32), (-1, 32), (1, 2048), (1, (32, 64)), (1, 0), ((1, 70000), 32),
                                         ((), 32)])
def test_wrong_grids_and_blocks_are_refused(axpy, grid, block):
    with running(), pytest.raises(ArgumentError, match="grid|block"):
        kernel(axpy, "axpy")(grid, block, x=ones(), y=ones(), a=1.0, n=5)


def test_arrays_say_where_a_kernel_runs(axpy):
    with pytest.raises(DeviceError, match="takes arrays on a GPU"):
        kernel(axpy, "axpy")(1, 32, x=ones(), y=ones(), a=1.0, n=5)
    with stand_in.installed(), running(), pytest.raises(DeviceError, match=r"y: <CUDA Device 0>"):
        kernel(axpy, "axpy")(1, 32, x=ones(), y=stand_in.asarray(ones()), a=1.0, n=5)
    with running(), pytest.raises(ArgumentError, match="at least one array"):
        kernel(axpy, "axpy")(1, 32, x=None, y=None, a=1.0, n=5)


@needs_gxx
@pytest.mark.parametrize("mode", ["fast", "check", "device"])
def test_a_launch_on_numpy_arrays(axpy, mode):
    y = ones()
    with stand_in.installed(), running(mode):
        kernel(axpy, "axpy")(1, 32, x=np.arange(5, dtype=np.float32), y=y, a=2, n=np.int64(5))
        kernel(axpy, "axpy", SCALE=10)(1, 32, x=None, y=y, a=np.float64(1), n=5)  # no x, another SCALE, other number types
        kernel(axpy, "axpy")(0, 32, x=None, y=y, a=1.0, n=5)                      # no block: no work
    assert y.tolist() == [11, 13, 15, 17, 19]


@needs_gxx
def test_a_launch_on_device_arrays(axpy):
    with stand_in.installed():
        y = stand_in.asarray(ones())
        kernel(axpy, "axpy")((1,), (32,), x=stand_in.arange(5, dtype=np.float32), y=y, a=2.0, n=5)
        assert y.tolist() == [1, 3, 5, 7, 9]
        kernel(axpy, "axpy")((1,), (32,), x=None, y=y, a=1.0, n=2, shared=64 << 10)  # much shared memory is asked for
        assert y.tolist() == [2, 4, 5, 7, 9]


@needs_gxx
def test_every_type_is_converted(axpy):
    b = np.zeros(3, np.uint8)
    with running("check"):
        kernel(axpy, "types")(1, 32, d=ones(3, np.float64), l=np.arange(3), b=b, u=True, big=2**40 - 2**40 + 3, r=2, any=ones(1), n=3)
    assert b.tolist() == [7, 8, 9]


@needs_gxx
def test_images_are_passed_as_they_lie_in_memory(axpy):
    x = empty((2, 3, 2, 2), np.dtype(np.float32), np.empty(0))
    x[...] = np.arange(24).reshape(2, 3, 2, 2)
    y = np.zeros((2, 2, 2, 3), np.float32)
    with running():
        kernel(axpy, "axpy")(1, 32, x=x, y=y.transpose(0, 3, 1, 2), a=1.0, n=24)
        assert np.array_equal(y, x.transpose(0, 2, 3, 1))
        with pytest.raises(ShapeError, match="channels-last"):
            kernel(axpy, "axpy")(1, 32, x=np.zeros((2, 3, 2, 2), np.float32), y=y.transpose(0, 3, 1, 2), a=1.0, n=24)


def test_a_kernel_is_compiled_once_for_its_settings(axpy):
    assert kernel(axpy, "axpy", SCALE=2) is kernel(axpy, "axpy", SCALE=2) is not kernel(axpy, "axpy")
    assert kernel(axpy, "axpy", SCALE=2, B=True).options == ("-DB=1", "-DSCALE=2")


def test_watchers_hear_of_every_launch(axpy):
    heard = []
    launch.WATCHERS.append(lambda k, grid, block, values, shared: heard.append((k.name, grid, block, shared)))
    try:
        with running(), pytest.raises(ArgumentError):
            kernel(axpy, "axpy")(1, 32, x=ones(), y=ones(), a=1.0)
    finally:
        launch.WATCHERS.pop()
    assert heard == [], "a refused launch is none"


# --- tile shapes ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    tiles.table.cache_clear()
    yield tmp_path
    tiles.table.cache_clear()


def test_tile_shapes_come_from_the_nearest_place(cache, monkeypatch):
    with stand_in.installed():
        x = stand_in.asarray(ones())
        assert tiles.tile("k", x, BM=128, BK=8) == {"BM": 128, "BK": 8} and tiles.source("k", x) == "the default"
        tiles.keep(tiles.device_name(x), "k", {"BM": 64})
        assert tiles.tile("k", x, BM=128, BK=8) == {"BM": 64, "BK": 8} and "measured" in tiles.source("k", x)
        assert tiles.tile("k", ones(), BM=128) == {"BM": 128}, "the CPU has no table"
        given = cache / "mine.json"
        given.write_text(json.dumps({"k": {"BM": 32}}))
        monkeypatch.setenv("MINIDL_TILES", str(given))
        assert tiles.tile("k", x, BM=128) == {"BM": 32} and tiles.source("k", x) == "MINIDL_TILES"
        with tiles.override("k", BM=16):
            assert tiles.tile("k", x, BM=128) == {"BM": 16} and tiles.source("k", x) == "override()"
        assert tiles.tile("k", x, BM=128) == {"BM": 32}


def test_a_damaged_table_counts_as_none_but_a_mistake_of_ones_own_is_told(cache, monkeypatch):
    path = tiles.path_of("a GPU")
    path.parent.mkdir(parents=True)
    for text in ("{", "[1]", '{"k": {"BM": "__import__"}}', '{"k": {"B-M": 1}}', '{"k": {"BM": 99999}}', "\xff"):
        path.write_text(text, encoding="latin-1")
        tiles.table.cache_clear()
        assert tiles.table("a GPU") == {}, text
    monkeypatch.setenv("MINIDL_TILES", str(cache / "missing.json"))
    with pytest.raises(FileError, match="MINIDL_TILES"):
        tiles.tile("k", None, BM=1)
    with pytest.raises(ArgumentError, match="whole numbers"):
        tiles.override("k", BM=0).__enter__()


def test_the_quickest_shape_is_kept(cache):
    with stand_in.installed():
        x, tried = stand_in.asarray(ones()), []

        def run(shape):
            tried.append(shape)
            if shape["BM"] == 256:
                raise RuntimeError("too much shared memory")
            for _ in range(100 * shape["BM"]):
                pass

        rows = tiles.measure("k", [{"BM": 256}, {"BM": 128}, {"BM": 1}], run, x)
        assert [shape["BM"] for shape, _, _ in rows] == [1, 128, 256] and "too much" in rows[-1][2]
        assert tiles.tile("k", x, BM=64) == {"BM": 1}
