"""Pooling as loops over windows and the pixels in them."""

import numpy as np

from minidl.backend import implements
from minidl.backend.layout import empty
from minidl.backend.reference.conv import zeros
from minidl.backend.window import adaptive_bounds, window_sizes


def window_pixels(p, q, image, kernel, stride, padding, dilation=(1, 1)):
    """The pixels (h, w) of one window in row-major order; padding is left out."""
    for i, j in np.ndindex(*kernel):
        h, w = p * stride[0] + i * dilation[0] - padding[0], q * stride[1] + j * dilation[1] - padding[1]
        if 0 <= h < image[0] and 0 <= w < image[1]:
            yield h, w


def largest(image, pixels):
    """The largest of some pixels and its position h·W + w: the first of several, but the last NaN if there is one."""
    best, index = None, -1
    for h, w in pixels:
        value = image[h, w]
        if index < 0 or value > best or value != value:
            best, index = value, h * image.shape[1] + w
    return best, index


@implements("max_pool2d", "reference")
def max_pool2d(x, kernel, stride, padding, dilation, size):
    """The largest pixel of every window, and where it is."""
    y = empty((*x.shape[:2], *size), x.dtype, x)
    indices = empty(y.shape, np.dtype("int32"), x)
    for n, c, p, q in np.ndindex(y.shape):
        y[n, c, p, q], indices[n, c, p, q] = largest(x[n, c], window_pixels(p, q, x.shape[2:], kernel, stride, padding, dilation))
    return y, indices


@implements("max_pool2d_grad_x", "reference")
def max_pool2d_grad_x(grad_y, indices, x_shape, window=None):
    """Add every number to the pixel its index names."""
    grad_x = zeros(x_shape, grad_y)
    for n, c, p, q in np.ndindex(grad_y.shape):
        h, w = divmod(indices[n, c, p, q], x_shape[3])
        grad_x[n, c, h, w] += grad_y[n, c, p, q]
    return grad_x


@implements("max_pool2d_at", "reference")
def max_pool2d_at(x, indices):
    """The pixels that the indices name."""
    y = empty(indices.shape, x.dtype, x)
    for n, c, p, q in np.ndindex(indices.shape):
        h, w = divmod(indices[n, c, p, q], x.shape[3])
        y[n, c, p, q] = x[n, c, h, w]
    return y


def shares(x_shape, kernel, stride, padding, size, count_include_pad, divisor_override):
    """Every (position in y, position in x, divisor) of an average pooling."""
    rows, columns = (window_sizes(x_shape[2 + k], size[k], kernel[k], stride[k], padding[k], count_include_pad) for k in (0, 1))
    for n, c, p, q in np.ndindex(*x_shape[:2], *size):
        for h, w in window_pixels(p, q, x_shape[2:], kernel, stride, padding):
            yield (n, c, p, q), (n, c, h, w), divisor_override or rows[p] * columns[q]


@implements("avg_pool2d", "reference")
def avg_pool2d(x, size, **how):
    """y += x / divisor, over every window."""
    y = zeros((*x.shape[:2], *size), x)
    for at_y, at_x, divisor in shares(x.shape, size=size, **how):
        y[at_y] += x[at_x] / divisor
    return y


@implements("avg_pool2d_grad_x", "reference")
def avg_pool2d_grad_x(grad_y, x_shape, **how):
    """grad_x += grad_y / divisor, over every window."""
    grad_x = zeros(x_shape, grad_y)
    for at_y, at_x, divisor in shares(x_shape, **how):
        grad_x[at_x] += grad_y[at_y] / divisor
    return grad_x


def adaptive_windows(image, size):
    """(p, q, its pixels) for every window of adaptive pooling."""
    for p, (top, bottom) in enumerate(adaptive_bounds(image[0], size[0])):
        for q, (left, right) in enumerate(adaptive_bounds(image[1], size[1])):
            yield p, q, [(h, w) for h in range(top, bottom) for w in range(left, right)]


@implements("adaptive_avg_pool2d", "reference")
def adaptive_avg_pool2d(x, size):
    """The mean of every window."""
    y = zeros((*x.shape[:2], *size), x)
    for p, q, pixels in adaptive_windows(x.shape[2:], size):
        for n, c in np.ndindex(x.shape[:2]):
            y[n, c, p, q] = sum(x[n, c, h, w] for h, w in pixels) / len(pixels)
    return y


@implements("adaptive_avg_pool2d_grad_x", "reference")
def adaptive_avg_pool2d_grad_x(grad_y, x_shape):
    """Every pixel of a window gets an equal share."""
    grad_x = zeros(x_shape, grad_y)
    for p, q, pixels in adaptive_windows(x_shape[2:], grad_y.shape[2:]):
        for n, c in np.ndindex(x_shape[:2]):
            for h, w in pixels:
                grad_x[n, c, h, w] += grad_y[n, c, p, q] / len(pixels)
    return grad_x


@implements("adaptive_max_pool2d", "reference")
def adaptive_max_pool2d(x, size):
    """The largest pixel of every window, and where it is."""
    y = empty((*x.shape[:2], *size), x.dtype, x)
    indices = empty(y.shape, np.dtype("int32"), x)
    for p, q, pixels in adaptive_windows(x.shape[2:], size):
        for n, c in np.ndindex(x.shape[:2]):
            y[n, c, p, q], indices[n, c, p, q] = largest(x[n, c], pixels)
    return y, indices
