"""Building blocks of models: Module and Parameter, the layers, their functional forms, and how weights start."""

from minidl.nn import init
from minidl.nn.containers import *  # noqa: F403
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter

__all__ = ["Module", "Parameter", "init"]
