"""How parameters start: every function overwrites a tensor outside the graph and returns it.

The idea behind most of them: a layer should neither blow up nor shrink what passes through, so the spread of its
weights follows from how many numbers go into one output (fan in) or out of one input (fan out).
"""

import contextlib
import math
import threading

import numpy as np

from minidl.core.config import no_grad
from minidl.core.errors import ArgumentError, ShapeError, explained
from minidl.core.rng import MANY, default_generator, draw_normal, draw_uniform, many_normals
from minidl.core.tensor import Tensor
from minidl.core.writing import write


class _Skipping(threading.local):
    """Is this thread inside `with skipped()`?"""

    on = False


_SKIPPING = _Skipping()


@contextlib.contextmanager
def skipped():
    """Inside, nothing random is drawn: for layers whose weights are about to be overwritten anyway, by a file for example.

    Memory that nobody writes costs nothing, so even the largest network is built in milliseconds.
    """
    before, _SKIPPING.on = _SKIPPING.on, True
    try:
        yield
    finally:
        _SKIPPING.on = before


@no_grad()
def _write(tensor, call, values):
    """The one place where this file writes: an array on the CPU, or a number, into the tensor."""
    return write(tensor, call, values if np.isscalar(values) else Tensor(values))


# --- constants ----------------------------------------------------------------------------------------------------

def constant_(tensor, val):
    """Every element becomes `val`."""
    return _write(tensor, "init.constant_", val)


def zeros_(tensor):
    """Every element becomes 0."""
    return _write(tensor, "init.zeros_", 0)


def ones_(tensor):
    """Every element becomes 1."""
    return _write(tensor, "init.ones_", 1)


def eye_(tensor):
    """A matrix becomes the identity: ones on the diagonal, zeros elsewhere."""
    _needs_axes("eye_", tensor, tensor.ndim == 2, "two axes")
    return _write(tensor, "init.eye_", np.eye(*tensor.shape, dtype=tensor.dtype))


