"""What treats every sample by itself, on all cores: the plain implementation, a few samples at a time.

The idea: softmax, layer, group and instance norm, sums over neighbouring channels make five to ten passes over x. On 131,072
numbers at a time all but the first find them in the second cache, and two cores work on different samples. The body is the
readable one of minidl/backend/generic/, so there is nothing here that could differ from it.

Measured: softmax of (1024, 1000) 0.62 ms (generic 0.94; below 524,288 numbers a second thread wakes up too late to help),
layer norm of (8, 197, 768) forward 1.1 and backward 1.8 (1.7, 4.4).
"""

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.generic import normalize, softmax
from minidl.backend.layout import LARGE, empty, stored
from minidl.backend.threads import BIG, parallel_map, spans

PART = 1 << 17  # numbers that go through all passes together


def accepts(x, axes, least=BIG):
    """"" or why not: the first axis must be one that nothing is added over, and x not small."""
    if not x.ndim or 0 in [axis % x.ndim for axis in axes]:
        return NotFor("not for every sample by itself")
    return "" if x.size >= least and x.shape[0] > 1 else NotFor("small, or a single sample")


def samples(x):
    """Slices of the first axis with about PART numbers each."""
    return spans(x.shape[0], max(1, PART * x.shape[0] // x.size))


def by_samples(op, function, axes_of, least):
    """Register an op of one array of at least so many numbers that gives one of its shape."""

    def run(x, *args, **how):
        x = stored(x)
        y = empty(x.shape, x.dtype, x)

        def body(part):
            y[part] = function(x[part], *args, **how)

        parallel_map(body, samples(x))
        return y

    def accepts_call(x, *args, **how):
        return accepts(x, axes_of(*args, **how), least)

    accepts_call.__doc__ = f"Nothing is added over the first axis; {least:,} numbers or more."

    implements(op, "cpu/samples", accepts_call, "the plain body, a few samples at a time, all cores")(run)


by_samples("softmax", softmax.softmax, lambda dim: dim if isinstance(dim, tuple) else (dim,), LARGE)
by_samples("log_softmax", softmax.log_softmax, lambda dim: dim if isinstance(dim, tuple) else (dim,), LARGE)
by_samples("neighbour_sum", normalize.neighbour_sum, lambda before, after: (1,), BIG)


def accepts_normalize(x, weight, bias, axes, groups, weight_axes, eps):
    """Nothing is averaged over the first axis; 65,536 numbers or more."""
    return accepts(x, (*axes, *weight_axes))


@implements("normalize_over", "cpu/samples", accepts_normalize, "the plain body, a few samples at a time, all cores")
def normalize_over(x, weight, bias, axes, groups, weight_axes, eps):
    """(y, mean, variance); the statistics broadcast against x."""
    x = stored(x)
    y = empty(x.shape, x.dtype, x)

    def body(part):
        y[part], *statistics = normalize.normalize_over(x[part], weight, bias, axes, groups, weight_axes, eps)
        return statistics

    mean, var = zip(*parallel_map(body, samples(x)), strict=True)
    return y, stored(np.concatenate(mean)), stored(np.concatenate(var))


def accepts_normalize_grad(grad_y, x, weight, mean, var, axes, groups, weight_axes, eps):
    """Nothing is averaged over the first axis; 65,536 numbers or more."""
    return accepts(x, (*axes, *weight_axes))


@implements("normalize_over_grad", "cpu/samples", accepts_normalize_grad, "the plain body, a few samples at a time, all cores")
def normalize_over_grad(grad_y, x, weight, mean, var, axes, groups, weight_axes, eps):
    """(grad_x, grad_w, grad_b); the sums over the samples are merged in order, in float64."""
    grad_y, x = stored(grad_y), stored(x)
    grad_x = empty(x.shape, x.dtype, x)

    def body(part):
        grad_x[part], *sums = normalize.normalize_over_grad(grad_y[part], x[part], weight, mean[part], var[part], axes, groups,
                                                            weight_axes, eps)
        return sums

    sums = zip(*parallel_map(body, samples(x)), strict=True)
    grad_w, grad_b = (np.sum(parts, axis=0, dtype=np.float64).astype(x.dtype) for parts in sums)
    return grad_x, grad_w, grad_b
