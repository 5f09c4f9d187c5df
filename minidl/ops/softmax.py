"""softmax and its relatives: numbers of any size become shares of 1, or the logarithms of such shares."""

from minidl import backend
from minidl.backend.layout import stored
from minidl.core.dtypes import as_dtype, float16, float32
from minidl.core.errors import ArgumentError, explained
from minidl.core.examples import normal
from minidl.core.op import example, op
from minidl.ops.axes import one_axis, several_axes
from minidl.ops.broadcast import floating
from minidl.ops.reduce import kept_shape, spread
from minidl.ops.select import where


def run(call, array, dim):
    """The backend's result in storage order; float16 computes in float32, a 0-d array as one of one element."""
    wide = array.astype(float32) if array.dtype == float16 else array
    y = backend.run(call, wide if array.ndim else wide.reshape(1), dim=dim)
    return stored((y if array.ndim else y.reshape(())).astype(array.dtype, copy=False))


def the_axis(call, x, dim):
    """The one axis along which the shares add up to 1."""
    if dim is None:
        raise explained(ArgumentError, call, "dim must say along which axis the shares add up to 1.", [f"x: shape {x.shape}"],
                        "For rows of class scores use dim=1 or dim=-1.")
    return one_axis(call, dim, x.ndim)


EXAMPLES = [example(normal(2, 3), dim=1), example(normal(2, 3, 4), dim=0), example(normal(2, 3, 2, 2), dim=1)]


@op("x", examples=EXAMPLES, tex=r"y_c = \frac{e^{x_c}}{\sum_k e^{x_k}}", uses_output=True, method=True)
def softmax(x, dim=None, dtype=None):
    """Turn scores into shares that add up to 1 along dim: y_c = exp(x_c) / Σ_k exp(x_k).

    Shapes:    x -> y, the same.
    Backward:  raising x_c raises y_c and lowers all others: ∂y_k/∂x_c = y_k · ([k = c] − y_c), so
               grad_x = y · (grad_y − Σ grad_y · y), the sum along dim.
    """
    axis = the_axis("softmax", x, dim)
    y = run("softmax", floating(x).astype(as_dtype(dtype) or floating(x).dtype, copy=False), axis)

    def backward(grad_y, y):
        return y * (grad_y - (grad_y * y).sum(axis, True))

    return y, backward


@op("x", examples=EXAMPLES, tex=r"y_c = x_c - \ln \sum_k e^{x_k}", uses_output=True, method=True)
def log_softmax(x, dim=None, dtype=None):
    """The logarithm of softmax, computed without rounding small shares to 0: y_c = x_c − log Σ_k exp(x_k).

    Shapes:    x -> y, the same.
    Backward:  ∂y_k/∂x_c = [k = c] − exp(y_c), so grad_x = grad_y − exp(y) · Σ grad_y, the sum along dim.
    """
    axis = the_axis("log_softmax", x, dim)
    y = run("log_softmax", floating(x).astype(as_dtype(dtype) or floating(x).dtype, copy=False), axis)

    def backward(grad_y, y):
        return grad_y - y.exp() * grad_y.sum(axis, True)

    return y, backward


@op("x", tex=r"y = \ln \sum_k e^{x_k}", uses_output=True, method=True,
    examples=[example(normal(2, 3), dim=1), example(normal(2, 3, 4), dim=(0, 2)), example(normal(2, 3, 2, 2), dim=1, keepdim=True)])
def logsumexp(x, dim, keepdim=False):
    """A smooth maximum: y = log Σ exp(x) over the axes in dim.

    Shapes:    x -> y without the axes in dim (size 1 with keepdim).
    Backward:  the slope towards each x is its softmax: grad_x = grad_y · exp(x − y), spread along the axes in dim.
    """
    array = floating(x)
    axes = several_axes("logsumexp", dim, array.ndim)
    y = run("logsumexp", array, axes if array.ndim else (0,))
    x_shape, kept = array.shape, kept_shape(array.shape, axes)
    if not keepdim:
        y = stored(y.reshape([n for k, n in enumerate(x_shape) if k not in axes]))

    def backward(grad_y, y):
        y = where(y.isfinite(), y, 0)  # where all of x is −∞: exp(−∞ − 0) is 0, exp(−∞ + ∞) would be NaN
        return spread(grad_y, x_shape, axes) * (x - y.reshape(kept)).exp()

    return y, backward


__all__ = ["log_softmax", "logsumexp", "softmax"]
