"""Pooling on the CPU: across the windows, then down them, many windows at once, on all cores, without fancy indexing.

The idea. Cell (i, j) of all windows is a view of the image, so its part of a maximum is a handful of element-wise passes.
The winner of a row of a window is found first, then the winner of these rows: KW + KH looks in place of KW·KH. With a stride
along w a view would be runs of C numbers; the columns are therefore sorted by w mod stride first, and every cell sees whole
rows. The winner's place is kept in one byte: later cells have larger numbers, so `cell > largest so far` times its number, and
the maximum of these, is the last cell that improved, the first of equal ones. An item is copied to where its padding, −∞, lies
ready; so all items use the same memory, and the views that the passes work on are made once for each thread.

Backward is NumPy's own scatter, image by image. A second thread gains a third only (it seems that np.add.at keeps the
interpreter's lock); comparing the number again, cell by cell, takes twice as long, and so does `image[at] += g` over every third
window, which do not overlap. Where no windows do, a mere assignment is enough.

Measured, two threads: the 13 poolings of GoogLeNet's step, forward 20.5 ms, backward 16 (PyTorch 6.5 and 7.2). What limits it
is the interpreter's lock: each of 25 calls an item waits for it, about 10 µs (two processes at once, one thread each, are not
slower than one alone; one thread takes 33 ms). Views made for every item: 23 ms. Smaller items: 25 ms for half as many windows,
28 for a quarter. No gain: down before across (24 ms), the first two cells in one pass without padding (23 ms), a pixel and its
place in one 64-bit number, so that a maximum finds both (30 ms).

A mean adds the cells of a column, then of a row; the first two are added into the result, which needs no zeros then (the 10
poolings of Inception-v3 8.8 ms each way, with zeros 10.2).
"""

from functools import partial
from threading import get_ident

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.generic import pool as generic
from minidl.backend.layout import empty, stored
from minidl.backend.threads import BIG, parallel_for, parallel_map, scratch
from minidl.backend.window import kernel_cells

ITEM = 1 << 18  # outputs that a thread takes up at once: smaller ones hand the interpreter over too often for two threads
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def accepts(array, *_, **__):
    """Images of float32 or float64, 65,536 numbers or more."""
    if array.dtype not in FLOATS:
        return NotFor("for float32 and float64")
    return "" if array.size >= BIG else NotFor(f"{array.size} numbers, fewer than {BIG}: one pass after another is as fast")


def accepts_max(x, kernel, dilation, **_):
    """Images of float32 or float64, 65,536 numbers or more; windows without holes of at most 255 cells."""
    if dilation != (1, 1):
        return NotFor("for windows without holes")
    cells = kernel[0] * kernel[1]
    return NotFor(f"{cells} cells: their numbers do not fit into a byte") if cells > 255 else accepts(x)


