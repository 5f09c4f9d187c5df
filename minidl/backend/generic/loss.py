"""Cross-entropy of class labels: the truth as shares q of every class, then sums over the classes."""

import numpy as np

from minidl.backend import implements, run
from minidl.backend.layout import elementwise
from minidl.core.device import array_module, on_cpu


@implements("cross_entropy", "generic")
@implements("cross_entropy", "reference")
def cross_entropy(x, labels, weight, axis, smoothing, ignore_index):
    """(loss of every row, what the mean divides by, None: nothing is added up yet)."""
    logs = run("log_softmax", x, dim=axis)
    q, divisor = truth(x, labels, weight, axis, smoothing, ignore_index)
    terms = q * array_module(x).where(q != 0, logs, 0)  # an impossible class that is not the label counts 0, not 0 · −∞
    return -terms.sum(axis), divisor, None


@implements("cross_entropy_grad", "generic")
@implements("cross_entropy_grad", "reference")
def cross_entropy_grad(grad_rows, x, labels, weight, axis, smoothing, ignore_index):
    """grad_rows · (softmax(x) · Σ q − q)."""
    q, _ = truth(x, labels, weight, axis, smoothing, ignore_index)
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    grad_x = run("softmax", wide, dim=axis).astype(x.dtype, copy=False)
    grad_x = elementwise(np.multiply, grad_x, q.sum(axis, keepdims=True))
    np.subtract(grad_x, q, out=grad_x)
    return np.multiply(grad_x, array_module(x).expand_dims(grad_rows, axis), out=grad_x)


def truth(x, labels, weight, axis, smoothing, ignore_index, classes=None):
    """q of class labels, 0 in ignored rows; and what the mean divides by: the summed weights of the labels that count.

    That sum is a float, or on a GPU a 0-d array, so that nobody waits for it. With `classes`, x tells the dtype only.
    """
    xp, C, dtype = array_module(x), classes or x.shape[axis], x.dtype.type
    along = [-1 if k == axis else 1 for k in range(x.ndim)]
    w = None if weight is None else weight.reshape(along)
    is_label = xp.expand_dims(labels, axis) == xp.arange(C).reshape(along)                              # (N, C, ...)
    weight_of_label = is_label if w is None else is_label * w
    counts = xp.expand_dims(labels != ignore_index, axis)                                               # (N, 1, ...)
    q = is_label * dtype(1 - smoothing) + dtype(smoothing / max(C, 1))
    q = (q if w is None else q * w) * counts
    divisor = (weight_of_label * counts).sum(dtype=np.float64)
    return q, float(divisor) if on_cpu(x) else divisor
