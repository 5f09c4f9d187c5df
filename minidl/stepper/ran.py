"""Which implementation computed a step: heard from backend.run() while it happens, and told in words afterwards."""

import threading

from minidl import backend
from minidl.backend import NotFor
from minidl.stepper.text import duration, safe
from minidl.stepper.values import plain


class Run:
    """One call of backend.run(): the numeric op it was asked for, what ran, why, and what was passed over."""

    def __init__(self, op, name, seconds, why="", others=()):
        self.op, self.name, self.seconds, self.why = op, name, seconds, why
        self.others = list(others)  # [(name, why not, "fallback" where it was meant for such a call)]

    def described(self):
        """As JSON."""
        return {"op": self.op, "name": self.name, "seconds": plain(self.seconds), "why": self.why,
                "others": [list(pair) for pair in self.others]}

    @staticmethod
    def of(said):
        """From JSON."""
        return Run(said["op"], said["name"], float(said["seconds"]), said["why"], [(name, why, kind) for name, why, kind in said["others"]])


class Heard(backend.Listener):
    """Listens while a recording runs; take() hands over what ran since the last time."""

    def __init__(self):
        self.thread, self.runs = threading.get_ident(), []

    def ran(self, op, implementation, arrays, how, result, seconds):
        """An implementation has run."""
        if threading.get_ident() != self.thread:
            return
        others = [(other.name, str(refusal) or "would do it too", "fallback" if refusal and not isinstance(refusal, NotFor) else "")
                  for other, refusal, chosen in backend.decide(op, arrays, how)
                  if not chosen and (not isinstance(refusal, NotFor) or other.backend == implementation.backend)]
        self.runs.append(Run(op, implementation.name, seconds, implementation.why, others))

    def take(self):
        """The Runs so far, and forget them."""
        runs, self.runs = self.runs, []
        return runs


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
