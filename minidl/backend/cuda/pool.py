"""Launchers of pool.cu: max and average pooling, fixed and adaptive, and their gradients. The two rungs differ in the width of
a thread: four channels where their number allows it, else one.
"""

import math
from functools import partial

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.cuda import launch
from minidl.backend.cuda.geometry import THREADS, aligned, ceil_div, only_float32
from minidl.backend.layout import empty, stored

ADAPTIVE = {"kernel": (0, 0), "stride": (1, 1), "padding": (0, 0)}  # kernel 0: windows that cut the image into `size` parts
MOST = 2**31 - 1 - THREADS                                             # numbers that 32 bits can count, a block too many included
RUNGS = {4: "v2_float4", 1: "v1_thread_per_"}  # + output forward, pixel backward


def rung(op, width, backward):
    """The name of a kernel."""
    return f"{op}_{RUNGS[width]}" + ("" if width == 4 else "pixel" if backward else "output")


def accepts(x, size=None, x_shape=None, width=1):
    """"" or why the kernels cannot take this image; `size` and x_shape: how large the other image is."""
    if x.ndim != 4:
        return "images have four axes"
    other = math.prod(x_shape) if x_shape else x.shape[0] * x.shape[1] * math.prod(size or (1,))
    if max(x.size, other) > MOST:
        return "more than 2³¹ numbers in an image array"
    reason = only_float32(x)
    if reason or width == 1:
        return reason
    return NotFor("16-byte loads need a multiple of 4 channels") if x.shape[1] % 4 else \
        "" if aligned(x) else NotFor("16-byte loads need aligned arrays")


def positions_of(indices):
    """"" or why not."""
    return "" if indices.dtype == np.int32 else f"positions are {indices.dtype}, not int32"


def sizes(x_shape, size, kernel, stride, padding, dilation=None):
    """The numbers that every kernel takes, by name."""
    N, C, H, W = x_shape
    numbers = {"N": N, "C": C, "H": H, "W": W, "OH": size[0], "OW": size[1], "KH": kernel[0], "KW": kernel[1], "stride_h": stride[0],
               "stride_w": stride[1], "pad_h": padding[0], "pad_w": padding[1]}
    return numbers if dilation is None else numbers | {"dilation_h": dilation[0], "dilation_w": dilation[1]}


def grid(elements, width=1):
    """One thread for every `width` elements."""
    return (ceil_div(elements // width, THREADS),), (THREADS,)


# --- the largest ------------------------------------------------------------------------------------------------------

def _max(x, kernel, stride, padding, dilation, size, width):
    x, y = stored(x), empty((*x.shape[:2], *size), x.dtype, x)
    indices = empty(y.shape, np.dtype("int32"), x)
    launch.kernel("pool.cu", rung("max_pool2d", width, False))(
        *grid(y.size, width), x=x, y=y, indices=indices, **sizes(x.shape, size, kernel, stride, padding, dilation))
    return y, indices


def _adaptive_max(x, size, width):
    return _max(x, **ADAPTIVE, dilation=(1, 1), size=size, width=width)


def _max_grad(grad_y, indices, x_shape, window, width):
    grad_y, indices, grad_x = stored(grad_y), stored(indices), empty(x_shape, grad_y.dtype, grad_y)
    numbers = sizes(x_shape, grad_y.shape[2:], *(window or (*ADAPTIVE.values(), (1, 1))))
    launch.kernel("pool.cu", rung("max_pool2d_grad_x", width, True))(
        *grid(grad_x.size, width), grad_y=grad_y, indices=indices, grad_x=grad_x, **numbers)
    return grad_x


def accepts_max(x, kernel, stride, padding, dilation, size, width=1):
    """"" or why not."""
    return accepts(x, size, width=width)


def accepts_adaptive_max(x, size, width=1):
    """"" or why not."""
    return accepts_max(x, **ADAPTIVE, dilation=(1, 1), size=size, width=width)


def accepts_max_grad(grad_y, indices, x_shape, window=None, width=1):
    """"" or why not: without the windows nobody knows which of them may name a pixel."""
    if window is None:
        return NotFor("the positions come without their windows")
    return accepts(grad_y, x_shape=x_shape, width=width) or positions_of(indices)


# --- the mean ---------------------------------------------------------------------------------------------------------

def _avg(x, kernel, stride, padding, size, count_include_pad, divisor_override, width):
    x, y = stored(x), empty((*x.shape[:2], *size), x.dtype, x)
    launch.kernel("pool.cu", rung("avg_pool2d", width, False))(
        *grid(y.size, width), x=x, y=y, **sizes(x.shape, size, kernel, stride, padding), count_include_pad=int(count_include_pad),
        divisor=divisor_override or 0)
    return y


def _avg_grad(grad_y, x_shape, kernel, stride, padding, size, count_include_pad, divisor_override, width):
    grad_y, grad_x = stored(grad_y), empty(x_shape, grad_y.dtype, grad_y)
    launch.kernel("pool.cu", rung("avg_pool2d_grad_x", width, True))(
        *grid(grad_x.size, width), grad_y=grad_y, grad_x=grad_x, **sizes(x_shape, size, kernel, stride, padding),
        count_include_pad=int(count_include_pad), divisor=divisor_override or 0)
    return grad_x


def _adaptive_avg(x, size, width):
    return _avg(x, **ADAPTIVE, size=size, count_include_pad=False, divisor_override=None, width=width)


def _adaptive_avg_grad(grad_y, x_shape, width):
    return _avg_grad(grad_y, x_shape, **ADAPTIVE, size=grad_y.shape[2:], count_include_pad=False, divisor_override=None, width=width)


def accepts_any(x, size=None, x_shape=None, width=1, **how):
    """"" or why not."""
    return accepts(x, size, x_shape, width)


WHY = {4: "a thread per four channels of a pixel, 16 bytes a load", 1: "a thread per channel of a pixel"}
for _width in (4, 1):
    for _op, _function, _accepts, _backward in (
            ("max_pool2d", _max, accepts_max, False), ("adaptive_max_pool2d", _adaptive_max, accepts_adaptive_max, False),
            ("max_pool2d_grad_x", _max_grad, accepts_max_grad, True), ("avg_pool2d", _avg, accepts_any, False),
            ("avg_pool2d_grad_x", _avg_grad, accepts_any, True), ("adaptive_avg_pool2d", _adaptive_avg, accepts_any, False),
            ("adaptive_avg_pool2d_grad_x", _adaptive_avg_grad, accepts_any, True)):
        _name = rung(_op.removeprefix("adaptive_"), _width, _backward)
        implements(_op, f"cuda/{_name}", partial(_accepts, width=_width), WHY[_width])(partial(_function, width=_width))


# --- positions without windows ----------------------------------------------------------------------------------------

def accepts_at(x, indices):
    """"" or why not."""
    return accepts(x, indices.shape[2:]) or positions_of(indices)


@implements("max_pool2d_at", "cuda/max_pool2d_at", accepts_at)
def max_pool2d_at(x, indices):
    """The pixels that the positions name, a thread for each."""
    x, indices, (N, C, H, W) = stored(x), stored(indices), x.shape
    y = empty(indices.shape, x.dtype, x)
    launch.kernel("pool.cu", "max_pool2d_at")(*grid(y.size), x=x, indices=indices, y=y, N=N, C=C, PIXELS=H * W,
                                              WINDOWS=indices.shape[2] * indices.shape[3])
    return y
