"""Batch normalisation (+ add) (+ relu) on the CPU, forward and backward, each in two sweeps over large blocks, on all cores.

The idea. In channels-last storage x is a table of rows, one number per channel. NumPy is slow on short rows, so k of them
stand side by side as one long row, beside which the channels' scales are repeated k times. A sweep takes a block of up to
524,288 numbers at a time through all its passes (product, sum, relu, ...); the rows are added up by a product with ones,
partial sums merged in float64, in order. The second sweep goes backwards: what the first touched last is still in a cache.
What touches an array first waits for memory, so that is the pass which takes longest anyway (squares before plain sums).

Smaller blocks, which would stay in the second cache, gain nothing on one thread and lose on two: after every pass a thread
needs the interpreter, and waits for it longer than such a pass takes. So blocks are large, and all views of a block are made
before its first pass.

Sound where the mean is large: Σx²/n − mean² and x·a + b lose digits with (mean/std)². Nobody pays for that who need not:
the sums are looked at first, and only where |mean| > 4·std in some channel are the values centred before they are used.

The bound is memory where x is large: forward reads x twice and writes y, backward reads grad_y, y and x, then x and the gated
gradient; and thirteen passes besides, for a pass waits for its data where a compiled loop works on the way. Small x is bound by
Python and by threads that wake each other. Measured, with what passes and memory alone would take: docs/performance.md.
"""

import functools

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.layout import empty, stored
from minidl.backend.threads import parallel_for, parallel_turns, scratch, spans

LONG = 8192        # numbers in a long row that scales stand beside: shorter ones cost NumPy up to half as much again
SUMMED = 1024      # numbers in a long row that is added up: what is left to merge is short
BLOCK = 1 << 19    # numbers that go through all passes of a sweep together
HALF = 1 << 17     # numbers that are worth a thread's waking up: (8, 256, 14, 14) 0.45 ms with two, 0.52 alone; (8, 512, 7, 7) 0.38, 0.30
LEAST = 1 << 13    # numbers from which this is quicker than generic: at (8, 160, 7, 7) 0.13 ms, forward and backward, instead of 0.31
OFFSET = 16        # mean² over var from which the values are centred before anything is computed with them


def accepts(x, *_, **__):
    """2-D or 4-D arrays of 8192 numbers or more."""
    if x.ndim not in (2, 4):
        return NotFor(f"{x.ndim}-D: only 2-D and 4-D arrays are stored with the channels last")
    return "" if x.size >= LEAST else NotFor(f"{x.size} numbers, fewer than {LEAST}: one pass after another is as fast")


def accepts_grad(grad_y, x, *_, **__):
    """2-D or 4-D arrays of 8192 numbers or more."""
    return accepts(x)


class Block:
    """Rows of the table that go through a sweep together; `long` and `summed` are how many numbers their long rows have."""

    __slots__ = ("number", "rows", "long", "summed")

    def __init__(self, number, rows, long, summed):
        self.number, self.rows, self.long, self.summed = number, rows, long, summed

    def of(self, table):
        """The block of an (M, C) table, as long rows."""
        return table[self.rows].reshape(-1, self.long)


