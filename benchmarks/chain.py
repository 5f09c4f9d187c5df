"""A chain of 100,000 ops: no recursion anywhere, forward, backward, or when the graph is dropped unwalked."""

import gc
import time
import weakref

import numpy as np

from benchmarks import record
from minidl.core.tensor import Tensor

LENGTH, ROUNDS = 100_000, 5
WHAT = f"x → x·1.0001 → x + 0.001 → ..., {LENGTH:,} ops on 3 numbers, float32, medians. Dropped: the graph is let go without a backward."


def build():
    """(leaf, end of the chain)"""
    leaf = x = Tensor(np.ones(3, np.float32), requires_grad=True)
    for _ in range(LENGTH // 2):
        x = x * 1.0001 + 0.001
    return leaf, x


def one_round():
    """Seconds of the forward, the backward, and of dropping a graph; garbage collector off, so what goes went by itself."""
    gc.disable()
    start = time.perf_counter()
    leaf, end = build()
    forward = time.perf_counter() - start
    start = time.perf_counter()
    end.backward(Tensor(np.ones(3, np.float32)))
    backward = time.perf_counter() - start
    assert np.allclose(leaf.grad.array, 1.0001 ** (LENGTH // 2), rtol=1e-2), leaf.grad
    leaf, end = build()
    node = weakref.ref(end.grad_fn)
    start = time.perf_counter()
    del leaf, end
    dropped = time.perf_counter() - start
    assert node() is None, "a dropped graph must go at once"
    gc.enable()
    return forward, backward, dropped


def main():
    """Measure, print, save."""
    forward, backward, dropped = (record.median(column) for column in zip(*[one_round() for _ in range(ROUNDS)], strict=True))
    rows = [{"": what, "seconds": seconds} for what, seconds in
            (("forward", forward), ("backward", backward), ("both", forward + backward), ("dropped", dropped))]
    record.write("chain", WHAT, rows, [(f"forward and backward under 3 s (here {forward + backward:.2f} s)", forward + backward < 3)])


if __name__ == "__main__":
    main()
