"""Pooling, one kernel cell at a time: each step looks at one cell of every window of every image at once.

Padding is never made: kernel_cells() leaves out what falls outside. The gradient of a maximum is a scatter to saved
positions, the gradient of an average a spread over the window.
"""

import numpy as np

from minidl.backend import implements, run
from minidl.backend.generic import scatter  # noqa: F401 - importing it registers add_at
from minidl.backend.generic.im2col import add_windows
from minidl.backend.layout import empty, stored
from minidl.backend.window import adaptive_bounds, kernel_cells, window_sizes
from minidl.core.device import array_module, on_cpu


@implements("max_pool2d", "generic")
def max_pool2d(x, kernel, stride, padding, dilation, size):
    """The largest pixel of every window, and its position h·W + w. Ties go to the first; a NaN wins, the last one if several."""
    xp, W = array_module(x), x.shape[3]
    y = empty((*x.shape[:2], *size), x.dtype, x)
    indices = empty(y.shape, index_dtype(x), x)
    y[...], indices[...] = 0, -1  # -1: this window has seen no pixel yet
    for _, _, outputs, pixels in kernel_cells(x.shape[2:], size, kernel, stride, padding, dilation):
        seen, best, best_index = x[pixels], y[outputs], indices[outputs]
        _, rows, columns = pixels
        here = xp.arange(rows.start, rows.stop, rows.step)[:, None] * W + xp.arange(columns.start, columns.stop, columns.step)
        better = (seen > best) | (seen != seen) | (best_index < 0)
        xp.copyto(best, seen, where=better)
        xp.copyto(best_index, here.astype(indices.dtype), where=better)
    return y, indices


@implements("max_pool2d_grad_x", "generic")
def max_pool2d_grad_x(grad_y, indices, x_shape, window=None):
    """Add every number to the pixel its index names."""
    xp, (N, C, H, W) = array_module(grad_y), x_shape
    grad_x = empty(x_shape, grad_y.dtype, grad_y)
    grad_x[...] = 0
    image = xp.arange(N).reshape(N, 1, 1, 1) * (H * W)
    at = (indices.transpose(0, 2, 3, 1) + image) * C + xp.arange(C)  # (N, OH, OW, C), into grad_x as it is stored
    run("add_at", grad_x.transpose(0, 2, 3, 1).reshape(-1), at.reshape(-1), stored(grad_y).transpose(0, 2, 3, 1).reshape(-1))
    return grad_x


@implements("max_pool2d_at", "generic")
def max_pool2d_at(x, indices):
    """The pixels that the indices name."""
    N, C, H, W = x.shape
    pixels = stored(x).transpose(0, 2, 3, 1).reshape(N, H * W, C)
    rows = stored(indices).transpose(0, 2, 3, 1).reshape(N, indices.shape[2] * indices.shape[3], C)
    y = array_module(x).take_along_axis(pixels, rows, axis=1)
    return y.reshape(N, *indices.shape[2:], C).transpose(0, 3, 1, 2)


@implements("avg_pool2d", "generic")
def avg_pool2d(x, kernel, stride, padding, size, count_include_pad, divisor_override):
    """The sum over every window, divided by how many cells count."""
    y = empty((*x.shape[:2], *size), x.dtype, x)
    y[...] = 0
    for _, _, outputs, pixels in kernel_cells(x.shape[2:], size, kernel, stride, padding, (1, 1)):
        y[outputs] += x[pixels]
    y /= divisor(x.shape, kernel, stride, padding, size, count_include_pad, divisor_override, x)
    return y


@implements("avg_pool2d_grad_x", "generic")
def avg_pool2d_grad_x(grad_y, x_shape, kernel, stride, padding, size, count_include_pad, divisor_override):
    """Every pixel of a window gets an equal share."""
    grad_x = empty(x_shape, grad_y.dtype, grad_y)
    grad_x[...] = 0
    share = empty(grad_y.shape, grad_y.dtype, grad_y)
    share[...] = grad_y / divisor(x_shape, kernel, stride, padding, size, count_include_pad, divisor_override, grad_y)
    cells = array_module(grad_y).broadcast_to(share[..., None, None], (*share.shape, *kernel))
    add_windows(cells, grad_x, stride, tuple((pad, pad) for pad in padding), (1, 1))
    return grad_x


