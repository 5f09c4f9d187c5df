"""Winograd's F(4, 3) down the image, windows of two outputs across: for 3×3 kernels at stride 1 with few channels.

Winograd's tiles are a bad bargain there: gathering and transforming cost more than the products, and these are narrow.
This way nothing is gathered at all. Whole rows of the image, one long line each, are transformed (6 from 6, for 4 rows of
outputs); in such a row a window is 4·C neighbouring numbers, and the filters, moved by one for the second output, a
matrix (4·C, 2·O). Windows of even and of odd pairs of outputs are two matrices of which no rows overlap. The transform back
writes whole rows of y:

    V[i] = Σ_l Bᵀ[i, l] x[row l]        M[i] = windows(V[i]) · filters[i]        y[row a] = Σ_i Aᵀ[a, i] M[i]

Lines are two pixels longer than y's, three where these are odd, so that all windows of all lines follow each other at one
distance. That is two thirds of the multiplications of direct convolution, in products of twice the columns. conv2d_grad_w
adds up the products of windows(V[i]) with the transformed gradients. Rounding: 1e-5 (winograd.py says what that means).

Measured on two cores of an AMD EPYC, SkylakeX kernels, 128×16×32×32 -> 16, milliseconds for conv2d, conv2d_grad_x and conv2d_grad_w:
1.8, 1.8, 2.1; im2col_narrow 3.1, 2.8, 2.8, F(4×4) 3.4, 3.2, 3.8, im2col_blocked 3.5, 3.4, 4.5. Blocks of 1 MB: 2.5, 2.4, 3.2.

A pixel times 0 is NaN where the pixel is infinite: near one, an output may be NaN that is not with columns.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from minidl.backend.cpu.conv_blocks import blocks, channels_last, contiguous, divisor, region, sum_in_lanes
from minidl.backend.cpu.matmul import UNPACKED
from minidl.backend.cpu.winograd import axis
from minidl.backend.layout import empty
from minidl.backend.threads import parallel_for, scratch

B, G, A = (matrix.astype(np.float32) for matrix in axis(4, 3))
AT = np.ascontiguousarray(A.T)
T = len(B)     # rows of the image that a row of tiles reads, and transformed rows made of them
SLACK = 4      # pixels after the last line: as far as the last window may reach


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """conv2d at stride 1 with outputs whose height is a multiple of 4."""
    H, W = (size + sum(pad) - 2 for size, pad in zip(x.shape[2:], padding, strict=True))
    y = empty((len(x), len(weight), H, W), x.dtype, x)
    _correlate(channels_last(x), weight.transpose(2, 3, 1, 0), bias, channels_last(y), (padding[0][0], padding[1][0]))
    return y


def conv2d_grad_x(grad_y, weight, x_shape, stride, padding, dilation, groups):
    """The same with filters turned, and C and O changed about."""
    grad_x = empty(x_shape, grad_y.dtype, grad_y)
    turned = weight.transpose(2, 3, 0, 1)[::-1, ::-1]
    _correlate(channels_last(grad_y), turned, None, channels_last(grad_x), (2 - padding[0][0], 2 - padding[1][0]))
    return grad_x


def conv2d_grad_w(x, grad_y, w_shape, stride, padding, dilation, groups):
    """Sums of products of windows and gradients, both transformed, in lanes; then back from 6 rows to the kernel's 3."""
    O, C = w_shape[:2]
    x, grad_y, before = channels_last(x), contiguous(channels_last(grad_y)), (padding[0][0], padding[1][0])
    N, OH, OW, _ = grad_y.shape

    def term(block, out):
        images, rows = block
        V = _transformed(x, images, rows, OW, before)
        M = _lines("M", *V.shape[1:3], OW, O)
        M[..., OW * O:] = 0  # no gradients there
        lines = scratch("gradients", (*V.shape[1:3], 4, OW * O), x.dtype)  # BLAS would wait for the memory: 2.2 ms instead of 2.05
        np.copyto(lines.reshape(-1, 4 * V.shape[2], OW, O), grad_y[images, 4 * rows.start:4 * rows.stop])
        np.matmul(AT, lines, out=M[..., :OW * O].transpose(1, 2, 0, 3))
        windows, gradients = _windows(V, C, 4 * C, O), _windows(M, O, 2 * O, C)
        products = scratch("products", (*windows.shape[:3], 2 * O, 4 * C), x.dtype)
        np.matmul(gradients.swapaxes(3, 4), windows, out=products)
        np.add.reduce(products.reshape(T, -1, 2 * O, 4 * C), 1, out=out)

    sums = sum_in_lanes(_blocks(N, OH, OW, C, O), (T, 2 * O, 4 * C), x.dtype, term).reshape(T, 2, O, 4, C)
    sums = sums[:, 0, :, :3] + sums[:, 1, :, 1:]  # the two outputs of a window
    grad_w = (G.T @ sums.reshape(T, -1)).reshape(3, O, 3, C)
    return np.ascontiguousarray(grad_w.transpose(1, 0, 2, 3)).transpose(0, 3, 1, 2)


