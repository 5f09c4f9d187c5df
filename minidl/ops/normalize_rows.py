"""Normalisers that look at one sample at a time: layer, group, instance, RMS and local response norm, and x / ‖x‖.

They differ in what one mean is taken over: the last axes (layer), the positions of a group of channels (group), the
positions of one channel (instance). One op does these three; batch normalisation is in normalize.py.
"""

import numpy as np

from minidl import backend
from minidl.core.dtypes import is_floating
from minidl.core.errors import ArgumentError, DTypeError, ShapeError, describe, explained
from minidl.core.examples import normal
from minidl.core.op import example, needs_grad, op
from minidl.ops.broadcast import same_device
from minidl.ops.normalize import LETTERS, batch_norm_eval, check_channels, column, compute, second_order, update_running
from minidl.ops.shape import expand
from minidl.ops.statistics import norm
from minidl.ops.window import same_dtype


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """y = (x − mean) / √(var + eps) · weight + bias, mean and var over the last axes, those of normalized_shape."""
    axes = last_axes("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    return normalize_over(input, weight, bias, axes, None, axes, eps)[0]


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """y = (x − mean) / √(var + eps) · weight + bias, mean and var over a group of channels of one sample and their positions."""
    check_channels("group_norm", input, weight=weight, bias=bias)
    N, C = input.shape[:2]
    if not isinstance(num_groups, int) or num_groups < 1 or C % num_groups:
        raise explained(ArgumentError, "group_norm", "num_groups must divide the number of channels.",
                        [f"x: {input.shape}, C = {C}", f"num_groups: {describe(num_groups)}"],
                        f"These would do: {', '.join(str(k) for k in range(1, C + 1) if not C % k)}.")
    if input.numel() == num_groups == N * num_groups:
        raise explained(ShapeError, "group_norm", "every group needs more than one value.",
                        [f"x: {input.shape}, num_groups = {num_groups}: one value per group, its variance is 0"], "Use fewer groups.")
    return normalize_over(input, weight, bias, tuple(range(2, input.ndim)), num_groups, (1,), eps)[0]


def instance_norm(input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5):
    """y = (x − mean) / √(var + eps) · weight + bias, mean and var over the positions of one channel of one sample.

    With running averages these move towards the batch's mean of both; with use_input_stats=False they are used instead.
    """
    check_channels("instance_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise explained(ArgumentError, "instance_norm", "without running averages there is nothing to normalise with.",
                            ["use_input_stats=False", f"running_mean: {running_mean}, running_var: {running_var}"],
                            "Pass both, or use_input_stats=True.")
        return batch_norm_eval(input, running_mean, running_var, weight, bias, None, eps)
    axes = tuple(range(2, input.ndim))
    n = input[0, 0].numel() if 0 not in input.shape[:2] else 0
    if n == 1 or not axes:
        raise explained(ShapeError, "instance_norm", "every channel needs more than one position.",
                        [f"x: {input.shape}, one value per channel of a sample: its variance is 0"],
                        "Use larger images, or batch_norm, which looks at the whole batch.")
    y, mean, var = normalize_over(input, weight, bias, axes, None, (1,), eps)
    if n:  # the averages follow the mean over the samples
        update_running(running_mean, running_var, mean.array.mean(0).reshape(-1), var.array.mean(0).reshape(-1), n, momentum)
    return y


@op("x weight bias", non_differentiable=(1, 2),
    examples=[example(normal(2, 5, 3), normal(3), normal(3), axes=(2,), weight_axes=(2,)),
              example(normal(2, 6, 2, 3), normal(6), normal(6), axes=(2, 3), groups=2, weight_axes=(1,)),
              example(normal(2, 3, 4, 2), normal(3), axes=(2, 3), weight_axes=(1,)),
              example(normal(2, 3, 2, 4), None, normal(3, 2, 4), axes=(1, 2, 3), weight_axes=(1, 2, 3))],
    tex=r"y = \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}}\, w + b,\quad \mu = \langle x \rangle,\quad "
        r"\sigma^2 = \langle (x - \mu)^2 \rangle")
def normalize_over(x, weight=None, bias=None, axes=(-1,), groups=None, weight_axes=None, eps=1e-5):
    """Give the values along some axes mean 0 and variance 1, then scale and shift: layer, group and instance norm.

        y = u · w + b,   u = (x − mean) · r,   r = 1/√(var + eps)      mean and var over `axes` and, with groups, over each
                                                                    group of channels too; w and b stand along weight_axes

    Shapes:    x, w and b with the sizes of x along weight_axes  ->  y as x,  mean and var with size 1 along `axes`
    Backward:  mean and var move with x. With g = grad_y · w and ⟨·⟩ that mean
               grad_x = r · (g − ⟨g⟩ − u · ⟨g·u⟩), grad_w = Σ grad_y · u, grad_b = Σ grad_y: normalize_over_grad.
    """
    how = plain_axes(x, axes, groups, weight_axes) | {"eps": eps}
    check_floating("normalize_over", x)
    y, mean, var = compute("normalize_over", x, weight, bias, **how)
    need_x, need_w, need_b = needs_grad(x, weight, bias)
    x_saved, w_saved, statistics = (x if need_x or need_w else None), (weight if need_x else None), (mean, var)
    others = tuple(k for k in range(x.ndim) if k not in how["weight_axes"])

    def backward(grad_y, *_):
        grad_x = grad_w = grad_b = None
        if x_saved is not None:
            grad_x, grad_w, grad_b = normalize_over_grad(grad_y, x_saved, w_saved, **how, statistics=statistics)
        elif need_b:
            grad_b = grad_y.sum(others) if others else grad_y
        return grad_x if need_x else None, grad_w if need_w else None, grad_b if need_b else None

    return (y, mean, var), backward


@op("grad_y x weight",
    examples=[example(normal(2, 5, 3), normal(2, 5, 3), normal(3), axes=(2,), weight_axes=(2,)),
              example(normal(2, 6, 2, 3), normal(2, 6, 2, 3), normal(6), axes=(2, 3), groups=2, weight_axes=(1,)),
              example(normal(2, 3, 4), normal(2, 3, 4), axes=(2,), weight_axes=(1,))],
    tex=r"\bar x = r \left( g - \langle g \rangle - u \langle g\,u \rangle \right),\quad g = \bar y\, w,\quad "
        r"\bar w = \sum \bar y\, u,\quad \bar b = \sum \bar y")
def normalize_over_grad(grad_y, x, weight=None, axes=(-1,), groups=None, weight_axes=None, eps=1e-5, statistics=None):
    """The gradients of normalize_over, all three in one go: (grad_x, grad_w, grad_b), as for batch_norm_grad.

        grad_x = D(g) = r · (g − ⟨g⟩ − u · ⟨g·u⟩),   grad_w = Σ grad_y · u,   grad_b = Σ grad_y      g = grad_y · w

    Shapes:    grad_y and x the same, w along weight_axes  ->  grad_x as x,  grad_w and grad_b along weight_axes
    Backward:  D is linear in g and its own transpose; second_order() in normalize.py says how it changes with x. The
               gradients that arrive are called x2, w2, b2: they take the places of x, w and b.
    """
    how = plain_axes(x, axes, groups, weight_axes) | {"eps": eps}
    if statistics is None:
        statistics = compute("normalize_over", x, None, None, **how)[1:]
    grads = compute("normalize_over_grad", grad_y, x, weight, *statistics, **how)
    need_w = needs_grad(weight)[0]

    def backward(x2, w2, b2):
        at = how["weight_axes"]
        others = tuple(k for k in range(x.ndim) if k not in at)
        w_column, w2, b2 = (None if t is None else column(t, x, at) for t in (weight, w2, b2))

        def slope(g):
            return normalize_over_grad(g, x, None, **how, statistics=statistics)[0]

        grad_grad_y, grad_x = second_order(
            x, grad_y, w_column, x2, w2, b2, average=lambda t: average(t, how["axes"], how["groups"]), slope=slope,
            unit=lambda: normalize_over(x, **how)[0], eps=eps)
        grad_w = None
        if need_w and x2 is not None:
            product = grad_y * slope(x2)
            grad_w = product.sum(others) if others else product
        return grad_grad_y, grad_x, grad_w

    return grads, backward


def average(t, axes, groups):
    """⟨t⟩: the mean over some axes, which stay with size 1; with groups also over every group of channels (repeated for each)."""
    mean = t.mean(axes, True) if axes else t
    if groups is None:
        return mean
    N, C = t.shape[:2]
    of_groups = mean.reshape(N, groups, C // groups).mean(2, True)
    return expand(of_groups, (N, groups, C // groups)).reshape(mean.shape)


def plain_axes(x, axes, groups, weight_axes):
    """The settings with axes counted from 0; the weight stands along the averaged axes if nothing else is said."""
    axes = tuple(k % x.ndim for k in axes)
    return {"axes": axes, "groups": groups, "weight_axes": axes if weight_axes is None else tuple(k % x.ndim for k in weight_axes)}


def last_axes(call, x, normalized_shape, **along):
    """The axes that normalized_shape names, if they are x's last ones and the weights have that shape."""
    shape = tuple(normalized_shape) if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    check_floating(call, x)
    if not shape or x.shape[x.ndim - len(shape):] != shape or x.ndim < len(shape):
        raise explained(ShapeError, call, "normalized_shape must be the last sizes of x.", [f"x: {x.shape}", f"normalized_shape: {shape}"],
                        f"Did you mean {x.shape[-len(shape):] if shape else x.shape[-1:]}?")
    for name, t in along.items():
        if t is not None and t.shape != shape:
            raise explained(ShapeError, call, f"{name} must have the shape normalized_shape.",
                            [f"{name}: {t.shape}", f"normalized_shape: {shape}"], "One number per normalised element.")
    same_device(call, x, *(t for t in along.values() if t is not None))
    same_dtype(call, x=x, **along)
    return tuple(range(x.ndim - len(shape), x.ndim))


def check_floating(call, x):
    """Whole numbers have no place to put a normalised value."""
    if not is_floating(x.dtype):
        raise explained(DTypeError, call, "only floating point numbers have a mean and a variance.", [f"x: shape {x.shape}, {x.dtype}"],
                        "Convert it first: x.float().")


# --- made of other ops ------------------------------------------------------------------------------------------

def rms_norm(input, normalized_shape, weight=None, eps=None):
    """y = x / √(mean of x² + eps) · weight, the mean over the last axes; eps=None is the smallest step of x's dtype."""
    axes = last_axes("rms_norm", input, normalized_shape, weight=weight)
    y = input * (input.square().mean(axes, True) + (float(np.finfo(input.dtype).eps) if eps is None else eps)).rsqrt()
    return y if weight is None else y * weight


def local_response_norm(input, size, alpha=1e-4, beta=0.75, k=1.0):
    """y = x / (k + alpha · mean of x² over `size` neighbouring channels)^beta; channels beyond the edge count as 0."""
    if input.ndim not in (3, *LETTERS) or input.ndim < 3:
        raise explained(ShapeError, "local_response_norm", "x must be images or sequences, (N, C, ...).", [f"x: {input.shape}"],
                        "Did you mean x.unsqueeze(0) (a batch of one)?")
    return input / (neighbour_sum(input.square(), size // 2, (size - 1) // 2) * (alpha / size) + k) ** beta


@op("x", examples=[example(normal(2, 5, 3), 1, 1), example(normal(2, 4, 3, 2), 2, 1), example(normal(2, 3, 2), 0, 4)],
    tex=r"y_{nc} = \sum_{k=c-\mathrm{before}}^{c+\mathrm{after}} x_{nk}")
def neighbour_sum(x, before, after):
    """Every channel plus its neighbours: y[n,c] = Σ x[n,k] for k from c − before to c + after, as far as they exist.

    Shapes:    x (N, C, ...) -> y, the same.
    Backward:  x[k] is in the sums of the channels k − after to k + before: grad_x = neighbour_sum(grad_y, after, before).
    """
    y = backend.run("neighbour_sum", x.array, before=before, after=after)

    def backward(grad_y):
        return neighbour_sum(grad_y, after, before)

    return y, backward


def normalize(input, p=2.0, dim=1, eps=1e-12, out=None):
    """y = x / max(‖x‖, eps): vectors of length 1 along dim, the length being the p-norm."""
    return input / norm(input, p, dim, True).clamp(min=eps)


def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """The cosine of the angle between two vectors along dim: Σ x1·x2 / (max(‖x1‖, eps) · max(‖x2‖, eps))."""
    return (x1 * x2).sum(dim) / (norm(x1, 2, dim).clamp(min=eps) * norm(x2, 2, dim).clamp(min=eps))


__all__ = ["cosine_similarity", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "neighbour_sum", "normalize",
           "normalize_over", "normalize_over_grad", "rms_norm"]