def divisor(x_shape, kernel, stride, padding, size, count_include_pad, divisor_override, like):
    """How many cells count: one number if all windows agree, else (OH, OW)."""
    if divisor_override:
        return divisor_override
    rows, columns = (window_sizes(x_shape[2 + k], size[k], kernel[k], stride[k], padding[k], count_include_pad) for k in (0, 1))
    if len({*rows}) == len({*columns}) == 1:
        return rows[0] * columns[0]
    xp = array_module(like)
    return xp.asarray(rows, like.dtype)[:, None] * xp.asarray(columns, like.dtype)


@implements("adaptive_avg_pool2d", "generic")
def adaptive_avg_pool2d(x, size):
    """The mean of every window; windows are rectangles, so first rows are summed, then columns."""
    N, C, H, W = x.shape
    y = empty((N, C, *size), x.dtype, x)
    if size == (1, 1):
        return x.mean((2, 3), keepdims=True, out=y)
    strips = empty((N, C, size[0], W), x.dtype, x)
    for p, (top, bottom) in enumerate(adaptive_bounds(H, size[0])):
        strips[:, :, p] = x[:, :, top:bottom].sum(2) / (bottom - top)
    for q, (left, right) in enumerate(adaptive_bounds(W, size[1])):
        y[..., q] = strips[..., left:right].sum(3) / (right - left)
    return y


@implements("adaptive_avg_pool2d_grad_x", "generic")
def adaptive_avg_pool2d_grad_x(grad_y, x_shape):
    """Every pixel of a window gets an equal share: first along the rows, then along the columns."""
    N, C, H, W = x_shape
    grad_x = empty(x_shape, grad_y.dtype, grad_y)
    if grad_y.shape[2:] == (1, 1):
        grad_x[...] = grad_y / (H * W)
        return grad_x
    strips = empty((N, C, grad_y.shape[2], W), grad_y.dtype, grad_y)
    strips[...], grad_x[...] = 0, 0
    for q, (left, right) in enumerate(adaptive_bounds(W, grad_y.shape[3])):
        strips[..., left:right] += grad_y[..., q:q + 1] / (right - left)
    for p, (top, bottom) in enumerate(adaptive_bounds(H, grad_y.shape[2])):
        grad_x[:, :, top:bottom] += strips[:, :, p:p + 1] / (bottom - top)
    return grad_x


@implements("adaptive_max_pool2d", "generic")
def adaptive_max_pool2d(x, size):
    """The largest pixel of every window and its position, one window of all images at a time."""
    xp, (N, C, H, W) = array_module(x), x.shape
    y, indices = empty((N, C, *size), x.dtype, x), empty((N, C, *size), index_dtype(x), x)
    for p, (top, bottom) in enumerate(adaptive_bounds(H, size[0])):
        for q, (left, right) in enumerate(adaptive_bounds(W, size[1])):
            window = x[:, :, top:bottom, left:right].reshape(N, C, (bottom - top) * (right - left))
            cell = window.argmax(2)[..., None]  # the first of several; a NaN counts as largest
            y[:, :, p, q] = best = xp.take_along_axis(window, cell, 2)[..., 0]
            if not on_cpu(x) or (best != best).any():  # on a GPU asking would take longer than doing it
                last = window.shape[2] - 1 - (window != window)[..., ::-1].argmax(2)
                cell = xp.where((best != best)[..., None], last[..., None], cell)
            cell = cell[..., 0]
            indices[:, :, p, q] = (top + cell // (right - left)) * W + left + cell % (right - left)
    return y, indices


def index_dtype(x):
    """32 bits hold the position of a pixel, at half the memory; 64 for images too large for that."""
    return np.dtype("int32" if x.shape[2] * x.shape[3] < 2**31 else "int64")
