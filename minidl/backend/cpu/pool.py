"""Pooling on the CPU: across the windows, then down them, many windows at once, on all cores, without fancy indexing.

The idea. Cell (i, j) of all windows is a view of the image, so its part of a maximum is a handful of element-wise passes.
The winner of a row of a window is found first, then the winner of these rows: KW + KH looks in place of KW·KH. With a stride
along w a view would be runs of C numbers; the columns are therefore sorted by w mod stride first, and every cell sees whole
rows. The winner's place is kept in one byte: later cells have larger numbers, so `cell > largest so far` times its number, and
the maximum of these, is the last cell that improved, the first of equal ones.

Backward is NumPy's own scatter, image by image. A second thread gains a third only (it seems that np.add.at keeps the
interpreter's lock); comparing the number again, cell by cell, takes twice as long, and so does `image[at] += g` over every third
window, which do not overlap. Where no windows do, a mere assignment is enough.

Measured (the quickest of 11), (8, 64, 112, 112), 3×3 stride 2: forward 5.0 ms, backward 2.5 (generic 104 and 5.7); the 13
poolings of GoogLeNet: forward 20 ms, backward 14 (PyTorch 6.5 and 7.2). Two threads are no quicker than one and a half: each of
thirty calls an item waits about 10 µs for the interpreter's lock (two processes do not disturb each other). Fewer calls or
views made beforehand, columns first, or a pixel and its place in one 64-bit number: 22 to 30 ms.

A mean adds the cells of a column, then of a row; the first two are added into the result, which needs no zeros then (the 10
poolings of Inception-v3 8.8 ms each way, with zeros 10.2).
"""

from functools import partial

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.generic import pool as generic
from minidl.backend.layout import empty, stored
from minidl.backend.threads import BIG, parallel_for, parallel_map, scratch, spans
from minidl.backend.window import kernel_cells

