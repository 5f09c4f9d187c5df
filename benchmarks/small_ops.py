"""999 small ops on 4×4 matrices, forward and backward: the time of Python itself, against PyTorch's in the same run."""

import time

import numpy as np
import threadpoolctl

from benchmarks import record
from minidl.core.tensor import Tensor

REPEATS, ROUNDS = 333, 40  # three ops each: multiply, add, tanh
WHAT = "h = tanh(h·y + x) on 4×4 float32 matrices, 333 times: 999 ops forward, then backward. One thread, medians of interleaved rounds."


def chain(h, y, x):
    """The 999 ops."""
    for _ in range(REPEATS):
        h = (h * y + x).tanh()
    return h


def timed(make, ones):
    """(forward, backward) seconds of one chain on fresh leaves."""
    h, y, x = make(), make(), make()
    start = time.perf_counter()
    out = chain(h, y, x)
    middle = time.perf_counter()
    out.backward(ones)
    return middle - start, time.perf_counter() - middle


def contenders():
    """name -> a function that times one round; PyTorch only where it is installed."""
    rng = np.random.default_rng(0)
    found = {"minidl": lambda: timed(lambda: Tensor(rng.standard_normal((4, 4), np.float32), True), Tensor(np.ones((4, 4), np.float32)))}
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: no ratio")
        return found
    torch.set_num_threads(1)
    return found | {"torch": lambda: timed(lambda: torch.randn(4, 4, requires_grad=True), torch.ones(4, 4))}


def main():
    """Measure, print, save."""
    with threadpoolctl.threadpool_limits(1):
        times = record.interleaved(contenders(), ROUNDS)
    rows = []
    for name, pairs in times.items():
        forward, backward, total = (record.median([pair[0] for pair in pairs]), record.median([pair[1] for pair in pairs]),
                                    record.median([sum(pair) for pair in pairs]))
        rows.append({"": name, "forward ms": forward * 1e3, "backward ms": backward * 1e3, "both ms": total * 1e3,
                     "spread": f"±{record.spread([sum(pair) for pair in pairs]):.0%}"})
    floors = []
    if "torch" in times:
        ratio = record.median([sum(a) / sum(b) for a, b in zip(times["minidl"], times["torch"], strict=True)])
        parts = {key: rows[0][key] / rows[1][key] for key in ("forward ms", "backward ms")}
        rows.append({"": "minidl / torch", **parts, "both ms": ratio, "spread": ""})
        floors = [(f"at most 1.75 times PyTorch's time (here {ratio:.2f})", ratio <= 1.75)]
    record.write("small_ops", WHAT, rows, floors)


if __name__ == "__main__":
    main()
