"""detect_anomaly(): the first cause of a NaN, not its symptom.

Every op that runs inside is watched. An infinity is only remembered, with the op that made it (log(0) may be masked
out later); a NaN, or a loss that is not finite, raises and names the earliest op in that value's own ancestry that
made a non-finite number out of finite ones. What a mask, a pad or a constant put there on purpose is nobody's fault.
"""

import threading
import weakref

import numpy as np

from minidl.core.config import use_winograd
from minidl.core.derivative import WATCHERS
from minidl.core.device import array_module, on_cpu
from minidl.core.errors import GraphError
from minidl.core.op import OBSERVERS, resolve
from minidl.core.tensor import Tensor

PLACED = {"where", "masked_fill", "pad"}  # ops through which people put infinities on purpose


class AnomalyError(GraphError):
    """A NaN, or an infinite loss. `.op`, `.site` (file, line) and `.index` say where it began."""

    def __init__(self, text, op, site, index):
        super().__init__(text)
        self.op, self.site, self.index = op, site, index


class Seen:
    """What is known about one array: how big it is, which op made it, from what, and who made it non-finite first."""

    __slots__ = ("array", "name", "site", "biggest", "parent", "cause")

    def __init__(self, array, name, site, biggest, parent, cause):
        self.array = array      # a weak reference: ids are used again
        self.name = name        # the op, or "a leaf"
        self.site = site
        self.biggest = biggest  # the largest finite |value|
        self.parent = parent    # the input with the largest |value|: the way a growth came
        self.cause = cause      # a text that names the first cause, or None while all is finite or on purpose


class detect_anomaly:  # noqa: N801 - PyTorch's name
    """`with detect_anomaly():` a NaN in the forward, a loss that is not finite, and a NaN gradient raise AnomalyError.

    Inside, convolutions do without Winograd, which spreads a NaN over its tile.
    """

    def __init__(self):
        self.seen = {}     # id(array) -> Seen
        self.by_node = {}  # id(node) -> Seen of its first output: to know the loss when a walk starts

    def __enter__(self):
        self.thread = threading.get_ident()
        self.exact = use_winograd(False).__enter__()
        OBSERVERS.append(self.observe)
        WATCHERS.append(self.watch)
        return self

    def __exit__(self, *_):
        self.exact.__exit__()
        OBSERVERS.remove(self.observe)
        WATCHERS.remove(self.watch)
        self.seen.clear()
        self.by_node.clear()

    # --- forward ----------------------------------------------------------------------------------------------
    def observe(self, call):
        """After every op: compare what came out with what went in."""
        if call.inside is not None or threading.get_ident() != self.thread:
            return  # another thread's business; and the ops of a backward are judged by their step
        inputs = [self.known(x) for x in call.inputs if isinstance(x, Tensor) and x.dtype.kind == "f"]
        for number, y in enumerate(call.outputs):
            if y.dtype.kind != "f":
                continue
            bad, biggest = non_finite(y.array), magnitude(y.array)
            parent = max(inputs, key=lambda s: s.biggest, default=None)
            seen = Seen(None, call.op.name, call.site, biggest, parent, None)
            if bad is not None:
                inherited = next((s.cause for s in inputs if s.cause), None)
                if inherited:
                    seen.cause = inherited
                elif not holds_non_finite(call) or (bad[1] and call.op.name not in PLACED):
                    seen.cause = None if call.op.name in PLACED else Cause(call, y, bad, parent)
                if bad[1]:
                    cause = seen.cause or Cause(call, y, bad, parent)
                    raise cause.error(f"{call.op.name} gave NaN", call)
            self.remember(y.array, seen)
            if number == 0 and y.edge is not None:
                self.by_node[id(y.edge[0])] = (weakref.ref(y.edge[0]), seen, bad)

    def known(self, x):
        """The record of an input; a tensor seen for the first time is a leaf, and answers for the NaN it brings."""
        found = self.seen.get(id(x.array))
        if found is None or found.array() is not x.array:
            bad = non_finite(x.array)
            found = Seen(None, "a leaf", None, magnitude(x.array), None, LeafCause(x, bad) if bad and bad[1] else None)
            self.remember(x.array, found)
        return found

    def remember(self, array, seen):
        key = id(array)
        seen.array = weakref.ref(array, lambda _: self.seen.pop(key, None) if self.seen.get(key) is seen else None)
        self.seen[key] = seen

    # --- backward ---------------------------------------------------------------------------------------------
    def watch(self, steps):
        """Look at the loss when a walk starts, then at every step of it."""
        if threading.get_ident() != self.thread:
            yield from steps
            return
        first = True
        for step in steps:
            if first:
                node, seen, bad = self.by_node.get(id(step.node), (lambda: None, None, None))
                if node() is step.node and bad is not None and seen.cause:
                    raise seen.cause.error("the loss is not finite", None)
                first = False
            before = [g for g in step.grads_in if g is not None]
            for number, grad in enumerate(step.grads_out):
                bad = grad is not None and non_finite(grad.array)
                if bad and not any(non_finite(g.array) for g in before):
                    name, (file, line) = step.node.op.name, resolve(step.node.site)
                    raise AnomalyError("\n    ".join([
                        f"detect_anomaly: the backward of {name} made {'NaN' if bad[1] else 'an infinity'} from finite gradients.",
                        f"in grad_{step.node.op.input_name(number)} {grad.shape} at index {bad[0]}",
                        f"forward: {file}:{line}",
                        "The slope is infinite or undefined there (sqrt at 0, 0/0, pow at 0): keep its input away from that point."]),
                        name, (file, line), bad[0])
            yield step


