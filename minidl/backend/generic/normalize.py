"""Normalisation in one vectorised body: mean, centred values, variance of those, scale and shift.

The mean is taken first and the variance from what is left (two passes): with a mean 1000 times the spread, Σx²/n − mean²
would have no correct digit in float32. Sums add up in float64, so that the mean of a million values is right as well.
"""

import numpy as np

from minidl.backend import implements
from minidl.backend.layout import elementwise, empty


def average(x, axes, groups=None):
    """The mean over some axes, which stay with size 1; with groups also over every group of channels (repeated for each)."""
    count = max(int(np.prod([x.shape[k] for k in axes])), 1)
    mean = x.sum(axes, dtype=np.float64, keepdims=True) / count
    if groups is not None:
        N, C = x.shape[:2]
        mean = mean.reshape(N, groups, C // groups).mean(2).repeat(C // groups, axis=1).reshape(mean.shape)
    return mean.astype(x.dtype)


def centre(x, axes, groups=None):
    """(x − mean, mean, variance)."""
    mean = average(x, axes, groups)
    centred = elementwise(np.subtract, x, mean)
    return centred, mean, average(elementwise(np.multiply, centred, centred), axes, groups)


def along(values, x, axes):
    """Numbers along some axes of x, so that they broadcast against it."""
    return values.reshape([n if k in axes else 1 for k, n in enumerate(x.shape)])


def scale_and_shift(y, scale, weight, bias, axes, add=None, relu=False):
    """y · scale · weight + bias (+ add, then relu), written over y."""
    np.multiply(y, scale if weight is None else scale * along(weight, y, axes), out=y)
    if bias is not None:
        np.add(y, along(bias, y, axes), out=y)
    if add is not None:
        np.add(y, add, out=y)
    return np.maximum(y, y.dtype.type(0), out=y) if relu else y


def gradients(grad_y, x, weight, mean, var, eps, axes, groups, weight_axes):
    """(grad_x, grad_w, grad_b) from the statistics, which broadcast against x."""
    inv_std = 1 / np.sqrt(var + x.dtype.type(eps))
    u = elementwise(np.subtract, x, mean)
    np.multiply(u, inv_std, out=u)
    product = elementwise(np.multiply, grad_y, u)
    others = tuple(k for k in range(x.ndim) if k not in weight_axes)
    shape = [x.shape[k] for k in weight_axes]
    grad_w = product.sum(others, dtype=np.float64).astype(x.dtype).reshape(shape)
    grad_b = grad_y.sum(others, dtype=np.float64).astype(x.dtype).reshape(shape)
    g = grad_y
    if weight is not None:
        g = elementwise(np.multiply, grad_y, along(weight, x, weight_axes))
        np.multiply(product, along(weight, x, weight_axes), out=product)
    np.multiply(u, average(product, axes, groups), out=u)
    grad_x = elementwise(np.subtract, g, average(g, axes, groups))
    np.subtract(grad_x, u, out=grad_x)
    return np.multiply(grad_x, inv_std, out=grad_x), grad_w, grad_b


def across(x):
    """All axes but the channels'."""
    return (0, *range(2, x.ndim))


@implements("batch_norm_train", "generic")
def batch_norm_train(x, weight, bias, add, eps, relu):
    """(y, mean, variance) with the statistics of this batch."""
    y, mean, var = centre(x, across(x))
    y = scale_and_shift(y, 1 / np.sqrt(var + x.dtype.type(eps)), weight, bias, (1,), add, relu)
    return y, mean.reshape(-1), var.reshape(-1)


@implements("batch_norm_eval", "generic")
def batch_norm_eval(x, mean, var, weight, bias, add, eps, relu):
    """y with statistics that are given."""
    y = elementwise(np.subtract, x, along(mean, x, (1,)))
    return scale_and_shift(y, 1 / np.sqrt(along(var, x, (1,)) + x.dtype.type(eps)), weight, bias, (1,), add, relu)


@implements("batch_norm_grad", "generic")
def batch_norm_grad(grad_y, x, weight, mean, var, y=None, *, eps, add=False):
    """(grad_x, grad_w, grad_b), and with add grad_y gated by relu; y: relu's output, None without relu."""
    if y is not None:
        grad_y = elementwise(np.multiply, grad_y, y > 0)
    grads = gradients(grad_y, x, weight, along(mean, x, (1,)), along(var, x, (1,)), eps, across(x), None, (1,))
    return (*grads, grad_y) if add else grads


@implements("running_averages", "generic")
@implements("running_averages", "reference")
def running_averages(mean, var, running_mean, running_var, momentum, unbias):
    """Move the running averages (either may be None) towards a batch's mean and variance, in place."""
    for running, new, share in ((running_mean, mean, momentum), (running_var, var, momentum * unbias)):
        if running is not None:
            running *= 1 - momentum
            running += share * new


@implements("normalize_over", "generic")
def normalize_over(x, weight, bias, axes, groups, weight_axes, eps):
    """(y, mean, variance); the statistics broadcast against x."""
    y, mean, var = centre(x, axes, groups)
    return scale_and_shift(y, 1 / np.sqrt(var + x.dtype.type(eps)), weight, bias, weight_axes), mean, var


@implements("normalize_over_grad", "generic")
def normalize_over_grad(grad_y, x, weight, mean, var, axes, groups, weight_axes, eps):
    """(grad_x, grad_w, grad_b)."""
    return gradients(grad_y, x, weight, mean, var, eps, axes, groups, weight_axes)


@implements("neighbour_sum", "generic")
def neighbour_sum(x, before, after):
    """The sum over the channels c − before ... c + after, one shift of all channels at a time."""
    y = empty(x.shape, x.dtype, x)
    y[...] = 0
    C = x.shape[1]
    for k in range(max(-before, 1 - C), min(after, C - 1) + 1):
        y[:, max(-k, 0):C - max(k, 0)] += x[:, max(k, 0):C + min(k, 0)]
    return y
