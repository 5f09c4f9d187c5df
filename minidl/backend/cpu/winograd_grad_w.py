"""The gradient of the filters in Winograd's domain: t·t products of transformed images with transformed gradients.

    y = Aᵀ [U ∘ V] A with U = G w Gᵀ, V = Bᵀ x B     so     grad_w = Gᵀ [ Σ over tiles of V ∘ (A grad_y Aᵀ) ] G

Two ways to add up. Few filters: blocks of tiles in the cache, each added to one of a few partial sums (t·t · C · O numbers).
Many filters: those sums would cost more than the products, so a chunk of the images is transformed first, and then each
thread makes whole sums, position by position.
"""

import numpy as np

from minidl.backend.cpu.conv_blocks import channels_last, contiguous, sum_in_lanes
from minidl.backend.cpu.winograd import apply, tile_blocks, tiles, transform
from minidl.backend.threads import parallel_for, scratch, spans

LANES = 1 << 20  # bytes of t·t · C · O: above this the partial sums cost more than they save
CHUNK = 1 << 26  # bytes of transformed images and gradients that may wait for their products


def grad_w(tile, x, grad_y, w_shape, padding):
    """conv2d_grad_w at stride 1."""
    (O, C, KH, KW), tt = w_shape, tile.many
    x, grad_y, before = channels_last(x), contiguous(channels_last(grad_y)), (padding[0][0], padding[1][0])
    way = _in_lanes if tt * C * O * 4 <= LANES else _by_position
    sums = way(tile, x, grad_y, before)  # (t·t, O, C)
    result = np.empty((O, KH * KW, C), x.dtype)

    def back(part):
        cells = scratch("tiles", (KH * KW, part.stop - part.start, C), x.dtype)
        apply(tile.GT, sums[:, part].reshape(tt, -1, copy=False), cells.reshape(KH * KW, -1))
        result[part] = cells.transpose(1, 0, 2)

    parallel_for(back, spans(O, max(1, (1 << 16) // C)))
    return result.reshape(O, KH, KW, C).transpose(0, 3, 1, 2)


def _in_lanes(tile, x, grad_y, before):
    N, OH, OW, O = grad_y.shape
    C, tt, (down, across) = x.shape[3], tile.many, tile.counts(OH, OW)

    def term(block, out):
        images, rows = block
        count = (images.stop - images.start) * (rows.stop - rows.start) * across
        V, M = scratch("V", (tt, count, C), x.dtype), scratch("M", (tt, count, O), x.dtype)
        _transform(tile, x, grad_y, images, rows, across, before, V.reshape(tt, -1), M.reshape(tt, -1))
        np.matmul(M.transpose(0, 2, 1), V, out=out)

    return sum_in_lanes(tile_blocks(tile, N, down, across, C, O), (tt, O, C), x.dtype, term)


def _by_position(tile, x, grad_y, before):
    N, OH, OW, O = grad_y.shape
    C, tt, (down, across) = x.shape[3], tile.many, tile.counts(OH, OW)
    sums = None
    for chunk in spans(N, max(1, CHUNK // (tt * down * across * (C + O) * 4))):
        count = (chunk.stop - chunk.start) * down * across
        V, M = np.empty((tt, count, C), x.dtype), np.empty((tt, count, O), x.dtype)
        some_x, some_y = x[chunk], grad_y[chunk]

        def fill(block, some_x=some_x, some_y=some_y, V=V, M=M):
            images, rows = block
            first = (images.start * down + rows.start) * across
            last = ((images.stop - 1) * down + rows.stop) * across
            _transform(tile, some_x, some_y, images, rows, across, before,
                       V[:, first:last].reshape(tt, -1, copy=False), M[:, first:last].reshape(tt, -1, copy=False))

        parallel_for(fill, tile_blocks(tile, len(some_x), down, across, C, O))
        total = np.empty((tt, O, C), x.dtype)
        parallel_for(lambda k, M=M, V=V, total=total: np.matmul(M[k].T, V[k], out=total[k]), range(tt))
        if sums is None:
            sums = total
        else:
            parallel_for(lambda k, sums=sums, total=total: np.add(sums[k], total[k], out=sums[k]), range(tt))
    return sums


def _transform(tile, x, grad_y, images, rows, across, before, V, M):
    """Bᵀ x B into V (t·t, tiles·C) and A grad_y Aᵀ into M (t·t, tiles·O) for these rows of tiles."""
    (m, m2), O = tile.outputs, grad_y.shape[3]
    transform(tile.B, tiles(tile, x, images, rows, across, before), V, "between")
    h, w = (rows.stop - rows.start) * m, across * m2
    piece = grad_y[images, rows.start * m:rows.stop * m]
    n, real_h, real_w, _ = piece.shape
    gathered = scratch("tiles", (m, m2, n, h // m, across, O), grad_y.dtype)
    if (real_h, real_w) == (h, w):
        gathered[...] = piece.reshape(n, h // m, m, across, m2, O).transpose(2, 4, 0, 1, 3, 5)
    else:
        for i in range(m):
            for j in range(m2):
                there, here = piece[:, i::m, j::m2], gathered[i, j]
                here[:, there.shape[1]:] = 0
                here[:, :, there.shape[2]:] = 0
                here[:, :there.shape[1], :there.shape[2]] = there
    transform(tile.AT, gathered.reshape(m * m2, -1), M, "between")
