"""minidl: a deep-learning engine you can read, step through and trust. Public names only."""

from minidl.core.tensor import Tensor
from minidl.core.config import no_grad

__version__ = "0.1.0"
