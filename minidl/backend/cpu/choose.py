"""Which rung of the ladder computes a convolution: LADDER from top to bottom, the first that does not say why not.

A rung is a module with conv2d, conv2d_grad_x and conv2d_grad_w; its predicate gets the Call and returns "" or the reason,
measured on two cores of an AMD EPYC. `minidl.explain` shows them, use_backend("cpu/im2col_blocked") forces one.
"""

from typing import NamedTuple

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.cpu import im2col_blocked, products

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Call(NamedTuple):
    """What a predicate may ask about one of the three ops: always the shapes of conv2d itself."""

    op: str
    dtype: np.dtype
    x_shape: tuple
    w_shape: tuple
    size: tuple  # (OH, OW)
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int


def pointwise(call):
    """1×1 of one group: the image is the matrix of its columns already."""
    if call.w_shape[2:] != (1, 1) or call.groups > 1 or any(map(any, call.padding)):
        return NotFor("for 1×1 kernels of one group without padding")
    return ""


def one_group(call):
    """Anything of one group."""
    return NotFor("for one group") if call.groups > 1 else ""


LADDER = [
    ("cpu/products", products, pointwise, "a 1×1 convolution is one product over all pixels, without columns"),
    ("cpu/im2col_blocked", im2col_blocked, one_group, "columns gathered block by block in the cache, products written in place"),
]


def _accepts(op, predicate):
    """The predicate as backend.run() calls it."""

    def accepts(first, second, bias=None, stride=None, padding=None, dilation=None, groups=None, x_shape=None, w_shape=None):
        if first.dtype not in FLOATS:
            return NotFor("for float32 and float64")
        image = first.shape if x_shape is None else tuple(x_shape)
        if 0 in image or not (first.size and second.size):
            return NotFor("nothing to compute: an axis has size 0")
        output = second if op == "conv2d_grad_w" else first
        size = None if op == "conv2d" else output.shape[2:]
        filters = second.shape if w_shape is None else tuple(w_shape)
        return predicate(Call(op, first.dtype, image, filters, size, stride, padding, dilation, groups))

    return accepts


for _name, _module, _predicate, _why in LADDER:
    for _op in ("conv2d", "conv2d_grad_x", "conv2d_grad_w"):
        implements(_op, _name, _accepts(_op, _predicate), _why)(getattr(_module, _op))
