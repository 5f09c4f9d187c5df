"""Normalisation layers: batch, layer, instance, group, local response, RMS. They differ in what one mean is taken over."""

import numpy as np

from minidl.core.device import move
from minidl.core.errors import ArgumentError, ShapeError, explained
from minidl.core.tensor import Tensor
from minidl.core.writing import rewriting
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init
from minidl.nn.layers_base import Configured, tupled
from minidl.nn.module import Module
from minidl.nn.parameter import empty_parameter, empty_tensor


class _RunningNorm(Module):
    """What batch and instance norm share: scale and shift per channel, and running averages kept for eval()."""

    axes = (4,)  # how many axes x may have

    def __init__(self, num_features, eps, momentum, affine, track_running_stats, device, dtype, bias):
        super().__init__()
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.track_running_stats, self.has_bias = track_running_stats, affine and bias
        self.register_parameter("weight", empty_parameter((num_features,), device, dtype) if affine else None)
        self.register_parameter("bias", empty_parameter((num_features,), device, dtype) if affine and bias else None)
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, empty_tensor((num_features,), device, dtype) if track_running_stats else None)
        counter = Tensor(move(np.zeros((), np.int64), device or "cpu")) if track_running_stats else None
        self.register_buffer("num_batches_tracked", counter)
        self.reset_parameters()

    def reset_running_stats(self):
        """Forget the averages: mean 0, variance 1, no batch seen."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self):
        """Start again: scale 1, shift 0, no averages."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def check(self, x):
        """x must have one of the numbers of axes this layer is for."""
        if x.ndim not in self.axes:
            raise explained(ShapeError, type(self).__name__, f"x must have {' or '.join(map(str, self.axes))} axes.",
                            [f"x: shape {x.shape}"], f"Use the {'1d' if x.ndim < 4 else '2d'} form of the layer, or flatten x.")

    def extra_repr(self):
        """The settings."""
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, bias={self.has_bias}, "
                f"track_running_stats={self.track_running_stats}")


class BatchNorm2d(_RunningNorm):
    """y = (x − mean) / √(var + eps) · weight + bias, mean and variance over the batch and all positions of a channel.

    While training, running averages of both are kept; eval() uses them. momentum=None averages over all batches seen.
    `add` and `relu` do what usually follows (y + add, relu(y)) in the same go.

    Shapes:    x (N, num_features, H, W)  ->  y, the same
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True, device=None, dtype=None, *, bias=True):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def count_batch(self):
        """Count this batch; returns the share of it that goes into the running averages."""
        counter = self.num_batches_tracked
        with rewriting("num_batches_tracked", counter):
            counter.array += 1
        return 1 / counter.item() if self.momentum is None else self.momentum

    def forward(self, x, add=None, relu=False):
        """x normalised per channel."""
        self.check(x)
        own, buffers = self._parameters, self._buffers  # by name they would be looked for one by one, in three places each
        running_mean, running_var = buffers["running_mean"], buffers["running_var"]
        updates = self.training and self.track_running_stats and buffers["num_batches_tracked"] is not None
        share = self.count_batch() if updates else self.momentum or 0.0
        known = not self.training or self.track_running_stats
        return F.batch_norm(x, running_mean if known else None, running_var if known else None, own["weight"], own["bias"],
                            self.training or running_mean is None, share, self.eps, add=add, relu=relu)


class BatchNorm1d(BatchNorm2d):
    """The same for (N, C) or for sequences (N, C, W)."""

    axes = (2, 3)


class InstanceNorm2d(_RunningNorm):
    """y = (x − mean) / √(var + eps) · weight + bias, mean and variance over the positions of one channel of one image.

    Shapes:    x (N, num_features, H, W) or (num_features, H, W)  ->  y, the same
    """

    axes = (3, 4)

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=False, track_running_stats=False, device=None, dtype=None, *,
                 bias=True):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, x):
        """x normalised per image and channel."""
        self.check(x)
        if x.ndim == self.axes[0]:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        return F.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                               self.training or not self.track_running_stats, 0.0 if self.momentum is None else self.momentum, self.eps)


class InstanceNorm1d(InstanceNorm2d):
    """The same for sequences (N, C, W) or (C, W)."""

    axes = (2, 3)


class LayerNorm(Module):
    """y = (x − mean) / √(var + eps) · weight + bias, mean and variance over the last axes, those of normalized_shape."""

    def __init__(self, normalized_shape, eps=1e-5, elementwise_affine=True, bias=True, device=None, dtype=None):
        super().__init__()
        self.normalized_shape, self.eps, self.elementwise_affine = tupled(normalized_shape, 1), eps, elementwise_affine
        self.register_parameter("weight", empty_parameter(self.normalized_shape, device, dtype) if elementwise_affine else None)
        self.register_parameter("bias", empty_parameter(self.normalized_shape, device, dtype) if elementwise_affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Start again: scale 1, shift 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x):
        """x normalised over its last axes."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        """The settings."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"


class RMSNorm(Module):
    """y = x / √(mean of x² + eps) · weight, the mean over the last axes, those of normalized_shape.

    eps=None stands for the smallest step of x's dtype.
    """

    def __init__(self, normalized_shape, eps=None, elementwise_affine=True, device=None, dtype=None):
        super().__init__()
        self.normalized_shape, self.eps, self.elementwise_affine = tupled(normalized_shape, 1), eps, elementwise_affine
        self.register_parameter("weight", empty_parameter(self.normalized_shape, device, dtype) if elementwise_affine else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Start again: scale 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x):
        """x divided by its root mean square."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self):
        """The settings."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """y = (x − mean) / √(var + eps) · weight + bias, mean and variance over a group of channels of one image."""

    def __init__(self, num_groups, num_channels, eps=1e-5, affine=True, device=None, dtype=None, *, bias=True):
        super().__init__()
        if num_channels % num_groups:
            raise explained(ArgumentError, "GroupNorm", "num_groups must divide num_channels.",
                            [f"num_groups = {num_groups}, num_channels = {num_channels}"],
                            "The groups come first: GroupNorm(groups, channels).")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.register_parameter("weight", empty_parameter((num_channels,), device, dtype) if affine else None)
        self.register_parameter("bias", empty_parameter((num_channels,), device, dtype) if affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Start again: scale 1, shift 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x):
        """x normalised per image and group."""
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self):
        """The settings."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, bias={self.bias is not None}"


class LocalResponseNorm(Configured):
    """y = x / (k + alpha · mean of x² over `size` neighbouring channels)^beta."""

    def __init__(self, size, alpha=1e-4, beta=0.75, k=1.0):
        super().__init__(size=size, alpha=alpha, beta=beta, k=k)

    def forward(self, x):
        """x divided by what its neighbours amount to."""
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self):
        """The settings."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


__all__ = ["BatchNorm1d", "BatchNorm2d", "InstanceNorm1d", "InstanceNorm2d", "LayerNorm", "RMSNorm", "GroupNorm", "LocalResponseNorm"]
