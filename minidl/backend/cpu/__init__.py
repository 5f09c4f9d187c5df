"""Tuned NumPy: each file says its idea, its bound and what it gained. Importing this fills the registry with the cpu/... names."""

from minidl.backend.cpu import choose, matmul, normalize, optim, pool, samples, sums  # noqa: F401 - importing them registers them
