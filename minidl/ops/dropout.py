"""Dropout and stochastic depth: a random mask, and the op that multiplies with it. The op draws nothing itself.

Masks are drawn on the CPU, in the order of the logical shape: one seed gives one mask on every device.
"""

import numpy as np

from minidl.backend.layout import elementwise, stored
from minidl.core.device import move
from minidl.core.errors import ArgumentError, DTypeError, ShapeError, explained
from minidl.core.examples import booleans, normal
from minidl.core.op import example, op
from minidl.core.rng import default_generator
from minidl.core.tensor import Tensor


@op("x mask", examples=[example(normal(2, 3), booleans(2, 3), 2.0), example(normal(2, 3, 2, 4), booleans(2, 3, 1, 1), 1.25),
                        example(normal(2, 3), booleans(2, 1), 0.0)],
    tex=r"y_k = s\, m_k\, x_k")
def masked_scale(x, mask, scale):
    """Keep some elements, scaled, and make the others 0: y = x · scale where mask is true, else 0.

    Shapes:    x, mask of booleans that broadcasts to x -> y as x.
    Backward:  y is linear in x and its own transpose: grad_x = masked_scale(grad_y). Only the mask is kept, one byte an element.
    """
    if mask.dtype.kind != "b" or x.dtype.kind != "f":
        raise explained(DTypeError, "masked_scale", "x is floating point and the mask holds booleans.",
                        [f"x: {x.shape}, {x.dtype}", f"mask: {mask.shape}, {mask.dtype}"], "Did you mean mask != 0?")
    y = elementwise(np.multiply, x.array, x.dtype.type(scale) * mask.array)
    if y.shape != x.shape:
        raise explained(ShapeError, "masked_scale", "the mask must broadcast to the shape of x.", [f"x: {x.shape}", f"mask: {mask.shape}"],
                        "Each of its sizes is x's or 1.")

    def backward(grad_y):
        return masked_scale(grad_y, mask, scale), None

    return y, backward


def draw_mask(shape, p, device):
    """Booleans that are False with probability p."""
    return Tensor(move(stored(default_generator.numpy.random(shape, np.float32) >= p), device))


def check_share(call, p):
    """A probability lies between 0 and 1."""
    if not 0 <= p <= 1:
        raise explained(ArgumentError, call, "p is a probability.", [f"p = {p}"], "Choose p between 0 and 1.")


def dropped(x, mask_shape, p):
    """x with a new mask of this shape: what stays grows by 1/(1 − p), so that the mean stays too. p = 1 leaves nothing."""
    return masked_scale(x, draw_mask(mask_shape, p, x.device), 1 / (1 - p) if p < 1 else 0.0)


def dropout(input, p=0.5, training=True, inplace=False):
    """While training, every element becomes 0 with probability p, and the others grow by 1/(1 − p). Otherwise x as it is."""
    check_share("dropout", p)
    return dropped(input, input.shape, p) if training and p else input


def dropout2d(input, p=0.5, training=True, inplace=False):
    """While training, every channel of every sample (N, C, ...) becomes 0 with probability p, the others grow by 1/(1 − p)."""
    check_share("dropout2d", p)
    if input.ndim < 2:
        raise explained(ShapeError, "dropout2d", "x must have channels, (N, C, ...).", [f"x: {input.shape}"], "Use dropout().")
    return dropped(input, (*input.shape[:2], *(1,) * (input.ndim - 2)), p) if training and p else input


def stochastic_depth(input, p, mode, training=True):
    """While training, a whole sample (mode "row") or the whole batch ("batch") becomes 0 with probability p, the rest grows by
    1/(1 − p): the branch of a residual block is skipped at random. Otherwise x as it is.
    """
    check_share("stochastic_depth", p)
    if mode not in ("batch", "row"):
        raise explained(ArgumentError, "stochastic_depth", f"there is no mode {mode!r}.", ["modes: 'batch', 'row'"],
                        "'row' decides for every sample on its own.")
    rows = input.shape[0] if mode == "row" else 1
    return dropped(input, (rows, *(1,) * (input.ndim - 1)), p) if training and p else input


__all__ = ["dropout", "dropout2d", "masked_scale", "stochastic_depth"]
