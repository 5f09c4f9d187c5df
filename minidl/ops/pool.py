"""Pooling: the largest or the mean of every window. The gradients are ops too, each linear, so every order of derivative exists.

A maximum keeps the positions it found, not the image; an average keeps nothing.
"""

from minidl import backend
from minidl.core.errors import ArgumentError, DTypeError, ShapeError, explained, match_shapes
from minidl.core.examples import distinct, integers, normal
from minidl.core.op import example, needs_grad, op
from minidl.core.tensor import Tensor
from minidl.ops.conv import beside_one
from minidl.ops.shape import unsqueeze
from minidl.ops.window import pair, pool_window, unbatched


@unbatched(4)
@op("x", examples=[example(distinct(2, 3, 6, 5), 2), example(distinct(1, 2, 7, 6), (3, 2), 2, 1, ceil_mode=True),
                   example(distinct(2, 2, 7, 5), 3, (1, 2), padding=1, dilation=(2, 1), return_indices=True)],
    tex=r"y_{ncpq} = \max_{ij}\, x_{n,c,\,ps+id-\mathrm{pad},\,qs+jd-\mathrm{pad}}", non_differentiable=(1,))
def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The largest pixel of every window. Padding never wins, ties go to the first pixel in reading order, a NaN wins over all.

        y[n,c,p,q] = max_{i,j}  x[n, c, p·s + i·d − pad, q·s + j·d − pad]      stride s: the kernel's size unless given

    Shapes:    x (N, C, H, W)  ->  y (N, C, OH, OW), OH = (H + 2·pad − d·(KH − 1) − 1) // s + 1; ceil_mode rounds up, but no window
               may start in the padding on the far side. With return_indices also the positions h·W + w, (N, C, OH, OW), int64.
    Backward:  only the winner moved y: its pixel gets the window's gradient (max_pool2d_grad_x), all others get none.
    """
    how = pool_window("max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode)
    y, indices = backend.run("max_pool2d", x.array, **how)
    return _with_indices(y, indices, x, return_indices, tuple(how[name] for name in ("kernel", "stride", "padding", "dilation")))


def _with_indices(y, indices, x, return_indices, window=None):
    """What an op returns that found maxima at `indices` in x."""
    x_shape = x.shape
    saved = Tensor(indices) if needs_grad(x)[0] else None

    def backward(grad_y, _grad_indices=None):
        return max_pool2d_grad_x(grad_y, saved, x_shape, window)

    return (y, indices.astype("int64")) if return_indices else y, backward


@op("grad_y indices", examples=[example(normal(2, 3, 3, 2), integers(0, 30, 2, 3, 3, 2), (2, 3, 6, 5))],
    tex=r"\bar x_{nck} = \sum_{pq:\; \mathrm{index}_{ncpq} = k} \bar y_{ncpq}")
def max_pool2d_grad_x(grad_y, indices, x_shape, window=None):
    """The gradient of max_pool2d: every window's gradient goes to the pixel that won, and adds up where one pixel won several.

        grad_x[n, c, k] = Σ grad_y[n,c,p,q]  over the windows with indices[n,c,p,q] = k,      k = h·W + w

    Shapes:    grad_y and indices (N, C, OH, OW)  ->  grad_x of x_shape (N, C, H, W); `window`, max_pool2d's (kernel, stride,
               padding, dilation) as pairs, tells a backend where the indices can point
    Backward:  it is linear in grad_y; each gets back what its pixel got: max_pool2d_at (a gather).
    """
    _check_indices("max_pool2d_grad_x", "grad_y", grad_y, indices)
    grad_x = backend.run("max_pool2d_grad_x", grad_y.array, indices.array, x_shape=tuple(x_shape), window=window)

    def backward(x2):
        return max_pool2d_at(x2, indices, window), None

    return grad_x, backward


@op("x indices", examples=[example(normal(2, 3, 6, 5), integers(0, 30, 2, 3, 3, 2))], tex=r"y_{ncpq} = x_{nc,\,\mathrm{index}_{ncpq}}")
def max_pool2d_at(x, indices, window=None):
    """The pixels at the positions that max_pool2d found: y[n,c,p,q] = x[n, c, k] with k = indices[n,c,p,q] = h·W + w.

    Shapes:    x (N, C, H, W),  indices (N, C, OH, OW)  ->  y (N, C, OH, OW)
    Backward:  max_pool2d_grad_x (a scatter): a pixel picked several times gets the sum of the gradients.
    """
    _check_indices("max_pool2d_at", "x", x, indices)
    y = backend.run("max_pool2d_at", x.array, indices.array)
    x_shape = x.shape

    def backward(grad_y):
        return max_pool2d_grad_x(grad_y, indices, x_shape, window), None

    return y, backward


@unbatched(4)
@op("x", examples=[example(normal(2, 3, 6, 5), 2), example(normal(1, 2, 7, 6), (3, 2), 2, 1, ceil_mode=True, count_include_pad=False),
                   example(normal(2, 2, 5, 4), 3, (2, 1), padding=1, divisor_override=7)],
    tex=r"y_{ncpq} = \frac{1}{m} \sum_{ij} x_{n,c,\,ps+i-\mathrm{pad},\,qs+j-\mathrm{pad}}")
def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """The mean of every window.

        y[n,c,p,q] = Σ_{i,j} x[n, c, p·s + i − pad, q·s + j − pad] / m      m: the cells that lie in the image or its padding,
                                                                          in the image alone, or divisor_override

    Shapes:    x (N, C, H, W)  ->  y (N, C, OH, OW), OH as for max_pool2d
    Backward:  each pixel of a window gets the share grad_y / m (avg_pool2d_grad_x); the values of x do not matter.
    """
    _floating("avg_pool2d", x)
    if divisor_override == 0:
        raise explained(ArgumentError, "avg_pool2d", "a sum cannot be divided by nothing.", ["divisor_override: 0"],
                        "Leave divisor_override out to divide by the window's size.")
    how = _averaging(pool_window("avg_pool2d", x, kernel_size, stride, padding, 1, ceil_mode), count_include_pad, divisor_override)
    y = backend.run("avg_pool2d", x.array, **how)
    x_shape = x.shape

    def backward(grad_y):
        return avg_pool2d_grad_x(grad_y, x_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)

    return y, backward


@op("grad_y", examples=[example(normal(2, 3, 3, 2), (2, 3, 6, 5), 2),
                        example(normal(1, 2, 4, 4), (1, 2, 7, 6), (3, 2), 2, 1, ceil_mode=True, count_include_pad=False)],
    tex=r"\bar x_{nchw} = \sum_{ps+i-\mathrm{pad}=h,\; qs+j-\mathrm{pad}=w} \bar y_{ncpq} / m")
def avg_pool2d_grad_x(grad_y, x_shape, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """The gradient of avg_pool2d: every pixel of a window gets an equal share, and shares add up where windows overlap.

    Shapes:    grad_y (N, C, OH, OW)  ->  grad_x of x_shape (N, C, H, W)
    Backward:  it is linear, and what spread out is gathered again: avg_pool2d with the same settings.
    """
    how = pool_window("avg_pool2d_grad_x", x_shape, kernel_size, stride, padding, 1, ceil_mode)
    if grad_y.shape != (*x_shape[:2], *how["size"]):
        raise explained(ShapeError, "avg_pool2d_grad_x", "grad_y must have the shape of avg_pool2d's output.",
                        [f"avg_pool2d's output: {(*x_shape[:2], *how['size'])}", f"grad_y: {grad_y.shape}"],
                        "Pass the same settings as to avg_pool2d, and the shape that its image had.")
    grad_x = backend.run("avg_pool2d_grad_x", grad_y.array, x_shape=tuple(x_shape), **_averaging(how, count_include_pad, divisor_override))

    def backward(x2):
        return avg_pool2d(x2, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)

    return grad_x, backward


@unbatched(4)
@op("x", examples=[example(normal(2, 3, 6, 5), (3, 2)), example(normal(2, 3, 4, 5), 1), example(normal(1, 2, 3, 7), (5, None))],
    tex=r"y_{ncpq} = \frac{1}{m_p m_q} \sum_{h=\lfloor pH/OH \rfloor}^{\lceil (p+1)H/OH \rceil - 1}\;"
        r" \sum_{w=\lfloor qW/OW \rfloor}^{\lceil (q+1)W/OW \rceil - 1} x_{nchw}")
def adaptive_avg_pool2d(x, output_size):
    """Average pooling to a given output size: window p covers the rows ⌊p·H/OH⌋ to ⌈(p + 1)·H/OH⌉ − 1, columns alike.

    Shapes:    x (N, C, H, W)  ->  y (N, C, OH, OW) with (OH, OW) = output_size; None keeps H or W. Size 1: the mean of the image.
    Backward:  each pixel of a window gets an equal share of its gradient (adaptive_avg_pool2d_grad_x).
    """
    _floating("adaptive_avg_pool2d", x)
    y = backend.run("adaptive_avg_pool2d", x.array, size=_adaptive_size("adaptive_avg_pool2d", x, output_size))
    x_shape = x.shape

    def backward(grad_y):
        return adaptive_avg_pool2d_grad_x(grad_y, x_shape)

    return y, backward


@op("grad_y", examples=[example(normal(2, 3, 3, 2), (2, 3, 7, 5)), example(normal(2, 3, 1, 1), (2, 3, 4, 5))],
    tex=r"\bar x_{nchw} = \sum_{pq\, \ni\, hw} \bar y_{ncpq} / (m_p m_q)")
def adaptive_avg_pool2d_grad_x(grad_y, x_shape):
    """The gradient of adaptive_avg_pool2d: every pixel of a window gets an equal share, and shares add up where windows overlap.

    Shapes:    grad_y (N, C, OH, OW)  ->  grad_x of x_shape (N, C, H, W)
    Backward:  it is linear, and what spread out is gathered again: adaptive_avg_pool2d to the same size.
    """
    match_shapes("adaptive_avg_pool2d_grad_x", grad_y=(grad_y, "N C OH OW"))
    grad_x = backend.run("adaptive_avg_pool2d_grad_x", grad_y.array, x_shape=tuple(x_shape))
    size = grad_y.shape[2:]

    def backward(x2):
        return adaptive_avg_pool2d(x2, size)

    return grad_x, backward


@unbatched(4)
@op("x", examples=[example(distinct(2, 3, 6, 5), (3, 2)), example(distinct(1, 2, 5, 4), (None, 3), return_indices=True)],
    tex=r"y_{ncpq} = \max_{\lfloor pH/OH \rfloor \le h < \lceil (p+1)H/OH \rceil,"
        r"\; \lfloor qW/OW \rfloor \le w < \lceil (q+1)W/OW \rceil} x_{nchw}",
    non_differentiable=(1,))
def adaptive_max_pool2d(x, output_size, return_indices=False):
    """Max pooling to a given output size: window p covers the rows ⌊p·H/OH⌋ to ⌈(p + 1)·H/OH⌉ − 1, columns alike.

    Shapes:    x (N, C, H, W)  ->  y (N, C, OH, OW) with (OH, OW) = output_size; None keeps H or W
    Backward:  as for max_pool2d: the first largest pixel of a window gets its gradient (max_pool2d_grad_x).
    """
    _floating("adaptive_max_pool2d", x)
    y, indices = backend.run("adaptive_max_pool2d", x.array, size=_adaptive_size("adaptive_max_pool2d", x, output_size))
    return _with_indices(y, indices, x, return_indices)


def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """The largest of every window along one axis: x (N, C, L) or (C, L). It is max_pool2d on images one pixel high."""
    settings = beside_one(kernel_size, 1), _beside_stride(stride), beside_one(padding, 0), beside_one(dilation, 1), ceil_mode
    _check_one_high("max_pool1d", input, *settings)
    return _one_high("max_pool1d", max_pool2d, input, *settings, return_indices)


def avg_pool1d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The mean of every window along one axis: x (N, C, L) or (C, L)."""
    settings = beside_one(kernel_size, 1), _beside_stride(stride), beside_one(padding, 0)
    _check_one_high("avg_pool1d", input, *settings, 1, ceil_mode)
    return _one_high("avg_pool1d", avg_pool2d, input, *settings, ceil_mode, count_include_pad)


