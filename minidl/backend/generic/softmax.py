"""softmax, log_softmax and logsumexp in one vectorised body each. Subtracting the largest number first changes nothing in
the quotient and keeps every exponential at 1 or below, so ±10⁴ and −∞ come out right.
"""

import numpy as np

from minidl.backend import implements
from minidl.backend.layout import elementwise


def below_largest(x, dim):
    """x minus the largest number along dim (a tuple: of all of these axes), and that number."""
    largest = x.max(dim, keepdims=True)
    return elementwise(np.subtract, x, largest), largest


@implements("softmax", "generic")
@np.errstate(all="ignore")
def softmax(x, dim):
    """exp(x) / Σ exp(x) along dim; a line of −∞ alone is 0/0, NaN."""
    if not x.size:
        return x.copy()
    y, _ = below_largest(x, dim)
    np.exp(y, out=y)
    return np.divide(y, y.sum(dim, keepdims=True), out=y)


@implements("log_softmax", "generic")
@np.errstate(all="ignore")
def log_softmax(x, dim):
    """x − log Σ exp(x) along dim, never through the softmax itself, whose small values would be rounded to 0."""
    if not x.size:
        return x.copy()
    y, _ = below_largest(x, dim)
    return np.subtract(y, np.log(np.exp(y).sum(dim, keepdims=True)), out=y)


@implements("logsumexp", "generic")
@np.errstate(all="ignore")
def logsumexp(x, dim):
    """log Σ exp(x) over the axes in dim, which stay with size 1."""
    if not x.size:
        return x.sum(dim, keepdims=True) - np.inf  # no exponential to add: log 0
    largest = x.max(dim, keepdims=True)
    largest[~np.isfinite(largest)] = 0  # ∞ − ∞ would be NaN
    return np.log(np.exp(elementwise(np.subtract, x, largest)).sum(dim, keepdims=True)) + largest