class Table:
    """How arrays of M rows with C channels are cut into blocks. Get one from cut(), which remembers."""

    def __init__(self, M, C, dtype):
        self.M, self.C, self.dtype = M, C, dtype
        s = side_by_side(M, C, SUMMED)
        k = s * side_by_side(M // s, s * C, LONG)
        whole, count = M // k, max(1, -(-M * C // BLOCK), min(2, M * C // HALF))
        count += count % 2 if count > 1 else 0  # an even number: two threads end at the same time
        self.blocks = [Block(number, slice(part.start * k, part.stop * k), k * C, s * C)
                       for number, part in enumerate(spans(whole, -(-whole // count)))]
        if M % k:
            self.blocks.append(Block(len(self.blocks), slice(whole * k, M), C, C))
        self.k, self.summed = k, s * C
        self.ones = np.ones(max((b.rows.stop - b.rows.start) * C // b.summed for b in self.blocks), dtype)
        self.zeros = np.zeros(k * C, dtype)  # np.maximum takes six times as long with a number as with an array
        self.ones.flags.writeable = self.zeros.flags.writeable = False

    def rows(self, array):
        """The (M, C) view of an array of x's shape. A stretch of channels, as cat's gradient hands out, needs no copy beforehand:
        Block.of() copies a part of it when that part's turn comes.
        """
        if array.ndim == 2:
            return stored(array)
        array = array.transpose(0, 2, 3, 1)
        (_, H, W, _), (n, h, w, c) = array.shape, array.strides
        if c != array.itemsize or h != W * w or n != H * h:
            array = stored(array.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
        return array.reshape(-1, self.C)

    def beside(self, *values):
        """Per array of one number per channel: these repeated to stand beside a long row."""
        repeated = np.empty((len(values), self.k, self.C), self.dtype)
        for room, value in zip(repeated, values, strict=True):
            room[...] = value
        return repeated.reshape(len(values), -1)

    def sums(self, passes, count=2):
        """The turn that adds up `count` things: `passes(block, *lines)` writes the sums of its long rows to one line for each. They
        come per channel, in float64.
        """
        lines = np.zeros((len(self.blocks), count, self.summed), self.dtype)

        def body(block):
            passes(block, *lines[block.number, :, :block.summed])

        yield body, self.blocks
        return np.add.reduce(lines.reshape(len(lines), count, -1, self.C), (0, 2), np.float64)

    def add_up(self, values, block, line):
        """Σ over a block's rows: a product with ones."""
        values = values.reshape(-1, block.summed)
        np.matmul(self.ones[:len(values)], values, out=line)

    def add_products(self, one, other, block, line):
        """Σ one · other over a block's rows."""
        np.einsum("ij,ij->j", one.reshape(-1, block.summed), other.reshape(-1, block.summed), out=line)


def side_by_side(M, C, long):
    """How many of M rows of C numbers make a row of about `long`: such that none is left over, if there is such a number."""
    most = max(1, min(long // C, M))
    return next((k for k in range(most, most // 2, -1) if not M % k), most)


@functools.lru_cache(maxsize=256)
def cut(M, C, dtype):
    """The Table for M rows of C numbers: the same few shapes come again in every step."""
    return Table(M, C, dtype)


def table_of(x):
    """The Table for x."""
    return cut(x.size // x.shape[1], x.shape[1], x.dtype)


def statistics(table, x):
    """The turns that find (mean, variance, is some mean large beside its spread?) per channel, in float64: of x as it is if that is
    enough, else of x − mean.
    """
    def plain(block, first, second):
        values = block.of(x)
        table.add_products(values, values, block, second)  # before the plain sum: it takes longer, so memory keeps up with it
        table.add_up(values, block, first)

    def centred(block, first, second):
        values = block.of(x)
        room = scratch("normalize", values.shape, values.dtype)
        np.subtract(values, centre[0, :block.long], room)
        table.add_up(room, block, first)
        table.add_products(room, room, block, second)

    mean, var = moments((yield from table.sums(plain)), table.M)
    far_off = is_far_off(mean, var)
    if far_off:
        centre = table.beside(mean)
        rest, var = moments((yield from table.sums(centred)), table.M)
        mean, var = centre[0, :table.C] + rest, np.maximum(var, 0)
    return mean, var, far_off


def moments(sums, n):
    """(mean, variance) from sums of n values and of their squares."""
    mean, square = np.multiply(sums, 1 / n, sums)
    return mean, np.subtract(square, mean * mean, square)


def is_far_off(mean, var):
    """Is some channel's mean so large beside its spread that plain sums would lose digits? Also where they show less than none."""
    return bool((mean * mean > OFFSET * var).any())


@implements("batch_norm_train", "cpu/blocks", accepts, why="two sweeps over large blocks, all cores")
def batch_norm_train(x, weight, bias, add, eps, relu):
    """(y, mean, variance) with the statistics of this batch."""
    table, y = table_of(x), empty(x.shape, x.dtype, x)

    def turns():
        found = yield from statistics(table, table.rows(x))
        yield scale_and_shift(table, x, y, *found, weight, bias, add, eps, relu), table.blocks[::-1]
        return found

    mean, var, _ = parallel_turns(turns(), len(table.blocks))
    return y, mean.astype(x.dtype), var.astype(x.dtype)


@implements("batch_norm_eval", "cpu/blocks", accepts, why="one sweep over large blocks, all cores")
def batch_norm_eval(x, mean, var, weight, bias, add, eps, relu):
    """y with statistics that are given."""
    table, y = table_of(x), empty(x.shape, x.dtype, x)
    mean, var = mean.astype(np.float64), var.astype(np.float64)
    body = scale_and_shift(table, x, y, mean, var, is_far_off(mean, var), weight, bias, add, eps, relu)
    parallel_for(body, table.blocks)
    return y


def scale_and_shift(table, x, y, mean, var, centred, weight, bias, add, eps, relu):
    """The body of a turn: y = (x − mean) · r · w + b, then + add, then relu."""
    scale = (1 if weight is None else weight) / np.sqrt(var + eps)
    # centred: what rounding left of the mean is all that is still to be taken away
    shift = (0 if bias is None else bias) - scale * (mean - mean.astype(x.dtype) if centred else mean)
    a, b = table.beside(scale, shift)
    centre = table.beside(mean)[0] if centred else None
    source, out, added = table.rows(x), table.rows(y), None if add is None else table.rows(add)

    def body(block):
        n = block.long
        values, target, more = block.of(source), block.of(out), None if added is None else block.of(added)
        if centre is not None:
            np.subtract(values, centre[:n], target)
            values = target
        np.multiply(values, a[:n], target)
        np.add(target, b[:n], target)
        if more is not None:
            np.add(target, more, target)
        if relu:
            np.maximum(target, table.zeros[:n], out=target)

    return body


@implements("batch_norm_grad", "cpu/blocks", accepts_grad,
            why="two sweeps over large blocks, all cores, relu's gate on the way")
def batch_norm_grad(grad_y, x, weight, mean, var, y=None, *, eps, add=False):
    """(grad_x, grad_w, grad_b), and with add grad_y gated by relu; y: relu's output, None without relu."""
    table, grad_x = table_of(x), empty(x.shape, x.dtype, x)
    gated = empty(x.shape, x.dtype, x) if add else grad_x  # with relu the gate's result waits in grad_x for the second sweep
    centre = table.beside(mean)[0] if is_far_off(mean.astype(np.float64), var) else None
    g, values, opened, target = (table.rows(array) for array in (grad_y, x, gated, grad_x))

    def turns():
        grad_b, grad_w = yield from table.sums(gate_and_sums(table, g, values, opened, None if y is None else table.rows(y), centre))
        r = 1 / np.sqrt(var.astype(np.float64) + eps)
        offset = 0 if centre is not None else mean.astype(np.float64)
        grad_w -= offset * grad_b
        grad_w *= r
        # grad_x = r·w·(g − ⟨g⟩ − u·⟨g·u⟩) for u = (x − mean)·r is a·g + b·x + c
        a = r if weight is None else r * weight
        share = a / -table.M
        b = share * r * grad_w
        c = share * grad_b - b * offset
        yield combine(g if y is None else opened, values, target, centre, *table.beside(a, b, c)), table.blocks[::-1]
        return grad_w.astype(x.dtype), grad_b.astype(x.dtype)

    grads = grad_x, *parallel_turns(turns(), len(table.blocks))
    return (*grads, gated) if add else grads


def gate_and_sums(table, grad_y, x, gated, y, centre):
    """Passes of the first sweep: Σ g and Σ g·x per channel (x centred, if asked for), g = grad_y where y > 0, written into `gated`."""
    def passes(block, first, second):
        g, values = block.of(grad_y), block.of(x)
        gates, opened = (None, None) if y is None else (block.of(y), block.of(gated))
        if gates is not None:
            is_open = scratch("normalize gates", g.shape, np.bool_)
            np.greater(gates, 0, is_open)
            np.multiply(g, is_open, opened)  # a product is the quickest choice NumPy has
            g = opened
        table.add_up(g, block, first)
        if centre is not None:
            room = scratch("normalize", values.shape, values.dtype)
            np.subtract(values, centre[:block.long], room)
            values = room
        table.add_products(g, values, block, second)

    return passes


def combine(g, x, grad_x, centre, a, b, c):
    """The body of the second sweep: grad_x = a·g + b·x + c (x centred, if asked for); g may lie where grad_x goes."""
    def body(block):
        n = block.long
        values, slope, target = block.of(x), block.of(g), block.of(grad_x)
        room = scratch("normalize", values.shape, values.dtype)
        if centre is not None:
            np.subtract(values, centre[:n], room)
            values = room
        np.multiply(values, b[:n], room)
        np.add(room, c[:n], room)
        np.multiply(slope, a[:n], target)
        np.add(target, room, target)

    return body
