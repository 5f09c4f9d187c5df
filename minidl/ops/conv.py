"""Convolution: conv2d and its two gradients, three ops that are each other's derivatives; conv1d is conv2d on images one pixel high.

Arrays are handled in backend/*/conv.py; conv_transpose.py and unfold.py hold the relatives.
"""

import functools

import numpy as np

from minidl import backend
from minidl.backend.window import output_size
from minidl.core.errors import ArgumentError, ShapeError, explained, match_shapes
from minidl.core.examples import normal
from minidl.core.op import example, needs_grad, op
from minidl.ops.broadcast import same_device
from minidl.ops.shape import unsqueeze
from minidl.ops.window import check_groups, conv_size, conv_window, same_dtype, unbatched

EXAMPLES = [  # image, filters, settings: shared by the three ops
    ((2, 3, 6, 5), (4, 3, 3, 2), (2, 4, 3, 3), {"stride": 2, "padding": 1}),
    ((2, 4, 7, 6), (6, 2, 3, 2), (2, 6, 3, 6), {"padding": (0, 1), "dilation": (2, 2), "groups": 2}),
    ((1, 3, 5, 4), (3, 1, 1, 3), (1, 3, 5, 4), {"padding": "same", "groups": 3}),
    ((2, 2, 5, 3), (3, 2, 2, 1), (2, 3, 5, 3), {"padding": "same"}),
]


@unbatched(4)
@op("x weight bias",
    examples=[example(normal(*x), normal(*w), None if "groups" in how else normal(w[0]), **how) for x, w, _, how in EXAMPLES],
    tex=r"y_{nopq} = b_o + \sum_{cij} x_{n,c,\,ps+id-\mathrm{pad},\,qs+jd-\mathrm{pad}}\; w_{ocij}")
