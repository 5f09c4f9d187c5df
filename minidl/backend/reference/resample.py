"""Reading along axes, element by element, and its transpose."""

import itertools

import numpy as np

from minidl.backend import implements
from minidl.backend.layout import empty


def sources(position, reads):
    """(old position, share) of everything that one new element reads."""
    for taps in itertools.product(*(taps for _, *taps in reads)):
        old, product = list(position), 1.0
        for (axis, *_), (index, share) in zip(reads, taps, strict=True):
            p = position[axis]
            old[axis] = int(index[p])
            product *= 1.0 if share is None else float(share[p])
        yield tuple(old), product


@implements("resample", "reference")
def resample(x, reads):
    """Every new element in turn."""
    y_shape = list(x.shape)
    for axis, (index, _), *_ in reads:
        y_shape[axis] = len(index)
    y = empty(tuple(y_shape), x.dtype, x)
    for position in np.ndindex(y.shape):
        parts = [x[old] if share == 1 else x[old] * y.dtype.type(share) for old, share in sources(position, reads)]
        y[position] = sum(parts[1:], parts[0])
    return y


@implements("resample_grad_x", "reference")
def resample_grad_x(grad_y, x_shape, reads):
    """Every new element's gradient in turn."""
    grad_x = empty(x_shape, grad_y.dtype, grad_y)
    grad_x[...] = 0
    for position in np.ndindex(grad_y.shape):
        for old, share in sources(position, reads):
            grad_x[old] += grad_y[position] * grad_y.dtype.type(share)
    return grad_x
