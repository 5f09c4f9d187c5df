"""Batch norm (+ add) (+ relu), training, forward and backward, at the sizes of a ResNet-50 step, against PyTorch.

Beside the times stands what they are made of: NumPy's passes over data that is in a cache already, shared by the threads
without any loss, and the memory they have to move, at this machine's copying speed. Neither counts Python or waiting.
"""

import argparse
import os
import time

import numpy as np

from benchmarks import record

BATCH = 8
SIZES = [  # channels, height, with an addition, how often in ResNet-50 (relu follows all but the four shortcuts' norms)
    (64, 112, False, 1), (64, 56, False, 6), (256, 56, True, 3), (128, 56, False, 1), (128, 28, False, 7), (512, 28, True, 4),
    (256, 28, False, 1), (256, 14, False, 11), (1024, 14, True, 6), (512, 14, False, 1), (512, 7, False, 5), (2048, 7, True, 3),
]
FLOOR, GOAL = 0.9, 1.3
WHAT = ("Batch norm and relu (and the addition before it), training, forward and backward through Tensors, batch 8, float32, medians of "
        "interleaved rounds. ratio: PyTorch's time in its quicker storage order / minidl's; the last row weighs each size by how often "
        "ResNet-50 has it. passes: NumPy's passes alone, on data in a cache, divided by the threads. memory: the arrays that are read and "
        "written, at the speed of a copy, as if nothing stayed in a cache.")
CACHED = 1 << 16  # numbers of the arrays that passes are timed on


def measure(C, H, add, rounds):
    """{contender: median seconds} of forward plus backward."""
    from minidl.bench import cases, measure, timing, torch_calls

    case = cases.make("batch_norm", shape=(BATCH, C, H, H), add=add)
    contenders = {"minidl": measure.through_tensors(case), **torch_calls.contenders(case)}
    times = timing.Rounds(contenders, rounds, warm=2).run()
    return {name: record.median([sum(pair) for pair in pairs]) for name, pairs in times.items()}


def passes(add, tries=50):
    """Seconds a number that NumPy's own passes take, one thread, forward and backward: those of minidl/backend/cpu/normalize.py."""
    x, g, y, out = (np.ones((CACHED // 8192, 8192), np.float32) for _ in range(4))
    row, ones, line, is_open = x[0].copy(), np.ones(CACHED // 1024, np.float32), np.empty(1024, np.float32), np.empty(x.shape, np.bool_)

    def add_up(values):
        np.matmul(ones, values.reshape(-1, 1024), out=line)

    def add_products(one, other):
        np.einsum("ij,ij->j", one.reshape(-1, 1024), other.reshape(-1, 1024), out=line)

    forward = [lambda: add_products(x, x), lambda: add_up(x), lambda: np.multiply(x, row, out), lambda: np.add(out, row, out),
               *([lambda: np.add(out, g, out)] if add else []), lambda: np.maximum(out, row, out=out)]
    backward = [lambda: np.greater(y, 0, is_open), lambda: np.multiply(g, is_open, out), lambda: add_up(out), lambda: add_products(out, x),
                lambda: np.multiply(x, row, y), lambda: np.add(y, row, y), lambda: np.multiply(g, row, out), lambda: np.add(out, y, out)]
    return sum(quickest(one, tries) for one in forward + backward) / CACHED


def quickest(function, tries):
    """Seconds of the quickest call."""
    best = float("inf")
    for _ in range(tries):
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best


def transfers(add):
    """How often an array is read or written: x, x and y, and the addition; y, grad_y, x and the gated gradient; that, x and grad_x."""
    return 3 + add + 4 + 3


def main():
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", type=int, help="the number of one size, from 0; nothing is saved")
    given = parser.parse_args()
    from minidl.bench import machine, training

    training.set_threads(given.threads)
    bandwidth, cached = machine.copy_bandwidth() * 1e9, {add: passes(add) for add in (False, True)}
    rows, ours, theirs, made_of = [], 0.0, 0.0, np.zeros(2)
    for C, H, add, times in SIZES if given.only is None else [SIZES[given.only]]:
        found = measure(C, H, add, given.rounds)
        best = min(found["torch NCHW"], found["torch NHWC"])
        ours, theirs = ours + times * found["minidl"], theirs + times * best
        numbers = BATCH * C * H * H
        parts = np.array([cached[add] * numbers / given.threads, transfers(add) * 4 * numbers / bandwidth])
        made_of += times * parts
        rows.append({"size": f"{BATCH}×{C}×{H}×{H}" + (" + add" if add else ""), "times": times,
                     **{f"{name} ms": seconds * 1e3 for name, seconds in found.items()}, "ratio": best / found["minidl"],
                     "passes ms": parts[0] * 1e3, "memory ms": parts[1] * 1e3})
    rows.append({"size": "all of ResNet-50's, PyTorch's quicker order of each", "times": sum(row["times"] for row in rows),
                 "minidl ms": ours * 1e3, "torch NCHW ms": "", "torch NHWC ms": theirs * 1e3, "ratio": theirs / ours,
                 "passes ms": made_of[0] * 1e3, "memory ms": made_of[1] * 1e3})
    if given.only is not None:
        print(record.table(rows))
        return
    ratio = theirs / ours
    record.write("batch_norm", WHAT, rows, [(f"{FLOOR} of PyTorch's speed (here {ratio:.2f}, goal {GOAL})", ratio >= FLOOR)])


if __name__ == "__main__":
    main()