class Cause:
    """The op that made a non-finite number out of finite ones, described while its operands are still there."""

    def __init__(self, call, y, bad, parent):
        self.op, self.site, self.index = call.op.name, resolve(call.site), bad[0]
        self.facts = [f"{self.op} made {'NaN' if np.isnan(y.array[bad[0]]) else 'an infinity'} at index {bad[0]} of its result {y.shape}",
                      f"called at {self.site[0]}:{self.site[1]}"]
        for name, x in zip(_names(call), call.inputs, strict=True):
            if isinstance(x, Tensor):
                self.facts.append(f"{name} {x.shape}: {_operand(x.array, y.shape, bad[0])}")
            elif x is not None:
                self.facts.append(f"{name} = {x}")
        growth = _growth(parent)
        if growth:
            self.facts.append(growth)

    def error(self, what, call):
        """The exception for this cause, seen as `what`."""
        later = [] if call is None or call.op.name == self.op and resolve(call.site) == self.site else [f"it showed at {_where(call)}"]
        return AnomalyError("\n    ".join([f"detect_anomaly: {what}.", *self.facts, *later,
                                           "Mend that op's input: a clamp, an eps, a smaller step, or log_softmax for log(softmax)."]),
                            self.op, self.site, self.index)


class LeafCause(Cause):
    """A NaN that came in from outside: a bad weight, a bad pixel."""

    def __init__(self, x, bad):
        self.op, self.site, self.index = "a leaf", None, bad[0]
        whose = "it is data: look at its source"
        if x.requires_grad:
            whose = "it requires grad: a parameter went bad (look at the last optimiser step)"
        self.facts = [f"a leaf tensor {x.shape} holds NaN at index {bad[0]}: no op made it", whose]


def non_finite(array):
    """None if every element is finite, else (index, has NaN): the first NaN, or the first infinity where there is none."""
    xp = array_module(array)
    with np.errstate(all="ignore"):
        if array.size == 0 or bool(xp.isfinite(array.sum(dtype="float64"))):  # one pass; an overflow here only costs a second look
            return None
        nan = xp.isnan(array)
        has_nan = bool(nan.any())
        bad = nan if has_nan else ~xp.isfinite(array)
    if not bool(bad.any()):
        return None
    return tuple(int(k) for k in np.unravel_index(int(bad.argmax()), array.shape)), has_nan


def magnitude(array):
    """The largest finite absolute value."""
    if array.size == 0:
        return 0.0
    values = np.abs(array if on_cpu(array) else array.get())
    biggest = float(values.max())
    return biggest if np.isfinite(biggest) else float(values[np.isfinite(values)].max(initial=0.0))


def holds_non_finite(call):
    """Does any operand hold a NaN or an infinity already?"""
    return any(isinstance(x, Tensor) and x.dtype.kind == "f" and non_finite(x.array) for x in call.inputs) or any(
        isinstance(x, float) and not np.isfinite(x) for x in call.inputs)


def _names(call):
    return [call.op.input_name(k) for k in range(len(call.inputs))]


def _operand(array, shape, index):
    """The operand at the offending index where shapes broadcast, else its range."""
    try:
        return f"{float(np.broadcast_to(array, shape)[index]):.6g} there"
    except ValueError:
        return f"between {float(array.min()):.4g} and {float(array.max()):.4g}"


def _growth(seen):
    """Where the values grew a thousandfold on the way here."""
    path = []
    while seen is not None and len(path) < 50:
        path.append(seen)
        seen = seen.parent
    for small in path[1:]:
        if small.biggest and path[0].biggest / small.biggest >= 1000:
            k = path.index(small)
            maker = path[k - 1]
            return f"values grew before: |max| {small.biggest:.3g} went into {_where(maker)}, {path[0].biggest:.3g} came here"
    return ""


def _where(thing):
    name = thing.name if isinstance(thing, Seen) else thing.op.name
    if thing.site is None:
        return name
    file, line = resolve(thing.site)
    return f"{name} ({file}:{line})"


__all__ = ["AnomalyError", "detect_anomaly"]
