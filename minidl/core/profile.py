"""profile(): where time and memory go, per op and call site, forward and backward.

    with minidl.profile() as p:
        loss = model(x); loss.backward()
    print(p)            # a table; p.rows() and p.json() hold the same numbers
"""

import json
import threading
import weakref
from time import perf_counter

from minidl.core.derivative import WATCHERS
from minidl.core.guard import owner_of, saved_arrays
from minidl.core.op import OBSERVERS, resolve
from minidl.core.tensor import Tensor


class Row:
    """The numbers of one op at one call site."""

    __slots__ = ("op", "site", "calls", "forward", "backward", "allocated", "kept")

    def __init__(self, op, site):
        self.op, self.site = op, site
        self.calls, self.forward, self.backward, self.allocated, self.kept = 0, 0.0, 0.0, 0, 0


class profile:  # noqa: N801 - reads like no_grad
    """Watch every op inside the `with`: calls, seconds, bytes of results, bytes kept for backward, and the peak."""

    def __init__(self):
        self.table = {}      # (op name, code, instruction) -> Row
        self.live = 0        # bytes of results that are alive now
        self.peak = 0        # the most they ever were
        self.seconds = 0.0   # of the whole block
        self._owners = {}    # id(array that owns memory) -> weak reference, for counting it once
        self._kept = {}      # the same for what nodes keep

    def __enter__(self):
        self._thread = threading.get_ident()
        OBSERVERS.append(self._observe)
        WATCHERS.append(self._watch)
        self._started = perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds += perf_counter() - self._started
        OBSERVERS.remove(self._observe)
        WATCHERS.remove(self._watch)

    def _row(self, op, site):
        key = (op.name, id(site[0]), site[1])
        if key not in self.table:
            self.table[key] = Row(op.name, site)
        return self.table[key]

    def _observe(self, call):
        if threading.get_ident() != self._thread:
            return
        if call.inside is not None:  # an op inside a backward: its time belongs to that backward's step
            for y in call.outputs:
                self._count(y.array, call)
            return
        row = self._row(call.op, call.site)
        row.calls += 1
        row.forward += call.seconds
        row.allocated += sum(self._count(y.array, call) for y in call.outputs)
        node = next((y.edge[0] for y in call.outputs if y.edge is not None), None)
        if node is not None:
            row.kept += sum(_count_once(array, self._kept) for array in saved_arrays(node))

    def _count(self, array, call):
        """The bytes of a result that is not a view of an input; they are live until its memory goes."""
        owner = owner_of(array)
        if any(isinstance(x, Tensor) and owner_of(x.array) is owner for x in call.inputs):
            return 0
        size = _count_once(array, self._owners, self._gone)
        self.live += size
        self.peak = max(self.peak, self.live)
        return size

    def _gone(self, size):
        self.live -= size

    def _watch(self, steps):
        while True:
            started = perf_counter()
            step = next(steps, None)
            if step is None:
                return
            self._row(step.node.op, step.node.site).backward += perf_counter() - started
            yield step

    def rows(self):
        """One dict per op and call site, the slowest first."""
        listed = sorted(self.table.values(), key=lambda r: -(r.forward + r.backward))
        return [{"op": r.op, "site": "{}:{}".format(*resolve(r.site)), "calls": r.calls, "forward_s": r.forward, "backward_s": r.backward,
                 "allocated_bytes": r.allocated, "kept_bytes": r.kept} for r in listed]

    def json(self):
        """The same as JSON text."""
        return json.dumps({"seconds": self.seconds, "peak_bytes": self.peak, "rows": self.rows()}, indent=1)

    def __str__(self):
        lines = [f"{'op':<18}{'calls':>7}{'forward ms':>12}{'backward ms':>13}{'allocated':>12}{'kept':>12}  called at"]
        total = {"calls": 0, "forward_s": 0.0, "backward_s": 0.0, "allocated_bytes": 0, "kept_bytes": 0}
        for r in self.rows():
            lines.append(_line(r["op"], r, r["site"]))
            total = {key: total[key] + r[key] for key in total}
        lines.append(_line("all", total, f"whole block {self.seconds * 1e3:.1f} ms, peak of live results {readable_bytes(self.peak)}"))
        return "\n".join(lines)


def _line(name, r, end):
    return (f"{name:<18}{r['calls']:>7}{r['forward_s'] * 1e3:>12.2f}{r['backward_s'] * 1e3:>13.2f}"
            f"{readable_bytes(r['allocated_bytes']):>12}{readable_bytes(r['kept_bytes']):>12}  {end}")


def readable_bytes(n):
    """1536 -> '1.5 KB'."""
    for unit in ("B", "KB", "MB"):
        if abs(n) < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.2f} GB"


def _count_once(array, known, gone=None):
    """The bytes behind an array, or 0 if they were counted before and are still alive."""
    owner = owner_of(array)
    if id(owner) in known:
        return 0
    size, key = getattr(owner, "nbytes", getattr(owner, "size", 0)), id(owner)

    def forget(_):
        known.pop(key, None)
        if gone:
            gone(size)

    known[key] = weakref.ref(owner, forget)
    return size
