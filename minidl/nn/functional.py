"""The functions of networks, under the names of torch.nn.functional. They are ops; their source is in minidl/ops."""

from minidl.core.create import one_hot
from minidl.ops import pad, relu, sigmoid, tanh
from minidl.ops.conv import conv1d, conv2d
from minidl.ops.conv_transpose import conv_transpose1d, conv_transpose2d
from minidl.ops.pool import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)
from minidl.ops.unfold import fold, unfold

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "avg_pool1d", "avg_pool2d",
    "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "fold", "max_pool1d", "max_pool2d", "one_hot", "pad", "relu",
    "sigmoid", "tanh", "unfold",
]
