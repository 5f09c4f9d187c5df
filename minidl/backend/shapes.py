"""use_backend("shapes"): the expensive ops give zeros of the right shape instead of computing, for summaries and counts.

Zeros that nobody reads take no memory, so a network of any size runs through in milliseconds. It stands beside the four
backends, not among them: nothing chooses it by itself. An op that is not here runs as always.
"""

import numpy as np

from minidl.backend.window import output_size
from minidl.core.device import array_module


def zeros(shape, dtype, like):
    """Zeros on `like`'s device; the system hands out the memory only when it is touched."""
    xp = array_module(like)
    if len(shape) == 4:
        n, c, h, w = shape
        return xp.zeros((n, h, w, c), dtype).transpose(0, 3, 1, 2)
    return xp.zeros(shape, dtype)


def conv2d(x, weight, bias, stride, padding, dilation, groups):
    """(N, O, OH, OW)."""
    size = output_size(x.shape, weight.shape[2:], stride, padding, dilation)
    return zeros((x.shape[0], weight.shape[0], *size), x.dtype, x)


def conv2d_grad_x(grad_y, weight, x_shape, stride, padding, dilation, groups):
    """x's shape; also what conv_transpose2d is."""
    return zeros(tuple(x_shape), grad_y.dtype, grad_y)


def conv2d_grad_w(x, grad_y, w_shape, **how):
    """The filters' shape."""
    return zeros(tuple(w_shape), grad_y.dtype, grad_y)


def max_pool2d_grad_x(grad_y, indices, x_shape, **how):
    """x's shape."""
    return zeros(tuple(x_shape), grad_y.dtype, grad_y)


def matmul(a, b):
    """(.., N, M); the axes in front broadcast, a vector's own axis is gone."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return zeros((*batch, *a.shape[-2:-1], *(b.shape[-1:] if b.ndim > 1 else ())), a.dtype, a)


def max_pool2d(x, size, **how):
    """Values and positions."""
    y = zeros((*x.shape[:2], *size), x.dtype, x)
    return y, zeros(y.shape, np.int32, x)


def avg_pool2d(x, size, **how):
    """(N, C, OH, OW)."""
    return zeros((*x.shape[:2], *size), x.dtype, x)


def batch_norm_train(x, weight, bias, add, eps, relu):
    """y, mean, variance."""
    return same(x), zeros(x.shape[1:2], x.dtype, x), zeros(x.shape[1:2], x.dtype, x)


def same(x, *others, **how):
    """x's shape."""
    return zeros(x.shape, x.dtype, x)


SHAPES = {
    "conv2d": conv2d, "conv2d_grad_x": conv2d_grad_x, "conv2d_grad_w": conv2d_grad_w, "matmul": matmul, "max_pool2d": max_pool2d,
    "max_pool2d_grad_x": max_pool2d_grad_x, "adaptive_max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d, "adaptive_avg_pool2d": avg_pool2d, "batch_norm_train": batch_norm_train, "batch_norm_eval": same,
    "neighbour_sum": same, "softmax": same, "log_softmax": same,
}
