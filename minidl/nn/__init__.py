"""Building blocks of networks, under the names of torch.nn; the functions they call are in nn.functional."""

from minidl.nn import functional

__all__ = ["functional"]
