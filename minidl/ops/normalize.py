"""Batch normalisation: every channel gets mean 0 and variance 1 over the batch. The other normalisers are in normalize_rows.py.

They differ in what one mean is taken over, and in nothing else: second_order() below is the second derivative of all.
"""

import numpy as np

from minidl import backend
from minidl.core.config import STATE
from minidl.core.dtypes import float16, float32, is_floating
from minidl.core.errors import ArgumentError, DTypeError, ShapeError, explained, match_shapes
from minidl.core.examples import nonzero, normal, positive
from minidl.core.op import example, needs_grad, op
from minidl.core.tensor import Tensor
from minidl.core.writing import rewriting
from minidl.ops.broadcast import same_device
from minidl.ops.nonlinear import relu_grad
from minidl.ops.window import same_dtype

LETTERS = {2: "N C", 3: "N C W", 4: "N C H W", 5: "N C D H W"}


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, *, add=None, relu=False):
    """y = (x − mean) / √(var + eps) · weight + bias, per channel; then y + add, then relu(y), if asked for.

    While training, mean and var are those of this batch, and the running averages move towards them by the share
    `momentum` (the variance divided by n − 1, not n). Otherwise the running averages take their place.
    """
    if (add is not None or relu) and not STATE.fusion:
        y = batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        y = y if add is None else y + add
        return y.relu() if relu else y
    if not training:
        if running_mean is None or running_var is None:
            raise explained(ArgumentError, "batch_norm", "without running averages there is nothing to normalise with.",
                            ["training=False", f"running_mean: {running_mean}, running_var: {running_var}"],
                            "Pass both, or training=True to use the mean and variance of this batch.")
        return batch_norm_eval(input, running_mean, running_var, weight, bias, add, eps, relu)
    check_channels("batch_norm", input, running_mean=running_mean, running_var=running_var)
    y, mean, var = batch_norm_train(input, weight, bias, add, eps, relu)
    if input.numel():  # a batch of nothing says nothing about the mean
        update_running(running_mean, running_var, mean.array, var.array, input.numel() // input.shape[1], momentum)
    return y


def update_running(running_mean, running_var, mean, var, n, momentum):
    """Move the running averages towards this batch's mean and (unbiased: times n / (n − 1)) variance, n > 1 elements each."""
    if running_mean is not None or running_var is not None:
        both = [None if running is None else running.array for running in (running_mean, running_var)]
        with rewriting("batch_norm", running_mean, running_var):
            backend.run("running_averages", mean, var, *both, momentum=momentum, unbias=n / (n - 1) if n > 1 else 1.0)


def across(x):
    """The axes over which batch normalisation takes its means: all but the channels'."""
    return (0, *range(2, x.ndim))


def column(t, x, axes=(1,)):
    """A tensor or array along some axes of x, shaped so that it broadcasts against x: (C) -> (1, C, 1, 1)."""
    return t.reshape([n if k in axes else 1 for k, n in enumerate(x.shape)])


def check_channels(call, x, **per_channel):
    """x is a floating (N, C, ...); everything else that is given holds one number per channel, in x's dtype."""
    array = x.array
    if type(array) is np.ndarray and array.dtype.kind == "f" and array.ndim in LETTERS:
        C, dtype = array.shape[1:2], array.dtype
        for t in per_channel.values():
            if t is not None and (t.array.shape != C or t.array.dtype is not dtype or type(t.array) is not np.ndarray):
                break
        else:
            return  # all is well, as nearly always; what follows finds out what is not, and looks at arrays on a GPU
    if x.ndim not in LETTERS:
        raise explained(ShapeError, call, "x must have 2 to 5 axes, (N, C, ...).", [f"x: shape {x.shape}"],
                        "Did you mean x.unsqueeze(0) (a batch of one)?")
    if not is_floating(x.dtype):
        raise explained(DTypeError, call, "only floating point numbers have a mean and a variance.", [f"x: shape {x.shape}, {x.dtype}"],
                        "Convert it first: x.float().")
    match_shapes(call, x=(x, LETTERS[x.ndim]), **{name: (t, "C") for name, t in per_channel.items()})
    same_device(call, x, *(t for t in per_channel.values() if t is not None))
    same_dtype(call, x=x, **per_channel)


def check_add(call, x, add):
    """What is added afterwards must have x's shape."""
    if add is not None and (add.shape != x.shape or add.dtype != x.dtype):
        raise explained(ShapeError, call, "add must have the shape and the dtype of x.",
                        [f"x: {x.shape}, {x.dtype}", f"add: {add.shape}, {add.dtype}"], "Add other shapes afterwards, with +.")


def compute(name, x, *others, **how):
    """Run the backend; float16 computes in float32. What comes back has x's dtype."""
    arrays = [None if t is None else getattr(t, "array", t) for t in (x, *others)]
    if x.dtype != float16:
        return backend.run(name, *arrays, **how)
    y = backend.run(name, *(None if a is None else a.astype(float32) for a in arrays), **how)
    return tuple(a.astype(float16) for a in y) if type(y) is tuple else y.astype(float16)


@op("x weight bias add", non_differentiable=(1, 2),
    examples=[example(normal(4, 3, 2, 5), normal(3), normal(3)), example(normal(5, 3), normal(3)),
              example(normal(3, 2, 4), None, normal(2)), example(normal(2, 3, 4, 2), normal(3), normal(3), normal(2, 3, 4, 2), relu=True)],
    tex=r"y_{nchw} = \frac{x_{nchw} - \mu_c}{\sqrt{\sigma^2_c + \varepsilon}}\, w_c + b_c,\quad "
        r"\mu_c = \frac{1}{n}\sum_{nhw} x_{nchw},\quad \sigma^2_c = \frac{1}{n}\sum_{nhw} (x_{nchw} - \mu_c)^2")
def batch_norm_train(x, weight=None, bias=None, add=None, eps=1e-5, relu=False):
    """Give every channel mean 0 and variance 1 over the batch, then the learnt scale and shift.

        y[n,c,h,w] = u[n,c,h,w] · w[c] + b[c],   u = (x − mean[c]) · r[c],   r = 1/√(var + eps);   then + add, then relu

    Shapes:    x (N, C, ...),  w (C),  b (C),  add as x  ->  y as x,  mean (C),  var (C) (of the batch, divided by n)
    Backward:  mean and var move with x. With g = grad_y · w and ⟨·⟩ the mean over a channel
               grad_x = r · (g − ⟨g⟩ − u · ⟨g·u⟩), grad_w = Σ grad_y · u, grad_b = Σ grad_y: batch_norm_grad.
               relu lets grad_y through where y > 0; what is left is grad_add.
    """
    check_channels("batch_norm", x, weight=weight, bias=bias)
    check_add("batch_norm", x, add)
    if x.numel() == x.shape[1]:
        raise explained(ShapeError, "batch_norm", "while training, every channel needs more than one value.",
                        [f"x: {x.shape}, one value per channel: its variance is 0"],
                        "Use a larger batch, drop the last incomplete one (drop_last=True), or call eval().")
    y, mean, var = compute("batch_norm_train", x, weight, bias, add, eps=eps, relu=relu)
    need_x, need_w, need_b, need_add = needs_grad(x, weight, bias, add)
    x_saved, y_saved, statistics = (x if need_x or need_w else None), (y if relu else None), (mean, var)
    w_saved = weight if need_x else None

    def backward(grad_y, *_):
        y = None if y_saved is None else Tensor(y_saved)
        grad_x = grad_w = grad_b = None
        if x_saved is not None:
            grad_x, grad_w, grad_b, *gated = batch_norm_grad(grad_y, x_saved, w_saved, y, eps, statistics, need_add and y is not None)
            grad_add = gated[0] if gated else grad_y
        else:
            grad_add = grad_y if y is None else relu_grad(grad_y, y)
            grad_b = grad_add.sum(across(grad_add)) if need_b else None
        return grad_x if need_x else None, grad_w if need_w else None, grad_b if need_b else None, grad_add if need_add else None

    return (y, mean, var), backward


@op("grad_y x weight y", constant=("y",),
    examples=[example(normal(4, 3, 2, 5), normal(4, 3, 2, 5), normal(3)), example(normal(5, 3), normal(5, 3)),
              example(normal(3, 2, 4), normal(3, 2, 4), normal(2), eps=0.1),
              example(normal(2, 3, 4, 2), normal(2, 3, 4, 2), normal(3), nonzero(2, 3, 4, 2), add=True)],
    tex=r"\bar x = r_c \left( g - \langle g \rangle - u \langle g\,u \rangle \right),\quad g = \bar y\, w_c\,[y > 0],\quad "
        r"\bar w_c = \sum_{nhw} \bar y\,[y > 0]\, u,\quad \bar b_c = \sum_{nhw} \bar y\,[y > 0]")
def batch_norm_grad(grad_y, x, weight=None, y=None, eps=1e-5, statistics=None, add=False):
    """The gradients of batch_norm_train, all in one go: (grad_x, grad_w, grad_b), and grad_add too if `add` says so.

        grad_x = D(g) = r · (g − ⟨g⟩ − u · ⟨g·u⟩),   grad_w = Σ grad_y · u,   grad_b = Σ grad_y      g = grad_y · w, u and r as there

    With y, the output of relu, grad_y is 0 wherever y is not above 0, and that gated grad_y is grad_add.

    Shapes:    grad_y, x and y (N, C, ...),  w (C)  ->  grad_x as x,  grad_w (C),  grad_b (C),  grad_add as x
    Backward:  D is linear in g and its own transpose; second_order() says how it changes with x. The gradients that
               arrive are called x2, w2, b2, add2: they take the places of x, w, b and add. The gate is linear too.
               `statistics` (mean, var) spares computing them again from x; they count as functions of x all the same.
    """
    check_channels("batch_norm_grad", x, weight=weight)
    check_add("batch_norm_grad", x, y)
    if statistics is None:
        statistics = compute("batch_norm_train", x, None, None, None, eps=eps, relu=False)[1:]
    grads = compute("batch_norm_grad", grad_y, x, weight, *statistics, y, eps=eps, add=add)
    need_w = needs_grad(weight)[0]

    def backward(x2, w2, b2, add2=None):
        axes = across(x)
        w_column = None if weight is None else column(weight, x)
        gated = grad_y if y is None else relu_grad(grad_y, y)

        def slope(g):
            return batch_norm_grad(g, x, None, None, eps, statistics)[0]

        grad_grad_y, grad_x = second_order(
            x, gated, w_column, x2, None if w2 is None else column(w2, x), None if b2 is None else column(b2, x), more=add2,
            average=lambda t: t.mean(axes, True), slope=slope, unit=lambda: batch_norm_train(x, eps=eps)[0], eps=eps)
        grad_w = (gated * slope(x2)).sum(axes) if need_w and x2 is not None else None
        return grad_grad_y if y is None else relu_grad(grad_grad_y, y), grad_x, grad_w, None

    return grads, backward


def second_order(x, grad_y, w, x2, w2, b2, average, slope, unit, eps, more=None):
    """The gradients of T = Σ x2·D(g) + Σ w2·grad_y·u + Σ b2·grad_y (+ Σ more·grad_y) with respect to grad_y and x; g = grad_y·w.

    D(g) = r·(g − ⟨g⟩ − u·⟨g·u⟩) is `slope`, ⟨·⟩ `average`. It is its own transpose, so Σ x2·D(g) = Σ D(x2)·g gives

        ∂T/∂grad_y = w·D(x2) + w2·u + b2 + more.

    Towards x:  u changes by D(dx), so Σ w2·grad_y·u gives D(w2·grad_y). And Σ x2·D(g) = n·r·(⟨x2·(g − ⟨g⟩)⟩ − p·q) with
    p = ⟨x2·u⟩, q = ⟨g·u⟩. There r changes by −r²·⟨u·dx⟩, p by ⟨D(x2)·dx⟩ and q by ⟨D(g)·dx⟩; D being linear,

        ∂T/∂x = −r²·u·(⟨x2·(g − ⟨g⟩)⟩ − p·q) + D(w2·grad_y − r·(q·x2 + p·g)).
    """
    u = unit()
    terms = [t for t in (None if x2 is None else slope(x2) if w is None else w * slope(x2), None if w2 is None else w2 * u,
                         None if b2 is None else b2.expand(x.shape), more) if t is not None]
    grad_grad_y = sum(terms[1:], terms[0])
    inside = None if w2 is None else w2 * grad_y
    grad_x = None
    if x2 is not None:
        g = grad_y if w is None else grad_y * w
        centred = x - average(x)
        r = (average(centred * centred) + eps).rsqrt()
        p, q = average(x2 * u), average(g * u)
        grad_x = -(r * r * (average(x2 * (g - average(g))) - p * q)) * u
        more = r * (q * x2 + p * g)
        inside = -more if inside is None else inside - more
    if inside is not None:
        grad_x = slope(inside) if grad_x is None else grad_x + slope(inside)
    return grad_grad_y, grad_x


@op("x mean var weight bias add", constant=("mean", "var"),
    examples=[example(normal(2, 3, 2, 5), normal(3), positive(3), normal(3), normal(3)), example(normal(4, 3), normal(3), positive(3)),
              example(normal(2, 3, 4, 2), normal(3), positive(3), normal(3), normal(3), normal(2, 3, 4, 2), relu=True)],
    tex=r"y_{nchw} = \frac{x_{nchw} - \mu_c}{\sqrt{\sigma^2_c + \varepsilon}}\, w_c + b_c")
def batch_norm_eval(x, mean, var, weight=None, bias=None, add=None, eps=1e-5, relu=False):
    """Normalise with a mean and a variance that are given: y = (x − mean) · r · w + b, r = 1/√(var + eps); then + add, then relu.

    Shapes:    x (N, C, ...),  mean, var, w, b (C),  add as x  ->  y as x
    Backward:  mean and var are constants: grad_x = grad_y · r · w, grad_w = r · Σ grad_y · (x − mean), grad_b = Σ grad_y.
               relu lets grad_y through where y > 0; what is left is grad_add.
    """
    check_channels("batch_norm", x, running_mean=mean, running_var=var, weight=weight, bias=bias)
    check_add("batch_norm", x, add)
    y = compute("batch_norm_eval", x, mean, var, weight, bias, add, eps=eps, relu=relu)
    need_x, _, _, need_w, need_b, need_add = needs_grad(x, mean, var, weight, bias, add)
    mean_saved, inv_std = mean.array if need_w else None, 1 / np.sqrt(var.array + eps)
    x_saved, w_saved, y_saved = (x if need_w else None), (weight if need_x else None), (y if relu else None)

    def backward(grad_y):
        grad_y = grad_y if y_saved is None else relu_grad(grad_y, Tensor(y_saved))
        grad_x = grad_w = grad_b = None
        if need_x:
            r = Tensor(inv_std)
            grad_x = grad_y * column(r if w_saved is None else r * w_saved, grad_y)
        if need_w:
            grad_w = (grad_y * (x_saved - column(Tensor(mean_saved), grad_y))).sum(across(grad_y)) * Tensor(inv_std)
        if need_b:
            grad_b = grad_y.sum(across(grad_y))
        return grad_x, None, None, grad_w, grad_b, grad_y if need_add else None

    return y, backward


__all__ = ["batch_norm", "batch_norm_eval", "batch_norm_grad", "batch_norm_train"]
