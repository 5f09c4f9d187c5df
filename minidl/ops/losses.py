"""More losses: distances (l1, smooth l1, Huber), yes-or-no (binary cross entropy), log probabilities (nll, KL divergence).

Each is a sum of one term per element; cross_entropy and mse_loss, and what all losses share, are in loss.py.
"""

import numpy as np

from minidl.backend.generic.loss import truth
from minidl.backend.layout import elementwise
from minidl.core.device import array_module
from minidl.core.errors import ArgumentError, RangeError, ShapeError, explained
from minidl.core.examples import Spec, integers, nonzero, normal, positive, shuffled
from minidl.core.later import require
from minidl.core.op import as_array, example, needs_grad, op
from minidl.core.tensor import Tensor
from minidl.ops.activation import logsigmoid
from minidl.ops.broadcast import broadcast_shape, floating, operands
from minidl.ops.loss import check_reduction, check_rows_and_labels, class_weights, reduce_rows, same_shape, scale_of
from minidl.ops.nonlinear import sigmoid
from minidl.ops.select import where


def share(*shape):
    """Numbers between 0.1 and 0.9: probabilities away from certainty."""
    return Spec("share", shape, lambda rng, s: rng.uniform(0.1, 0.9, s))


def two_floats(call, x, target):
    """The arrays of a prediction and of a target of the same shape."""
    same_shape(call, x, target)
    return operands(call, x, target, division=True)


DISTANCES = [example(nonzero(2, 3), normal(2, 3)), example(normal(2, 3), nonzero(2, 3), reduction="sum"),
             example(normal(2, 3, 2, 2), nonzero(2, 3, 2, 2), reduction="none")]


@op("x target", examples=DISTANCES, tex=r"L = \frac{1}{n} \sum_k |x_k - t_k|")
def l1_loss(x, target, reduction="mean"):
    """The mean absolute error: y = Σ |x − target| / n; "sum" does not divide, "none" keeps every term.

    Shapes:    x and target the same -> y (), or their shape with "none".
    Backward:  grad_x = grad_y · sign(x − target) / n (0 where they are equal), grad_target = −grad_x.
    """
    a, b = two_floats("l1_loss", x, target)
    y = reduce_rows("l1_loss", as_array(np.abs(elementwise(np.subtract, a, b))), reduction, a.size)
    need_x, need_target = needs_grad(x, target)
    scale = scale_of(reduction, a.size)

    def backward(grad_y):
        grad_x = grad_y * ((x - target).sign() * scale)
        return grad_x if need_x else None, -grad_x if need_target else None

    return y, backward


def smooth_l1_loss(input, target, reduction="mean", beta=1.0):
    """d²/(2·beta) where |d| < beta, |d| − beta/2 elsewhere, with d = x − target. beta=0 is l1_loss."""
    if beta < 0:
        raise explained(ArgumentError, "smooth_l1_loss", "beta is a distance, at least 0.", [f"beta: {beta}"],
                        "Below beta the loss is a parabola; 1 is usual.")
    return l1_loss(input, target, reduction) if beta == 0 else huber(input, target, reduction, beta, 1 / beta)


def huber_loss(input, target, reduction="mean", delta=1.0):
    """d²/2 where |d| < delta, delta·(|d| − delta/2) elsewhere, with d = x − target."""
    if delta <= 0:
        raise explained(ArgumentError, "huber_loss", "delta is a distance, above 0.", [f"delta: {delta}"],
                        "Below delta the loss is a parabola; 1 is usual.")
    return huber(input, target, reduction, delta, 1.0)


@op("x target", tex=r"L = \frac{s}{n} \sum_k \begin{cases} d_k^2 / 2 & |d_k| < \delta \\ \delta\,(|d_k| - \delta/2) & \end{cases},"
                    r"\quad d = x - t",
    examples=[example(normal(2, 3), normal(2, 3)), example(normal(2, 3), normal(2, 3), reduction="sum", delta=0.4, scale=2.5),
              example(normal(2, 3, 2, 2), normal(2, 3, 2, 2), reduction="none", delta=0.7)])
def huber(x, target, reduction="mean", delta=1.0, scale=1.0):
    """A square near 0, a straight line far out: the mean of scale · (d²/2, or delta·(|d| − delta/2) from |d| = delta on).

    Shapes:    x and target the same -> y (), or their shape with "none".
    Backward:  the slope follows d and stops at ±delta: grad_x = grad_y · scale · clamp(d, −delta, delta) / n, d = x − target;
               grad_target = −grad_x.
    """
    a, b = two_floats("huber", x, target)
    d = as_array(np.abs(elementwise(np.subtract, a, b)))
    rows = array_module(d).where(d < delta, d * d * d.dtype.type(0.5 * scale), (d - d.dtype.type(delta / 2)) * d.dtype.type(delta * scale))
    y = reduce_rows("huber", as_array(rows), reduction, a.size)
    need_x, need_target = needs_grad(x, target)
    factor = scale * scale_of(reduction, a.size)

    def backward(grad_y):
        grad_x = grad_y * ((x - target).clamp(-delta, delta) * factor)
        return grad_x if need_x else None, -grad_x if need_target else None

    return y, backward


