"""Convolution with few channels as matrix products: there gathering columns takes as long as multiplying them, so gather less.

conv2d and conv2d_grad_x: a tile of neighbouring outputs shares one window, and one row of the product. Two outputs of a
3×3 kernel see 3×4 pixels: the filters become a matrix (3·4·C, 2·O) with two shifted copies, zeros elsewhere. A third more
multiplications, in a product that is twice as wide and therefore as quick, and half as many pieces of memory to copy. The
gradient of stride s makes tiles of s×s pixels from the outputs that saw them, instead of col2im's sums.

conv2d_grad_w: only the kernel's width is gathered, as lines of windows; lines are neighbours in memory, so each row of the
kernel reads the same ones, further down. Sums over a few hundred pixels at a time go through OpenBLAS's unpacked kernels.

A pixel times 0 is NaN where the pixel is infinite: next to one, an output may be NaN that is not with other rungs.

Measured against im2col_blocked, SkylakeX kernels on two cores of an AMD EPYC, 128×16×32×32 -> 16: conv2d 2.8 ms instead
of 3.7, conv2d_grad_w 2.7 instead of 4.5. Four outputs a row take 3.5 ms: twice the multiplications. Smaller blocks take longer:
each copy hands the interpreter's lock over (2 images at a time: 4.3 ms).
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.backend.cpu.conv_blocks import blocks, channels_last, contiguous, divisor, gather, region, sum_in_lanes
from minidl.backend.cpu.matmul import UNPACKED, few_columns, in_small_products
from minidl.backend.cpu.winograd import scatter
from minidl.backend.layout import empty
from minidl.backend.threads import parallel_for, scratch
from minidl.backend.window import output_size

PAIR = (1, 2)  # outputs of a tile, down and across
PIXELS = 256   # of a small product of conv2d_grad_w at the most


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """A window for every two outputs, the product written in place."""
    O, C, KH, KW = weight.shape
    y = empty((len(x), O, *output_size(x.shape, (KH, KW), stride, padding, dilation)), x.dtype, x)
    filters = np.zeros((KH, KW + stride[1], C, 2, O), x.dtype)
    for b in range(2):
        filters[:, b * stride[1]:b * stride[1] + KW, :, b] = weight.transpose(2, 3, 1, 0)
    _correlate(channels_last(x), filters, bias, channels_last(y), PAIR, (stride[0], 2 * stride[1]), (padding[0][0], padding[1][0]))
    return y


def conv2d_grad_x(grad_y, weight, x_shape, stride, padding, dilation, groups):
    """A window of grad_y for every tile of s×s pixels; stride 1: of 1×2."""
    O, C, *kernel = weight.shape
    grad_x = empty(x_shape, grad_y.dtype, grad_y)
    tile = PAIR if stride == (1, 1) else stride
    down, across = ([_reach(k, s, pad[0], a) for a in range(t)] for k, s, pad, t in zip(kernel, stride, padding, tile, strict=True))
    top, left = (min(first for first, _, _ in reach) for reach in (down, across))
    size = [max(first + count for first, count, _ in reach) - low for reach, low in ((down, top), (across, left))]
    filters, cells = np.zeros((*size, O, *tile, C), grad_y.dtype), weight.transpose(2, 3, 0, 1)
    for a, (p, rows, i) in enumerate(down):
        for b, (q, columns, j) in enumerate(across):
            if rows and columns:
                filters[p - top:p - top + rows, q - left:q - left + columns, :, a, b] = cells[i::-stride[0], j::-stride[1]][:rows, :columns]
    step = tuple(t // s for t, s in zip(tile, stride, strict=True))
    _correlate(channels_last(grad_y), filters, None, channels_last(grad_x), tile, step, (-top, -left))
    return grad_x


def _reach(kernel, stride, pad, a):
    """Pixel a of the first tile along an axis was seen by outputs first, first + 1, ...: (first, how many, the first one's kernel cell).

    Output p saw it through cell a + pad − p·stride.
    """
    first, last = -((kernel - 1 - a - pad) // stride), (a + pad) // stride
    return first, max(0, last - first + 1), a + pad - first * stride


def _correlate(x, filters, bias, y, tile, step, before):
    """y (N, OH, OW, O) in tiles: every window of x (N, H, W, C), `step` pixels on from tile to tile, times filters (h, w, C, .., O)."""
    (N, OH, OW, O), window, C = y.shape, filters.shape[:2], x.shape[3]
    (m, m2), down, across = tile, -(-OH // tile[0]), -(-OW // tile[1])
    filters = filters.reshape(window[0] * window[1] * C, m * m2 * O)
    K, M = filters.shape
    multiply = in_small_products if few_columns(K, M) else lambda a, b, out: np.matmul(a, b, out=out)
    in_place = m == 1 and OW % m2 == 0

    def block(images_rows):
        images, rows = images_rows
        columns = gather(x, images, rows, across, window, step, before, (1, 1))[0]
        places = y[images, rows.start * m:rows.stop * m]
        out = places.reshape(-1, M, copy=False) if in_place else scratch("products", (len(columns), M), y.dtype)
        multiply(columns, filters, out)
        if not in_place:
            scatter(tile, out.reshape(len(places), -1, across, m, m2, O).transpose(3, 4, 0, 1, 2, 5), places)
        if bias is not None:
            np.add(places, bias, out=places)

    parallel_for(block, blocks(N, down, across * K * x.itemsize, N * down * across * K * M))


def conv2d_grad_w(x, grad_y, w_shape, stride, padding, dilation, groups):
    """Lines of windows, gathered once for all rows of the kernel; products of a few hundred pixels, summed block by block, in lanes."""
    O, C, KH, KW = w_shape
    (N, _, OH, OW), s, K = grad_y.shape, stride[0], KW * C
    x, grad_y = contiguous(channels_last(x)), contiguous(channels_last(grad_y))
    top, left = padding[0][0], padding[1][0]
    more = (KH - 1) // s  # lines below those that the first row of the kernel reads
    turned = O > K        # OpenBLAS is quicker with the longer side last

    def term(block, out):
        images, p = block
        n, P = images.stop - images.start, p.stop - p.start
        first = p.start * s - top
        piece = region(x, images, first, first + (P + more) * s, -left, -left + (OW - 1) * stride[1] + KW)
        a, h, w, c = piece.strides
        lines = scratch("columns", (s, n, P + more, OW, K), x.dtype)  # every s-th line together
        np.copyto(lines, as_strided(piece, lines.shape, (h, a, h * s, w * stride[1], c)))
        gradients = scratch("gradients", (n, P, OW, O), x.dtype)  # BLAS would read them from memory in another order
        np.copyto(gradients, grad_y[images, p])
        pixels = divisor(P * OW, min(PIXELS, UNPACKED // (K * O)))
        gradients = gradients.reshape(n, -1, pixels, O)
        products = scratch("products", (KH, *gradients.shape[:2], *out.shape[1:]), x.dtype)
        _, a, h, w, c = lines.strides
        for r in range(min(s, KH)):
            seen = as_strided(lines[r], (len(range(r, KH, s)), *gradients.shape[:3], K), (h, a, pixels * w, w, c))
            if turned:
                np.matmul(seen.swapaxes(3, 4), gradients, out=products[r::s])
            else:
                np.matmul(gradients.swapaxes(2, 3), seen, out=products[r::s])
        np.add.reduce(products.reshape(KH, -1, *out.shape[1:]), 1, out=out)

    parts = blocks(N, OH, OW * (K + O) * x.itemsize, N * OH * OW * K * KH * O)
    sums = sum_in_lanes(parts, (KH, K, O) if turned else (KH, O, K), x.dtype, term)
    sums = sums.reshape(KH, KW, C, O).transpose(3, 0, 1, 2) if turned else sums.reshape(KH, O, KW, C).transpose(1, 0, 2, 3)
    return np.ascontiguousarray(sums).transpose(0, 3, 1, 2)
