"""Matrix products cut into slices of rows or columns for the pool, BLAS on one thread in each.

BLAS would cut as well; but its idle worker spins for 0.1 s after each product and takes half of the next pass. Small products
go to NumPy at once: there the call is what costs.
"""

import functools
import math

import numpy as np

from minidl.backend import implements
from minidl.backend.threads import parallel_for, single_blas_thread, spans

SMALL = 1 << 17  # multiply-adds: up to here BLAS itself uses one thread, and a product is over in a few microseconds
PIECE = 1 << 22  # multiply-adds of a slice at the least: 40 µs of work, about what waking up a second thread takes
SLICES = 8       # at the most: as many as cores may be had, and each packs the other factor once more
LONG = 384       # rows of a slice, where two slices have more: 100 of them lose a quarter to that packing, 200 a tenth
UNPACKED = 10**6  # multiply-adds: up to here OpenBLAS's AVX-512 kernels read both factors where they lie
NARROW = 64      # columns: below this packing costs more than it saves (25088×256×64: 310 GFLOP/s packed, 400 in small products)
DEEP = 600        # terms of a sum: unpacked kernels add them one after another, packed ones in blocks of about 400, which rounds less


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
    out = np.empty((len(a), b.shape[1]), a.dtype)
    multiply(a, b, out)
    return out


def multiply(a, b, out, bias=None):
    """out (N, M) = a (N, K) · b (K, M) + bias, its longer side in slices."""
    (N, K), M = a.shape, b.shape[1]
    few = few_columns(K, M)
    if few:
        b = np.ascontiguousarray(b)

    def rows(part):
        if few:
            in_small_products(a[part], b, out[part])
        else:
            np.matmul(a[part], b, out=out[part])
        if bias is not None:
            np.add(out[part], bias, out=out[part])

    def columns(part):
        np.matmul(a, b[:, part], out=out[:, part])
        if bias is not None:
            np.add(out[:, part], bias[part], out=out[:, part])

    if N >= M:
        parallel_for(rows, cut(N, N * K * M))
    else:
        parallel_for(columns, cut(M, N * K * M))


def cut(side, work):
    """A side of a product in slices: long ones, and none where the work is over before a second thread has woken up."""
    pieces = min(SLICES, max(1, work // PIECE), max(2, side // LONG))
    return spans(side, -(-side // pieces), 16)


@functools.cache
def has_unpacked_kernels():
    """Does BLAS multiply small matrices without packing them? OpenBLAS does with AVX-512."""
    import threadpoolctl  # 5 ms, paid at the first use

    libraries = threadpoolctl.ThreadpoolController().select(internal_api="openblas").lib_controllers
    return any(getattr(library, "architecture", "") in ("SkylakeX", "Cooperlake", "SapphireRapids") for library in libraries)


def few_columns(K, M):
    """Is a product with (K, M) quicker as a stack of small ones?"""
    return M <= NARROW and K <= DEEP and has_unpacked_kernels()


def in_small_products(a, b, out):
    """out = a · b, some rows at a time; where rows of a are no neighbours in memory, all at once."""
    (N, K), M = a.shape, b.shape[1]
    rows = UNPACKED // (K * M) // 8 * 8
    many = N // rows
    if many < 2 or not (a.flags.c_contiguous and out.flags.c_contiguous):
        return np.matmul(a, b, out=out)
    np.matmul(a[:many * rows].reshape(many, rows, K), b, out=out[:many * rows].reshape(many, rows, M))
    if N % rows:
        np.matmul(a[many * rows:], b, out=out[many * rows:])
    return out


def _stack(a, b):
    """A stack of products (B, n, k) · (B, k, m), cut between them."""
    out = np.empty((*a.shape[:2], b.shape[2]), a.dtype)
    pieces = min(SLICES, max(1, math.prod(a.shape) * b.shape[2] // PIECE))
    parallel_for(lambda some: np.matmul(a[some], b[some], out=out[some]), spans(len(a), -(-len(a) // pieces)))
    return out