def adaptive_avg_pool1d(input, output_size):
    """Average pooling along one axis to a given length: x (N, C, L) or (C, L)."""
    return _one_high("adaptive_avg_pool1d", adaptive_avg_pool2d, input, beside_one(output_size, 1))


def adaptive_max_pool1d(input, output_size, return_indices=False):
    """Max pooling along one axis to a given length: x (N, C, L) or (C, L)."""
    return _one_high("adaptive_max_pool1d", adaptive_max_pool2d, input, beside_one(output_size, 1), return_indices)


def _one_high(call, pool, x, *settings):
    """Pool images one pixel high: positions w along the only row are positions along the axis."""
    match_shapes(call, x=(x, "C L" if x.ndim == 2 else "N C L"))
    y = pool(unsqueeze(x, -2), *settings)
    return tuple(t.squeeze(-2) for t in y) if type(y) is tuple else y.squeeze(-2)


def _check_one_high(call, x, *settings):
    """The checks of pool_window() in the name of the one-axis function."""
    match_shapes(call, x=(x, "C L" if x.ndim == 2 else "N C L"))
    pool_window(call, (*(1, *x.shape)[-3:-1], 1, x.shape[-1]), *settings, letters="HL")


def _beside_stride(stride):
    return None if stride is None or stride == [] or stride == () else beside_one(stride, 1)


