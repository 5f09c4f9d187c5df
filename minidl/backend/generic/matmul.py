"""Matrix product: NumPy and CuPy hand it to BLAS."""

import math

from minidl.backend import implements
from minidl.core.device import array_module


@implements("matmul", "generic")
def matmul(a, b):
    """a (.., n, k) times b (.., k, m), or vectors, as np.matmul has it."""
    if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous:  # one large product, where np.matmul would do many small ones
        return (a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[1])
    return array_module(a).matmul(a, b)