class Windows:
    """Where the windows of a pooling meet the image."""

    def __init__(self, x_shape, kernel, stride, padding, size):
        self.N, self.C, self.H, self.W = x_shape
        self.kernel, self.stride, self.padding, self.size = kernel, stride, padding, size
        line = max(1, size[1] * self.C)
        self.rows = evenly(size[0], ITEM // line)  # of windows, in an item
        self.images = evenly(self.N, ITEM // (size[0] * line)) if self.rows == size[0] else 1
        # a position from the window's corner, i·W + j, fits into a byte for 3 × 3 and W up to 126
        self.line = self.W if (kernel[0] - 1) * self.W + kernel[1] <= 256 else kernel[1]

    def items(self):
        """[(images, rows p)], all of one size: the last ones begin earlier and do some windows again."""
        return [(slice(n, n + self.images), slice(p, p + self.rows)) for n in starts(self.N, self.images)
                for p in starts(self.size[0], self.rows)]

    def corners(self):
        """h·W + w of the windows' corners, (OH, OW, 1)."""
        rows, columns = (np.arange(n, dtype=np.int32) * s - pad for n, s, pad in zip(self.size, self.stride, self.padding, strict=True))
        return (rows[:, None] * self.W + columns)[..., None]


def evenly(n, most):
    """How long pieces of 0 ... n are, all alike and `most` at the most."""
    return -(-n // max(1, -(-n // max(1, most))))


def starts(n, count):
    """Where pieces of `count` begin that cover 0 ... n."""
    return [min(start, n - count) for start in range(0, n, count)] if n else []


class Plan:
    """Memory of one thread for the items of a call, and the passes over it: all views are made once, since while one thread is in
    Python the other one cannot go on.
    """

    def __init__(self, windows, dtype):
        self.windows = windows
        (KH, KW), (sh, sw), (OH, OW) = windows.kernel, windows.stride, (windows.rows, windows.size[1])
        self.deep = (OH - 1) * sh + KH
        self.phases, self.columns = [], []
        for phase in range(min(sw, KW)):
            self.add_phase(phase, -(-((OW - 1) * sw + KW - phase) // sw), dtype)
        shape = windows.images, self.deep, OW, windows.C
        self.seen = [self.phases[j % sw][:, :, j // sw:j // sw + OW] for j in range(KW)]
        row_best, row_numbers, passes = across(self.seen, shape)
        below = [(slice(None), slice(i, i + (OH - 1) * sh + 1, sh)) for i in range(KH)]
        self.best, self.numbers, further = down([row_best[rows] for rows in below], [row_numbers[rows] for rows in below], windows.line)
        self.passes = passes + further

    def add_phase(self, phase, count, dtype):
        """Columns w ≡ phase (mod stride), counted from the padding's first: side by side, so that a cell of the kernel sees whole rows."""
        s, left, W = self.windows.stride[1], self.windows.padding[1], self.windows.W
        first = max(0, -((phase - left) // s))
        past = min(count, (W - 1 + left - phase) // s + 1)
        columns = scratch(f"pool phase {phase}", (self.windows.images, self.deep, count, self.windows.C), dtype)
        columns[:, :, :first], columns[:, :, past:] = -np.inf, -np.inf
        self.phases.append(columns)
        start = first * s + phase - left
        self.columns.append((slice(first, past), slice(start, start + (past - first - 1) * s + 1, s)))

    def load(self, image, p):
        """Copy what the windows p see; rows outside are −∞."""
        top = p.start * self.windows.stride[0] - self.windows.padding[0]
        first, past = max(0, -top), min(self.deep, self.windows.H - top)
        for phase, (inside, columns) in zip(self.phases, self.columns, strict=True):
            if first:
                phase[:, :first] = -np.inf
            if past < self.deep:
                phase[:, past:] = -np.inf
            np.copyto(phase[:, first:past, inside], image[:, top + first:top + past, columns])


def across(seen, shape):
    """The largest of the pixels that the cells of a row see, its cell's number, and the passes that find them."""
    if len(seen) == 1:
        numbers = scratch("pool row numbers", shape, np.uint8)
        numbers.fill(0)
        return seen[0], numbers, []
    best, (numbers, better) = scratch("pool row", shape, seen[0].dtype), (scratch(f"pool row {k}", shape, np.uint8) for k in ("at", "if"))
    passes = [partial(np.greater, seen[1], seen[0], out=numbers.view(bool)), partial(np.maximum, seen[0], seen[1], out=best)]
    for cell, pixels in enumerate(seen[2:], 2):
        passes += [partial(np.greater, pixels, best, out=better.view(bool)), partial(np.maximum, best, pixels, out=best),
                   partial(np.multiply, better, np.uint8(cell), out=better), partial(np.maximum, numbers, better, out=numbers)]
    return best, numbers, passes


def down(seen, numbers, line):
    """The largest of what won in the rows of a window, its number line·i + j, and the passes. Later rows have larger numbers."""
    if len(seen) == 1:
        return seen[0], numbers[0], []
    shape = seen[0].shape
    best, (number, better, more) = scratch("pool best", shape, seen[0].dtype), (scratch(f"pool {k}", shape, np.uint8) for k in "abc")
    passes, so_far = [], (seen[0], numbers[0])
    for i in range(1, len(seen)):
        passes += [partial(np.greater, seen[i], so_far[0], out=better.view(bool)), partial(np.maximum, so_far[0], seen[i], out=best),
                   partial(np.add, numbers[i], np.uint8(i * line), out=more), partial(np.multiply, better, more, out=better),
                   partial(np.maximum, so_far[1], better, out=number)]
        so_far = best, number
    return best, number, passes


def channels_last(array):
    """The (N, H, W, C) view of an image in storage order."""
    return stored(array).transpose(0, 2, 3, 1)


@implements("max_pool2d", "cpu/cells", accepts_max,
            why="across the windows, then down, over whole rows, all cores")
def max_pool2d(x, kernel, stride, padding, dilation, size):
    """The largest pixel of every window, and its position h·W + w."""
    windows = Windows(x.shape, kernel, stride, padding, size)
    y = empty((*x.shape[:2], *size), x.dtype, x)
    indices = empty(y.shape, generic.index_dtype(x), x)
    source, largest, where = channels_last(x), channels_last(y), channels_last(indices)
    corners, plans = windows.corners(), {}

    def run(item):
        images, p = item
        plan = plans.get(get_ident())
        if plan is None:
            plan = plans[get_ident()] = Plan(windows, x.dtype)
        plan.load(source[images], p)
        for work in plan.passes:
            work()
        if not plan.best.min() > -np.inf:
            return True
        np.copyto(largest[images, p], plan.best)
        positions = scratch("pool positions", plan.numbers.shape, indices.dtype)
        np.copyto(positions, plan.numbers)
        if windows.line != windows.W:
            add_rows(positions, plan.numbers, windows)
        np.add(positions, corners[p], out=where[images, p])
        return False

    if any(parallel_map(run, windows.items())):  # a NaN wins, which no comparison says; and padding must not win over −∞
        return generic.max_pool2d(x, kernel, stride, padding, dilation, size)
    return y, indices


def add_rows(positions, numbers, windows):
    """Cell numbers i·KW + j to i·W + j, from the window's corner."""
    further = scratch("pool further", positions.shape, positions.dtype)
    np.copyto(further, numbers // np.uint8(windows.line))
    np.multiply(further, positions.dtype.type(windows.W - windows.line), out=further)
    np.add(positions, further, out=positions)


@implements("max_pool2d_grad_x", "cpu/scatter", accepts, why="a scatter per image; windows apart: an assignment")
def max_pool2d_grad_x(grad_y, indices, x_shape, window=None):
    """Add every number to the pixel its index names; image by image, each in the order of the windows."""
    grad_x = empty(x_shape, grad_y.dtype, grad_y)
    target, grad, where = channels_last(grad_x), channels_last(grad_y), channels_last(indices)
    C, channels = x_shape[1], np.arange(x_shape[1])
    apart = window is not None and window[3] == (1, 1) and all(s >= k for s, k in zip(window[1], window[0], strict=True))

    def run(n):
        at = scratch("pool at", where[n].shape, np.intp)  # into the image as it is stored
        np.multiply(where[n], C, out=at)
        np.add(at, channels, out=at)
        image = target[n].reshape(-1)
        image.fill(0)
        if apart:
            image[at.reshape(-1)] = grad[n].reshape(-1)
        else:
            np.add.at(image, at.reshape(-1), grad[n].reshape(-1))

    parallel_for(run, range(x_shape[0]))
    return grad_x


# --- the mean -------------------------------------------------------------------------------------------------------------

class Sums:
    """Sums over the windows of an image, first down its columns, then across: KH + KW additions in place of KH·KW."""

    def __init__(self, x_shape, kernel, stride, padding, size, back=False):
        (C, H, W), (OH, OW) = x_shape[1:], size
        self.strips = (OH, W, C)
        down = kernel_cells((H, W), (OH, W), (kernel[0], 1), (stride[0], 1), (padding[0], 0), (1, 1))
        across = kernel_cells((OH, W), (OH, OW), (1, kernel[1]), (1, stride[1]), (0, padding[1]), (1, 1))
        self.down = additions([(outputs[1], pixels[1]) for _, _, outputs, pixels in down], H if back else OH, -2, back)
        self.across = additions([(outputs[2], pixels[2]) for _, _, outputs, pixels in across], W if back else OW, -1, back)

    def strip(self, dtype):
        """Scratch memory for the sums down, a (C, OH, W) view."""
        return scratch("pool strips", self.strips, dtype).transpose(2, 0, 1)


def additions(cells, length, axis, back):
    """[(into, first, second)] for add_cells(): the pixels that the cells of a kernel see along an axis, added up for every window;
    back: what the windows share out, added up for every pixel. Two cells that see most are added without a pass that makes zeros.
    """
    cells = [(pixels, outputs) if back else (outputs, pixels) for outputs, pixels in cells]
    cells = sorted((cell for cell in cells if cell[0].stop > cell[0].start), key=lambda cell: cell[0].start - cell[0].stop)
    work = [(slice(0, length), None, None)]
    if len(cells) > 1 and all((into.step or 1) == 1 for into, _ in cells):
        (one, of_one), (two, of_two) = cells[:2]
        begin, end = max(one.start, two.start), min(one.stop, two.stop)
        if begin < end:
            work = [(slice(0, min(one.start, two.start)), None, None), (slice(max(one.stop, two.stop), length), None, None),
                    (slice(begin, end), part(one, of_one, begin, end), part(two, of_two, begin, end))]
            for into, of in cells[:2]:
                work += [(some, part(into, of, some.start, some.stop), None)
                         for some in (slice(into.start, begin), slice(end, into.stop)) if some.stop > some.start]
            cells = cells[2:]
    work += [(into, None, of) for into, of in cells]
    rest = (slice(None),) * (-1 - axis)
    return [tuple(some and (..., some, *rest) for some in terms) for terms in work if terms[0].stop > terms[0].start]


def part(into, of, start, stop):
    """The elements of the slice `of` that go to start ... stop, where all of them go to the slice `into`."""
    step = of.step or 1
    first = of.start + (start - into.start) * step
    return slice(first, first + (stop - start - 1) * step + 1, step)


def add_cells(target, source, work):
    """Carry out additions(): into = first + second; without a second, first alone; without a first, one more; without both, 0."""
    for into, first, second in work:
        view = target[into]
        if second is not None:
            np.add(view if first is None else source[first], source[second], out=view)
        elif first is not None:
            np.copyto(view, source[first])
        else:
            view.fill(0)


@implements("avg_pool2d", "cpu/strips", accepts, why="sums down, then across; an image a thread")
def avg_pool2d(x, kernel, stride, padding, size, count_include_pad, divisor_override):
    """The sum over every window, divided by how many cells count."""
    x = stored(x)
    sums, y = Sums(x.shape, kernel, stride, padding, size), empty((*x.shape[:2], *size), x.dtype, x)
    divisor = generic.divisor(x.shape, kernel, stride, padding, size, count_include_pad, divisor_override, x)

    def run(n):
        strip = sums.strip(x.dtype)
        add_cells(strip, x[n], sums.down)
        add_cells(y[n], strip, sums.across)
        np.divide(y[n], divisor, out=y[n])

    parallel_for(run, range(x.shape[0]))
    return y


@implements("avg_pool2d_grad_x", "cpu/strips", accepts, why="shares spread across, then down; an image a thread")
def avg_pool2d_grad_x(grad_y, x_shape, kernel, stride, padding, size, count_include_pad, divisor_override):
    """Every pixel of a window gets an equal share."""
    grad_y = stored(grad_y)
    sums, grad_x = Sums(x_shape, kernel, stride, padding, size, True), empty(x_shape, grad_y.dtype, grad_y)
    divisor = generic.divisor(x_shape, kernel, stride, padding, size, count_include_pad, divisor_override, grad_y)

    def run(n):
        strip = sums.strip(grad_y.dtype)
        share = scratch("pool share", grad_y[n].transpose(1, 2, 0).shape, grad_y.dtype).transpose(2, 0, 1)
        np.divide(grad_y[n], divisor, out=share)
        add_cells(strip, share, sums.across)
        add_cells(grad_x[n], strip, sums.down)

    parallel_for(run, range(x_shape[0]))
    return grad_x
