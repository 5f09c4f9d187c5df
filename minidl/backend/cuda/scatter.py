"""Launchers of scatter.cu: target[keys] += values where keys repeat, by a stable sort and one owner per key."""

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.cuda import launch
from minidl.backend.cuda.geometry import THREADS, ceil_div, contiguous, only_float32
from minidl.core.device import array_module

WIDE = 8  # from this many columns on, a thread per run and column keeps a warp's reads together


def accepts(target, keys, values):
    """"" or why the kernels cannot."""
    reason = only_float32(target, values)
    if reason or not values.size:
        return reason or NotFor("nothing to add")
    if not target.flags.c_contiguous:
        return "the target is no single piece of memory"
    return "" if 32 * values.size < 2**31 * THREADS else "more values than a grid has threads"


@implements("add_at", "cuda/add_at_sorted", accepts, "a stable sort, then one owner for each place: no atomics, always the same bits")
def add_at(target, keys, values):
    """Add row k of values (n, ...) to row keys[k] of target (V, ...), in place; rows that meet add up."""
    keys = keys.astype(np.int64, copy=False)
    order = array_module(target).argsort(keys, kind="stable").astype(np.int64, copy=False)
    return add_sorted(target, keys[order], order, values)


def add_sorted(target, keys, order, values, rung=None):
    """The same with keys in order; order[k] is the row of values that keys[k] had."""
    n, D = keys.size, values.size // keys.size
    rung = rung or ("add_at_v1_thread_per_run" if D >= WIDE else "add_at_v2_warp_per_run")
    threads = n * D * (1 if rung == "add_at_v1_thread_per_run" else 32)
    launch.kernel("scatter.cu", rung)((ceil_div(threads, THREADS),), (THREADS,), target=target, keys=keys, order=order,
                                      values=contiguous(values), n=n, D=D)
    return target