def _averaging(how, count_include_pad, divisor_override):
    del how["dilation"]
    return how | {"count_include_pad": bool(count_include_pad), "divisor_override": divisor_override}


def _adaptive_size(call, x, output_size):
    """(OH, OW), with the image's own size where None stands."""
    sizes = match_shapes(call, x=(x, "N C H W"))
    if not (sizes["H"] and sizes["W"]):
        raise explained(ShapeError, call, "an image without pixels cannot be pooled.", [f"x: {x.shape}"], "Only the batch may be empty.")
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(wanted) == 2:
        wanted = tuple(sizes[letter] if n is None else n for n, letter in zip(wanted, "HW", strict=True))
    return pair(call, "output_size", wanted, 0)


def _floating(call, x):
    """A mean of integers is no integer."""
    if x.dtype.kind != "f":
        raise explained(DTypeError, call, "the image must be floating point.", [f"x: {x.dtype}"], "Convert it first: x.float().")


def _check_indices(call, name, values, indices):
    """Indices (N, C, OH, OW) as max_pool2d found them, one for each value that is scattered."""
    match_shapes(call, indices=(indices, "N C OH OW"), **{name: (values, "N C OH OW" if name == "grad_y" else "N C H W")})


__all__ = ["adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool2d_grad_x", "adaptive_max_pool1d", "adaptive_max_pool2d",
           "avg_pool1d", "avg_pool2d", "avg_pool2d_grad_x", "max_pool1d", "max_pool2d", "max_pool2d_at", "max_pool2d_grad_x"]
