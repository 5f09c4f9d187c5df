"""Convolution as one list of products. T = Σ y·x·w over that list is linear in each factor; the three ops are its
three partial derivatives, so they differ only in which factor is on the left of the +=."""

import numpy as np

from minidl.backend import implements
from minidl.backend.layout import empty
from minidl.backend.window import output_size


def products(x_shape, w_shape, stride, padding, dilation, groups):
    """Every (position in y, position in x, position in w) that meet; pixels in the padding are zeros and left out."""
    N, _, H, W = x_shape
    O, C_group, KH, KW = w_shape  # a filter spans the channels of its group only
    OH, OW = output_size(x_shape, (KH, KW), stride, padding, dilation)
    for n, o, p, q, k, i, j in np.ndindex(N, O, OH, OW, C_group, KH, KW):
        c = o // (O // groups) * C_group + k
        h = p * stride[0] + i * dilation[0] - padding[0][0]
        w = q * stride[1] + j * dilation[1] - padding[1][0]
        if 0 <= h < H and 0 <= w < W:
            yield (n, o, p, q), (n, c, h, w), (o, k, i, j)


@implements("conv2d", "reference")
def conv2d(x, weight, bias, **how):
    """y += x · w, on top of the bias."""
    geometry = {k: how[k] for k in ("stride", "padding", "dilation")}
    y = zeros((len(x), len(weight), *output_size(x.shape, weight.shape[2:], **geometry)), x)
    if bias is not None:
        for o in range(len(bias)):
            y[:, o] = bias[o]
    for at_y, at_x, at_w in products(x.shape, weight.shape, **how):
        y[at_y] += x[at_x] * weight[at_w]
    return y


@implements("conv2d_grad_x", "reference")
def conv2d_grad_x(grad_y, weight, x_shape, **how):
    """grad_x += grad_y · w."""
    grad_x = zeros(x_shape, grad_y)
    for at_y, at_x, at_w in products(x_shape, weight.shape, **how):
        grad_x[at_x] += grad_y[at_y] * weight[at_w]
    return grad_x


@implements("conv2d_grad_w", "reference")
def conv2d_grad_w(x, grad_y, w_shape, **how):
    """grad_w += x · grad_y."""
    grad_w = zeros(w_shape, x)
    for at_y, at_x, at_w in products(x.shape, w_shape, **how):
        grad_w[at_w] += x[at_x] * grad_y[at_y]
    return grad_w


@implements("unfold", "reference")
def unfold(x, kernel, stride, padding, dilation):
    """One entry of a column per channel and kernel cell; padding is 0."""
    N, C = x.shape[:2]
    OH, OW = output_size(x.shape, kernel, stride, padding, dilation)
    columns = zeros((N, C * kernel[0] * kernel[1], OH * OW), x)
    for at_columns, at_x in copies(x.shape, kernel, stride, padding, dilation):
        columns[at_columns] = x[at_x]
    return columns


@implements("fold", "reference")
def fold(columns, x_shape, kernel, stride, padding, dilation):
    """Every entry of a column goes back to its pixel and is added there."""
    x = zeros(x_shape, columns)
    for at_columns, at_x in copies(x_shape, kernel, stride, padding, dilation):
        x[at_x] += columns[at_columns]
    return x


def copies(x_shape, kernel, stride, padding, dilation):
    """Every (position in the columns, position in x) of an unfold."""
    N, C, H, W = x_shape
    OH, OW = output_size(x_shape, kernel, stride, padding, dilation)
    for n, c, i, j, p, q in np.ndindex(N, C, *kernel, OH, OW):
        h = p * stride[0] + i * dilation[0] - padding[0][0]
        w = q * stride[1] + j * dilation[1] - padding[1][0]
        if 0 <= h < H and 0 <= w < W:
            yield (n, (c * kernel[0] + i) * kernel[1] + j, p * OW + q), (n, c, h, w)


def zeros(shape, like):
    """Zeros in storage order, of `like`'s dtype."""
    y = empty(shape, like.dtype, like)
    y[...] = 0
    return y
