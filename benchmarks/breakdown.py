"""Where each network's training step goes on this CPU: by kind of work, about, and by op, exactly.

    python -m benchmarks.breakdown --only resnet18 --save
"""

import argparse
import os

from benchmarks import record
from benchmarks.steps import GOALS

WHAT = ("Where a training step of minidl goes, float32. By kind of work as sampled every millisecond, in shares of the step "
        "(Python's is a lower bound: a sample waits for the interpreter's lock), then the ops that take most of it, as timed.")


def measure(name, threads, times):
    """One row."""
    from minidl.bench import training
    from minidl.bench.breakdown import KINDS, breakdown

    training.set_threads(threads)
    work, contenders = training.steps(name, torch=False, **GOALS[name][0])
    contenders["minidl"]()
    found = breakdown(contenders["minidl"], times)
    seconds = found["seconds"]
    row = {"network": str(work), "step ms": seconds * 1e3, **{kind: f"{found['by_kind'][kind] / seconds:.0%}" for kind in KINDS}}
    ops = [f"{op} {spent / seconds:.0%}" for op, spent in found["by_op"].items() if spent / seconds >= 0.03]
    return row | {"ops": ", ".join(ops), "commit": record.commit()}


def main():
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=GOALS)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--times", type=int, default=3, help="steps to look at")
    parser.add_argument("--save", action="store_true", help="with --only: put this row into the result file")
    given = parser.parse_args()
    rows = []
    for name in [given.only] if given.only else GOALS:
        rows.append(measure(name, given.threads, given.times))
        print(record.table(rows[-1:]), flush=True)
    if given.save or not given.only:
        record.write("breakdown", WHAT, record.merged("breakdown", rows, "network"))


if __name__ == "__main__":
    main()