ITEM = 1 << 19  # outputs that a thread takes up at once: smaller ones hand the interpreter over too often for two threads
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
    """Where the windows of a pooling meet the image: rows p of an item, and columns sorted by w mod stride."""

    def __init__(self, x_shape, kernel, stride, padding, size):
        self.N, self.C, self.H, self.W = x_shape
        self.kernel, self.stride, self.padding, self.size = kernel, stride, padding, size

    def items(self):
        """[(images, rows p)] of about ITEM outputs each."""
        rows, columns = self.size
        line = max(1, columns * self.C)
        if rows * line <= ITEM:
            return [(images, slice(0, rows)) for images in spans(self.N, max(1, ITEM // (rows * line)))]
        return [(slice(n, n + 1), p) for n in range(self.N) for p in spans(rows, max(1, ITEM // line))]

    def needed(self, p):
        """The rows h that the windows p look at."""
        first = p.start * self.stride[0] - self.padding[0]
        last = (p.stop - 1) * self.stride[0] - self.padding[0] + self.kernel[0] - 1
        return slice(max(0, first), min(self.H, last + 1))

    def cells(self, axis, outputs):
        """(cell, is it the first, outputs) along one axis: for which windows a cell is the first that lies in the image,
        then for which windows it is a further one.
        """
        s, pad, length = self.stride[axis], self.padding[axis], (self.H, self.W)[axis]
        for cell in range(self.kernel[axis]):
            start, stop = max(outputs.start, -((cell - pad) // s)), min(outputs.stop, (length - 1 - cell + pad) // s + 1)
            further = max(outputs.start, (pad - cell) // s + 1) if cell else stop  # before it, pad − q·s = cell: nothing lies before
            first, further = slice(start, min(further, stop)), slice(further, stop)
            for is_first, some in ((True, first), (False, further)):
                if some.stop > some.start:
                    yield cell, is_first, some

    def rows(self, p, h):
        """(cell, is it the first, rows of the item, rows among h) down the windows."""
        for cell, is_first, some in self.cells(0, p):
            start = some.start * self.stride[0] - self.padding[0] + cell - h.start
            yield (cell, is_first, (slice(None), slice(some.start - p.start, some.stop - p.start)),
                   (slice(None), slice(start, start + (some.stop - some.start - 1) * self.stride[0] + 1, self.stride[0])))

    def columns(self):
        """(cell, is it the first, outputs, phase, columns of that phase) across the windows."""
        whole = slice(None), slice(None)
        for cell, is_first, some in self.cells(1, slice(0, self.size[1])):
            shift, phase = divmod(cell - self.padding[1], self.stride[1])
            yield cell, is_first, (*whole, some), phase, (*whole, slice(some.start + shift, some.stop + shift))

    def corners(self, p):
        """h·W + w of the windows' corners, (rows, OW, 1)."""
        rows = np.arange(p.start, p.stop, dtype=np.int32) * self.stride[0] - self.padding[0]
        columns = np.arange(self.size[1], dtype=np.int32) * self.stride[1] - self.padding[1]
        return (rows[:, None] * self.W + columns)[..., None]

    def by_phase(self, block):
        """The columns of some rows sorted by w mod stride, one array a phase."""
        if self.stride[1] == 1:
            return [block]
        phases = []
        for phase in range(self.stride[1]):
            columns = block[:, :, phase::self.stride[1]]
            phases.append(scratch(f"pool phase {phase}", columns.shape, columns.dtype))
            np.copyto(phases[-1], columns)
        return phases


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
    # a position from the window's corner, i·W + j, fits into a byte for 3 × 3 and W up to 126
    down = windows.W if (kernel[0] - 1) * windows.W + kernel[1] <= 256 else kernel[1]

    def run(item):
        images, p = item
        h, best = windows.needed(p), largest[images, p]
        of_rows = best.shape[0], h.stop - h.start, *best.shape[2:]
        row_best, row_numbers = scratch("pool row", of_rows, x.dtype), scratch("pool row numbers", of_rows, np.uint8)
        numbers, better, more = (scratch(f"pool {name}", best.shape, np.uint8) for name in "abc")
        row_better = scratch("pool row better", of_rows, np.uint8)
        phases = windows.by_phase(source[images, h])
        passes = []
        for cell, is_first, outputs, phase, pixels in windows.columns():
            passes += across(is_first, phases[phase][pixels], cell, row_best[outputs], row_numbers[outputs], row_better[outputs])
        for cell, is_first, outputs, rows in windows.rows(p, h):
            passes += downwards(is_first, row_best[rows], row_numbers[rows], cell * down, best[outputs], numbers[outputs],
                                better[outputs], more[outputs])
        for work in passes:
            work()
        if np.isnan(best, out=better.view(bool)).any():
            return True
        positions = where[images, p]
        np.copyto(positions, numbers)
        if down != windows.W:
            add_rows(positions, numbers, better, more, windows)
        np.add(positions, windows.corners(p), out=positions)
        return False

    if any(parallel_map(run, windows.items())):  # a NaN wins, which no comparison says
        return generic.max_pool2d(x, kernel, stride, padding, dilation, size)
    return y, indices


def across(is_first, seen, number, best, numbers, better):
    """The passes that look at one cell of every row of windows."""
    if is_first:
        return partial(np.copyto, best, seen), partial(numbers.fill, number)
    return (partial(np.greater, seen, best, out=better.view(bool)), partial(np.maximum, best, seen, out=best),
            partial(np.multiply, better, np.uint8(number), out=better), partial(np.maximum, numbers, better, out=numbers))


def downwards(is_first, seen, seen_numbers, number, best, numbers, better, more):
    """The passes that look at one row of all windows: what won in the row, and where. Later rows have larger numbers."""
    if is_first:
        return partial(np.copyto, best, seen), partial(np.add, seen_numbers, np.uint8(number), out=numbers)
    return (partial(np.greater, seen, best, out=better.view(bool)), partial(np.maximum, best, seen, out=best),
            partial(np.add, seen_numbers, np.uint8(number), out=more), partial(np.multiply, better, more, out=better),
            partial(np.maximum, numbers, better, out=numbers))


def add_rows(positions, numbers, below, row, windows):
    """Cell numbers i·KW + j to i·W + j, from the window's corner."""
    KH, KW = windows.kernel
    row.fill(0)
    for i in range(1, KH):
        np.greater_equal(numbers, np.uint8(i * KW), out=below.view(bool))
        np.add(row, below, out=row)
    further = scratch("pool further", positions.shape, positions.dtype)
    np.multiply(row, positions.dtype.type(windows.W - KW), out=further)
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
