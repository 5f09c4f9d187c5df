"""Plain Python loops: what each op means, element by element. For tiny sizes and for tests."""

from minidl.backend.reference import matmul  # noqa: F401 - importing it registers it
