"""The stand-in for cupy is as strict as cupy: what would fail, or go wrong in silence, on a GPU fails on it."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl.backend.cuda import stand_in, stand_in_names
from minidl.backend.cuda.launch import kernel
from minidl.backend.cuda.on_cpu import KernelError, why_no_compiler
from minidl.backend.cuda.stand_in import installed
from minidl.core.device import why_no_cuda
from minidl.core.guard import owner_of


@pytest.fixture
def cupy():
    with installed():
        yield importlib.import_module("cupy")


def test_it_is_there_inside_and_gone_after():
    before = sys.modules.get("cupy"), why_no_cuda()
    with installed() as module:
        assert sys.modules["cupy"] is module and why_no_cuda() == ""
        with installed("check"):
            assert stand_in._MODE["mode"] == "check"
        assert sys.modules["cupy"] is module and stand_in._MODE["mode"] == "fast"
    assert (sys.modules.get("cupy"), why_no_cuda()) == before


REFUSED = {
    "conversion": (TypeError, lambda cp: np.asarray(cp.ones(3))),
    "NumPy on the left": (TypeError, lambda cp: np.ones(3) + cp.ones(3)),
    "NumPy on the right": (TypeError, lambda cp: cp.ones(3) * np.ones(3)),
    "NumPy in a function": (TypeError, lambda cp: cp.where(np.ones(3, bool), 1, 2)),
    "NumPy in a list": (TypeError, lambda cp: cp.concatenate([cp.ones(3), np.ones(3)])),
    "NumPy as an index": (TypeError, lambda cp: cp.ones(3)[np.array([1])]),
    "NumPy assigned": (TypeError, lambda cp: cp.ones(3).__setitem__(slice(None), np.ones(3))),
    "NumPy as out": (TypeError, lambda cp: np.add(cp.ones(3), 1, out=np.ones(3))),
    "NumPy's function on a mixture": (TypeError, lambda cp: np.concatenate([cp.ones(3), np.ones(3)])),
    "a name cupy lacks": (AttributeError, lambda cp: cp.intersect2d),
    "a name only NumPy has": (AttributeError, lambda cp: cp.nanargpartition),
    "a method cupy lacks": (AttributeError, lambda cp: cp.ones(3).setflags),
    "a flag cupy lacks": (AttributeError, lambda cp: cp.ones(3).flags.writeable),
    "a parameter cupy lacks": (TypeError, lambda cp: cp.sum(cp.ones(3), where=cp.ones(3, bool))),
    "a method's parameter": (TypeError, lambda cp: cp.ones(3).max(initial=2)),
    "item with an index": (TypeError, lambda cp: cp.ones(3).item(1)),
    "reduce of a ufunc": (TypeError, lambda cp: np.add.reduce(cp.ones(3))),
    "an index that would wrap around": (RuntimeError, lambda cp: cp.ones(3)[cp.array([3])]),
    "take that would wrap around": (RuntimeError, lambda cp: cp.take_along_axis(cp.ones(3), cp.array([3]), 0)),
    "objects": (ValueError, lambda cp: cp.array(["a"])),
    "a second device": (RuntimeError, lambda cp: cp.cuda.Device(1)),
    "random numbers": (AttributeError, lambda cp: cp.random),
    "a bare number for a kernel's int": (KernelError, lambda cp: scale(cp)((1,), (32,), (cp.ones(4, "f4"), np.float32(2), 4))),
    "a NumPy array for a kernel": (TypeError, lambda cp: scale(cp)((1,), (32,), (np.ones(4, "f4"), np.float32(2), np.int32(4)))),
    "a grid that is no tuple": (TypeError, lambda cp: scale(cp)(1, 32, (cp.ones(4, "f4"), np.float32(2), np.int32(4)))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(cupy, what):
    if what in list(REFUSED)[-3:] and why_no_compiler():
        pytest.skip(why_no_compiler())
    kind, call = REFUSED[what]
    with pytest.raises(kind):
        call(cupy)


SCALE = 'extern "C" __global__ void scale(float* x, float by, int n) { int i = threadIdx.x; if (i < n) x[i] *= by; }\n'


def scale(cupy):
    return cupy.RawModule(code=SCALE, options=()).get_function("scale")


@pytest.mark.skipif(bool(why_no_compiler()), reason=why_no_compiler())
def test_a_kernel_writes_into_a_device_array(cupy):
    x = cupy.arange(6, dtype="f4")
    scale(cupy)((1,), (32,), (x, np.float32(2), np.int32(6)))
    assert x.get().tolist() == [0, 2, 4, 6, 8, 10]
    scale(cupy)((1,), (32,), (x[2:], np.float32(2), np.int32(2)))
    assert x.get().tolist() == [0, 2, 8, 12, 8, 10]


@pytest.mark.skipif(bool(why_no_compiler()), reason=why_no_compiler())
def test_check_mode_follows_tables_of_addresses():
    code = '''extern "C" __global__ void one(const unsigned long long* table, float* unused, int n) {
      float* x = (float*)table[threadIdx.x / 4];
      x[threadIdx.x % 4 + n] += 1.f;
    }'''
    with installed("check") as cp:
        arrays = [cp.zeros(4, "f4") for _ in range(3)]
        table = cp.array([a.data.ptr for a in arrays], "u8")
        kernel = cp.RawModule(code=code).get_function("one")
        kernel((1,), (12,), (table, cp.zeros(1, "f4"), np.int32(0)))
        assert all(a.get().tolist() == [1, 1, 1, 1] for a in arrays)
        with pytest.raises(KernelError):
            kernel((1,), (12,), (table, cp.zeros(1, "f4"), np.int32(1 << 20)))


@pytest.mark.skipif(bool(why_no_compiler()), reason=why_no_compiler())
def test_a_launched_kernel_follows_the_mode(tmp_path):
    """The launcher keeps compiled kernels; one that ran in fast mode must not stay there when check mode is asked for."""
    (tmp_path / "race.cu").write_text('extern "C" __global__ void everybody(float* x, int n) { x[0] = (float)threadIdx.x; }\n')
    everybody = kernel(str(tmp_path / "race.cu"), "everybody")
    for mode, order, last in [("fast", "forward", 31), ("check", "forward", None), ("fast", "reverse", 0), ("fast", "forward", 31)]:
        with installed(mode, order) as cp:
            x = cp.zeros(1, "f4")
            if mode == "check":
                with pytest.raises(KernelError, match="two threads touch the same memory"):
                    everybody((1,), (32,), x=x, n=1)
            else:
                everybody((1,), (32,), x=x, n=1)
                assert x.get() == last, (mode, order)


def test_results_are_arrays_and_forget_storage_order(cupy):
    image = cupy.zeros((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    assert not image.flags.c_contiguous
    for y in (image + 1, np.exp(image), cupy.where(image > 0, image, 1), image.copy(), cupy.maximum(image, 0), cupy.clip(image, 0, 1)):
        assert isinstance(y, cupy.ndarray) and y.flags.c_contiguous
    out = cupy.empty((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    assert cupy.add(image, 1, out=out) is out and not out.flags.c_contiguous
    assert not cupy.empty_like(image).flags.c_contiguous and not image.astype("f4").flags.c_contiguous
    total = image.sum()
    assert isinstance(total, cupy.ndarray) and total.shape == () and float(total) == 0
    assert isinstance(image[0, 0, 0, 0], cupy.ndarray)
    image[0, 0, 0, 0] += 1
    view = image[0, 0, 0, 0]
    view += 1
    assert float(image.max()) == 2


def test_operators_are_numpys(cupy):
    x, y = np.array([1.5, -2, 3]), np.array([2.0, 5, -1])
    a, b = cupy.asarray(x), cupy.asarray(y)
    for op in ("__add__", "__sub__", "__mul__", "__truediv__", "__floordiv__", "__mod__", "__lt__", "__eq__", "__matmul__"):
        assert np.array_equal(getattr(a, op)(b).get(), getattr(x, op)(y)), op
    assert np.array_equal((2 - a).get(), 2 - x) and np.array_equal((np.float64(2) ** b).get(), np.float64(2) ** y)
    a -= b
    assert np.array_equal(a.get(), x - y) and np.array_equal(abs(-a).get(), abs(y - x))
    assert [float(v) for v in a] == (x - y).tolist() and len(a) == 3 and bool(a[0] == -0.5)


def test_uninitialised_memory_is_poisoned(cupy):
    assert np.isnan(cupy.empty(3).get()).all() and (cupy.empty(3, int).get() == -1).all()


def test_views_share_one_allocation(cupy):
    x = cupy.zeros((4, 4))
    assert owner_of(x) is owner_of(x[1:].T) is owner_of(x.reshape(-1)[3:])
    assert owner_of(x) is not owner_of(x.copy())
    windows = cupy.lib.stride_tricks.sliding_window_view(x, (2, 2))
    assert owner_of(windows) is owner_of(x)
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    y = cupy.zeros(1000)
    assert pool.used_bytes() == before + 8000
    del y
    assert pool.used_bytes() == before


def test_streams_and_events_exist(cupy):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, cupy.cuda.Device(0):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(), end.record(stream)
        end.synchronize(), stream.wait_event(end)
        assert cupy.cuda.get_current_stream() is stream and cupy.cuda.get_elapsed_time(start, end) >= 0
    cupy.cuda.Stream.null.synchronize(), cupy.cuda.runtime.deviceSynchronize()
    assert cupy.cuda.runtime.getDeviceProperties(0)["name"] and cupy.cuda.runtime.memGetInfo()[0] > 0


def test_every_name_of_the_tables_is_numpys_too():
    functions, methods = stand_in_names.table(stand_in_names.FUNCTIONS), stand_in_names.table(stand_in_names.METHODS)
    assert len(functions) > 200 and len(methods) > 50
    ours = {"reduced_view", "scatter_add", "scatter_max", "scatter_min", "mdspan", "toDlpack", "get", "set"}
    gone = [n for n in [*functions, *stand_in_names.UFUNCS.split(), *stand_in_names.PLAIN.split()] if not hasattr(np, n)]
    assert len(gone) <= 10, gone  # another NumPy may have dropped some
    assert [n for n in methods if not hasattr(np.ndarray, n) and n not in ours and n != "ptp"] == []


def test_a_gradient_on_the_stand_in_is_the_one_on_numpy(cupy):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 2))
    grads = []
    for device in ("cpu", "cuda"):
        a, b = (minidl.tensor(v, device=device, requires_grad=True) for v in (x, w))
        y = minidl.nn.functional.conv2d(a, b, padding=1).relu()
        (y * y).mean().backward()
        grads.append([g.to("cpu").numpy() for g in (a.grad, b.grad)])
    for ours, wanted in zip(*grads, strict=True):
        assert np.abs(ours - wanted).max() <= 64 * np.finfo(float).eps * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.skipif(bool(why_no_compiler()), reason=why_no_compiler())
def test_the_page_trains_on_the_stand_in():
    root = Path(__file__).parents[2]
    page = (root / "docs/kernels/README.md").read_text(encoding="utf-8").partition("## Train on the stand-in")[2]
    code, said = re.search(r"```python\n(.*?)```\n```text\n(.*?)```", page, re.DOTALL).groups()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=120)
    assert (done.stdout, done.stderr) == (said, ""), done
