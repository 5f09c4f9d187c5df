"""The functions of networks, under the names of torch.nn.functional. They are ops; their source is in minidl/ops."""

from minidl.core.create import one_hot
from minidl.ops import pad, relu, sigmoid, tanh

__all__ = ["one_hot", "pad", "relu", "sigmoid", "tanh"]
