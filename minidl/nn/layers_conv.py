"""Convolution layers: Conv1d, Conv2d, their transposes, and the two halves of an im2col convolution, Unfold and Fold."""

from minidl.core.errors import ArgumentError, explained
from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init
from minidl.nn.layers_base import Configured, must_be_positive, tupled
from minidl.nn.module import Module
from minidl.nn.parameter import empty_parameter

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What all four share: sizes, weights and how they start."""

    axes = 2            # of the image
    transposed = False

    def __init__(self, in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias, padding_mode,
                 device, dtype):
        super().__init__()
        name = type(self).__name__
        must_be_positive(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise explained(ArgumentError, name, "groups must divide both numbers of channels.",
                            [f"in_channels = {in_channels}, out_channels = {out_channels}, groups = {groups}"],
                            f"A depthwise convolution has groups = in_channels = {in_channels} and out_channels a multiple of it.")
        if padding_mode not in (("zeros",) if self.transposed else PADDING_MODES):
            raise explained(ArgumentError, name, "there is no such padding_mode here.", [f"padding_mode: {padding_mode!r}"],
                            "Use 'zeros'." if self.transposed else f"It is one of {', '.join(PADDING_MODES)}.")
        self.in_channels, self.out_channels, self.groups, self.padding_mode = in_channels, out_channels, groups, padding_mode
        self.kernel_size, self.stride, self.dilation, self.output_padding = (
            tupled(value, self.axes) for value in (kernel_size, stride, dilation, output_padding))
        self.padding = padding if isinstance(padding, str) else tupled(padding, self.axes)
        if isinstance(padding, str) and (padding not in ("same", "valid") or padding == "same" and set(self.stride) != {1}):
            raise explained(ArgumentError, name, "padding is a size, 'valid', or, with stride 1, 'same'.",
                            [f"padding: {padding!r}, stride: {self.stride}"],
                            "Give the padding as a number, as in padding=kernel_size // 2.")
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        self.weight = empty_parameter((first, second // groups, *self.kernel_size), device, dtype)
        self.register_parameter("bias", empty_parameter((out_channels,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self):
        """Start again, as PyTorch does: uniform between ±1/√(fan in)."""
        init.layer_weight_(self.weight)
        if self.bias is not None:
            init.layer_bias_(self.bias, self.weight)

    def padded(self, x):
        """(x, padding) for the function: other modes than zeros are padded here."""
        if self.padding_mode == "zeros":
            return x, self.padding
        sides = []  # F.pad takes the last axis first
        for k in reversed(range(self.axes)):
            total = self.dilation[k] * (self.kernel_size[k] - 1)
            by_word = {"same": (total // 2, total - total // 2), "valid": (0, 0)}
            sides += by_word[self.padding] if isinstance(self.padding, str) else (self.padding[k],) * 2
        return F.pad(x, sides, mode=self.padding_mode), 0

    def extra_repr(self):
        """The sizes; the rest only where it differs from the default."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        for name, usual in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            if getattr(self, name) != (usual,) * self.axes:
                parts.append(f"{name}={getattr(self, name)}")
        parts += [f"groups={self.groups}"] * (self.groups != 1) + ["bias=False"] * (self.bias is None)
        parts += [f"padding_mode={self.padding_mode}"] * (self.padding_mode != "zeros")
        return ", ".join(parts)


class Conv2d(_Convolution):
    """Slide out_channels filters over an image; the formula is F.conv2d's.

    Shapes:    x (N, in_channels, H, W), weight (out_channels, in_channels/groups, KH, KW)  ->  y (N, out_channels, OH, OW)
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True, padding_mode="zeros",
                 device=None, dtype=None):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias, padding_mode, device, dtype)

    def forward(self, x):
        """The convolution of x with the weight, plus the bias."""
        x, padding = self.padded(x)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(Conv2d):
    """Slide out_channels filters over a sequence.

    Shapes:    x (N, in_channels, W), weight (out_channels, in_channels/groups, KW)  ->  y (N, out_channels, OW)
    """

    axes = 1

    def forward(self, x):
        """The convolution of x with the weight, plus the bias."""
        x, padding = self.padded(x)
        return F.conv1d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvTranspose2d(_Convolution):
    """The convolution run backwards: every input element adds its filter, scaled, to the output.

    Shapes:    x (N, in_channels, H, W), weight (in_channels, out_channels/groups, KH, KW)  ->  y (N, out_channels, OH, OW),
               OH = (H − 1)·s − 2·pad + d·(KH − 1) + output_padding + 1
    """

    transposed = True

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True, dilation=1,
                 padding_mode="zeros", device=None, dtype=None):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias, padding_mode,
                         device, dtype)

    def extra_rows(self, x, output_size):
        """The output_padding that reaches output_size: several sizes come from the same input where the stride is above 1."""
        if output_size is None:
            return self.output_padding
        wanted = tuple(output_size)[-self.axes:]
        smallest = tuple((size - 1) * s - 2 * pad + d * (k - 1) + 1 for size, s, pad, d, k in zip(
            x.shape[-self.axes:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True))
        if len(wanted) != self.axes or any(not low <= size < low + s for size, low, s in zip(wanted, smallest, self.stride, strict=True)):
            raise explained(ArgumentError, type(self).__name__, "no output_padding gives this output_size.",
                            [f"output_size: {tuple(output_size)}",
                             f"possible: {', '.join(f'{low} to {low + s - 1}' for low, s in zip(smallest, self.stride, strict=True))}",
                             f"x: {x.shape}"], "Choose a size between these.")
        return tuple(size - low for size, low in zip(wanted, smallest, strict=True))

    def forward(self, x, output_size=None):
        """The transposed convolution of x with the weight, plus the bias."""
        return F.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding, self.extra_rows(x, output_size), self.groups,
                                  self.dilation)


class ConvTranspose1d(ConvTranspose2d):
    """The convolution of a sequence run backwards.

    Shapes:    x (N, in_channels, W), weight (in_channels, out_channels/groups, KW)  ->  y (N, out_channels, OW)
    """

    axes = 1

    def forward(self, x, output_size=None):
        """The transposed convolution of x with the weight, plus the bias."""
        return F.conv_transpose1d(x, self.weight, self.bias, self.stride, self.padding, self.extra_rows(x, output_size), self.groups,
                                  self.dilation)


class Unfold(Configured):
    """Every window of an image as a column: (N, C, H, W) -> (N, C·KH·KW, windows)."""

    shown = ("kernel_size", "dilation", "padding", "stride")

    def __init__(self, kernel_size, dilation=1, padding=0, stride=1):
        super().__init__(kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)

    def forward(self, x):
        """The windows of x as columns."""
        return F.unfold(x, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(Configured):
    """Add columns back to the places their windows came from: (N, C·KH·KW, windows) -> (N, C, H, W)."""

    shown = ("output_size", "kernel_size", "dilation", "padding", "stride")

    def __init__(self, output_size, kernel_size, dilation=1, padding=0, stride=1):
        super().__init__(output_size=output_size, kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)

    def forward(self, x):
        """The image that the columns add up to."""
        return F.fold(x, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)


__all__ = ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d", "Unfold", "Fold"]
