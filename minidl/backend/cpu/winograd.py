"""Winograd's convolution F(m×m, 3×3): a 3×3 convolution of stride 1 with 2.25 (m = 2) or 4 (m = 4) times fewer multiplications.

    y = Aᵀ [ (G w Gᵀ) ∘ (Bᵀ x B) ] A         per tile of m×m outputs, that is of t×t = (m + 2)×(m + 2) pixels

In the domain between, a convolution is a product of numbers; summed over channels, t·t matrix products of tiles × C with
C × O. The transforms are products too, with kron(Bᵀ, Bᵀ) and kron(Aᵀ, Aᵀ): tiles are gathered so that the t·t numbers of
a tile are one column. A block of tiles goes through all four steps in the cache.

Rounding grows with m: for outputs of size 1 the error in float32 is 2e-6 to 2e-5 with m = 2, 2e-5 to 8e-5 with m = 4
(im2col: 2e-6). tests/test_cpu_conv.py bounds it; use_winograd(False) turns it off; float64 never takes it.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.backend.cpu.conv_blocks import blocks, channels_last, region
from minidl.backend.layout import empty
from minidl.backend.threads import parallel_for, scratch, spans
from minidl.backend.window import output_size

BLOCK = 1 << 21  # bytes of a block's transformed tiles and products
CHUNK = 1 << 26  # bytes of transformed tiles and products that may lie in memory at a time, where blocks would be too small
FEW = 40         # tiles: a block of fewer wastes its products on reading the filters
STEP = 512       # columns of a transform at a time: t·t × t·t × 512 stays in the first-level cache


class Tile:
    """The matrices of F(m×m, 3×3)."""

    def __init__(self, B, G, A):
        B, G, A = (np.array(rows, np.float64) for rows in (B, G, A))
        self.m, self.t = A.shape
        self.B, self.G, self.A = (np.kron(M, M).astype(np.float32) for M in (B, G, A))  # (t·t, t·t), (t·t, 9), (m·m, t·t)
        self.AT, self.GT = np.ascontiguousarray(self.A.T), np.ascontiguousarray(self.G.T)
        self.G_turned = np.ascontiguousarray(self.G[:, ::-1])  # for filters turned by 180°


F2 = Tile(B=[[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
          G=[[1, 0, 0], [.5, .5, .5], [.5, -.5, .5], [0, 0, 1]],
          A=[[1, 1, 1, 0], [0, 1, -1, -1]])
F4 = Tile(B=[[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
             [0, 4, 0, -5, 0, 1]],
          G=[[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6],
             [0, 0, 1]],
          A=[[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def forward(tile, x, weight, bias, padding):
    """conv2d of a 3×3 kernel at stride 1."""
    y = empty((x.shape[0], len(weight), *output_size(x.shape, (3, 3), (1, 1), padding, (1, 1))), x.dtype, x)
    filters = transformed(tile.G, weight).transpose(0, 2, 1)  # (t·t, C, O)
    _correlate(tile, channels_last(x), filters, bias, channels_last(y), (padding[0][0], padding[1][0]))
    return y


def grad_x(tile, grad_y, weight, x_shape, padding):
    """The same with filters turned, and C and O changed about."""
    result = empty(x_shape, grad_y.dtype, grad_y)
    filters = transformed(tile.G_turned, weight)  # (t·t, O, C)
    _correlate(tile, channels_last(grad_y), filters, None, channels_last(result), (2 - padding[0][0], 2 - padding[1][0]))
    return result


def transformed(G, weight):
    """G w Gᵀ of every filter: (t·t, O, C)."""
    O, C = weight.shape[:2]
    cells = channels_last(weight).reshape(O, 9, C)
    result = np.empty((len(G), O, C), weight.dtype)
    per = max(1, (1 << 16) // C)

    def some(part):  # a few filters at a time: (9, O, C) in the cache
        turned = scratch("filters", (9, part.stop - part.start, C), weight.dtype)
        turned[...] = cells[part].transpose(1, 0, 2)
        apply(G, turned.reshape(9, -1), result[:, part].reshape(len(G), -1, copy=False))

    parallel_for(some, spans(O, per))
    return result


def apply(matrix, columns, out):
    """matrix · columns (k, n) into out, STEP columns at a time."""
    n = columns.shape[1]
    whole = n // STEP
    if whole:
        k, item = len(columns), columns.itemsize
        a = as_strided(columns, (whole, k, STEP), (STEP * item, columns.strides[0], item))
        b = as_strided(out, (whole, len(out), STEP), (STEP * item, out.strides[0], item))
        np.matmul(matrix, a, out=b)
    if n % STEP:
        np.matmul(matrix, columns[:, whole * STEP:], out=out[:, whole * STEP:])


def tiles(tile, x, images, rows, across, before, name="tiles"):
    """The t×t pixels of these rows of tiles, each tile a column: (t·t, tiles·C) in scratch memory."""
    m, t, C = tile.m, tile.t, x.shape[3]
    top, left = rows.start * m - before[0], -before[1]
    piece = region(x, images, top, top + (rows.stop - rows.start) * m + 2, left, left + across * m + 2)
    n, h, w, c = piece.strides
    shape = (t, t, len(piece), rows.stop - rows.start, across, C)
    gathered = scratch(name, shape, x.dtype)
    np.copyto(gathered, as_strided(piece, shape, (h, w, n, h * m, w * m, c)))
    return gathered.reshape(t * t, -1)


def tile_blocks(tile, N, down, across, C, O, most=BLOCK):
    """Blocks of whole rows of tiles."""
    work = tile.t ** 2 * N * down * across * C * O
    return blocks(N, down, across * tile.t ** 2 * (C + O) * 4, work, most)


def _correlate(tile, x, filters, bias, y, before):
    """y (N, OH, OW, O) = x (N, H, W, C) with transformed filters (t·t, C, O)."""
    (N, OH, OW, O), C = y.shape, x.shape[3]
    across, down = -(-OW // tile.m), -(-OH // tile.m)
    if BLOCK // (tile.t ** 2 * (C + O) * 4) >= FEW:
        return _in_blocks(tile, x, filters, bias, y, before, tile_blocks(tile, N, down, across, C, O))
    for chunk in spans(N, max(1, CHUNK // (tile.t ** 2 * down * across * (C + O) * 4))):
        _by_position(tile, x[chunk], filters, bias, y[chunk], before)
    return None


def _in_blocks(tile, x, filters, bias, y, before, parts):
    """Every block goes through all four steps in the cache."""
    m, tt, across, C, O = tile.m, tile.t ** 2, -(-y.shape[2] // tile.m), x.shape[3], y.shape[3]

    def block(images_rows):
        images, rows = images_rows
        gathered = tiles(tile, x, images, rows, across, before)
        V = scratch("V", gathered.shape, x.dtype)
        apply(tile.B, gathered, V)
        V = V.reshape(tt, -1, C)
        M = scratch("tiles", (tt, V.shape[1], O), x.dtype)  # the gathered pixels are not needed any more
        np.matmul(V, filters, out=M)
        _back(tile, M.reshape(tt, -1), bias, y[images, rows.start * m:rows.stop * m], "V")  # nor is V

    parallel_for(block, parts)


def _by_position(tile, x, filters, bias, y, before):
    """Many channels: the filters of one position fill the cache, so one position at a time is multiplied, for all tiles."""
    (N, OH, OW, O), C, m, tt = y.shape, x.shape[3], tile.m, tile.t ** 2
    down, across = -(-OH // m), -(-OW // m)
    V, M = np.empty((tt, N * down * across, C), x.dtype), np.empty((tt, N * down * across, O), x.dtype)
    parts = tile_blocks(tile, N, down, across, C, O)

    def of_block(images_rows, array):
        images, rows = images_rows
        first, last = (images.start * down + rows.start) * across, ((images.stop - 1) * down + rows.stop) * across
        return array[:, first:last].reshape(tt, -1, copy=False)

    parallel_for(lambda part: apply(tile.B, tiles(tile, x, *part, across, before), of_block(part, V)), parts)
    parallel_for(lambda k: np.matmul(V[k], filters[k], out=M[k]), range(tt))
    parallel_for(lambda part: _back(tile, of_block(part, M), bias, y[part[0], part[1].start * m:part[1].stop * m], "V"), parts)


def _back(tile, M, bias, y, name):
    """Aᵀ M A (t·t, tiles·O) into these rows of y (n, h, w, O), with the bias."""
    m, O = tile.m, y.shape[3]
    Y = scratch(name, (m * m, M.shape[1]), M.dtype)
    apply(tile.A, M, Y)
    if bias is not None:
        Y.reshape(-1, O)[...] += bias
    scatter(m, Y.reshape(m, m, len(y), -(-y.shape[1] // m), -(-y.shape[2] // m), O), y)


def scatter(m, Y, y):
    """Tiles Y (m, m, n, down, across, O) to their places in y (n, h, w, O); the last ones may hang over its edges."""
    n, h, w, O = y.shape
    if h % m == 0 and w % m == 0:
        y.reshape(n, h // m, m, w // m, m, O)[...] = Y.transpose(2, 3, 0, 4, 1, 5)
        return
    for i in range(min(m, h)):
        for j in range(min(m, w)):
            places = y[:, i::m, j::m]
            places[...] = Y[i, j][:, :places.shape[1], :places.shape[2]]
