"""Depthwise convolution (every channel its own filters): no products to speak of, so one kernel cell at a time, in the cache.

    y[p, q] += x[p·s + i·d − pad, q·s + j·d − pad] · w[i, j]        for each cell i, j: a view of the block, times a row

As a product it would be C products with one column each. Here each cell is two passes over a block that stays in the cache;
at stride 1 the filter is written out along a row first, so that the inner loop runs over OW·C numbers and not over C.
"""

import numpy as np

from minidl.backend.cpu.conv_blocks import blocks, channels_last, contiguous, region, sum_in_lanes
from minidl.backend.layout import empty
from minidl.backend.threads import parallel_for, scratch
from minidl.backend.window import kernel_cells, output_size

BLOCK = 1 << 18  # bytes of output: a block, its image and the product between stay in the cache


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """One kernel cell of a block at a time."""
    N, O, kernel = len(x), len(weight), weight.shape[2:]
    y = empty((N, O, *output_size(x.shape, kernel, stride, padding, dilation)), x.dtype, x)
    _slide(channels_last(x), weight, bias, channels_last(y), stride, (padding[0][0], padding[1][0]), dilation)
    return y


def conv2d_grad_x(grad_y, weight, x_shape, stride, padding, dilation, groups):
    """Stride 1 and one filter a channel: the turned filters slide over grad_y. Otherwise cell by cell back to the pixels."""
    grad_x, kernel = empty(x_shape, grad_y.dtype, grad_y), weight.shape[2:]
    if stride == (1, 1) and len(weight) == groups:
        before = tuple(d * (k - 1) - pad[0] for k, pad, d in zip(kernel, padding, dilation, strict=True))
        _slide(channels_last(grad_y), weight[:, :, ::-1, ::-1], None, channels_last(grad_x), stride, before, dilation)
        return grad_x
    (N, H, W, C), gradients, result = channels_last(grad_x).shape, channels_last(grad_y), channels_last(grad_x)
    filters = weight.reshape(C, -1, *kernel)  # (C, O/C, KH, KW)

    def image(n):
        result[n] = 0
        mine = gradients[n].reshape(*gradients.shape[1:3], C, -1)  # (OH, OW, C, O/C)
        for i, j, (_, p, q), (_, h, w) in kernel_cells((H, W), grad_y.shape[2:], kernel, stride, (padding[0][0], padding[1][0]), dilation):
            result[n, h, w] += np.einsum("pqcm,cm->pqc", mine[p, q], filters[:, :, i, j])

    parallel_for(image, range(N))
    return grad_x


def conv2d_grad_w(x, grad_y, w_shape, stride, padding, dilation, groups):
    """Per cell: pixels times gradients, summed over a block as a product with a row of ones."""
    (O, _, KH, KW), OW, C = w_shape, grad_y.shape[3], x.shape[1]
    x, grad_y, M = channels_last(x), contiguous(channels_last(grad_y)), O // C

    def term(block, out):
        images, p = block
        cells = _cells(x, images, p, OW, (KH, KW), stride, (padding[0][0], padding[1][0]), dilation)
        gradients = grad_y[images, p].reshape(-1, p.stop - p.start, OW, C, M)
        product = scratch("product", gradients.shape, x.dtype)
        ones = np.ones((1, product.size // O), x.dtype)
        for k, pixels in enumerate(cells):
            np.multiply(gradients, pixels[..., None], out=product)
            np.matmul(ones, product.reshape(-1, O), out=out[k:k + 1])

    sums = sum_in_lanes(_blocks(grad_y, KH * KW), (KH * KW, O), x.dtype, term)  # (KH·KW, O)
    return np.ascontiguousarray(sums.T).reshape(O, KH, KW, 1).transpose(0, 3, 1, 2)


def _blocks(y, cells):
    N, OH, OW, O = y.shape
    return blocks(N, OH, OW * O * y.itemsize, 4 * y.size * cells, BLOCK)


def _cells(x, images, p, OW, kernel, stride, before, dilation, in_lines=False):
    """For every kernel cell the pixels (n, p, q, C) that it meets at the output rows p: views of one bordered block."""
    (KH, KW), (s, t), (d, e) = kernel, stride, dilation
    P, top, left = p.stop - p.start, p.start * stride[0] - before[0], -before[1]
    bottom, right = top + (P - 1) * s + d * (KH - 1) + 1, left + (OW - 1) * t + e * (KW - 1) + 1
    piece = region(x, images, top, bottom, left, right, in_lines=in_lines)
    for i in range(KH):
        for j in range(KW):
            yield piece[:, i * d:i * d + (P - 1) * s + 1:s, j * e:j * e + (OW - 1) * t + 1:t]


def _slide(x, weight, bias, y, stride, before, dilation):
    """y (N, OH, OW, O) = the sum over kernel cells of pixels times filters, plus bias."""
    (OW, O), C, kernel = y.shape[2:], x.shape[3], weight.shape[2:]
    filters = np.ascontiguousarray(weight.reshape(C, -1, *kernel).transpose(2, 3, 0, 1)).reshape(-1, C, O // C)  # (KH·KW, C, O/C)
    along = O == C and stride[1] == 1
    if along:
        filters = np.tile(filters.reshape(-1, 1, C), (1, OW, 1)).reshape(-1, OW * C)

    def block(images_rows):
        images, p = images_rows
        out = y[images, p]
        product = scratch("product", out.shape, y.dtype)
        if bias is not None:
            out[...] = bias
        for k, pixels in enumerate(_cells(x, images, p, OW, kernel, stride, before, dilation, along)):
            if along:
                flat = out.shape[:2] + (OW * C,)
                pixels = np.lib.stride_tricks.as_strided(pixels, flat, (*pixels.strides[:2], pixels.itemsize))
            else:
                flat, pixels = (*out.shape[:3], C, O // C), pixels[..., None]
            first = k == 0 and bias is None
            np.multiply(pixels, filters[k], out=(out if first else product).reshape(flat, copy=False))
            if not first:
                np.add(out, product, out=out)

    parallel_for(block, _blocks(y, len(filters)))
