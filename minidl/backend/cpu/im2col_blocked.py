"""Convolution as matrix products over columns, a block at a time: gathered in the cache and multiplied into place.

generic/im2col writes all columns to memory, KH·KW times the image, and reads them back. Here a block of 4 MB of them is
gathered, multiplied straight into its rows of the output (matmul's out=), and forgotten.

    conv2d          y[block] = columns(x, block) · filters + bias
    conv2d_grad_w   the sum over blocks of grad_y[block]ᵀ · columns(x, block), in lanes
    conv2d_grad_x   stride 1: a convolution of grad_y with the turned filters; otherwise col2im, image by image

Blocks of 1 MB would stay in the second cache, but each product packs the filters anew: 8×256×14×14 -> 256 runs at 353
GFLOP/s instead of 285. Bound: the products, 390-450 GFLOP/s with OpenBLAS's AVX-512 kernels on two cores of an AMD EPYC;
measured 300-370, below 32 channels 130-200.
"""

import numpy as np

from minidl.backend.cpu.conv_blocks import blocks, channels_last, contiguous, gather, sum_in_lanes
from minidl.backend.cpu.matmul import few_columns, in_small_products
from minidl.backend.layout import empty
from minidl.backend.threads import parallel_for, scratch
from minidl.backend.window import kernel_cells, output_size


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """Columns of a block gathered in the cache, the product written in place."""
    OH, OW = output_size(x.shape, weight.shape[2:], stride, padding, dilation)
    y = empty((x.shape[0], weight.shape[0], OH, OW), x.dtype, x)
    before = (padding[0][0], padding[1][0])
    filters = _matrices(weight, groups).transpose(0, 2, 1)  # (G, KH·KW·C/G, O/G)
    _correlate(channels_last(x), filters, bias, channels_last(y), weight.shape[2:], stride, before, dilation)
    return y


def conv2d_grad_x(grad_y, weight, x_shape, stride, padding, dilation, groups):
    """Stride 1: the turned filters slide over grad_y. Otherwise, and where C is far below O: products first, then col2im."""
    grad_x = empty(x_shape, grad_y.dtype, grad_y)
    O, C, KH, KW = weight.shape
    if stride == (1, 1) and 8 * C * groups > O:  # 8×16×28×28 -> 32: 0.39 ms instead of 0.62; 8×32×14×14 -> 128: 0.50, 0.57
        turned = weight.transpose(0, 2, 3, 1)[:, ::-1, ::-1].reshape(groups, O // groups, KH, KW, C)
        filters = turned.transpose(0, 2, 3, 1, 4).reshape(groups, -1, C)  # (G, KH·KW·O/G, C)
        before = tuple(d * (k - 1) - pad[0] for k, pad, d in zip((KH, KW), padding, dilation, strict=True))
        _correlate(channels_last(grad_y), filters, None, channels_last(grad_x), (KH, KW), stride, before, dilation)
    else:
        filters = _matrices(weight, groups)
        _scatter(contiguous(channels_last(grad_y)), filters, channels_last(grad_x), (KH, KW), stride, padding, dilation)
    return grad_x


def conv2d_grad_w(x, grad_y, w_shape, stride, padding, dilation, groups):
    """Columns of a block gathered in the cache, the block's product added to one of a few partial sums."""
    O, C, KH, KW = w_shape
    N, _, OH, OW = grad_y.shape
    x, grad_y, before = channels_last(x), contiguous(channels_last(grad_y)), (padding[0][0], padding[1][0])

    def term(block, out):
        images, p = block
        columns = gather(x, images, p, OW, (KH, KW), stride, before, dilation, groups)
        np.matmul(_by_group(grad_y[images, p], groups).transpose(0, 2, 1), columns, out=out)

    K = KH * KW * C
    parts = blocks(N, OH, OW * K * groups * x.itemsize, N * OH * OW * K * O)
    grad_w = sum_in_lanes(parts, (groups, O // groups, K), x.dtype, term)
    return grad_w.reshape(O, KH, KW, C).transpose(0, 3, 1, 2)


def _matrices(weight, groups):
    """Filters (O, C/G, KH, KW) as rows in the order of the columns: (G, O/G, KH·KW·C/G). A view of weights stored channels-last."""
    O, C, KH, KW = weight.shape
    return weight.transpose(0, 2, 3, 1).reshape(groups, O // groups, KH * KW * C)


def _by_group(y, groups):
    """A block (n, p, q, O) of contiguous memory as (groups, pixels, O/groups), a view."""
    return y.reshape(-1, groups, y.shape[3] // groups).transpose(1, 0, 2)


def _correlate(x, filters, bias, y, kernel, stride, before, dilation):
    """y (N, OH, OW, O) = every window of x (N, H, W, C) times every filter, plus bias."""
    N, OH, OW, O = y.shape
    groups, K, _ = filters.shape
    few = groups == 1 and few_columns(K, O)
    if few:
        filters = np.ascontiguousarray(filters)

    def block(images_rows):
        images, p = images_rows
        columns = gather(x, images, p, OW, kernel, stride, before, dilation, groups)
        out = y[images, p]
        if few:
            in_small_products(columns[0], filters[0], out.reshape(-1, O, copy=False))
        else:
            np.matmul(columns, filters, out=_by_group(out, groups))
        if bias is not None:
            np.add(out, bias, out=out)

    parallel_for(block, blocks(N, OH, OW * K * groups * x.itemsize, N * OH * OW * K * O))


def _scatter(grad_y, filters, grad_x, kernel, stride, padding, dilation):
    """grad_x (N, H, W, C): each output's gradient times its filter, added at the pixels it saw (col2im)."""
    N, OH, OW, O = grad_y.shape
    H, W, C = grad_x.shape[1:]
    groups, _, K = filters.shape
    before = (padding[0][0], padding[1][0])

    def some(images):
        n = images.stop - images.start
        mine = grad_x[images].reshape(n, H, W, groups, C // groups)
        mine[...] = 0
        for _, p in blocks(1, OH, n * OW * K * groups * grad_x.itemsize, 0):
            columns = scratch("columns", (groups, n * (p.stop - p.start) * OW, K), grad_x.dtype)
            np.matmul(_by_group(grad_y[images, p], groups), filters, out=columns)
            cells = columns.reshape(groups, n, p.stop - p.start, OW, *kernel, C // groups).transpose(1, 2, 3, 0, 6, 4, 5)
            shift = (before[0] - p.start * stride[0], before[1])
            for i, j, (_, q0, q1), (_, h, w) in kernel_cells((H, W), cells.shape[1:3], kernel, stride, shift, dilation):
                mine[:, h, w] += cells[:, q0, q1, :, :, i, j]

    parallel_for(some, [images for images, _ in blocks(N, 1, OH * OW * K * groups * grad_x.itemsize, N * OH * OW * K * O)])
