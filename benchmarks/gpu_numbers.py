"""Are the numbers right on this device? Every kernel's own cases, every op of the registry, compute-sanitizer where it is."""

import functools
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

import minidl
from minidl.core.function import op_call
from minidl.core.op import OPS
from minidl.core.tensor import Tensor

ROOT = Path(__file__).resolve().parents[1]


def kernel_jobs(dry_run):
    """One job per kernel: its case in tests/kernels, its arrays copied to the device and back. Tensor cores first: their layout
    was written down from the manual and has to be seen on a device once."""
    sys.path.insert(0, str(ROOT / "tests" / "kernels"))
    cases = {}
    for path in sorted((ROOT / "tests" / "kernels").glob("test_*_kernels.py")):
        cases.update(getattr(importlib.import_module(path.stem), "CASES", {}))
    by_address = [name for name in cases if name.endswith("_all_parameters")]  # they take a table of addresses: copies would have others
    names = sorted(set(cases) - set(by_address), key=lambda name: ("tf32" not in name, name))

    def job(name):
        def run():
            cases[name]("device", "forward")
            return [{"note": "the layout of the tensor cores' fragments" if "tf32" in name else None}]
        return run

    return {**{f"kernel {name}": job(name) for name in names[:6 if dry_run else None]},
            **{f"kernel {name}": functools.partial(optimiser, name.partition("_")[0]) for name in by_address}}


def optimiser(name):
    """Three steps of SGD or Adam over parameters of ragged sizes, on the device and on the CPU."""
    make = {"sgd": functools.partial(minidl.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01), "adam": minidl.optim.Adam}[name]

    def trained(place):
        rng = np.random.default_rng(0)
        params = [minidl.nn.Parameter(minidl.tensor(rng.standard_normal(shape).astype("f4"), device=place))
                  for shape in ((1,), (31, 33), (3, 4, 3, 3), (70001,))]
        steps = make(params)
        for _ in range(3):
            for param in params:
                param.grad = minidl.tensor(rng.standard_normal(param.shape).astype("f4"), device=place)
            steps.step()
        return [param.detach().cpu().numpy() for param in params]

    worst = difference(trained("cpu"), trained("cuda"))
    if not worst <= 1e-5:
        raise AssertionError(f"{name}: off by {worst:.2e}")
    return [{"precision": "float32", "max_err": worst}]


def flat(value):
    """The Tensors in nested arguments."""
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in flat(v)]
    return [value] if isinstance(value, Tensor) else []


def on(value, place, leaf=True):
    """The same nesting with fresh Tensors on a device."""
    if isinstance(value, (list, tuple)):
        return type(value)(on(v, place) for v in value)
    if isinstance(value, Tensor):
        moved = value.detach().to(place)
        return Tensor(moved.array, leaf and moved.is_floating_point())
    return value


def walked(op, inputs, settings, place, order):
    """Results, gradients and with order 2 the gradients of a combination of them, all as NumPy arrays."""
    inputs = on(inputs, place)
    y = op.function(*inputs, **{key: on(value, place, False) for key, value in settings.items()})
    ys = y if isinstance(y, tuple) else (y,)
    roots, leaves, rng = [t for t in ys if t.requires_grad], [t for t in flat(inputs) if t.requires_grad], np.random.default_rng(0)

    def drawn(t):
        return minidl.tensor(np.asarray(rng.standard_normal(t.shape), t.dtype), device=place)

    found = list(ys)
    if roots and leaves:
        cotangents = [drawn(t).requires_grad_() for t in roots]
        grads = [g for g in minidl.autograd.grad(roots, leaves, cotangents, create_graph=order == 2, allow_unused=True) if g is not None]
        found += grads
        again = [g for g in grads if g.requires_grad] if order == 2 else []
        if again:
            found += [g for g in minidl.autograd.grad(again, [*leaves, *cotangents], [drawn(g) for g in again], allow_unused=True)
                      if g is not None]
    return [t.detach().cpu().numpy() for t in found]


def difference(here, there):
    """max |a − b| / max(1, max |a|) over pairs of arrays; inf where shapes or dtypes differ."""
    worst = 0.0
    for a, b in zip(here, there, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        with np.errstate(all="ignore"):
            wrong = ~((a == b) | ((a != a) & (b != b)))
            error = np.where(wrong, np.abs(a.astype(np.float64) - b), 0.0)
        worst = max(worst, float(np.nan_to_num(error, nan=np.inf).max(initial=0) / max(1.0, np.abs(a[np.isfinite(a)]).max(initial=0))))
    return worst


def op_jobs(dry_run):
    """One job per op: every example, float32 (our kernels) and float64 (generic) against the CPU, to second order, and again for bits."""
    def job(op):
        def run():
            rows = []
            for dtype, allowed in ((np.float32, 2e-4), (np.float64, 1e-9)):
                worst = 0.0
                for example in op.examples:
                    _, inputs, settings = op_call(op, example, dtype=dtype)
                    order = 2 if dtype == np.float64 else 1
                    here, there = (walked(op, inputs, settings, place, order) for place in ("cpu", "cuda"))
                    worst = max(worst, difference(here, there))
                    if any(a.tobytes() != b.tobytes() for a, b in zip(there, walked(op, inputs, settings, "cuda", order), strict=True)):
                        raise AssertionError(f"{op.name}: the same input gave other bits the second time ({np.dtype(dtype)})")
                if not worst <= allowed:
                    raise AssertionError(f"{op.name}: off by {worst:.2e} in {np.dtype(dtype)}, allowed {allowed:.0e}")
                rows.append({"name": f"op {op.name}", "precision": str(np.dtype(dtype)), "max_err": worst})
            return rows
        return run

    return {f"op {name}": job(op) for name, op in sorted(OPS.items())[::10 if dry_run else 1]}


SANITIZED = """
import numpy as np, minidl
from minidl import nn
x = minidl.randn(2, 8, 9, 9).cuda().requires_grad_()
net = nn.Sequential(nn.Conv2d(8, 20, 3, padding=1), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(320, 5)).cuda()
nn.functional.cross_entropy(net(x), minidl.tensor([1, 4]).cuda()).backward()
with minidl.use_tf32():
    net[0](x).sum().backward()
minidl.cuda.synchronize()
print("done")
"""


def sanitizer_jobs(dry_run):
    """compute-sanitizer's memcheck and racecheck over a small network, if it is installed."""
    found = [shutil.which("compute-sanitizer"), *map(str, Path(sys.prefix).rglob("compute-sanitizer"))]
    program = next((path for path in found if path and os.access(path, os.X_OK)), None)

    def job(tool):
        def run():
            if program is None or dry_run:
                return [{"note": "compute-sanitizer is not installed: not run" if program is None else "not run: a dry run"}]
            done = subprocess.run([program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SANITIZED], cwd=ROOT,
                                  capture_output=True, text=True, timeout=60)
            if done.returncode or "done" not in done.stdout:
                raise AssertionError(f"{tool}: {(done.stdout + done.stderr)[-500:]}")
            return [{"note": "no error found"}]
        return run

    return {f"compute-sanitizer {tool}": job(tool) for tool in ("memcheck", "racecheck")}


JOBS = {"kernels": kernel_jobs, "ops": op_jobs, "sanitizer": sanitizer_jobs}
