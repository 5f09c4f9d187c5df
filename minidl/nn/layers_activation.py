"""Nonlinearities as layers. `inplace=True` is accepted and stored, as PyTorch's files write it; the results are the same."""

from minidl.nn import functional as F  # noqa: N812 - everybody's name for it
from minidl.nn import init
from minidl.nn.layers_base import Configured
from minidl.nn.module import Module
from minidl.nn.parameter import empty_parameter


class _Activation(Configured):
    """A function of one tensor; prints inplace=True only where it was asked for."""

    inplace = False

    def extra_repr(self):
        """The settings, and inplace=True."""
        return ", ".join([*filter(None, [super().extra_repr()]), *["inplace=True"] * self.inplace])


class _MaybeInPlace(_Activation):
    """An activation whose only setting is inplace."""

    def __init__(self, inplace=False):
        super().__init__(inplace=inplace)


class ReLU(_MaybeInPlace):
    """y = max(x, 0)."""

    def forward(self, x):
        """max(x, 0)."""
        return F.relu(x)


class ReLU6(_MaybeInPlace):
    """y = min(max(x, 0), 6)."""

    def forward(self, x):
        """min(max(x, 0), 6)."""
        return F.relu6(x)


class LeakyReLU(_Activation):
    """y = x where x > 0, else negative_slope · x."""

    shown = ("negative_slope",)

    def __init__(self, negative_slope=0.01, inplace=False):
        super().__init__(negative_slope=negative_slope, inplace=inplace)

    def forward(self, x):
        """x, or negative_slope · x."""
        return F.leaky_relu(x, self.negative_slope)


class ELU(_Activation):
    """y = x where x > 0, else alpha · (eˣ − 1)."""

    shown = ("alpha",)

    def __init__(self, alpha=1.0, inplace=False):
        super().__init__(alpha=alpha, inplace=inplace)

    def forward(self, x):
        """x, or alpha · (eˣ − 1)."""
        return F.elu(x, self.alpha)


class CELU(_Activation):
    """y = max(x, 0) + min(0, alpha · (e^(x/alpha) − 1))."""

    shown = ("alpha",)

    def __init__(self, alpha=1.0, inplace=False):
        super().__init__(alpha=alpha, inplace=inplace)

    def forward(self, x):
        """x, or alpha · (e^(x/alpha) − 1)."""
        return F.celu(x, self.alpha)


class SELU(_MaybeInPlace):
    """ELU with the two constants that keep mean 0 and variance 1."""

    def forward(self, x):
        """Scaled ELU."""
        return F.selu(x)


class GELU(_Activation):
    """y = x · Φ(x), Φ the normal distribution function; approximate="tanh" takes a formula near it."""

    shown = ("approximate",)

    def __init__(self, approximate="none"):
        super().__init__(approximate=approximate)

    def forward(self, x):
        """x · Φ(x)."""
        return F.gelu(x, approximate=self.approximate)


class SiLU(_MaybeInPlace):
    """y = x · sigmoid(x)."""

    def forward(self, x):
        """x · sigmoid(x)."""
        return F.silu(x)


class Mish(_MaybeInPlace):
    """y = x · tanh(softplus(x))."""

    def forward(self, x):
        """x · tanh(softplus(x))."""
        return F.mish(x)


class Sigmoid(Configured):
    """y = 1 / (1 + e⁻ˣ)."""

    def forward(self, x):
        """1 / (1 + e⁻ˣ)."""
        return F.sigmoid(x)


class LogSigmoid(Configured):
    """y = log(1 / (1 + e⁻ˣ))."""

    def forward(self, x):
        """log(sigmoid(x)), without overflow."""
        return F.logsigmoid(x)


class Tanh(Configured):
    """y = tanh x."""

    def forward(self, x):
        """tanh x."""
        return F.tanh(x)


class Softsign(Configured):
    """y = x / (1 + |x|)."""

    def forward(self, x):
        """x / (1 + |x|)."""
        return F.softsign(x)


