"""softmax, log_softmax and logsumexp, one number at a time."""

import math

import numpy as np

from minidl.backend import implements
from minidl.backend.layout import stored


def lines(x, dim):
    """For every position of the other axes: that position, and the numbers along dim (one axis or several)."""
    axes = (dim,) if isinstance(dim, int) else dim
    others = [k for k in range(x.ndim) if k not in axes]
    for position in np.ndindex(*(x.shape[k] for k in others)):
        index = [slice(None)] * x.ndim
        for k, i in zip(others, position, strict=True):
            index[k] = i
        yield tuple(index), [float(value) for value in x[tuple(index)].ravel()]


def log_of_sum(line):
    """log Σ exp(value), with the largest value taken out of the sum."""
    largest = max(line, default=-math.inf)
    if math.isinf(largest) or math.isnan(sum(line)):
        return math.nan if any(math.isnan(value) for value in line) else largest
    total = 0.0
    for value in line:
        total += math.exp(value - largest)
    return largest + math.log(total)


@implements("softmax", "reference")
def softmax(x, dim):
    """exp(x) / Σ exp(x) = exp(x − log Σ exp(x))."""
    y = np.empty_like(x)
    for index, line in lines(x, dim):
        total = log_of_sum(line)
        y[index] = [math.nan if math.isinf(total) else math.exp(value - total) for value in line]
    return stored(y)


@implements("log_softmax", "reference")
def log_softmax(x, dim):
    """x − log Σ exp(x)."""
    y = np.empty_like(x)
    for index, line in lines(x, dim):
        total = log_of_sum(line)
        y[index] = [math.nan if math.isinf(total) else value - total for value in line]
    return stored(y)


@implements("logsumexp", "reference")
def logsumexp(x, dim):
    """log Σ exp(x); the axes in dim stay with size 1."""
    y = np.empty([1 if k in dim else n for k, n in enumerate(x.shape)], x.dtype)
    for index, line in lines(x, dim):
        y[index] = log_of_sum(line)
    return stored(y)
