"""Where a training step goes: exactly by op, from the times of run(); roughly by kind of work, by looking every millisecond.

By kind: a thread looks which line every other thread is in. A look has to wait for the interpreter's lock, which pure
Python holds on to, so Python's share is a lower bound; idle is a thread of the pool without work while the step goes on.
"""

import linecache
import re
import sys
import threading
import time
from pathlib import Path

from minidl import backend

KINDS = ("products", "gathers", "element-wise", "Python", "idle")
PACKAGE = str(Path(backend.__file__).resolve().parents[1])
INTERVAL = 1e-3
PRODUCT = re.compile(r"matmul|einsum|\bdot\(|\S @ \S|winograd_product|small_stack")
GATHER = re.compile(r"im2col|col2im|gather|windows|tiles|copyto|\bstored\(|np\.pad|concatenate|scatter|fill\(")
WAITING = re.compile(r"tasks\.get\(\)|reduce\(_idle|sleep\(")  # in the pool: a helper that nobody has called, a leader whose part is done
ARRAYS = re.compile(r"\bnp\.|\bxp\.|out=|ufunc\(|[-+*/|]= |\.sum\(|\.mean\(|\.max\(|\[\.\.\.\] = | = .* [-+*/] ")


class ByOp(backend.Listener):
    """Seconds of every op that run() ran from this thread, those that an implementation asks for itself left out."""

    def __init__(self):
        self.seconds, self.thread, self.depth = {}, threading.get_ident(), 0

    def asked(self, op, arrays, how):
        if threading.get_ident() == self.thread:
            self.depth += 1

    def ran(self, op, implementation, arrays, how, result, seconds):
        if threading.get_ident() == self.thread:
            self.depth -= 1
            if not self.depth:
                self.seconds[op] = self.seconds.get(op, 0.0) + seconds


class Looker(threading.Thread):
    """Looks at this thread and at minidl's workers every INTERVAL, and counts what kind of line each of them is in."""

    def __init__(self):
        super().__init__(daemon=True)
        self.main, self.counts, self.over = threading.get_ident(), dict.fromkeys(KINDS, 0), threading.Event()
        self.known = {}  # (code, line) -> kind, or None: ask the caller's line

    def run(self):
        while not self.over.wait(INTERVAL):
            watched = {t.ident for t in threading.enumerate() if t.name.startswith("minidl-")} | {self.main}
            frames = sys._current_frames()
            for thread in watched & frames.keys():
                self.counts[self.kind(frames[thread])] += 1

    def kind(self, frame):
        """What the innermost line of minidl that this frame stands in does."""
        while frame is not None:
            key = frame.f_code, frame.f_lineno
            if key not in self.known:
                self.known[key] = kind_of_line(frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno)
            if self.known[key] is not None:
                return self.known[key]
            frame = frame.f_back
        return "Python"


def kind_of_line(file, function, number):
    """The kind of work of one line of minidl, judged by its text; None outside minidl."""
    if not file.startswith(PACKAGE) or file.startswith(str(Path(PACKAGE) / "bench")):
        return None
    text, part = linecache.getline(file, number), file[len(PACKAGE) + 1:].replace("\\", "/")
    if part == "backend/threads.py":
        return "idle" if WAITING.search(text) else None if "body(item)" in text else "Python"
    if PRODUCT.search(text):
        return "products"
    if not part.startswith(("backend/", "ops/", "optim/", "core/graph")):
        return "Python"
    if GATHER.search(text) or part.startswith("backend/") and GATHER.search(function):
        return "gathers"
    return "element-wise" if ARRAYS.search(text) else "Python"


def breakdown(step, times=3):
    """{"seconds", "by_op", "by_kind", "looks"} of a step, the mean over a few: seconds of each, which add up to the whole."""
    step()
    by_op, looker, whole = ByOp(), Looker(), 0.0
    switch = sys.getswitchinterval()
    backend.LISTENERS.append(by_op)
    sys.setswitchinterval(5e-4)  # a look waits less for the interpreter's lock
    looker.start()
    try:
        for _ in range(times):
            started = time.perf_counter()
            step()
            whole += time.perf_counter() - started
    finally:
        looker.over.set()
        looker.join()
        sys.setswitchinterval(switch)
        backend.LISTENERS.remove(by_op)
    seconds, looks = whole / times, sum(looker.counts.values())
    ops = {op: spent / times for op, spent in sorted(by_op.seconds.items(), key=lambda item: -item[1])}
    ops["other array expressions and Python"] = max(seconds - sum(ops.values()), 0.0)
    kinds = {kind: seconds * count / max(looks, 1) for kind, count in looker.counts.items()}
    return {"seconds": seconds, "by_op": ops, "by_kind": kinds, "looks": looks}
