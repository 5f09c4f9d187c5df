"""Matrix product, number by number."""

import itertools

import numpy as np

from minidl.backend import implements


@implements("matmul", "reference")
def matmul(a, b):
    """y[.., n, m] = Σ_k a[.., n, k] · b[.., k, m]; a vector counts as a row on the left and as a column on the right."""
    rows, columns = (a if a.ndim > 1 else a[None, :]), (b if b.ndim > 1 else b[:, None])
    lead = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    rows, columns = np.broadcast_to(rows, lead + rows.shape[-2:]), np.broadcast_to(columns, lead + columns.shape[-2:])
    N, K, M = *rows.shape[-2:], columns.shape[-1]
    y = np.zeros((*lead, N, M), a.dtype)
    for batch in np.ndindex(lead):
        for n, m, k in itertools.product(range(N), range(M), range(K)):
            y[(*batch, n, m)] += rows[(*batch, n, k)] * columns[(*batch, k, m)]
    return y.reshape(lead + (N,) * (a.ndim > 1) + (M,) * (b.ndim > 1))
