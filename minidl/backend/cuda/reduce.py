"""Launchers of reduce.cu: sums and extremes over any axes.

Axes that lie side by side in memory are one run; several runs are reduced one after the other, the longest first.
"""

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.cuda import launch
from minidl.backend.cuda.geometry import BLOCKS, THREADS, ceil_div, only_float32, tiles
from minidl.backend.layout import stored
from minidl.core.device import array_module

FEW = 64          # numbers that one thread takes on its own
MOST = 2**31 - 1


def memory_order(ndim):
    """The axes as they are stored."""
    return (0, 2, 3, 1) if ndim == 4 else tuple(range(ndim))


def runs(shape, axes):
    """[(outer, n, inner)] of the axes to reduce, as x is stored; each one as it is after those before it."""
    order = memory_order(len(shape))
    sizes, reduced = [shape[k] for k in order], [k in axes for k in order]
    found, at = [], 0
    while at < len(sizes):
        end = at
        while end < len(sizes) and reduced[end] == reduced[at]:
            end += 1
        found.append([int(np.prod(sizes[at:end])), reduced[at]])
        at = end
    steps = []
    for k in sorted((k for k, (_, gone) in enumerate(found) if gone), key=lambda k: -found[k][0]):
        steps.append((int(np.prod([n for n, _ in found[:k]])), found[k][0], int(np.prod([n for n, _ in found[k + 1:]]))))
        found[k][0] = 1
    return steps


def geometry(outer, n, inner):
    """(kind of kernel, grid, block, numbers of a part, T)."""
    if n <= FEW or outer * inner >= BLOCKS * THREADS or inner > 1 and outer > 65535 or inner > MOST:
        return "v1_thread_per_output", (ceil_div(outer * inner, THREADS),), (THREADS,), n, 1
    if inner == 1:
        TY = min(THREADS, 1 << (ceil_div(n, 8) - 1).bit_length())
        part = ceil_div(n, max(1, min(ceil_div(n, TY * 8), ceil_div(BLOCKS, outer))))
        return "v2_rows", (outer, ceil_div(n, part)), (1, TY), part, ceil_div(n, part)
    grid, block, part = tiles(n, inner, outer)
    return "v2_columns", grid, block, part, grid[1]


def add_up(x, outer, n, inner, scale):
    """Σ over the middle of (outer, n, inner), times scale: (outer, inner)."""
    kind, grid, block, part, T = geometry(outer, n, inner)
    y = array_module(x).empty(outer * T * inner, np.float32)
    common = {"x": x, "y": y, "scale": scale if T == 1 else 1.0, "n": n}
    start = launch.kernel("reduce.cu", f"sum_{kind}")
    if kind == "v2_rows":
        start(grid, block, **common, n_of_part=part)
    elif kind == "v2_columns":
        start(grid, block, **common, inner=inner, n_of_part=part)
    else:
        start(grid, block, **common, results=outer * inner, inner=inner)
    if T == 1:
        return y
    total = array_module(x).empty(outer * inner, np.float32)
    launch.kernel("reduce.cu", "sum_v1_thread_per_output")(
        (ceil_div(outer * inner, THREADS),), (THREADS,), x=y, y=total, scale=scale, results=outer * inner, n=T, inner=inner)
    return total


def furthest(x, outer, n, inner, sign, values=True, positions=False):
    """The largest (sign 1) or smallest over the middle of (outer, n, inner), and where it is; None for what is not asked for."""
    kind, grid, block, part, T = geometry(outer, n, inner)
    xp, ask = array_module(x), lambda wanted, size, dtype: xp.empty(size, dtype) if wanted else None
    split = T > 1
    y, found = ask(values or split, outer * T * inner, np.float32), ask(positions or split, outer * T * inner, np.int32)
    start = launch.kernel("reduce.cu", f"extreme_{kind}")
    if kind == "v2_rows":
        start(grid, block, x=x, y=y, positions=found, sign=sign, n=n, n_of_part=part)
    elif kind == "v2_columns":
        start(grid, block, x=x, y=y, positions=found, sign=sign, n=n, inner=inner, n_of_part=part)
    else:
        start(grid, block, x=x, found=None, y=y, positions=found, sign=sign, results=outer * inner, n=n, inner=inner)
    if not split:
        return y, found
    best, where = ask(values, outer * inner, np.float32), ask(positions, outer * inner, np.int32)
    launch.kernel("reduce.cu", "extreme_v1_thread_per_output")(
        (ceil_div(outer * inner, THREADS),), (THREADS,), x=y, found=found, y=best, positions=where, sign=sign, results=outer * inner, n=T,
        inner=inner)
    return best, where


def shaped(flat, shape, axes, keepdim):
    """Results that lie in the order of the axes that are left, as an array of the right shape in storage order."""
    kept = [1 if k in axes else n for k, n in enumerate(shape)]
    if len(shape) == 4:
        N, C, H, W = kept
        flat = flat.reshape(N, H, W, C).transpose(0, 3, 1, 2)
    result = flat.reshape(kept) if keepdim else flat.reshape([n for k, n in enumerate(kept) if k not in axes])
    return stored(result)


def accepts(x, axes, **how):
    """"" or why the kernels cannot."""
    reason = only_float32(x)
    if reason:
        return reason
    if not axes:
        return NotFor("no axis to reduce over")
    return "more than 2³¹ numbers in one sum" if x.size > MOST else ""


def accepts_sum(x, axes, keepdim, dtype, scale=1.0):
    """"" or why the kernels cannot."""
    return ("" if dtype == np.float32 else f"the kernels add up in float32, not {dtype}") or accepts(x, axes)


@implements("sum", "cuda/sum_v2", accepts_sum, "in a fixed order: parts of a row or of columns, then the parts")
def sum_over(x, axes, keepdim, dtype, scale=1.0):
    """scale · Σ x over some axes."""
    flat, steps = stored(x), runs(x.shape, axes)
    for k, step in enumerate(steps):
        flat = add_up(flat, *step, scale if k == len(steps) - 1 else 1.0)
    return shaped(flat, x.shape, axes, keepdim)


def accepts_extreme(x, axes, keepdim, sign):
    """"" or why the kernels cannot."""
    return accepts(x, axes)


@implements("extreme", "cuda/extreme_v2", accepts_extreme, "parts of a row or of columns, then the parts")
def extreme(x, axes, keepdim, sign):
    """The largest (sign 1) or smallest (sign −1) over some axes; a NaN is both."""
    flat = stored(x)
    for step in runs(x.shape, axes):
        flat, _ = furthest(flat, *step, sign)
    return shaped(flat, x.shape, axes, keepdim)


def accepts_position(x, axis, keepdim, sign):
    """"" or why the kernels cannot."""
    if axis is None and x.ndim == 4:
        return NotFor("positions in the flattened image do not follow its storage order")
    return accepts(x, (axis,) if axis is not None else range(x.ndim))


@implements("position", "cuda/extreme_v2", accepts_position, "parts of a row or of columns, then the parts")
def position(x, axis, keepdim, sign):
    """Where the first of the largest (or smallest) stands, along one axis or in the flattened array; int64."""
    axes = tuple(range(x.ndim)) if axis is None else (axis,)
    (step,) = runs(x.shape, axes)
    _, found = furthest(stored(x), *step, sign, values=False, positions=True)
    return shaped(found.astype(np.int64), x.shape, axes, keepdim)
