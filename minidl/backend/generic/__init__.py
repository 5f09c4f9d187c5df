"""One vectorised body per op for NumPy and CuPy alike: the readable implementations."""