def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Slide every filter over every image and take dot products.

        y[n,o,p,q] = b[o] + Σ_{c,i,j}  x[n, c, p·s + i·d − pad, q·s + j·d − pad] · w[o,c,i,j]      (c runs over o's group)

    Shapes:    x (N, C, H, W),  w (O, C/groups, KH, KW),  b (O,)  ->  y (N, O, OH, OW),  OH = (H + 2·pad − d·(KH − 1) − 1) // s + 1
    Backward:  a pixel of x gathers grad_y · w from every window that it lay in, a weight grad_y · x from all positions and
               pictures, b the sum of grad_y. The first two are ops themselves: conv2d_grad_x and conv2d_grad_w.
    """
    how = _checked("conv2d", x, weight, bias, stride, padding, dilation, groups)
    y = backend.run("conv2d", x.array, weight.array, None if bias is None else bias.array, **how)   # arrays up to here
    x_shape, w_shape = x.shape, weight.shape                                                        # plain names: they keep nothing alive
    need_x, need_w, need_b = needs_grad(x, weight, bias)
    x_saved, w_saved = (x if need_w else None), (weight if need_x else None)

    def backward(grad_y):                                                                           # Tensors from here on
        grad_x = conv2d_grad_x(grad_y, w_saved, x_shape, **how) if need_x else None
        grad_w = conv2d_grad_w(x_saved, grad_y, w_shape, **how) if need_w else None
        grad_b = grad_y.sum((0, 2, 3)) if need_b else None
        return grad_x, grad_w, grad_b

    return y, backward


@op("grad_y weight", examples=[example(normal(*y), normal(*w), x, **how) for x, w, y, how in EXAMPLES],
    tex=r"\bar x_{nchw} = \sum_{o,\;ps+id-\mathrm{pad}=h,\;qs+jd-\mathrm{pad}=w} \bar y_{nopq}\; w_{ocij}")
def conv2d_grad_x(grad_y, weight, x_shape, stride=1, padding=0, dilation=1, groups=1):
    """The gradient of conv2d with respect to its image: every output hands its gradient back through its filter.

        grad_x[n,c,h,w] = Σ grad_y[n,o,p,q] · w[o,c,i,j]      over all o and all p, i, q, j with p·s + i·d − pad = h, q·s + j·d − pad = w

    Shapes:    grad_y (N, O, OH, OW),  w (O, C/groups, KH, KW)  ->  grad_x of x_shape (N, C, H, W)
    Backward:  it is linear in grad_y and in w. With x2 the gradient that arrives (it takes x's place in T = Σ x·y·w):
               grad_grad_y = conv2d(x2, w) and grad_w = conv2d_grad_w(x2, grad_y).
    """
    how = _usual(grad_y, weight, None, x_shape, weight.shape, grad_y.shape, stride, padding, dilation, groups)
    if how is None:
        match_shapes("conv2d_grad_x", grad_y=(grad_y, "N O OH OW"), w=(weight, "O C/groups KH KW"), groups=groups)
        how = _checked_gradient("conv2d_grad_x", x_shape, weight.shape, grad_y, stride, padding, dilation, groups)
        same_device("conv2d_grad_x", grad_y, weight)
        same_dtype("conv2d_grad_x", grad_y=grad_y, w=weight)
    grad_x = backend.run("conv2d_grad_x", grad_y.array, weight.array, x_shape=tuple(x_shape), **how)
    w_shape = weight.shape
    need_y, need_w = needs_grad(grad_y, weight)
    y_saved, w_saved = (grad_y if need_w else None), (weight if need_y else None)

    def backward(x2):
        grad_grad_y = conv2d(x2, w_saved, **how) if need_y else None
        grad_w = conv2d_grad_w(x2, y_saved, w_shape, **how) if need_w else None
        return grad_grad_y, grad_w

    return grad_x, backward


@op("x grad_y", examples=[example(normal(*x), normal(*y), w, **how) for x, w, y, how in EXAMPLES],
    tex=r"\bar w_{ocij} = \sum_{npq} x_{n,c,\,ps+id-\mathrm{pad},\,qs+jd-\mathrm{pad}}\; \bar y_{nopq}")
def conv2d_grad_w(x, grad_y, w_shape, stride=1, padding=0, dilation=1, groups=1):
    """The gradient of conv2d with respect to its filters: images correlated with the outputs' gradients.

        grad_w[o,c,i,j] = Σ_{n,p,q}  x[n, c, p·s + i·d − pad, q·s + j·d − pad] · grad_y[n,o,p,q]

    Shapes:    x (N, C, H, W),  grad_y (N, O, OH, OW)  ->  grad_w of w_shape (O, C/groups, KH, KW)
    Backward:  it is linear in x and in grad_y. With w2 the gradient that arrives (it takes w's place in T = Σ x·y·w):
               grad_x = conv2d_grad_x(grad_y, w2) and grad_grad_y = conv2d(x, w2).
    """
    how = _usual(x, grad_y, None, x.shape, w_shape, grad_y.shape, stride, padding, dilation, groups)
    if how is None:
        match_shapes("conv2d_grad_w", x=(x, "N C H W"), grad_y=(grad_y, "N O OH OW"))
        how = _checked_gradient("conv2d_grad_w", x.shape, w_shape, grad_y, stride, padding, dilation, groups)
        same_device("conv2d_grad_w", x, grad_y)
        same_dtype("conv2d_grad_w", x=x, grad_y=grad_y)
    grad_w = backend.run("conv2d_grad_w", x.array, grad_y.array, w_shape=tuple(w_shape), **how)
    x_shape = x.shape
    need_x, need_y = needs_grad(x, grad_y)
    x_saved, y_saved = (x if need_y else None), (grad_y if need_x else None)

    def backward(w2):
        grad_x = conv2d_grad_x(y_saved, w2, x_shape, **how) if need_x else None
        grad_grad_y = conv2d(x_saved, w2, **how) if need_y else None
        return grad_x, grad_grad_y

    return grad_w, backward


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution along one axis, as conv2d on images one pixel high: x (N, C, L) or (C, L), w (O, C/groups, K), b (O,) -> y (N, O, OL)."""
    pattern = "C L" if input.ndim == 2 else "N C L"
    match_shapes("conv1d", x=(input, pattern), w=(weight, "O C/groups K"), groups=groups, b=(bias, "O"))
    stride, padding, dilation = beside_one(stride, 1), beside_one(padding, 0), beside_one(dilation, 1)
    kernel = (1, weight.shape[2])
    how = conv_window("conv1d", kernel, stride, padding, dilation)
    conv_size("conv1d", (*input.shape[:-1], 1, input.shape[-1]), kernel, **how, letters="HL")  # errors in conv1d's own name
    return conv2d(unsqueeze(input, -2), unsqueeze(weight, -2), bias, stride, padding, dilation, groups).squeeze(-2)


def beside_one(value, neutral):
    """A setting of one axis as a pair for images one pixel high: 3 -> (neutral, 3). Names like 'same' hold for both axes."""
    if isinstance(value, str):
        return value
    return (neutral, *value) if isinstance(value, (tuple, list)) else (neutral, value)


def _checked(call, x, weight, bias, stride, padding, dilation, groups):
    """The settings as backends take them, if the tensors fit together."""
    how = _usual(x, weight, bias, x.shape, weight.shape, None, stride, padding, dilation, groups)
    if how is not None:
        return how
    if x.ndim == weight.ndim == 4:
        check_groups(call, groups, C=x.shape[1], O=weight.shape[0])
    match_shapes(call, groups=groups, x=(x, "N C H W"), w=(weight, "O C/groups KH KW"), b=(bias, "O"))
    same_device(call, *(t for t in (x, weight, bias) if t is not None))
    same_dtype(call, x=x, w=weight, b=bias)
    how = conv_window(call, weight.shape[2:], stride, padding, dilation)
    conv_size(call, x.shape, weight.shape[2:], **how)
    return how | {"groups": groups}


def _usual(first, second, bias, x_shape, w_shape, y_shape, *settings):
    """The settings as backends take them if all is well, as nearly always; None leaves it to the checks to find out what is not."""
    a, b = first.array, second.array
    if type(a) is not np.ndarray or type(b) is not np.ndarray or a.dtype is not b.dtype or not _plain((x_shape, w_shape, settings)):
        return None
    if bias is not None and (type(bias.array) is not np.ndarray or bias.array.dtype is not a.dtype or bias.array.shape != w_shape[:1]):
        return None
    return _known(x_shape, w_shape, y_shape, *settings)


def _plain(value):
    """Is this an int, or a tuple of plain values? Then what equals it is the same: 1.0 equals 1, and is no setting."""
    kinds = {*map(type, value)} if type(value) is tuple else {type(value)}
    return kinds == {int} or tuple in kinds and kinds <= {int, tuple} and all(map(_plain, value))


@functools.lru_cache(maxsize=1024)
def _known(x_shape, w_shape, y_shape, stride, padding, dilation, groups):
    """The settings of a convolution of these shapes as backends take them, or None if they do not fit together. Nobody writes into it."""
    try:
        if not len(x_shape) == len(w_shape) == 4 or x_shape[1] != w_shape[1] * groups:
            return None
        check_groups("conv2d", groups, C=x_shape[1], O=w_shape[0])
        how = conv_window("conv2d", w_shape[2:], stride, padding, dilation)
        size = conv_size("conv2d", x_shape, w_shape[2:], **how)
    except (ArgumentError, ShapeError):
        return None
    return how | {"groups": groups} if y_shape in (None, (x_shape[0], w_shape[0], *size)) else None


def _checked_gradient(call, x_shape, w_shape, grad_y, stride, padding, dilation, groups):
    """The settings as backends take them, if grad_y has the shape that conv2d would have."""
    how = conv_window(call, w_shape[2:], stride, padding, dilation)
    expected = (x_shape[0], w_shape[0], *output_size(x_shape, w_shape[2:], **how))
    if grad_y.shape != expected or x_shape[1] != w_shape[1] * groups:
        raise explained(ShapeError, call, "grad_y must have the shape of conv2d's output.",
                        [f"x {tuple(x_shape)}, w {tuple(w_shape)}, groups {groups}",
                         f"conv2d's output: {expected}", f"grad_y: {grad_y.shape}"],
                        "Pass the same settings as to conv2d, and the shapes that it had.")
    return how | {"groups": groups}


__all__ = ["conv1d", "conv2d", "conv2d_grad_w", "conv2d_grad_x"]
