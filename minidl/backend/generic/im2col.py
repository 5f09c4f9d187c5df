"""im2col and col2im: a convolution becomes one matrix product, because every window of the image becomes a row.

windows() is the idea as a view that copies nothing; im2col() lays it out as a matrix; add_windows() and col2im() are
their transposes: what a window took from a pixel, its gradient gives back to that pixel, and overlaps add up.
docs/ops/conv2d.md works through a 4×4 image.
"""

from minidl.backend.layout import empty
from minidl.backend.window import kernel_cells, output_size
from minidl.core.device import array_module


def windows(x, kernel, stride, padding, dilation):
    """Every window of every image, as a view: out[n, c, p, q, i, j] = x[n, c, p·s + i·d − pad, q·s + j·d − pad]."""
    x = bordered(x, padding)
    span = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))  # pixels from a window's first to its last
    view = array_module(x).lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))
    return view[:, :, ::stride[0], ::stride[1], ::dilation[0], ::dilation[1]]    # (N, C, OH, OW, KH, KW)


def bordered(x, padding):
    """The images with a border of zeros; a negative border below or on the right cuts pixels off."""
    (top, bottom), (left, right) = padding
    if not (top or bottom or left or right):
        return x
    N, C, H, W = x.shape
    y = empty((N, C, H + top + bottom, W + left + right), x.dtype, x)
    y[...] = 0
    kept = x[:, :, :H + min(bottom, 0), :W + min(right, 0)]
    y[:, :, top:top + kept.shape[2], left:left + kept.shape[3]] = kept
    return y


def im2col(x, kernel, stride, padding, dilation, groups=1):
    """The windows as rows of one matrix per group of channels: (groups, N·OH·OW, KH·KW·C/groups).

    One image 3×3, a 2×2 kernel: four windows, so four rows of four.

        1 2 3        1 2 4 5      window at p, q = 0, 0
        4 5 6   ->   2 3 5 6                       0, 1
        7 8 9        4 5 7 8                       1, 0
                     5 6 8 9                       1, 1

    A convolution is now this matrix times the filters, each filter flattened to a column. Within a row the order is
    i, j, c, so that with channels-last images a row is KH runs of KW·C neighbours in memory. A 1×1 kernel at stride 1
    copies nothing.
    """
    view = windows(x, kernel, stride, padding, dilation)
    N, C, OH, OW, KH, KW = view.shape
    view = view.reshape(N, groups, C // groups, OH, OW, KH, KW).transpose(1, 0, 3, 4, 5, 6, 2)
    return view.reshape(groups, N * OH * OW, KH * KW * (C // groups))


def col2im(columns, x_shape, kernel, stride, padding, dilation, groups=1):
    """The transpose of im2col: every entry goes back to the pixel it was copied from, and what meets there is added.

        1 2 4 5        1  4  3
        2 3 5 6   ->   8 20 12      pixel 5 was in all four windows: 5 + 5 + 5 + 5
        4 5 7 8        7 16  9
        5 6 8 9

    Adding is the point: a pixel that k windows saw has k paths to the loss.
    """
    N, C, H, W = x_shape
    OH, OW = output_size(x_shape, kernel, stride, padding, dilation)
    if kernel == stride == (1, 1) and groups == 1 and not any(map(any, padding)):
        return columns.reshape(N, H, W, C).transpose(0, 3, 1, 2)  # every pixel is one window: nothing meets
    x = empty(x_shape, columns.dtype, columns)
    x[...] = 0
    cells = columns.reshape(groups, N, OH, OW, *kernel, C // groups).transpose(1, 0, 6, 2, 3, 4, 5)
    add_windows(cells, x.reshape(N, groups, C // groups, H, W), stride, padding, dilation)
    return x


def add_windows(cells, x, stride, padding, dilation):
    """Add cells (..., OH, OW, KH, KW) into x (..., H, W) in place: the transpose of windows()."""
    *_, OH, OW, KH, KW = cells.shape
    before = (padding[0][0], padding[1][0])
    for i, j, outputs, pixels in kernel_cells(x.shape[-2:], (OH, OW), (KH, KW), stride, before, dilation):
        x[pixels] += cells[..., i, j][outputs]
