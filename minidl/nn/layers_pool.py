"""Pooling layers: the largest or the average element of every window."""

from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn.layers_base import Configured, tupled


class _MaxPool(Configured):
    """The largest element of every window; stride is the kernel's size where none is given."""

    shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(self, kernel_size, stride=None, padding=0, dilation=1, return_indices=False, ceil_mode=False):
        super().__init__(kernel_size=kernel_size, stride=kernel_size if stride is None else stride, padding=padding, dilation=dilation,
                         return_indices=return_indices, ceil_mode=ceil_mode)

    def settings(self):
        """All settings by name, for the function."""
        return {name: getattr(self, name) for name in (*self.shown, "return_indices")}


class MaxPool1d(_MaxPool):
    """The largest element of every window of a sequence: (N, C, W) -> (N, C, OW)."""

    def forward(self, x):
        """The largest elements."""
        return F.max_pool1d(x, **self.settings())


class MaxPool2d(_MaxPool):
    """The largest element of every window of an image: (N, C, H, W) -> (N, C, OH, OW)."""

    def forward(self, x):
        """The largest elements."""
        return F.max_pool2d(x, **self.settings())


class AvgPool1d(Configured):
    """The average of every window of a sequence: (N, C, W) -> (N, C, OW)."""

    shown = ("kernel_size", "stride", "padding")

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        super().__init__(kernel_size=tupled(kernel_size, 1), stride=tupled(kernel_size if stride is None else stride, 1),
                         padding=tupled(padding, 1), ceil_mode=ceil_mode, count_include_pad=count_include_pad)

    def forward(self, x):
        """The averages."""
        return F.avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class AvgPool2d(Configured):
    """The average of every window of an image: (N, C, H, W) -> (N, C, OH, OW)."""

    shown = ("kernel_size", "stride", "padding")

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
        super().__init__(kernel_size=kernel_size, stride=kernel_size if stride is None else stride, padding=padding, ceil_mode=ceil_mode,
                         count_include_pad=count_include_pad, divisor_override=divisor_override)

    def forward(self, x):
        """The averages."""
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)


class _Adaptive(Configured):
    """Windows chosen so that the output has a given size, whatever the input's."""

    shown = ("output_size",)

    def __init__(self, output_size):
        super().__init__(output_size=output_size)


class AdaptiveAvgPool1d(_Adaptive):
    """(N, C, W) -> (N, C, output_size), averages."""

    def forward(self, x):
        """The averages."""
        return F.adaptive_avg_pool1d(x, self.output_size)


class AdaptiveAvgPool2d(_Adaptive):
    """(N, C, H, W) -> (N, C, *output_size), averages; output_size 1 is the global average."""

    def forward(self, x):
        """The averages."""
        return F.adaptive_avg_pool2d(x, self.output_size)


class _AdaptiveMax(Configured):
    """The same with the largest elements."""

    shown = ("output_size",)

    def __init__(self, output_size, return_indices=False):
        super().__init__(output_size=output_size, return_indices=return_indices)


class AdaptiveMaxPool1d(_AdaptiveMax):
    """(N, C, W) -> (N, C, output_size), largest elements."""

    def forward(self, x):
        """The largest elements."""
        return F.adaptive_max_pool1d(x, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMax):
    """(N, C, H, W) -> (N, C, *output_size), largest elements."""

    def forward(self, x):
        """The largest elements."""
        return F.adaptive_max_pool2d(x, self.output_size, self.return_indices)


__all__ = ["MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool1d",
           "AdaptiveMaxPool2d"]
