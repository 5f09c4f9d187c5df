"""Layers that move, repeat or drop elements: Flatten, padding, upsampling, pixel shuffles, dropout."""

from minidl.core.errors import ArgumentError, explained
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn.layers_base import Configured, tupled


class Flatten(Configured):
    """Join the axes start_dim to end_dim into one: (N, C, H, W) -> (N, C·H·W)."""

    shown = ("start_dim", "end_dim")

    def __init__(self, start_dim=1, end_dim=-1):
        super().__init__(start_dim=start_dim, end_dim=end_dim)

    def forward(self, x):
        """x with these axes joined."""
        return x.flatten(self.start_dim, self.end_dim)


class Unflatten(Configured):
    """Split the axis dim into axes of the sizes unflattened_size; one size may be -1."""

    shown = ("dim", "unflattened_size")

    def __init__(self, dim, unflattened_size):
        super().__init__(dim=dim, unflattened_size=tuple(unflattened_size))

    def forward(self, x):
        """x with this axis split."""
        dim = self.dim % x.ndim
        return x.reshape((*x.shape[:dim], *self.unflattened_size, *x.shape[dim + 1:]))


class _Pad(Configured):
    """Padding on the left, right, top and bottom, or one number for all."""

    mode, sides = "constant", 4

    def __init__(self, padding):
        super().__init__(padding=tupled(padding, self.sides))

    def forward(self, x):
        """x padded."""
        return F.pad(x, self.padding, mode=self.mode)

    def extra_repr(self):
        """The sizes."""
        return f"{self.padding}"


class ZeroPad2d(_Pad):
    """Zeros around an image."""


class ZeroPad1d(_Pad):
    """Zeros around a sequence."""

    sides = 2


class ReflectionPad2d(_Pad):
    """The image mirrored at its edge; the edge itself comes once."""

    mode = "reflect"


class ReflectionPad1d(_Pad):
    """The sequence mirrored at its edge; the edge itself comes once."""

    mode, sides = "reflect", 2


class ReplicationPad2d(_Pad):
    """The image's edge, repeated."""

    mode = "replicate"


class ReplicationPad1d(_Pad):
    """The sequence's edge, repeated."""

    mode, sides = "replicate", 2


class CircularPad2d(_Pad):
    """The image's opposite side, as if it were repeated."""

    mode = "circular"


class ConstantPad2d(Configured):
    """One number around an image."""

    shown, sides = ("padding", "value"), 4

    def __init__(self, padding, value):
        super().__init__(padding=tupled(padding, self.sides), value=value)

    def forward(self, x):
        """x padded."""
        return F.pad(x, self.padding, value=self.value)


class ConstantPad1d(ConstantPad2d):
    """One number around a sequence."""

    sides = 2


class Upsample(Configured):
    """An image made larger (or smaller), to a size or by a factor; mode is nearest or bilinear."""

    def __init__(self, size=None, scale_factor=None, mode="nearest", align_corners=None, recompute_scale_factor=None):
        if isinstance(scale_factor, (tuple, list)):
            scale_factor = tuple(map(float, scale_factor))
        super().__init__(size=size, scale_factor=float(scale_factor) if isinstance(scale_factor, int) else scale_factor, mode=mode,
                         align_corners=align_corners, recompute_scale_factor=recompute_scale_factor)

    def forward(self, x):
        """x resized."""
        return F.interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor)

    def extra_repr(self):
        """The size or the factor, and the mode."""
        given = f"scale_factor={self.scale_factor!r}" if self.scale_factor is not None else f"size={self.size!r}"
        return f"{given}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Upsample with mode="nearest"."""

    def __init__(self, size=None, scale_factor=None):
        super().__init__(size, scale_factor, "nearest")


class UpsamplingBilinear2d(Upsample):
    """Upsample with mode="bilinear" and corners aligned."""

    def __init__(self, size=None, scale_factor=None):
        super().__init__(size, scale_factor, "bilinear", align_corners=True)


class PixelShuffle(Configured):
    """(N, C·r², H, W) -> (N, C, H·r, W·r): channels become finer positions."""

    shown = ("upscale_factor",)

    def __init__(self, upscale_factor):
        super().__init__(upscale_factor=upscale_factor)

    def forward(self, x):
        """x with channels spread over positions."""
        return F.pixel_shuffle(x, self.upscale_factor)


class PixelUnshuffle(Configured):
    """(N, C, H·r, W·r) -> (N, C·r², H, W): the opposite of PixelShuffle."""

    shown = ("downscale_factor",)

    def __init__(self, downscale_factor):
        super().__init__(downscale_factor=downscale_factor)

    def forward(self, x):
        """x with positions gathered into channels."""
        return F.pixel_unshuffle(x, self.downscale_factor)


class ChannelShuffle(Configured):
    """Deal the channels of `groups` groups out in turn."""

    shown = ("groups",)

    def __init__(self, groups):
        super().__init__(groups=groups)

    def forward(self, x):
        """x with its channels in another order."""
        return F.channel_shuffle(x, self.groups)


class Dropout(Configured):
    """While training, every element becomes 0 with probability p, and the others grow by 1 / (1 − p). In eval(), nothing."""

    shown = ("p", "inplace")

    def __init__(self, p=0.5, inplace=False):
        if not 0 <= p <= 1:
            raise explained(ArgumentError, type(self).__name__, "p is a probability.", [f"p = {p}"], "Choose p between 0 and 1.")
        super().__init__(p=p, inplace=inplace)

    def forward(self, x):
        """x with some elements dropped."""
        return F.dropout(x, self.p, self.training)


class Dropout2d(Dropout):
    """While training, every channel of every image becomes 0 with probability p."""

    def forward(self, x):
        """x with some channels dropped."""
        return F.dropout2d(x, self.p, self.training)


class StochasticDepth(Configured):
    """While training, a whole branch becomes 0 with probability p: for each sample ("row") or for the batch at once ("batch")."""

    shown = ("p", "mode")

    def __init__(self, p, mode):
        super().__init__(p=p, mode=mode)

    def forward(self, x):
        """x, or 0."""
        return F.stochastic_depth(x, self.p, self.mode, self.training)


__all__ = ["Flatten", "Unflatten", "ZeroPad1d", "ZeroPad2d", "ReflectionPad1d", "ReflectionPad2d", "ReplicationPad1d", "ReplicationPad2d",
           "CircularPad2d", "ConstantPad1d", "ConstantPad2d", "Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d", "PixelShuffle",
           "PixelUnshuffle", "ChannelShuffle", "Dropout", "Dropout2d", "StochasticDepth"]
