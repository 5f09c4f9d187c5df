"""Reading along axes, and its transpose: one axis after the other, a slice of all the others at a time."""

import numpy as np

from minidl.backend import implements
from minidl.backend.layout import elementwise, empty
from minidl.core.device import array_module


def along(share, x, axis):
    """Shares along one axis, so that they broadcast against x."""
    return array_module(x).asarray(share, x.dtype).reshape([-1 if k == axis else 1 for k in range(x.ndim)])


def read(x, axis, index):
    """The slices of one axis that an index names, in storage order."""
    y = empty((*x.shape[:axis], len(index), *x.shape[axis + 1:]), x.dtype, x)
    y[...] = x[(slice(None),) * axis + (array_module(x).asarray(index),)]
    return y


@implements("resample", "generic")
def resample(x, reads):
    """Σ share · x[index] along every axis in turn."""
    for axis, *taps in reads:
        axis, total = axis % x.ndim, None
        for index, share in taps:
            y = read(x, axis, index)
            if share is not None:
                np.multiply(y, along(share, y, axis), out=y)
            total = y if total is None else np.add(total, y, out=total)
        x = total
    return x


@implements("resample_grad_x", "generic")
def resample_grad_x(grad_y, x_shape, reads):
    """The axes in the opposite order; a slice goes to the position it was read from, and what meets there adds up."""
    for axis, *taps in reversed(reads):
        axis %= grad_y.ndim
        before = (slice(None),) * axis
        grad_x = empty((*grad_y.shape[:axis], x_shape[axis], *grad_y.shape[axis + 1:]), grad_y.dtype, grad_y)
        grad_x[...] = 0
        for index, share in taps:
            part = grad_y if share is None else elementwise(np.multiply, grad_y, along(share, grad_y, axis))
            for p, i in enumerate(index):
                grad_x[(*before, int(i))] += part[(*before, p)]
        grad_y = grad_x
    return grad_y
