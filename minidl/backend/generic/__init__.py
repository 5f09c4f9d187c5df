"""One vectorised body per op for NumPy and CuPy alike: the readable implementations."""

from minidl.backend.generic import conv, loss, matmul, normalize, optim, pool, reduce, resample, softmax  # noqa: F401 - importing them registers them