@op("x target weight", constant=("weight",), tex=r"L = -\frac{1}{\sum_n w_{t_n}} \sum_n w_{t_n}\, x_{n,t_n}",
    examples=[example(normal(4, 3), integers(0, 3, 4)), example(normal(4, 3), shuffled(0, 1, 2, 1), positive(3), ignore_index=1),
              example(normal(2, 3, 2, 2), integers(0, 3, 2, 2, 2), reduction="none"), example(normal(3), integers(0, 3), reduction="sum")])
def nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    """The negative log likelihood: y = −x at the labelled class, x being logarithms of probabilities (log_softmax).

    weight[c] multiplies the rows of class c; rows labelled ignore_index count 0. The mean divides by the summed weights.

    Shapes:    x (N, C) or (N, C, ...) or (C), target as x without C, weight (C) -> y (), or (N, ...) with "none".
    Backward:  grad_x = −grad_y · weight / n at the labelled class, 0 elsewhere.
    """
    axis = check_rows_and_labels("nll_loss", x, target, weight, ignore_index)
    array, labels = floating(x), target.array
    w, C = class_weights(weight, array, axis), array.shape[axis]
    q, divisor = truth(array, labels, w, axis, 0.0, ignore_index)
    terms = array_module(array).where(q != 0, array, 0) * q  # −∞ at a class that is not the label counts 0
    y = reduce_rows("nll_loss", -terms.sum(axis), reduction, divisor)
    scale = scale_of(reduction, divisor, array.dtype)
    like = array_module(array).empty((0,) * array.ndim, array.dtype)  # x itself is not needed

    def backward(grad_y):
        grad_rows = (grad_y.unsqueeze(axis) if reduction == "none" else grad_y) * -scale
        return grad_rows * Tensor(truth(like, labels, w, axis, 0.0, ignore_index, C)[0]), None, None

    return y, backward


def weighted(call, x, weight):
    """The weight of every element as an array in x's dtype, or None; it is a constant that broadcasts to x."""
    if weight is None:
        return None
    if weight.requires_grad or broadcast_shape(call, x.shape, weight.shape) != x.shape:
        raise explained(ShapeError, call, "a weight is a constant that broadcasts to the shape of x.",
                        [f"x: {x.shape}", f"weight: {weight.shape}, requires_grad={weight.requires_grad}"], "Detach it, or reshape it.")
    return weight.array.astype(x.dtype, copy=False)


@op("x target weight", constant=("weight",), tex=r"L = -\frac{1}{n} \sum_k w_k \left( t_k \ln x_k + (1 - t_k) \ln (1 - x_k) \right)",
    examples=[example(share(2, 3), share(2, 3)), example(share(2, 3), share(2, 3), positive(3), reduction="sum"),
              example(share(2, 3, 2, 2), share(2, 3, 2, 2), reduction="none")])
def binary_cross_entropy(x, target, weight=None, reduction="mean"):
    """How surprised a model that says yes with probability x is: y = −(t · log x + (1 − t) · log(1 − x)), averaged.

    Both logarithms stop at −100, so that a certain mistake costs 100 and not infinity.

    Shapes:    x and target the same, weight broadcasts to them -> y (), or their shape with "none".
    Backward:  grad_x = grad_y · w · (x − t) / (x · (1 − x)) / n, the denominator at least 10⁻¹²;
               grad_target = grad_y · w · (log(1 − x) − log x) / n.
    """
    a, b = two_floats("binary_cross_entropy", x, target)

    def complain():
        raise explained(RangeError, "binary_cross_entropy", "x must be probabilities, between 0 and 1.",
                        [f"smallest: {a.min()}", f"largest: {a.max()}"],
                        "For scores before the sigmoid use binary_cross_entropy_with_logits.")

    require((a >= 0).all() & (a <= 1).all(), complain)
    w = weighted("binary_cross_entropy", x, weight)
    with np.errstate(divide="ignore"):
        rows = -(b * np.maximum(np.log(a), -100) + (1 - b) * np.maximum(np.log1p(-a), -100))
    y = reduce_rows("binary_cross_entropy", as_array(rows if w is None else rows * w), reduction, a.size)
    need_x, need_target = needs_grad(x, target)
    scale = scale_of(reduction, a.size)

    def backward(grad_y):
        grad_rows = grad_y * scale if w is None else grad_y * (Tensor(w) * scale)
        grad_x = grad_target = None
        if need_x:
            grad_x = grad_rows * ((x - target) / (x * (1 - x)).clamp(min=1e-12))
        if need_target:
            grad_target = grad_rows * ((-x).log1p().clamp(min=-100) - x.log().clamp(min=-100))
        return grad_x, grad_target, None

    return y, backward


