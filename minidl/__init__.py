from minidl.core.tensor import Tensor
from minidl.core.config import no_grad
