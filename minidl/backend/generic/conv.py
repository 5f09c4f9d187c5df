"""Convolution and its two gradients as matrix products over im2col's columns; unfold and fold are the columns alone.

    y      = columns · filters          columns (N·OH·OW, KH·KW·C), filters (KH·KW·C, O)
    grad_x = col2im(grad_y · filtersᵀ)
    grad_w = grad_yᵀ · columns

With groups each factor gets a leading axis of that length, and matmul takes the groups one by one.
"""

from minidl.backend import implements
from minidl.backend.generic.im2col import add_windows, col2im, im2col, windows
from minidl.backend.layout import empty, stored
from minidl.backend.window import output_size
from minidl.core.device import array_module

COLUMN_BYTES = 2**28  # columns are KH·KW times as large as the image: no more than this much of them at a time


@implements("conv2d", "generic/im2col")
def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """y (N, O, OH, OW): one row of columns per output position, one column of filters per output channel."""
    N, O, kernel = x.shape[0], weight.shape[0], weight.shape[2:]
    OH, OW = output_size(x.shape, kernel, stride, padding, dilation)
    y = empty((N, O, OH, OW), x.dtype, x)
    filters = as_filters(weight, groups).transpose(0, 2, 1)  # (G, KH·KW·C/G, O/G)
    for part in batches(x.shape, kernel, (OH, OW), x.itemsize):
        columns = im2col(x[part], kernel, stride, padding, dilation, groups)
        array_module(x).matmul(columns, filters, out=as_rows(y[part], groups))
        del columns  # before the next part makes its own
    if bias is not None:
        y += bias.reshape(O, 1, 1)
    return y


@implements("conv2d_grad_x", "generic/im2col")
def conv2d_grad_x(grad_y, weight, x_shape, stride, padding, dilation, groups):
    """What each window hands back, added where windows overlap."""
    kernel = weight.shape[2:]
    filters = as_filters(weight, groups)  # (G, O/G, KH·KW·C/G)
    first, *more = batches(x_shape, kernel, grad_y.shape[2:], grad_y.itemsize)

    def images(part):
        columns = as_rows(grad_y[part], groups) @ filters  # (G, N·OH·OW, KH·KW·C/G)
        return col2im(columns, (part.stop - part.start, *x_shape[1:]), kernel, stride, padding, dilation, groups)

    if not more:
        return images(first)
    grad_x = empty(x_shape, grad_y.dtype, grad_y)
    for part in (first, *more):
        grad_x[part] = images(part)
    return grad_x


@implements("conv2d_grad_w", "generic/im2col")
def conv2d_grad_w(x, grad_y, w_shape, stride, padding, dilation, groups):
    """Correlate the image with the output's gradient: the sum over all windows of window × gradient."""
    O, C, KH, KW = w_shape
    grad_w = None
    for part in batches(x.shape, (KH, KW), grad_y.shape[2:], x.itemsize):
        columns = im2col(x[part], (KH, KW), stride, padding, dilation, groups)
        term = as_rows(grad_y[part], groups).transpose(0, 2, 1) @ columns  # (G, O/G, KH·KW·C/G)
        grad_w = term if grad_w is None else grad_w + term
        del columns
    return grad_w.reshape(O, KH, KW, C).transpose(0, 3, 1, 2)


@implements("unfold", "generic/im2col")
def unfold(x, kernel, stride, padding, dilation):
    """im2col in PyTorch's order: the windows are the columns, and a column's entries go c, i, j."""
    view = windows(x, kernel, stride, padding, dilation)
    N, C, OH, OW, KH, KW = view.shape
    return array_module(x).ascontiguousarray(view.transpose(0, 1, 4, 5, 2, 3).reshape(N, C * KH * KW, OH * OW))


@implements("fold", "generic/im2col")
def fold(columns, x_shape, kernel, stride, padding, dilation):
    """col2im in PyTorch's order."""
    x = empty(x_shape, columns.dtype, columns)
    x[...] = 0
    cells = columns.reshape(*x_shape[:2], *kernel, *output_size(x_shape, kernel, stride, padding, dilation))
    add_windows(cells.transpose(0, 1, 4, 5, 2, 3), x, stride, padding, dilation)
    return x


def as_filters(weight, groups):
    """Weights (O, C/G, KH, KW) as one matrix per group, in the order of im2col's rows: (G, O/G, KH·KW·C/G)."""
    O, C, KH, KW = weight.shape
    return stored(weight).transpose(0, 2, 3, 1).reshape(groups, O // groups, KH * KW * C)


def as_rows(y, groups):
    """Outputs (N, O, OH, OW) as one matrix per group: (G, N·OH·OW, O/G). A view, if y is stored channels-last."""
    N, O, OH, OW = y.shape
    return y.transpose(0, 2, 3, 1).reshape(N * OH * OW, groups, O // groups).transpose(1, 0, 2)


def batches(x_shape, kernel, size, itemsize):
    """Slices of the batch whose columns stay below COLUMN_BYTES; at least one image each."""
    N, C = x_shape[:2]
    bytes_per_image = size[0] * size[1] * kernel[0] * kernel[1] * C * itemsize
    step = max(1, COLUMN_BYTES // max(1, bytes_per_image))
    for n in range(0, max(N, 1), step):  # an empty batch is one empty slice
        yield slice(n, min(n + step, N))
