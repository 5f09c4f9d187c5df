"""What to run a kernel on: every call that the examples of the ops make of the backend, and the wider ones of cuda/cases.py.

Each is tried on every CUDA implementation of it, on the CPU; a Case is one such call on one of them, with the launches it
makes and how far its result is from generic's.
"""

import contextlib
import copy

import numpy as np

import minidl
from minidl import backend
from minidl.backend import cuda
from minidl.backend.cuda import cases as wide
from minidl.backend.cuda import launch
from minidl.core.errors import MinidlError
from minidl.core.function import op_call
from minidl.core.op import OPS
from minidl.core.tensor import Tensor


class Case:
    """One call of one CUDA implementation."""

    __slots__ = ("op", "implementation", "arrays", "how")

    def __init__(self, op, implementation, arrays, how):
        self.op, self.implementation, self.arrays, self.how = op, implementation, arrays, how

    def __repr__(self):
        shapes = ", ".join(str(a.shape) for a in self.arrays if a is not None)
        settings = ", ".join(f"{key}={value}" for key, value in self.how.items() if isinstance(value, (int, float, str, tuple, bool)))
        return f"{self.op} {shapes}{', ' if settings else ''}{settings}"

    def launches(self):
        """([(kernel, grid, block)] that it makes, or those before something breaks, "" or what breaks); nothing is compiled or run."""
        found = []
        try:
            with (heard(lambda kernel, grid, block, *_: found.append((kernel, grid, block))), launch.running("dry"),
                  np.errstate(all="ignore")):  # results that no kernel has filled in
                self.implementation.function(*fresh(self.arrays), **fresh(self.how))
        except MinidlError as problem:
            return found, str(problem)
        return found, ""

    def run(self, mode="fast", order="forward"):
        """The largest distance from generic's float64 result, relative to its size; None where nobody can say."""
        arrays = fresh(self.arrays)
        with launch.running(mode, order):
            result = self.implementation.function(*arrays, **fresh(self.how))
        return self._distance(result, arrays)

    def _distance(self, result, arrays):
        generic = next((i for i in backend.IMPLEMENTATIONS[self.op] if i.backend == "generic" and i.function), None)
        if generic is None:
            return None
        exact = [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == np.float32 else a for a in fresh(self.arrays)]
        how = fresh(self.how) | ({"dtype": np.dtype(np.float64)} if self.how.get("dtype") == np.float32 else {})
        right = generic.function(*exact, **how)
        if result is None:  # it works in place
            result, right = tuple(arrays), tuple(exact)
        pairs = list(zip(result, right, strict=True) if isinstance(result, tuple) else [(result, right)])
        return max((distance(a, b) for a, b in pairs if a is not None and b is not None), default=0.0)


def fresh(value):
    """The value with every array in it copied in its own memory order: a kernel may write into what it is given."""
    if isinstance(value, np.ndarray):
        return value.copy(order="K")
    if isinstance(value, (list, tuple)):
        return type(value)(fresh(v) for v in value)
    return {key: fresh(v) for key, v in value.items()} if isinstance(value, dict) else copy.copy(value)


def distance(ours, right):
    """max |ours − right| / max(1, max |right|); NaN and infinities must agree."""
    ours, right = np.asarray(ours), np.asarray(right)  # a divisor is a plain number on the CPU
    with np.errstate(all="ignore"):
        error = np.where((ours == right) | (np.isnan(ours) & np.isnan(right)), 0, np.abs(ours.astype(np.float64) - right))
    return float(error.max(initial=0) / max(1.0, np.abs(right[np.isfinite(right)]).max(initial=0)))


@contextlib.contextmanager
def heard(watcher):
    """Call the watcher before every launch inside."""
    launch.WATCHERS.append(watcher)
    try:
        yield
    finally:
        launch.WATCHERS.remove(watcher)


class Recorder(backend.Listener):
    """Keeps every call of the backend that some CUDA implementation accepts."""

    def __init__(self):
        self.cases, self.seen = [], set()

    def asked(self, op, arrays, how):
        """Note the call, once for each set of shapes and settings."""
        for implementation in backend.IMPLEMENTATIONS.get(op, []):
            key = (op, implementation.name, str([getattr(a, "shape", None) for a in arrays]), str(sorted(map(str, how.items())))[:400])
            if implementation.backend != "cuda" or key in self.seen:
                continue
            if not implementation.accepts or not implementation.accepts(*arrays, **how):
                self.seen.add(key)
                self.cases.append(Case(op, implementation, fresh(arrays), fresh(how)))


def recorded():
    """Cases from every op's examples in float32, forward and backward, and from one step of SGD and of Adam."""
    cuda.load()
    recorder = Recorder()
    backend.LISTENERS.append(recorder)
    try:
        for _, op in sorted(OPS.items()):
            for example in op.examples:
                _one_walk(op, example)
        for optimiser in (minidl.optim.SGD, minidl.optim.Adam):
            param = minidl.nn.Parameter(minidl.ones(5, 3))
            param.grad = minidl.ones(5, 3)
            optimiser([param], lr=0.1, **({"momentum": 0.9} if optimiser is minidl.optim.SGD else {})).step()
    finally:
        backend.LISTENERS.remove(recorder)
    for precision, op, arrays, how in wide.calls():
        before = wide.within(precision)
        try:
            recorder.asked(op, arrays, how)
        finally:
            wide.within(before)
    return recorder.cases


def _one_walk(op, example):
    function, inputs, settings = op_call(op, example, dtype=np.float32)
    leaves = [t.requires_grad_() if isinstance(t, Tensor) and t.is_floating_point() else t for t in inputs]
    y = function(*leaves, **settings)
    roots = [t for t in (y if isinstance(y, tuple) else (y,)) if t.requires_grad]
    if roots:
        minidl.autograd.backward(roots, [minidl.ones_like(t) for t in roots])


def cases_of(kernels):
    """([(case, its launches)] of the cases that launch one of these kernels, {what broke in other cases}); nothing is run."""
    found, broken = [], {}
    for case in recorded():
        launches, problem = case.launches()
        if any(k.name in kernels for k, _, _ in launches):
            found.append((case, launches))
        elif problem:
            broken[problem] = None
    return found, list(broken)


if __name__ == "__main__":  # the program that `minidl kernels step` runs under gdb
    import sys
    cases_of({sys.argv[1]})[0][int(sys.argv[2])][0].run("debug")
