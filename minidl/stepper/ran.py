"""Which implementation computed a step: heard from backend.run() while it happens, and told in words afterwards."""

import re
import sys
import threading

from minidl import backend
from minidl.backend import NotFor
from minidl.backend.cuda.launch import WATCHERS as LAUNCHES
from minidl.backend.cuda.source import path_of
from minidl.stepper.text import duration, safe
from minidl.stepper.values import plain


class Launch:
    """One launch of a CUDA kernel: its file and name, the grid and the block, its text."""

    def __init__(self, file, name, grid, block, text=None):
        self.file, self.name, self.grid, self.block = file, name, tuple(grid), tuple(block)
        self.text = text  # (file, [(line number, text)])

    def described(self, number):
        """As JSON; `number` is that of its text in "sources"."""
        return {"file": self.file, "name": self.name, "grid": list(self.grid), "block": list(self.block), "source": number}


def kernel_text(file, name):
    """(file, [(line number, text)]) of a kernel in kernels/: from the comment above it to its last bracket; no lines if it is not there."""
    try:
        lines = path_of(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return f"kernels/{file}", []
    start = next((k for k, line in enumerate(lines) if re.search(rf"\b{re.escape(name)}\s*\(", line)), None)
    if start is None:  # a macro writes it
        return f"kernels/{file}", []
    while start and (lines[start - 1].startswith(("//", "extern", "template", "__global__")) or lines[start - 1].endswith("*/")):
        start -= 1
    depth, end = 0, len(lines)
    for k in range(start, len(lines)):
        code = lines[k].partition("//")[0]
        depth += code.count("{") - code.count("}")
        if depth == 0 and "}" in code:
            end = k + 1
            break
    return f"kernels/{file}", list(enumerate(lines[start:end], start + 1))


class Run:
    """One call of backend.run(): the numeric op it was asked for, what ran, why, and what was passed over."""

    def __init__(self, op, name, seconds, why="", others=(), launches=()):
        self.launches = list(launches)  # of CUDA kernels
        self.op, self.name, self.seconds, self.why = op, name, plain(seconds), why  # a saved trace says the same digits
        self.others = list(others)  # [(name, why not, "fallback" where it was meant for such a call)]

    def described(self, source):
        """As JSON; `source` gives the number of a text in "sources"."""
        return {"launches": [launch.described(source(launch.text)) for launch in self.launches],
                "op": self.op, "name": self.name, "seconds": self.seconds, "why": self.why,
                "others": [list(pair) for pair in self.others]}

    @staticmethod
    def of(said, sources):
        """From JSON."""
        launches = [Launch(one["file"], one["name"], one["grid"], one["block"], sources(one["source"])) for one in said["launches"]]
        others = [(name, why, kind) for name, why, kind in said["others"]]
        return Run(said["op"], said["name"], float(said["seconds"]), said["why"], others, launches)


class Heard(backend.Listener):
    """Listens while a recording runs; take() hands over what ran since the last time.

    `forwards`: the code of the ops' forwards. What runs under none of them (batch norm's running averages, an optimiser's
    update) is no part of an op.
    """

    def __init__(self, forwards=()):
        self.thread, self.forwards = threading.get_ident(), forwards
        self.runs, self.between, self.launches = [], [], []

    def __enter__(self):
        backend.LISTENERS.append(self)
        LAUNCHES.append(self.launched)
        return self

    def __exit__(self, *_):
        backend.LISTENERS.remove(self)
        LAUNCHES.remove(self.launched)

    def launched(self, kernel, grid, block, *_):
        """A CUDA kernel is about to run."""
        if threading.get_ident() == self.thread:
            self.launches.append(Launch(kernel.file, kernel.name, grid, block, kernel_text(kernel.file, kernel.name)))

    def ran(self, op, implementation, arrays, how, result, seconds):
        """An implementation has run."""
        if threading.get_ident() != self.thread:
            return
        others = [(other.name, str(refusal) or "would do it too", "fallback" if refusal and not isinstance(refusal, NotFor) else "")
                  for other, refusal, chosen in backend.decide(op, arrays, how)
                  if not chosen and (not isinstance(refusal, NotFor) or other.backend == implementation.backend)]
        run = Run(op, implementation.name, seconds, implementation.why, others, self.launches)
        (self.runs if self.inside() else self.between).append(run)
        self.launches = []

    def inside(self):
        """Does the forward of an op stand around what runs now?"""
        frame = sys._getframe(2)
        while frame is not None and frame.f_code not in self.forwards:
            frame = frame.f_back
        return frame is not None

    def take(self):
        """(Runs inside of ops, Runs outside) since the last time."""
        taken, self.runs, self.between = (self.runs, self.between), [], []
        return taken


def in_words(item):
    """cpu/winograd 4.1 ms, or conv2d_grad_x: cpu/winograd 4.1 ms, conv2d_grad_w: ...; "" where the op computes by itself."""
    said = []
    for run in item.runs:
        what = "" if len(item.runs) == 1 and run.op == item.op.name else f"{safe(run.op)}: "
        said.append(f"{what}{safe(run.name)} {duration(run.seconds)}{passed_over(run)}")
    return ", ".join(said)


def passed_over(run):
    """ (cpu/winograd: float16): those that were meant for such a call and could not take it, in brackets."""
    refused = [f"{safe(name)}: {safe(why)}" for name, why, kind in run.others if kind == "fallback"]
    return f" ({'; '.join(refused)})" if refused else ""
