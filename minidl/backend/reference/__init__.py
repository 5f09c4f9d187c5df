"""Plain Python loops: what each op means, element by element. For tiny sizes and for tests."""

from minidl.backend.reference import conv, matmul, normalize, pool, resample, softmax  # noqa: F401 - importing them registers them
