"""Raw-array numerics, several implementations of each: reference (plain loops, the specification), generic (one
vectorised body for NumPy and CuPy), cpu (tuned NumPy), cuda (our kernels). No Tensor here, and no gradients.

An implementation is named after its backend, or backend/idea: "generic", "cpu/winograd". run() takes the first one
that accepts the call; explain() prints that decision.
"""

from minidl.backend.counters import COUNTS
from minidl.backend.shapes import SHAPES
from minidl.core.config import STATE
from minidl.core.device import on_cpu
from minidl.core.errors import BackendError, explained

IMPLEMENTATIONS = {}  # op name -> its implementations, the preferred one first
_ORDER = ("cuda", "cpu", "generic", "reference")


class Implementation:
    """One way to compute an op: a function of arrays, and a predicate that says "" or why it cannot."""

    __slots__ = ("name", "backend", "function", "accepts")

    def __init__(self, name, function, accepts):
        self.name, self.function, self.accepts = name, function, accepts
        self.backend = name.partition("/")[0]

    def refusal(self, arrays, how):
        """"" if this implementation can do the call, else the reason."""
        if self.backend != "generic":  # which runs anywhere
            first = next(a for a in arrays if a is not None)
            if self.backend == "cuda" and on_cpu(first):
                return "the arrays are on the CPU"
            if self.backend in ("cpu", "reference") and not on_cpu(first):
                return "the arrays are on a GPU"
        return self.accepts(*arrays, **how) if self.accepts else ""


def implements(op, name, accepts=None):
    """Register a function as the implementation `name` of an op. Within one backend the first registered is preferred."""

    def register(function):
        listed = IMPLEMENTATIONS.setdefault(op, [])
        listed.append(Implementation(name, function, accepts))
        listed.sort(key=lambda i: _ORDER.index(i.name.partition("/")[0]))
        return function

    return register


def run(op, *arrays, **how):
    """Compute an op on raw arrays with the first implementation that accepts them, or with the one use_backend() forces."""
    for implementation in _candidates(op):
        refusal = implementation.refusal(arrays, how)
        if not refusal:
            return implementation.function(*arrays, **how)
        COUNTS[f"{op}: {implementation.name} refused: {refusal}"] += 1
    raise explained(
        BackendError, op, f"no implementation{' named ' + STATE.backend if STATE.backend else ''} can do this call.",
        [f"{name}: {reason}" for name, reason in _refusals(op, arrays, how)] or [f"{op} has: {', '.join(names(op))}"],
        "Leave use_backend() out to let minidl choose." if STATE.backend else "Move the tensors, or change the settings named above.")


def names(op):
    """The implementations of an op, the preferred one first."""
    return [i.name for i in IMPLEMENTATIONS.get(op, [])]


def explain(op, *inputs, **how):
    """Which implementation would run this call, and why not the others: a printable text."""
    arrays = [getattr(x, "array", x) for x in inputs]
    chosen = next((i for i in _candidates(op) if not i.refusal(arrays, how)), None)
    forced = f"   (forced: use_backend({STATE.backend!r}))" if STATE.backend else ""
    lines = [f"{op} runs on {chosen.name if chosen else 'nothing'}{forced}"]
    for implementation in IMPLEMENTATIONS.get(op, []):
        reason = implementation.refusal(arrays, how)
        if implementation is chosen:
            reason = "chosen: the first in order that accepts this call"
        elif not reason:
            reason = "accepts this call too"
        lines.append(f"    {implementation.name:<24} {reason}")
    return "\n".join(lines)


def _candidates(op):
    listed, forced = IMPLEMENTATIONS.get(op, []), STATE.backend
    if forced == "shapes" and op in SHAPES:
        return [Implementation("generic/shapes", SHAPES[op], None)]
    return listed if forced in (None, "shapes") else [i for i in listed if forced in (i.name, i.name.partition("/")[0])]


def _refusals(op, arrays, how):
    return [(i.name, i.refusal(arrays, how)) for i in _candidates(op)]


from minidl.backend import generic, reference  # noqa: E402, F401 - importing them fills IMPLEMENTATIONS
