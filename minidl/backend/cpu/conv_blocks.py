"""What the rungs of convolution share: cutting the work into blocks, reading a bordered piece of the image, sums in lanes.

A block is a few images, or some rows of one image, small enough that everything done to it happens in the core's own
cache: read with its border, gathered, multiplied, biased, written. Nothing as large as an image is ever padded
or gathered as a whole. Blocks and lanes are cut by shape alone, so results do not depend on the number of threads.

Images here are (N, H, W, C): the storage itself, a view of what is N C H W everywhere else.
"""

import functools
import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.backend.threads import parallel_for, parallel_turns, scratch, spans

BLOCK = 1 << 22   # bytes of columns in a block: a quarter of it loses a fifth, since each of its products packs the filters anew
MERGED = 1 << 16  # numbers of partial sums that are merged at a time, in the second cache
ENOUGH = 1 << 21  # multiply-adds: what is smaller than two of these is done before a second thread has woken up


def channels_last(x):
    """(N, C, H, W) as (N, H, W, C), a view; contiguous if x is stored as activations are."""
    return x.transpose(0, 2, 3, 1)


def contiguous(x):
    """The same images with their channels as neighbours in memory: itself, or a copy made block by block."""
    if x.flags.c_contiguous:
        return x
    result = np.empty(x.shape, x.dtype)
    parallel_for(lambda n: np.copyto(result[n], x[n]), range(len(x)))
    return result


def blocks(N, rows, row_bytes, work, most=BLOCK, least=4):
    """Cut N images of so many rows into [(slice of images, slice of rows)] of at most `most` bytes (one row at the least).

    At least `least` of them where the work, in multiply-adds, is worth several threads.
    """
    pieces = min(least, max(1, work // ENOUGH))
    per_image = max(-(-rows * row_bytes // most), -(-pieces // max(N, 1)))
    if per_image > 1:
        return [(slice(n, n + 1), part) for n in range(N) for part in spans(rows, -(-rows // per_image))]
    images = max(1, min(most // max(1, rows * row_bytes), N // pieces))
    count = -(-N // images)
    if count > pieces:  # five blocks would keep two threads busy as long as six do
        images = -(-N // (-(-count // least) * least))
    return [(part, slice(0, rows)) for part in spans(N, images)]


def region(x, images, top, bottom, left, right, name="region", in_lines=False):
    """x (N, H, W, C) cut to these images, rows and columns; what lies outside of the image is 0. A view where it can be.

    Channels are neighbours in memory, but pixels need not be: a view of some of the channels of a larger array. Who
    reads a line of pixels as one row of W·C numbers asks for it in_lines.
    """
    H, W, C = x.shape[1:]
    a, b, c, d = max(top, 0), min(bottom, H), max(left, 0), min(right, W)
    neighbours = x.strides[3] == x.itemsize and (not in_lines or x.strides[2] == C * x.itemsize)
    if (a, b, c, d) == (top, bottom, left, right) and neighbours:
        return x[images, top:bottom, left:right]
    piece = scratch(name, (images.stop - images.start, bottom - top, right - left, C), x.dtype)
    if a >= b or c >= d:
        piece[...] = 0
        return piece
    inner = piece[:, a - top:b - top]
    piece[:, :a - top] = piece[:, b - top:] = 0
    inner[:, :, :c - left] = inner[:, :, d - left:] = 0
    inner[:, :, c - left:d - left] = x[images, a:b, c:d]
    return piece


def gather(x, images, p, OW, kernel, stride, before, dilation, groups=1):
    """The windows of the output rows p of these images as matrices (groups, rows, KH·KW·C/groups) in this thread's scratch memory."""
    KH, KW = kernel
    P, C = p.stop - p.start, x.shape[3] // groups
    top, left = p.start * stride[0] - before[0], -before[1]
    piece = region(x, images, top, top + (P - 1) * stride[0] + dilation[0] * (KH - 1) + 1,
                   left, left + (OW - 1) * stride[1] + dilation[1] * (KW - 1) + 1)
    n, h, w, c = piece.strides
    columns = scratch("columns", (groups, len(piece), P, OW, KH, KW * C), x.dtype)
    strides = (C * c, n, h * stride[0], w * stride[1], h * dilation[0])
    if dilation[1] == 1 and w == C * c:  # the cells of a kernel row are neighbours: one long copy
        np.copyto(columns, as_strided(piece, columns.shape, (*strides, c)))
    else:
        cells = as_strided(piece, (*columns.shape[:5], KW, C), (*strides, w * dilation[1], c))
        np.copyto(columns.reshape(cells.shape), cells)
    return columns.reshape(groups, -1, KH * KW * C)


@functools.cache
def divisor(n, most):
    """The largest divisor of n up to `most`, or n itself where all of them are small: for a stack of equal products."""
    best = max((d for d in range(1, min(n, most) + 1) if n % d == 0), default=n)
    return best if best >= 16 else n


def lanes_for(bytes_of_one):
    """How many partial sums to keep: as many as eight threads could use, but no more than 16 MB of them."""
    return max(2, min(8, (1 << 24) // max(1, bytes_of_one)))


def sum_in_lanes(items, shape, dtype, term):
    """The sum over items of what term(item, out) writes to out (of this shape): a few partial sums, merged in order."""
    items, size = list(items), math.prod(shape)
    lanes = min(len(items), lanes_for(size * np.dtype(dtype).itemsize))
    totals = [np.empty(shape, dtype) for _ in range(lanes)]  # each its own: all but the first are free again afterwards

    def add_up(lane):
        total = totals[lane]
        term(items[lane], total)
        for item in items[lane + lanes::lanes]:
            another = scratch("term", shape, dtype)
            term(item, another)
            np.add(total, another, out=total)

    def merge(part):
        first, *others = [total.reshape(-1)[part] for total in totals]
        for other in others:
            np.add(first, other, out=first)

    parallel_turns(iter([(add_up, range(lanes)), (merge, spans(size, MERGED) if lanes > 1 else [])]), lanes)
    return totals[0]
