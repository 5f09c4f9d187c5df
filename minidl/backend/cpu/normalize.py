"""Batch normalisation (+ add) (+ relu) on the CPU, forward and backward, each in two sweeps over large blocks, on all cores.

The idea. In channels-last storage x is a table of rows, one number per channel. NumPy is slow on short rows, so k of them
stand side by side as one long row of about 8192 numbers, beside which the channels' scales are repeated k times. A sweep
takes a block of 524,288 numbers at a time through all its passes (product, sum, relu, ...); the rows are added up by a
product with ones, partial sums merged in float64, in order. Smaller blocks, which would stay in the second cache, gain
nothing on one thread and lose on two: after every pass a thread needs the interpreter, and waits for it longer than such a
pass takes. So blocks are large, and all views of an item are made before its first pass.

Sound where the mean is large: Σx²/n − mean² and x·a + b lose digits with (mean/std)². Nobody pays for that who need not:
the sums are looked at first, and only where |mean| > 4·std in some channel are the values centred before they are used.

The bound is memory: forward reads x twice and writes y, backward reads grad_y, y and x, then x and the gated gradient.
Measured, (8, 64, 112, 112) with relu: forward 3.2 ms, backward 5.9 (generic 16 and 40, PyTorch in warm memory 2.3 and 4.1).
"""

import functools
from functools import partial

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.layout import aligned, empty, stored
from minidl.backend.threads import BIG, parallel_for, parallel_map, scratch, spans

LONG = 8192        # numbers in a long row: shorter ones cost NumPy up to half as much again
PART = 1 << 19     # numbers that go through all passes of a sweep together: half as many cost 15 % more on two threads
ITEM = 1 << 19     # numbers that a thread takes up at once
OFFSET = 16        # mean² over var from which the values are centred before anything is computed with them


def accepts(x, *_, **__):
    """2-D or 4-D arrays of 65,536 numbers or more."""
    if x.ndim not in (2, 4):
        return NotFor(f"{x.ndim}-D: only 2-D and 4-D arrays are stored with the channels last")
    return "" if x.size >= BIG else NotFor(f"{x.size} numbers, fewer than {BIG}: one pass after another is as fast")


def accepts_grad(grad_y, x, *_, **__):
    """2-D or 4-D arrays of 65,536 numbers or more."""
    return accepts(x)


