"""Matrix products cut into slices of rows or columns for the pool, BLAS on one thread in each.

BLAS would cut as well; but its idle worker spins for 0.1 s after each product and takes half of the next pass. Small products
go to NumPy at once: there the call is what costs.
"""

import math

import numpy as np

from minidl.backend import implements
from minidl.backend.threads import parallel_for, single_blas_thread, spans

SMALL = 1 << 17  # multiply-adds: up to here BLAS itself uses one thread, and a product is over in a few microseconds
PIECE = 1 << 21  # multiply-adds of a slice at the least: 15 µs of work
SLICES = 8       # at the most: as many as cores may be had, and each packs the other factor once more


@implements("matmul", "cpu/sliced", why="slices of rows or columns on the pool's threads; small products go to NumPy at once")
def matmul(a, b):
    """a (.., n, k) times b (.., k, m), or vectors, as np.matmul has it."""
    if a.size * b.shape[-1] <= SMALL or a.ndim < 2 or b.ndim < 2 or a.dtype.kind != "f":
        return np.matmul(a, b)
    if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous:  # one large product, where np.matmul would do many small ones
        return _product(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[1])
    if a.ndim == 2 and b.ndim == 2:
        return _product(a, b)
    if a.shape[:-2] != b.shape[:-2]:
        with single_blas_thread():
            return np.matmul(a, b)
    return _stack(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:])).reshape(*a.shape[:-1], b.shape[-1])


def _product(a, b):
    """One product, its longer side in slices."""
    (N, K), M = a.shape, b.shape[1]
    out = np.empty((N, M), a.dtype)
    pieces = min(SLICES, max(1, N * K * M // PIECE))
    if N >= M:
        parallel_for(lambda n: np.matmul(a[n], b, out=out[n]), spans(N, -(-N // pieces), 16))
    else:
        parallel_for(lambda m: np.matmul(a, b[:, m], out=out[:, m]), spans(M, -(-M // pieces), 16))
    return out


def _stack(a, b):
    """A stack of products (B, n, k) · (B, k, m), cut between them."""
    out = np.empty((*a.shape[:2], b.shape[2]), a.dtype)
    pieces = min(SLICES, max(1, math.prod(a.shape) * b.shape[2] // PIECE))
    parallel_for(lambda some: np.matmul(a[some], b[some], out=out[some]), spans(len(a), -(-len(a) // pieces)))
    return out
