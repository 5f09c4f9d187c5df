"""debug(): the watchful mode. Slower; meant for hunting a bug, for tests, and for the curious.

    with minidl.debug() as d:
        train_step()
    print(d)

Inside, a saved NumPy array is read-only, so that x.array[0] = 5 fails at that very line; what escapes the lock (an older
view, a GPU) is caught by a fingerprint before the backward that would use it. float64 creeping into a float32
computation is listed with the line it began at, and so are fallbacks and layout conversions.
"""

import threading
import weakref

import numpy as np

from minidl.backend.counters import COUNTS
from minidl.core.derivative import WATCHERS
from minidl.core.guard import FINGERPRINTS, fingerprint, lock, saved_arrays, unlock
from minidl.core.op import OBSERVERS, resolve
from minidl.core.tensor import Tensor


class debug:  # noqa: N801 - reads like no_grad
    """`with debug() as d:` locks and fingerprints what backward needs; d.creeps, d.fallbacks, d.conversions tell the rest."""

    def __init__(self):
        self.creeps = []       # (op name, "file:line"): float32 went in, float64 came out
        self.fallbacks = {}    # "op: implementation: reason" -> how often a preferred implementation refused
        self.conversions = 0   # copies made only to change the storage order

    def __enter__(self):
        self._thread = threading.get_ident()
        self._before = COUNTS.copy()
        OBSERVERS.append(self._observe)
        WATCHERS.append(self._watch)
        return self

    def __exit__(self, *_):
        OBSERVERS.remove(self._observe)
        WATCHERS.remove(self._watch)
        for node in list(FINGERPRINTS):
            _release(FINGERPRINTS.pop(node))
        new = COUNTS - self._before
        self.conversions += new.pop("layout conversion", 0)
        self.fallbacks = dict(new)

    def _observe(self, call):
        if threading.get_ident() != self._thread:
            return
        floats = [x.dtype for x in call.inputs if isinstance(x, Tensor) and x.dtype.kind == "f"]
        for y in call.outputs:
            if floats and y.dtype == np.float64 and np.float64 not in floats and call.op.name != "to" and "dtype" not in call.settings:
                self.creeps.append((call.op.name, "{}:{}".format(*resolve(call.site))))
        node = next((y.edge[0] for y in call.outputs if y.edge is not None), None)
        if node is not None:
            saved = FINGERPRINTS[node] = [(array, fingerprint(array)) for array in saved_arrays(node)]
            for array, _ in saved:
                lock(array)
            weakref.finalize(node, _release, saved)

    def _watch(self, steps):
        for step in steps:
            if step.node.backward is None:  # freed: what it saved may be written again
                _release(FINGERPRINTS.pop(step.node, []))
            yield step

    def __str__(self):
        lines = [f"float64 creep: {len(self.creeps)}", *(f"    {op} at {site}" for op, site in self.creeps[:10]),
                 f"layout conversions: {self.conversions}", f"fallbacks: {sum(self.fallbacks.values())}",
                 *(f"    {count} times {what}" for what, count in self.fallbacks.items())]
        return "\n".join(lines)


def _release(saved):
    """Unlock what one node saved; once, however often it is asked."""
    while saved:
        unlock(saved.pop()[0])
