"""Normalisation one number at a time: which elements share a mean, their mean, their variance, every y."""

import math

import numpy as np

from minidl.backend import implements
from minidl.backend.layout import empty


def cells(x, axes, groups=None):
    """The positions that share one mean, set by set: those that differ only along `axes`, or in their channel inside a group."""
    found = {}
    for position in np.ndindex(x.shape):
        key = [0 if k in axes else i for k, i in enumerate(position)]
        if groups is not None:
            key[1] //= x.shape[1] // groups
        found.setdefault(tuple(key), []).append(position)
    return found.values()


def statistics(x, axes, groups=None):
    """(mean, variance) of every cell, written to all of its elements."""
    mean, var = empty(x.shape, x.dtype, x), empty(x.shape, x.dtype, x)
    for cell in cells(x, axes, groups):
        values = [float(x[i]) for i in cell]
        m = math.fsum(values) / len(values)
        v = math.fsum((value - m) ** 2 for value in values) / len(values)
        for i in cell:
            mean[i], var[i] = m, v
    return mean, var


def at(values, position, axes):
    """The number that belongs to this position, from numbers along some axes."""
    return float(values[tuple(position[k] for k in axes)])


def spread(x, values, axes):
    """Numbers along some axes, written to all elements."""
    y = empty(x.shape, x.dtype, x)
    for i in np.ndindex(x.shape):
        y[i] = at(values, i, axes)
    return y


def rescaled(x, mean, var, weight, bias, eps, axes, add=None, relu=False):
    """y, element by element."""
    y = empty(x.shape, x.dtype, x)
    for i in np.ndindex(x.shape):
        value = (float(x[i]) - float(mean[i])) / math.sqrt(float(var[i]) + eps)
        value *= 1 if weight is None else at(weight, i, axes)
        value += 0 if bias is None else at(bias, i, axes)
        value += 0 if add is None else float(add[i])
        y[i] = 0 if relu and value < 0 else value
    return y


def gradients(grad_y, x, weight, mean, var, eps, axes, groups, weight_axes):
    """(grad_x, grad_w, grad_b); every cell's two means first."""
    grad_x = empty(x.shape, x.dtype, x)
    shape = [x.shape[k] for k in weight_axes]
    grad_w, grad_b = np.zeros(shape, x.dtype), np.zeros(shape, x.dtype)
    for cell in cells(x, axes, groups):
        r = {i: 1 / math.sqrt(float(var[i]) + eps) for i in cell}
        u = {i: (float(x[i]) - float(mean[i])) * r[i] for i in cell}
        g = {i: float(grad_y[i]) * (1 if weight is None else at(weight, i, weight_axes)) for i in cell}
        mean_g = math.fsum(g.values()) / len(cell)
        mean_gu = math.fsum(g[i] * u[i] for i in cell) / len(cell)
        for i in cell:
            grad_x[i] = r[i] * (g[i] - mean_g - u[i] * mean_gu)
            place = tuple(i[k] for k in weight_axes)
            grad_w[place] += grad_y[i] * u[i]
            grad_b[place] += grad_y[i]
    return grad_x, grad_w, grad_b


def per_channel(values):
    """The first element of every channel."""
    return np.array([values[0, c].flat[0] if values.ndim > 2 else values[0, c] for c in range(values.shape[1])], values.dtype)


def across(x):
    """All axes but the channels'."""
    return (0, *range(2, x.ndim))


@implements("batch_norm_train", "reference")
def batch_norm_train(x, weight, bias, add, eps, relu):
    """(y, mean, variance) with the statistics of this batch."""
    mean, var = statistics(x, across(x))
    y = rescaled(x, mean, var, weight, bias, eps, (1,), add, relu)
    return (y, per_channel(mean), per_channel(var)) if x.size else (y, np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype))


@implements("batch_norm_eval", "reference")
def batch_norm_eval(x, mean, var, weight, bias, add, eps, relu):
    """y with statistics that are given."""
    return rescaled(x, spread(x, mean, (1,)), spread(x, var, (1,)), weight, bias, eps, (1,), add, relu)


@implements("batch_norm_grad", "reference")
def batch_norm_grad(grad_y, x, weight, mean, var, y=None, *, eps, add=False):
    """(grad_x, grad_w, grad_b), and with add grad_y gated by relu; y: relu's output, None without relu."""
    if y is not None:
        grad_y = np.where(y > 0, grad_y, 0)
    grads = gradients(grad_y, x, weight, spread(x, mean, (1,)), spread(x, var, (1,)), eps, across(x), None, (1,))
    return (*grads, grad_y) if add else grads


@implements("normalize_over", "reference")
def normalize_over(x, weight, bias, axes, groups, weight_axes, eps):
    """(y, mean, variance); the statistics with size 1 along the axes."""
    mean, var = statistics(x, axes, groups)
    first = tuple(slice(0, 1) if k in axes else slice(None) for k in range(x.ndim))
    return rescaled(x, mean, var, weight, bias, eps, weight_axes), mean[first], var[first]


@implements("normalize_over_grad", "reference")
def normalize_over_grad(grad_y, x, weight, mean, var, axes, groups, weight_axes, eps):
    """(grad_x, grad_w, grad_b)."""
    mean, var = np.broadcast_to(mean, x.shape), np.broadcast_to(var, x.shape)
    return gradients(grad_y, x, weight, mean, var, eps, axes, groups, weight_axes)


@implements("neighbour_sum", "reference")
def neighbour_sum(x, before, after):
    """The sum over the channels c − before ... c + after."""
    y = empty(x.shape, x.dtype, x)
    for n, c, *place in np.ndindex(x.shape):
        y[n, c, *place] = math.fsum(float(x[n, k, *place]) for k in range(max(c - before, 0), min(c + after, x.shape[1] - 1) + 1))
    return y