class Softplus(Configured):
    """y = log(1 + e^(beta·x)) / beta, and x itself where beta·x > threshold."""

    shown = ("beta", "threshold")

    def __init__(self, beta=1.0, threshold=20.0):
        super().__init__(beta=beta, threshold=threshold)

    def forward(self, x):
        """log(1 + e^(beta·x)) / beta."""
        return F.softplus(x, self.beta, self.threshold)


class Hardtanh(_Activation):
    """y = x, but not below min_val and not above max_val."""

    shown = ("min_val", "max_val")

    def __init__(self, min_val=-1.0, max_val=1.0, inplace=False):
        super().__init__(min_val=min_val, max_val=max_val, inplace=inplace)

    def forward(self, x):
        """x between min_val and max_val."""
        return F.hardtanh(x, self.min_val, self.max_val)


class Hardswish(_MaybeInPlace):
    """y = x · relu6(x + 3) / 6."""

    def forward(self, x):
        """x · relu6(x + 3) / 6."""
        return F.hardswish(x)

    def extra_repr(self):
        """PyTorch prints nothing here."""
        return ""


class Hardsigmoid(_MaybeInPlace):
    """y = relu6(x + 3) / 6."""

    def forward(self, x):
        """relu6(x + 3) / 6."""
        return F.hardsigmoid(x)

    def extra_repr(self):
        """PyTorch prints nothing here."""
        return ""


class Threshold(_Activation):
    """y = x where x > threshold, else value."""

    shown = ("threshold", "value")

    def __init__(self, threshold, value, inplace=False):
        super().__init__(threshold=threshold, value=value, inplace=inplace)

    def forward(self, x):
        """x, or value."""
        return F.threshold(x, self.threshold, self.value)


class GLU(Configured):
    """y = a · sigmoid(b), where a and b are the two halves of x along dim."""

    shown = ("dim",)

    def __init__(self, dim=-1):
        super().__init__(dim=dim)

    def forward(self, x):
        """a · sigmoid(b)."""
        return F.glu(x, self.dim)


class PReLU(Module):
    """Leaky relu whose slope is trained: one for all, or one per channel."""

    def __init__(self, num_parameters=1, init=0.25, device=None, dtype=None):
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = empty_parameter((num_parameters,), device, dtype)
        self.reset_parameters()

    def reset_parameters(self):
        """Start again with the slope `init`."""
        init.constant_(self.weight, self.init)

    def forward(self, x):
        """x, or weight · x."""
        return F.prelu(x, self.weight)

    def extra_repr(self):
        """How many slopes."""
        return f"num_parameters={self.num_parameters}"


class Softmax(Configured):
    """y = eˣ / Σ eˣ along dim."""

    shown = ("dim",)

    def __init__(self, dim=None):
        super().__init__(dim=dim)

    def forward(self, x):
        """eˣ / Σ eˣ."""
        return F.softmax(x, self.dim)


class Softmin(Softmax):
    """y = e⁻ˣ / Σ e⁻ˣ along dim."""

    def forward(self, x):
        """e⁻ˣ / Σ e⁻ˣ."""
        return F.softmin(x, self.dim)


class LogSoftmax(Softmax):
    """y = x − log Σ eˣ along dim."""

    def forward(self, x):
        """x − log Σ eˣ."""
        return F.log_softmax(x, self.dim)


class Softmax2d(Configured):
    """Softmax over the channels of an image (N, C, H, W) or (C, H, W)."""

    def forward(self, x):
        """eˣ / Σ eˣ over the channels."""
        return F.softmax(x, -3)


__all__ = ["ReLU", "ReLU6", "LeakyReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Sigmoid", "LogSigmoid", "Tanh", "Softsign",
           "Softplus", "Hardtanh", "Hardswish", "Hardsigmoid", "Threshold", "GLU", "PReLU", "Softmax", "Softmin", "LogSoftmax", "Softmax2d"]