@op("x target weight pos_weight", constant=("weight", "pos_weight"),
    tex=r"L = \frac{1}{n} \sum_k w_k \left( (1 - t_k)\,x_k + (1 + (p_k - 1)\,t_k) \ln (1 + e^{-x_k}) \right)",
    examples=[example(normal(2, 3), share(2, 3)), example(normal(2, 3), share(2, 3), positive(3), positive(2, 1), reduction="sum"),
              example(normal(2, 3, 2, 2), share(2, 3, 2, 2), None, positive(3, 1, 1), reduction="none")])
def binary_cross_entropy_with_logits(x, target, weight=None, pos_weight=None, reduction="mean"):
    """binary_cross_entropy of sigmoid(x), for scores of any size: y = (1 − t)·x + (1 + (p − 1)·t)·log(1 + exp(−x)), averaged.

    p, pos_weight, multiplies the term of the yes; log(1 + exp(−x)) is computed as log(1 + exp(−|x|)) + max(−x, 0).

    Shapes:    x and target the same, weight and pos_weight broadcast to them -> y (), or their shape with "none".
    Backward:  grad_x = grad_y · w · ((1 − t) − (1 + (p − 1)·t) · sigmoid(−x)) / n, which is (sigmoid(x) − t) for p = 1;
               grad_target = grad_y · w · ((p − 1) · log(1 + exp(−x)) − x) / n.
    """
    call = "binary_cross_entropy_with_logits"
    a, b = two_floats(call, x, target)
    w, p = weighted(call, x, weight), weighted(call, x, pos_weight)
    softplus = np.log1p(np.exp(-np.abs(a))) + np.maximum(-a, 0)
    rows = (1 - b) * a + (softplus if p is None else (1 + (p - 1) * b) * softplus)
    y = reduce_rows(call, as_array(rows if w is None else rows * w), reduction, a.size)
    need_x, need_target = needs_grad(x, target)
    scale = scale_of(reduction, a.size)

    def backward(grad_y):
        grad_rows = grad_y * scale if w is None else grad_y * (Tensor(w) * scale)
        grad_x = grad_target = None
        if need_x:
            no = sigmoid(-x)
            grad_x = grad_rows * ((1 - target) - (no if p is None else (1 + Tensor(p - 1) * target) * no))
        if need_target:
            grad_target = grad_rows * (-x if p is None else Tensor(1 - p) * logsigmoid(x) - x)
        return grad_x, grad_target, None, None

    return y, backward


@op("x target", tex=r"L = \frac{1}{n} \sum_k t_k\,(\ln t_k - x_k)",
    examples=[example(normal(2, 3), share(2, 3)), example(normal(2, 3), normal(2, 3), reduction="sum", log_target=True),
              example(normal(4, 3), share(4, 3), reduction="batchmean"), example(normal(2, 3, 2, 2), share(2, 3, 2, 2), reduction="none")])
def kl_div(x, target, reduction="mean", log_target=False):
    """The Kullback-Leibler divergence: y = t · (log t − x), x being logarithms of probabilities; "mean" divides by all elements,
    "batchmean" by the size of the first axis. With log_target the target is a logarithm too.

    Shapes:    x and target the same -> y (), or their shape with "none".
    Backward:  grad_x = −grad_y · t / n; grad_target = grad_y · (log t + 1 − x) / n, or with log_target grad_y · t · (log t + 1 − x) / n.
    """
    a, b = two_floats("kl_div", x, target)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = np.exp(b) * (b - a) if log_target else array_module(b).where(b == 0, 0, b * np.log(b)) - b * a  # 0 · log 0 is 0
    count = a.size if reduction == "mean" else a.shape[0] if reduction == "batchmean" and a.ndim else 1
    y = reduce_rows("kl_div", as_array(rows), "mean" if reduction == "batchmean" else reduction, count)
    need_x, need_target = needs_grad(x, target)
    scale = 1 / count if count else np.nan

    def backward(grad_y):
        grad_rows = grad_y * scale
        t, log_t = (target.exp(), target) if log_target else (target, None)
        grad_x = -(grad_rows * t) if need_x else None
        if not need_target:
            return grad_x, None
        if log_target:
            return grad_x, grad_rows * t * (log_t + 1 - x)
        return grad_x, grad_rows * (where(target == 0, 0, target.log() + 1) - x)

    return y, backward


def cosine_embedding_loss(input1, input2, target, margin=0.0, reduction="mean"):
    """1 − cos(x1, x2) where target is 1, max(cos(x1, x2) − margin, 0) where it is −1: x1 and x2 (N, D) or (D), target (N) or ()."""
    same_shape("cosine_embedding_loss", input1, input2)
    lengths = ((input1 * input1).sum(-1) + 1e-12) * ((input2 * input2).sum(-1) + 1e-12)  # as in PyTorch: zero vectors stay finite
    cosine = (input1 * input2).sum(-1) / lengths.sqrt()
    rows = where(target == 1, 1 - cosine, 0) + where(target == -1, (cosine - margin).clamp(min=0), 0)
    check_reduction("cosine_embedding_loss", reduction)
    return rows.mean() if reduction == "mean" else rows.sum() if reduction == "sum" else rows


__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss", "huber", "huber_loss",
           "kl_div", "l1_loss", "nll_loss", "smooth_l1_loss"]