def _correlate(x, cells, bias, y, before):
    """y (N, H, W, O), H a multiple of 4, from x (N, .., .., C) with filters (3, 3, C, O)."""
    (N, H, W, O), C = y.shape, x.shape[3]
    transformed = (G @ cells.reshape(3, -1)).reshape(T, 3, C, O)
    filters = np.zeros((T, 4, C, 2, O), x.dtype)
    filters[:, :3, :, 0] = filters[:, 1:, :, 1] = transformed
    filters = filters.reshape(T, 1, 1, 4 * C, 2 * O)

    def block(images_rows):
        images, rows = images_rows
        V = _transformed(x, images, rows, W, before)
        M = _lines("M", *V.shape[1:3], W, O)
        np.matmul(_windows(V, C, 4 * C, O), filters, out=_windows(M, O, 2 * O, C))
        places = y[images, 4 * rows.start:4 * rows.stop]
        lines = places.reshape(*V.shape[1:3], 4, W * O, copy=False)
        np.matmul(A, M[..., :W * O].transpose(1, 2, 0, 3), out=lines)
        if bias is not None:
            np.add(places, bias, out=places)

    parallel_for(block, _blocks(N, H, W, C, O))


def _blocks(N, H, W, C, O):
    """Blocks of whole rows of tiles."""
    return blocks(N, H // 4, T * _longer(W) * (C + O) * 4, T * N * H // 4 * _longer(W) * 4 * C * O)


def _longer(width):
    """Pixels of a line for so many outputs: even, and the window of the last two in it."""
    return width + 2 + width % 2


def _lines(name, n, h, width, C):
    """Scratch memory for transformed lines (T, n, h, pixels·C) with zeros after each T's last."""
    line = _longer(width) * C
    memory = scratch(name, (T, n * h * line + SLACK * C), np.float32)
    memory[:, -SLACK * C:] = 0
    return memory[:, :-SLACK * C].reshape(T, n, h, line, copy=False)


def _transformed(x, images, rows, width, before):
    """These rows of tiles of these images, the lines for `width` outputs, transformed: (T, n, h, pixels·C) in scratch memory."""
    top, left = 4 * rows.start - before[0], -before[1]
    n, h, C = images.stop - images.start, rows.stop - rows.start, x.shape[3]
    V = _lines("V", n, h, width, C)
    piece = region(x, images, top, top + 4 * h + 2, left, left + _longer(width))
    if not piece[0, 0].flags.c_contiguous:  # the image itself, some of its channels
        piece = np.ascontiguousarray(piece)
    a, b, _, item = piece.strides
    np.matmul(B, as_strided(piece, (n, h, T, V.shape[3]), (a, 4 * b, b, item)), out=V.transpose(1, 2, 0, 3))
    return V


def _windows(lines, C, length, others):
    """Lines (T, n, h, pixels·C) as matrices (T, 2, many, rows, length): windows that begin at every fourth pixel, and two further on."""
    item, count = lines.itemsize, -(-lines[0].size // (4 * C))
    rows = divisor(count, max(1, UNPACKED // (8 * C * others)))
    return as_strided(lines, (T, 2, count // rows, rows, length), (lines.strides[0], 2 * C * item, rows * 4 * C * item, 4 * C * item, item))