def dirac_(tensor, groups=1):
    """Convolution weights become the identity: filter k of a group copies its channel k, padding keeps the size."""
    _needs_axes("dirac_", tensor, tensor.ndim in (3, 4, 5), "three to five axes, (O, C/groups, kernel...)")
    out, channels, *kernel = tensor.shape
    if out % groups:
        raise explained(ArgumentError, "init.dirac_", "groups must divide the number of filters.", [f"O = {out}, groups = {groups}"],
                        "Choose a divisor of O.")
    values = np.zeros(tensor.shape, tensor.dtype)
    centre = tuple(size // 2 for size in kernel)
    per_group = out // groups
    for group in range(groups):
        for k in range(min(per_group, channels)):
            values[(group * per_group + k, k, *centre)] = 1
    return _write(tensor, "init.dirac_", values)


# --- chance -------------------------------------------------------------------------------------------------------

def uniform_(tensor, a=0.0, b=1.0, generator=None):
    """Every number between a and b is equally likely."""
    if _SKIPPING.on:
        return tensor
    return _write(tensor, "init.uniform_", draw_uniform(tensor.shape, tensor.dtype, a, b, generator))


def normal_(tensor, mean=0.0, std=1.0, generator=None):
    """Normally distributed with this mean and standard deviation."""
    if _SKIPPING.on:
        return tensor
    return _write(tensor, "init.normal_", draw_normal(tensor.shape, tensor.dtype, mean, std, generator))


def trunc_normal_(tensor, mean=0.0, std=1.0, a=-2.0, b=2.0, generator=None):
    """Normally distributed, but only between a and b (absolute bounds, not multiples of std).

    Draws all at once and draws again what fell outside.
    """
    if not a < b or not std > 0:
        raise explained(ArgumentError, "init.trunc_normal_", "the bounds must enclose something, and std must be positive.",
                        [f"a = {a}, b = {b}, std = {std}"], "Choose a < b and std > 0.")
    if _SKIPPING.on:
        return tensor
    stream = (generator or default_generator).numpy
    low, high = (a - mean) / std, (b - mean) / std
    values = np.empty(tensor.numel(), np.float64 if tensor.dtype == np.float64 else np.float32)
    propose = _propose_normal if _probability(low, high) > 0.25 else _propose_uniform
    count = 0
    while count < len(values):
        accepted = propose(stream, len(values) - count, low, high, values.dtype)
        values[count:count + len(accepted)] = accepted
        count += len(accepted)
    values *= std
    values += mean
    return _write(tensor, "init.trunc_normal_", np.clip(values, a, b, out=values).reshape(tensor.shape))


def _probability(low, high):
    """How likely a standard normal number falls between low and high."""
    return (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2


def _propose_normal(stream, n, low, high, dtype):
    """Up to n standard normal numbers between low and high: those of n draws that fall inside."""
    z = many_normals(stream, n) if dtype == np.float32 and n >= MANY else stream.standard_normal(n, dtype)
    return z if low < -6 and high > 6 and abs(z).max(initial=0) < min(-low, high) else z[(z >= low) & (z <= high)]


def _propose_uniform(stream, n, low, high, dtype):
    """The same for bounds that few normal numbers meet: uniform draws, kept with the probability density relative to its peak."""
    peak = min(max(low, 0.0), high)                                            # the most likely point between the bounds
    reach = math.sqrt(peak * peak + 80)                                        # beyond it the density is e⁻⁴⁰ of the peak's
    z = stream.random(n, dtype) * (min(high, reach) - max(low, -reach)) + max(low, -reach)
    return z[stream.random(n, dtype) < np.exp((peak * peak - z * z) / 2)].astype(dtype, copy=False)


def calculate_gain(nonlinearity, param=None):
    """By how much weights must be larger to make up for what a nonlinearity shrinks."""
    if nonlinearity in ("linear", "sigmoid", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"):
        return 1
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
    if nonlinearity not in gains:
        raise explained(ArgumentError, "init.calculate_gain", f"no gain is known for {nonlinearity!r}.",
                        [f"known: linear, sigmoid, leaky_relu, conv*, {', '.join(gains)}"], "Take the nearest of these, or scale by hand.")
    return gains[nonlinearity]


def fans(tensor, call="init"):
    """(fan in, fan out): how many numbers go into one output, and out of one input, of a layer with this weight."""
    _needs_axes(call, tensor, tensor.ndim >= 2, "at least two axes, (out, in, kernel...)")
    out, into, *kernel = tensor.shape
    return into * math.prod(kernel), out * math.prod(kernel)


def xavier_uniform_(tensor, gain=1.0, generator=None):
    """Uniform with variance gain² · 2 / (fan in + fan out): a compromise between forward and backward (Glorot, Bengio 2010)."""
    bound = math.sqrt(3) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor, gain=1.0, generator=None):
    """Normal with variance gain² · 2 / (fan in + fan out) (Glorot, Bengio 2010)."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def _xavier_std(tensor, gain):
    return gain * math.sqrt(2 / max(sum(fans(tensor, "xavier")), 1))


def kaiming_uniform_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """Uniform with variance gain² / fan: keeps the variance of what passes through a layer with relu (He and others 2015)."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor, a=0, mode="fan_in", nonlinearity="leaky_relu", generator=None):
    """Normal with variance gain² / fan (He and others 2015)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def _kaiming_std(tensor, a, mode, nonlinearity):
    if mode not in ("fan_in", "fan_out"):
        raise explained(ArgumentError, "init.kaiming", "mode must be 'fan_in' or 'fan_out'.", [f"mode: {mode!r}"],
                        "fan_in keeps the forward variance, fan_out the backward one.")
    fan = fans(tensor, "kaiming")[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def orthogonal_(tensor, gain=1, generator=None):
    """Rows (or columns, the shorter ones) of length `gain` at right angles: all axes but the first count as one (Saxe and others 2013)."""
    _needs_axes("orthogonal_", tensor, tensor.ndim >= 2, "at least two axes")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    if not rows * columns:
        return tensor
    wide = draw_normal((max(rows, columns), min(rows, columns)), np.float64, generator=generator)
    q, r = np.linalg.qr(wide)
    q *= np.sign(np.diag(r))  # with this choice of signs every orthogonal matrix is equally likely
    values = (q if rows >= columns else q.T).reshape(tensor.shape)
    return _write(tensor, "init.orthogonal_", gain * values)


def sparse_(tensor, sparsity, std=0.01, generator=None):
    """A matrix becomes normal numbers, but this share of every column 0 (Martens 2010)."""
    _needs_axes("sparse_", tensor, tensor.ndim == 2, "two axes")
    values = draw_normal(tensor.shape, tensor.dtype, 0.0, std, generator)
    zeros = math.ceil(sparsity * tensor.shape[0])
    ranks = (generator or default_generator).numpy.random(tensor.shape).argsort(0)
    np.put_along_axis(values, ranks[:zeros], 0, 0)
    return _write(tensor, "init.sparse_", values)


def layer_weight_(weight):
    """How linear and convolution layers start their weight: uniform between ±1/√(fan in), as Kaiming with a = √5 comes to."""
    return kaiming_uniform_(weight, a=math.sqrt(5))


def layer_bias_(bias, weight):
    """How linear and convolution layers start their bias: uniform between ±1/√(fan in), the fan of the layer's weight."""
    bound = 1 / math.sqrt(max(fans(weight)[0], 1))
    return uniform_(bias, -bound, bound)


def _needs_axes(call, tensor, fits, needed):
    if not fits:
        raise explained(ShapeError, f"init.{call}", f"the tensor must have {needed}.", [f"shape: {tensor.shape}"],
                        "Initialise biases and scales with zeros_, ones_ or uniform_.")
