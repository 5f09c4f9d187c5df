"""Winograd's convolution F(m, r) along each axis: kernels 3×3, 5×5, 1×7, ... at stride 1 with half to a quarter of the multiplications.

    y = Aᵀ [ (G w Gᵀ) ∘ (Bᵀ x B) ] A         per tile of m×m outputs, that is of t×t pixels, t = m + r − 1

In the domain between, a convolution is a product of numbers; summed over channels, t·t matrix products of tiles × C with
C × O. The transforms are products too: tiles are gathered so that the t·t numbers of a tile are one column. Small tiles go
through kron(Bᵀ, Bᵀ) and kron(Aᵀ, Aᵀ), larger ones through Bᵀ down and Bᵀ across, which halves the time of transforms
(128×32×16×16 -> 32: 1.6 ms instead of 2.0). A block of tiles goes through all steps in the cache.

    kernel           3×3 F(4×4)   3×3 F(2×2)   5×5 F(4×4)   1×3 F(4)   1×5 F(4)   1×7 F(4)
    multiplications     1/4         1/2.25       1/6.25        1/2       1/2.5      1/2.8
    rounding           2e-5          2e-5         1e-4        1e-5        4e-5       8e-5       (columns: 4e-6)

Rounding is the error in float32 where outputs have size 1; tests/test_cpu_conv.py bounds it, use_winograd(False) turns all
this off, and float64 never takes it. Measured against columns, two cores of an AMD EPYC, OpenBLAS's AVX-512 kernels, GFLOP/s
counted as direct convolution: 3×3, 8×256×56×56 -> 256: 927 instead of 233; 8×64×56×56 -> 64: 561 instead of 326;
8×256×14×14 -> 256 with F(2×2): 538 instead of 353. Kernels in a line, 8×192×17×17 -> 192, 1×7: 578.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.backend.cpu.conv_blocks import blocks, channels_last, region
from minidl.backend.layout import empty
from minidl.backend.threads import parallel_for, scratch, spans
from minidl.backend.window import output_size

BLOCK = 1 << 22  # bytes of a block's transformed tiles and products: a quarter of it loses a third (too few tiles a product)
CHUNK = 1 << 26  # bytes of transformed tiles and products that may lie in memory at a time, where blocks would be too small
FEW = 100        # tiles: a block of fewer wastes its products on reading the filters (8×256×56×56 -> 256: 611 GFLOP/s; by position 927)
FILTERS = 1 << 14  # numbers of filters transformed at a time, times KH·KW
APART = 6        # pixels across a tile: through one matrix for both axes F(2×2) takes 1.2 ms instead of 1.8, F(4×4) 1.9 instead of 1.1
STEP = 512       # columns of a transform at a time: they stay in the first-level cache
POINTS = (0, 1, -1, 2, -2, 1 / 2, -1 / 2, 3 / 4, -4 / 3)  # where the polynomials behind it are evaluated; the last is infinity
FIVE = (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)  # for F(4, 3): a quarter of the rounding that 0, 1, -1, 2, -2 give


def axis(m, r):
    """(Bᵀ, G, Aᵀ) of F(m, r), m outputs of a filter of r cells from t = m + r − 1 points: Toom and Cook's, transposed."""
    t = m + r - 1
    points = FIVE if t == 6 else POINTS[:t - 1]
    B, G, A = np.zeros((t, t)), np.zeros((t, r)), np.zeros((m, t))
    for i, a in enumerate(points):
        others = points[:i] + points[i + 1:]
        B[i, :t - 1] = np.poly(others)[::-1]  # the polynomial that is 0 at all the other points
        G[i] = np.power(float(a), np.arange(r)) / np.prod([a - b for b in others])
        A[:, i] = np.power(float(a), np.arange(m))
    B[-1], G[-1, -1], A[-1, -1] = np.atleast_1d(np.poly(points))[::-1], 1, 1  # infinity
    return B, G, A


def _crossed(down, across):
    """The matrices B, G, A for both axes at once, and (B, A, Aᵀ) as pairs (down, across)."""
    down, across = ([matrix.astype(np.float32) for matrix in one] for one in (down, across))
    pairs = [(down[k], across[k]) for k in (0, 2)]
    return [np.kron(*both) for both in zip(down, across, strict=True)], (*pairs, tuple(np.ascontiguousarray(a.T) for a in pairs[1]))


