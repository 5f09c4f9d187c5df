"""Raw-array numerics, several implementations of each: reference (plain loops, the specification), generic (one
vectorised body for NumPy and CuPy), cpu (tuned NumPy), cuda (our kernels). No Tensor here, and no gradients.

An implementation is named after its backend, or backend/idea: "generic", "cpu/winograd". run() takes the first one
that accepts the call; explain() prints that decision.
"""

from time import perf_counter

from minidl.backend.counters import COUNTS
from minidl.backend.shapes import SHAPES
from minidl.core.config import STATE
from minidl.core.device import on_cpu
from minidl.core.errors import BackendError, explained

IMPLEMENTATIONS = {}  # op name -> its implementations, the preferred one first
LISTENERS = []        # Listeners that hear of every run(), in all threads; empty, they cost nothing
_ORDER = ("cuda", "cpu", "generic", "reference")


class NotFor(str):
    """A refusal that loses nothing: the call is none of those that the implementation is for, and another one is.

    Any other refusal counts as a fallback where the call ends in another backend: something faster exists and could not run.
    """

    __slots__ = ()


_ON_CPU, _ON_GPU = NotFor("the arrays are on the CPU"), NotFor("the arrays are on a GPU")


class Implementation:
    """One way to compute an op: a function of arrays, and a predicate that says "" or why it cannot."""

    __slots__ = ("name", "backend", "function", "accepts", "why")

    def __init__(self, name, function, accepts, why=""):
        self.name, self.function, self.accepts = name, function, accepts
        self.backend = name.partition("/")[0]
        self.why = why or (function.__doc__ or "").partition("\n")[0]  # what explain() says when it is chosen

    def refusal(self, arrays, how):
        """"" if this implementation can do the call, else the reason."""
        if self.backend != "generic":  # which runs anywhere
            first = arrays[0]  # a generator for every call would take half as long as a small product
            if first is None:
                first = next(a for a in arrays if a is not None)
            if on_cpu(first) is (self.backend == "cuda"):
                return _ON_CPU if self.backend == "cuda" else _ON_GPU
        return self.accepts(*arrays, **how) if self.accepts else ""


class Listener:
    """What may stand in LISTENERS: a stepper that names the implementation, a profiler, a recorder of calls."""

    def asked(self, op, arrays, how):
        """run() was called, and nothing is decided yet. What this raises, the caller of run() gets."""

    def ran(self, op, implementation, arrays, how, result, seconds):
        """An implementation has run: its `name`, what went in, what came out, how long it took."""


def implements(op, name, accepts=None, why=""):
    """Register a function as the implementation `name` of an op. Within one backend the first registered is preferred.

    `accepts(*arrays, **how)` returns "" or why not; `why` is one line on what it is good for (else its docstring's first).
    """

    def register(function):
        listed = IMPLEMENTATIONS.setdefault(op, [])
        listed.append(Implementation(name, function, accepts, why))
        listed.sort(key=lambda i: _ORDER.index(i.name.partition("/")[0]))
        return function

    return register


def run(op, *arrays, **how):
    """Compute an op on raw arrays with the first implementation that accepts them, or with the one use_backend() forces."""
    for listener in LISTENERS:
        listener.asked(op, arrays, how)
    refused = None
    for implementation in _candidates(op):
        refusal = implementation.refusal(arrays, how)
        if refusal:
            refused = [*(refused or ()), (implementation, refusal)]
            continue
        if refused:
            _count_fallbacks(op, refused, implementation)
        return _overheard(op, implementation, arrays, how) if LISTENERS else implementation.function(*arrays, **how)
    raise explained(
        BackendError, op, f"no implementation{' named ' + STATE.backend if STATE.backend else ''} can do this call.",
        [f"{implementation.name}: {reason}" for implementation, reason in refused or ()] or [f"{op} has: {', '.join(names(op))}"],
        "Leave use_backend() out to let minidl choose." if STATE.backend else "Move the tensors, or change the settings named above.")


def _count_fallbacks(op, refused, taken):
    """Count the refusals that sent the call down to another backend; a rung that leaves a call to the next rung lost nothing."""
    for implementation, refusal in refused:
        if implementation.backend != taken.backend and not isinstance(refusal, NotFor):
            COUNTS[f"{op}: {implementation.name} refused: {refusal}"] += 1


def _overheard(op, implementation, arrays, how):
    """Run it and tell the listeners; a copy of the list, so that one may leave."""
    started = perf_counter()
    result = implementation.function(*arrays, **how)
    seconds = perf_counter() - started
    for listener in tuple(LISTENERS):
        listener.ran(op, implementation, arrays, how, result, seconds)
    return result


def names(op):
    """The implementations of an op, the preferred one first."""
    cuda.load()
    return [i.name for i in IMPLEMENTATIONS.get(op, [])]


def decide(op, arrays, how):
    """[(implementation, its refusal or "", is it the one that runs)], the preferred one first."""
    cuda.load()
    candidates, listed = _candidates(op), list(IMPLEMENTATIONS.get(op, []))
    refusals = {id(i): i.refusal(arrays, how) for i in (*candidates, *listed)}
    chosen = next((i for i in candidates if not refusals[id(i)]), None)
    if chosen is not None and chosen not in listed:  # use_backend("shapes") computes nothing and is not listed
        listed.insert(0, chosen)
        refusals[id(chosen)] = ""
    return [(i, refusals[id(i)], i is chosen) for i in listed]


def explain(op, *arrays, **how):
    """Which implementation would run this call of run(), and why not the others: a printable text."""
    decision = decide(op, arrays, how)
    taken = next((i.name for i, _, chosen in decision if chosen), "nothing")
    forced = f"   (forced: use_backend({STATE.backend!r}))" if STATE.backend else ""
    lines = [f"{op} runs on {taken}{forced}"]
    for implementation, refusal, chosen in decision:
        if chosen:
            refusal = "chosen: " + (implementation.why or "the first in order that accepts this call")
        lines.append(f"    {implementation.name:<24} {refusal or 'accepts this call too'}")
    return "\n".join(lines)


def _candidates(op):
    listed, forced = IMPLEMENTATIONS.get(op, ()), STATE.backend
    if forced is None:
        return listed
    if forced == "shapes":
        return [Implementation("generic/shapes", SHAPES[op], None)] if op in SHAPES else listed
    return [i for i in listed if forced in (i.name, i.name.partition("/")[0])]


from minidl.backend import cpu, cuda, generic, reference  # noqa: E402, F401 - importing them fills IMPLEMENTATIONS