@functools.lru_cache(maxsize=256)
def cut(M, C, dtype, long, part_size, item_size):
    """(k, items, ones): see Table. The same few shapes come again in every step, and small ones would pay more for this than
    for a pass.
    """
    most = max(1, min(long // C, M))
    k = next((k for k in range(most, most // 2, -1) if not M % k), most)  # one that leaves no rows over, if there is
    whole, items = M // k, []
    for item in spans(whole, max(1, item_size // (k * C))):
        parts = spans(item.stop - item.start, max(1, part_size // (k * C)))
        items.append([(slice((item.start + p.start) * k, (item.start + p.stop) * k), k) for p in parts])
    if M % k:
        items.append([(slice(whole * k, M), 1)])
    ones = np.ones(max(M % k, min(whole, part_size // (k * C))) + 1, dtype)
    ones.flags.writeable = False
    return k, items, ones


class Table:
    """How an array of x's shape is cut: `items` for the threads, each a list of (rows, k): k rows side by side as a long one."""

    def __init__(self, x):
        self.C = x.shape[1]
        self.M = x.size // self.C
        self.dtype = x.dtype
        self.k, self.items, self.ones = cut(self.M, self.C, x.dtype, LONG, PART, ITEM)

    def rows(self, array):
        """The (M, C) view of an array of x's shape. A stretch of channels, as cat's gradient hands out, needs no copy beforehand:
        block() copies a part of it when that part's turn comes.
        """
        if array.ndim == 2:
            return stored(array)
        (_, H, W, _), (n, h, w, c) = array.transpose(0, 2, 3, 1).shape, array.transpose(0, 2, 3, 1).strides
        array = array if c == array.itemsize and h == W * w and n == H * h else stored(array)
        return array.transpose(0, 2, 3, 1).reshape(-1, self.C)

    def beside(self, values):
        """One number per channel, repeated to stand beside a long row."""
        line = aligned((self.k, self.C), self.dtype)
        line[...] = values
        return line.reshape(-1)

    def sums(self, sweep, count=2):
        """So many sums per channel, in float64. `sweep(block, n, room, first, second)` yields the passes over one part, of which
        some write sums of long rows to `first` and `second`.
        """
        def run(item):
            k = item[0][1]
            lines = scratch("normalize lines", (count, len(item), k * self.C), self.dtype)
            for work in [work for number, part in enumerate(item) for work in sweep(*self.part(part), *lines[:, number])]:
                work()
            return lines.sum(1).reshape(count, k, self.C).sum(1, dtype=np.float64)

        return np.sum(parallel_map(run, self.items), axis=0)

    def apply(self, sweep):
        """Run the passes that `sweep(block, n, room)` yields for every part."""
        def run(item):
            # every view is made before the first pass: between passes a thread then needs the interpreter for a moment only,
            # and hardly ever finds the other thread there, for which it would sleep longer than a pass takes
            for work in [work for part in item for work in sweep(*self.part(part))]:
                work()

        parallel_for(run, self.items)

    def part(self, part):
        """(block, n, room): what makes long rows of n numbers of a table's part, and scratch memory of that shape."""
        rows, k = part
        n = k * self.C

        def block(table):
            return table[rows].reshape(-1, n)

        return block, n, scratch("normalize", ((rows.stop - rows.start) // k, n), self.dtype)

    def add_up(self, block, out):
        """The pass that adds up long rows: a product with ones."""
        return partial(np.matmul, self.ones[:len(block)], block, out=out)


def far_off(mean, var):
    """Is some channel's mean so large beside its spread that plain sums would lose digits?"""
    return bool((mean * mean > OFFSET * var).any())


def statistics(table, x, shift=None):
    """(mean, variance) per channel, in float64; of x − shift."""
    centre = None if shift is None else table.beside(shift)

    def sweep(block, n, room, first, second):
        values = block(x)
        if centre is not None:
            yield partial(np.subtract, values, centre[:n], out=room)
            values = room
        yield table.add_up(values, first)
        yield partial(np.einsum, "ij,ij->j", values, values, out=second)

    first, second = table.sums(sweep) / table.M
    return first, np.maximum(second - first * first, 0)


@implements("batch_norm_train", "cpu/blocks", accepts, why="two sweeps over large blocks, all cores")
def batch_norm_train(x, weight, bias, add, eps, relu):
    """(y, mean, variance) with the statistics of this batch."""
    table = Table(x)
    rows = table.rows(x)
    mean, var = statistics(table, rows)
    if far_off(mean, var):
        shift = mean.astype(x.dtype)
        rest, var = statistics(table, rows, shift)
        mean = shift + rest
    y = scale_and_shift(table, x, mean, var, weight, bias, add, eps, relu)
    return y, mean.astype(x.dtype), var.astype(x.dtype)


@implements("batch_norm_eval", "cpu/blocks", accepts, why="one sweep over large blocks, all cores")
def batch_norm_eval(x, mean, var, weight, bias, add, eps, relu):
    """y with statistics that are given."""
    return scale_and_shift(Table(x), x, mean, var, weight, bias, add, eps, relu)


def scale_and_shift(table, x, mean, var, weight, bias, add, eps, relu):
    """y = (x − mean) · r · w + b, then + add, then relu, in one sweep."""
    mean, r = mean.astype(np.float64), 1 / np.sqrt(var.astype(np.float64) + eps)
    scale, shift = r if weight is None else r * weight, 0.0 if bias is None else bias.astype(np.float64)
    centre = None
    if far_off(mean, var):
        centre = table.beside(mean)
        mean = mean - centre[:table.C]  # what rounding left
    a, b = table.beside(scale), table.beside(shift - mean * scale)
    zero = table.beside(0)  # np.maximum takes six times as long with a number as with an array
    y = empty(x.shape, x.dtype, x)
    source, out, added = table.rows(x), table.rows(y), None if add is None else table.rows(add)

    def sweep(block, n, room):
        values, target = block(source), block(out)
        if centre is not None:
            yield partial(np.subtract, values, centre[:n], out=target)
            values = target
        yield partial(np.multiply, values, a[:n], out=target)
        yield partial(np.add, target, b[:n], out=target)
        if added is not None:
            yield partial(np.add, target, block(added), out=target)
        if relu:
            yield partial(np.maximum, target, zero[:n], out=target)

    table.apply(sweep)
    return y


@implements("batch_norm_grad", "cpu/blocks", accepts_grad,
            why="two sweeps over large blocks, all cores, relu's gate on the way")
def batch_norm_grad(grad_y, x, weight, mean, var, y=None, *, eps, add=False):
    """(grad_x, grad_w, grad_b), and with add grad_y gated by relu; y: relu's output, None without relu."""
    table = Table(x)
    grad_x = empty(x.shape, x.dtype, x)
    gated = empty(x.shape, x.dtype, x) if add else grad_x  # with relu the gate's result waits in grad_x for the second sweep
    centre = table.beside(mean) if far_off(mean.astype(np.float64), var) else None
    inputs = [table.rows(array) for array in (grad_y, x, gated)]
    d = first_sweep(table, *inputs, None if y is None else table.rows(y), centre)
    mean, r = mean.astype(np.float64), 1 / np.sqrt(var.astype(np.float64) + eps)
    grad_b = d[0]
    grad_w = r * (d[1] if centre is not None else d[1] - mean * d[0])
    second_sweep(table, inputs[2] if y is not None else inputs[0], inputs[1], table.rows(grad_x), centre,
                 *coefficients(table, grad_w, grad_b, weight, 0.0 if centre is not None else mean, r))
    grads = grad_x, grad_w.astype(x.dtype), grad_b.astype(x.dtype)
    return (*grads, gated) if add else grads


def first_sweep(table, grad_y, x, gated, y, centre):
    """Σ g and Σ g·x per channel (x centred, if asked for), g = grad_y where y > 0, which is written into `gated`."""
    def sweep(block, n, room, first, second):
        g, values = block(grad_y), block(x)
        if y is not None:
            gate, g_open = block(y), block(gated)
            yield partial(np.greater, gate, 0, out=room)  # 0.0 or 1.0; a product with these is the quickest choice NumPy has
            yield partial(np.multiply, g, room, out=g_open)
            g = g_open
        yield table.add_up(g, first)
        if centre is not None:
            yield partial(np.subtract, values, centre[:n], out=room)
            values = room
        yield partial(np.einsum, "ij,ij->j", g, values, out=second)

    return table.sums(sweep)


def coefficients(table, grad_w, grad_b, weight, mean, r):
    """(A, B, C) with grad_x = A·g + B·x + C: what r·w·(g − ⟨g⟩ − u·⟨g·u⟩) is for u = (x − mean)·r."""
    scale = r if weight is None else r * weight
    of_x = -scale * r * grad_w / table.M
    return table.beside(scale), table.beside(of_x), table.beside(-scale * grad_b / table.M - of_x * mean)


def second_sweep(table, g, x, grad_x, centre, a, b, c):
    """grad_x = a·g + b·x + c (x centred, if asked for); g may lie where grad_x goes."""
    def sweep(block, n, room):
        values, target = block(x), block(grad_x)
        if centre is not None:
            yield partial(np.subtract, values, centre[:n], out=room)
            values = room
        yield partial(np.multiply, values, b[:n], out=room)
        yield partial(np.add, room, c[:n], out=room)
        yield partial(np.multiply, block(g), a[:n], out=target)
        yield partial(np.add, target, room, out=target)

    table.apply(sweep)