class Tile:
    """The matrices of F(m, KH) down by F(n, KW) across."""

    def __init__(self, outputs, kernel):
        self.outputs, self.kernel = outputs, kernel
        self.size = tuple(m + r - 1 for m, r in zip(outputs, kernel, strict=True))
        self.many = self.size[0] * self.size[1]  # t·t: how many products there are
        (B, self.G, A), parts = _crossed(axis(outputs[0], kernel[0]), axis(outputs[1], kernel[1]))
        self.AT, self.GT = np.ascontiguousarray(A.T), np.ascontiguousarray(self.G.T)
        self.apart = min(self.size) >= APART
        self.B, self.A, self.AT = parts if self.apart else (B, A, self.AT)  # what transform() takes
        self.G_turned = np.ascontiguousarray(self.G[:, ::-1])  # for filters turned by 180°

    def counts(self, height, width):
        """How many tiles cover an output of this size, down and across."""
        return -(-height // self.outputs[0]), -(-width // self.outputs[1])


def forward(tile, x, weight, bias, padding):
    """conv2d at stride 1."""
    y = empty((x.shape[0], len(weight), *output_size(x.shape, tile.kernel, (1, 1), padding, (1, 1))), x.dtype, x)
    filters = transformed(tile.G, channels_last(weight).reshape(len(weight), -1, weight.shape[1]).transpose(1, 2, 0))  # (t·t, C, O)
    _correlate(tile, channels_last(x), filters, bias, channels_last(y), (padding[0][0], padding[1][0]))
    return y


def grad_x(tile, grad_y, weight, x_shape, padding):
    """The same with filters turned, and C and O changed about."""
    result = empty(x_shape, grad_y.dtype, grad_y)
    filters = transformed(tile.G_turned, channels_last(weight).reshape(len(weight), -1, weight.shape[1]).transpose(1, 0, 2))  # (t·t, O, C)
    _correlate(tile, channels_last(grad_y), filters, None, channels_last(result),
               tuple(k - 1 - pad[0] for k, pad in zip(tile.kernel, padding, strict=True)))
    return result


def transformed(G, cells):
    """G w Gᵀ of filters given as (KH·KW, rows, columns), in any memory order: (t·t, rows, columns)."""
    K, rows, columns = cells.shape
    result = np.empty((len(G), rows, columns), cells.dtype)

    def some(part):  # a few rows at a time stay in the cache
        turned = scratch("filters", (K, part.stop - part.start, columns), cells.dtype)
        turned[...] = cells[:, part]
        apply(G, turned.reshape(K, -1), result[:, part].reshape(len(G), -1, copy=False))

    parallel_for(some, spans(rows, max(1, FILTERS // columns)))
    return result


def apply(matrix, columns, out):
    """matrix · columns (k, n) into out, STEP columns at a time."""
    _along(matrix, columns[None], out[None])


def transform(matrices, columns, out, between):
    """Tiles (t·t, n) into out, by the matrix for both axes, or down and then across by way of scratch memory named `between`."""
    if isinstance(matrices, np.ndarray):
        return apply(matrices, columns, out)
    (r, k), (r2, k2) = (matrix.shape for matrix in matrices)
    half = scratch(between, (r, k2, columns.shape[1]), columns.dtype)
    _along(matrices[0], columns.reshape(k, k2, -1, copy=False).transpose(1, 0, 2), half.transpose(1, 0, 2))
    return _along(matrices[1], half, out.reshape(r, r2, -1, copy=False))


def _along(matrix, x, out):
    """matrix · x[g] for every g of x (g, k, n), STEP of the n at a time."""
    n = x.shape[2]
    whole = n // STEP * STEP
    if whole:
        a, b = (array[:, :, :whole].reshape(*array.shape[:2], -1, STEP, copy=False).swapaxes(1, 2) for array in (x, out))
        np.matmul(matrix, a, out=b)
    if n % STEP:
        np.matmul(matrix, x[:, :, whole:], out=out[:, :, whole:])


def tiles(tile, x, images, rows, across, before, name="tiles"):
    """The t×t pixels of these rows of tiles, each tile a column: (t·t, tiles·C) in scratch memory."""
    (m, m2), (t, t2), C = tile.outputs, tile.size, x.shape[3]
    top, left = rows.start * m - before[0], -before[1]
    piece = region(x, images, top, top + (rows.stop - rows.start - 1) * m + t, left, left + (across - 1) * m2 + t2)
    n, h, w, c = piece.strides
    shape = (t, t2, len(piece), rows.stop - rows.start, across, C)
    gathered = scratch(name, shape, x.dtype)
    np.copyto(gathered, as_strided(piece, shape, (h, w, n, h * m, w * m2, c)))
    return gathered.reshape(t * t2, -1)


def tile_blocks(tile, N, down, across, C, O, most=None):
    """Blocks of whole rows of tiles."""
    work = tile.many * N * down * across * C * O
    return blocks(N, down, across * tile.many * (C + O) * 4, work, most or BLOCK)


def _correlate(tile, x, filters, bias, y, before):
    """y (N, OH, OW, O) = x (N, H, W, C) with transformed filters (t·t, C, O)."""
    (N, OH, OW, O), C = y.shape, x.shape[3]
    down, across = tile.counts(OH, OW)
    if BLOCK // (tile.many * (C + O) * 4) >= FEW:
        return _in_blocks(tile, x, filters, bias, y, before, tile_blocks(tile, N, down, across, C, O))
    for chunk in spans(N, max(1, CHUNK // (tile.many * down * across * (C + O) * 4))):
        _by_position(tile, x[chunk], filters, bias, y[chunk], before)
    return None


def _in_blocks(tile, x, filters, bias, y, before, parts):
    """Every block goes through all four steps in the cache."""
    m, tt, (_, across), C, O = tile.outputs[0], tile.many, tile.counts(*y.shape[1:3]), x.shape[3], y.shape[3]

    def block(images_rows):
        images, rows = images_rows
        gathered = tiles(tile, x, images, rows, across, before)
        V = gathered if tile.apart else scratch("V", gathered.shape, x.dtype)  # two pieces of memory in turns: fewer fit the cache
        transform(tile.B, gathered, V, "V")
        V = V.reshape(tt, -1, C)
        M = scratch("V" if tile.apart else "tiles", (tt, V.shape[1], O), x.dtype)
        np.matmul(V, filters, out=M)
        _back(tile, M.reshape(tt, -1), bias, y[images, rows.start * m:rows.stop * m])

    parallel_for(block, parts)


def _by_position(tile, x, filters, bias, y, before):
    """Many channels: the filters of one position fill the cache, so one position at a time is multiplied, for all tiles."""
    (N, OH, OW, O), C, m, tt = y.shape, x.shape[3], tile.outputs[0], tile.many
    down, across = tile.counts(OH, OW)
    V, M = np.empty((tt, N * down * across, C), x.dtype), np.empty((tt, N * down * across, O), x.dtype)
    parts = tile_blocks(tile, N, down, across, C, O)

    def of_block(images_rows, array):
        images, rows = images_rows
        first, last = (images.start * down + rows.start) * across, ((images.stop - 1) * down + rows.stop) * across
        return array[:, first:last].reshape(tt, -1, copy=False)

    parallel_for(lambda part: transform(tile.B, tiles(tile, x, *part, across, before), of_block(part, V), "V"), parts)
    parallel_for(lambda k: np.matmul(V[k], filters[k], out=M[k]), range(tt))
    parallel_for(lambda part: _back(tile, of_block(part, M), bias, y[part[0], part[1].start * m:part[1].stop * m]), parts)


def _back(tile, M, bias, y):
    """Aᵀ M A (t·t, tiles·O) into these rows of y (n, h, w, O), with the bias; M may lie in "tiles", or in "V" if tile.apart."""
    O = y.shape[3]
    Y = scratch("V", (tile.outputs[0] * tile.outputs[1], M.shape[1]), M.dtype)
    transform(tile.A, M, Y, "tiles")
    if bias is not None:
        Y.reshape(-1, O)[...] += bias
    scatter(tile.outputs, Y.reshape(*tile.outputs, len(y), *tile.counts(*y.shape[1:3]), O), y)


def scatter(outputs, Y, y):
    """Tiles Y (m, m', n, down, across, O) to their places in y (n, h, w, O); the last ones may hang over its edges."""
    (n, h, w, O), (m, m2) = y.shape, outputs
    if h % m == 0 and w % m2 == 0:
        y.reshape(n, h // m, m, w // m2, m2, O)[...] = Y.transpose(2, 3, 0, 4, 1, 5)
        return
    for i in range(min(m, h)):
        for j in range(min(m2, w)):
            places = y[:, i::m, j::m2]
            places[...] = Y[i, j][:, :places.shape[1], :places.shape[2]]
