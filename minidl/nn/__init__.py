"""Building blocks of networks, under the names of torch.nn; the functions they call are in nn.functional."""

from minidl.nn import functional, init, utils
from minidl.nn.containers import *  # noqa: F403
from minidl.nn.layers_activation import *  # noqa: F403
from minidl.nn.layers_conv import *  # noqa: F403
from minidl.nn.layers_linear import *  # noqa: F403
from minidl.nn.layers_loss import *  # noqa: F403
from minidl.nn.layers_norm import *  # noqa: F403
from minidl.nn.layers_pool import *  # noqa: F403
from minidl.nn.layers_shape import *  # noqa: F403
from minidl.nn.module import Module, current_path
from minidl.nn.parameter import Parameter

__all__ = ["Module", "Parameter", "current_path", "functional", "init", "utils"] + [
    name for name, value in list(globals().items()) if isinstance(value, type) and issubclass(value, Module) and value is not Module]
