"""What the engine itself costs: tape, Tensors and dispatch, as a share of a ResNet-50 training step.

One step is recorded: every call of an implementation, every op that is an array expression, every sum of gradients. Then the
same array code runs again on the same arrays, without Tensors, without a graph, without a choice. The step takes longer
than that by what the engine costs. Results of the forward stay alive until the backward would let go of them, as in a step.
"""

import argparse
import inspect
import os
import re

import numpy as np

from benchmarks import record
from minidl import backend
from minidl.backend.layout import elementwise
from minidl.core.config import STATE, no_grad
from minidl.core.derivative import WATCHERS
from minidl.core.op import OBSERVERS

FLOOR = 0.05
ASKS = re.compile(r"\b(run|compute)\(")
WHAT = ("A training step (batch 8, 224×224, float32), and the same array code replayed without Tensors, tape and dispatch; medians of "
        "interleaved rounds. The difference is what the engine costs.")


class Recorder(backend.Listener):
    """The array work of one step, in order: (is it forward, a function without arguments)."""

    def __init__(self):
        self.work, self.depth, self.asking = [], 0, {}

    def asked(self, op, arrays, how):
        self.depth += 1

    def ran(self, op, implementation, arrays, how, result, seconds):
        self.depth -= 1
        if not self.depth:
            self.work.append((STATE.walking is None, lambda: implementation.function(*arrays, **how)))

    def observe(self, call):
        """An op that asks no backend is its own array code."""
        name = call.op.name
        if name not in self.asking:
            self.asking[name] = bool(ASKS.search(inspect.getsource(call.op.forward)))
        if not self.asking[name]:
            self.work.append((call.inside is None, lambda: call.op.forward(*call.args, **call.settings)))

    def watch(self, steps):
        """Where paths meet, gradients are added."""
        for step in steps:
            for pair, grad in zip(step.sums, step.grads_out, strict=False):
                if pair is not None and pair[0] is not None:
                    self.work.append((False, lambda a=pair[0].array, b=grad.array: elementwise(np.add, a, b)))
            yield step

    def __enter__(self):
        backend.LISTENERS.append(self)
        OBSERVERS.append(self.observe)
        WATCHERS.append(self.watch)
        return self

    def __exit__(self, *_):
        backend.LISTENERS.remove(self)
        OBSERVERS.remove(self.observe)
        WATCHERS.remove(self.watch)


def replay(work):
    """All of it once more; what the forward made is let go of as the backward proceeds, the newest first."""
    alive = []
    with no_grad():
        for forward, function in work:
            result = function()
            if forward:
                alive.append(result)
            elif alive:
                alive.pop()


def main():
    """Measure, print, save."""
    from minidl.bench import timing, training

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args()
    training.set_threads(given.threads)
    work, contenders = training.steps(given.network, torch=False, batch=given.batch)
    step = contenders["minidl"]
    for _ in range(2):
        step()
    with Recorder() as recorded:
        step()
    times = timing.Rounds({"step": lambda: step().seconds, "replay": timing.timed(lambda: replay(recorded.work), 0)}, given.rounds).run()
    whole, bare = (record.median(times[name]) for name in ("step", "replay"))
    share = record.median([(a - b) / a for a, b in zip(times["step"], times["replay"], strict=True)])
    rows = [{"": "training step", "ms": whole * 1e3, "spread": f"±{record.spread(times['step']):.0%}"},
            {"": f"its array code alone, {len(recorded.work)} calls", "ms": bare * 1e3, "spread": f"±{record.spread(times['replay']):.0%}"},
            {"": "the engine", "ms": share * whole * 1e3, "spread": f"{share:.1%} of the step"}]
    if (given.network, given.batch) == ("resnet50", 8):
        record.write("engine_cost", WHAT, rows, [(f"at most {FLOOR:.0%} of a ResNet-50 step (here {share:.1%})", share <= FLOOR)])
    else:
        print(f"{work}\n{record.table(rows)}")


if __name__ == "__main__":
    main()
