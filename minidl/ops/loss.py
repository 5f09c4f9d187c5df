"""Losses: how far a prediction is from the truth, as one number to walk back from."""

import numpy as np

from minidl import backend
from minidl.backend.generic.loss import truth
from minidl.backend.layout import stored
from minidl.core.device import array_module, on_cpu
from minidl.core.dtypes import is_floating
from minidl.core.errors import ArgumentError, DTypeError, RangeError, ShapeError, explained
from minidl.core.examples import integers, normal, positive, shuffled
from minidl.core.later import require
from minidl.core.op import as_array, example, needs_grad, op
from minidl.core.tensor import Tensor
from minidl.ops.broadcast import floating, operands, same_device
from minidl.ops.softmax import log_softmax, softmax


def check_reduction(call, reduction):
    """There are three ways to make one number of many, one of which is not to."""
    if reduction not in ("mean", "sum", "none"):
        raise explained(ArgumentError, call, f"{reduction!r} is not a reduction.", ["reductions: 'mean', 'sum', 'none'"],
                        "Check the spelling.")


def same_shape(call, x, target):
    """A loss that compares element by element does not broadcast."""
    if x.shape != target.shape:
        raise explained(ShapeError, call, "x and target must have one shape.", [f"x: {x.shape}", f"target: {target.shape}"],
                        "Broadcasting them is nearly always a mistake. Did you mean target.unsqueeze(1), or x.squeeze(1)?")


def reduce_rows(call, rows, reduction, divisor):
    """The rows of a loss as the caller wants them: their mean, their sum, or all of them."""
    check_reduction(call, reduction)
    if reduction == "none":
        return stored(rows)
    with np.errstate(all="ignore"):  # the mean of no rows is NaN, as in PyTorch
        if reduction == "sum":
            return as_array(rows.sum())
        return as_array(rows.sum() / (divisor.astype(rows.dtype) if hasattr(divisor, "astype") else rows.dtype.type(divisor)))


def scale_of(reduction, divisor, dtype=None):
    """What a mean multiplies every row with; a 0-d Tensor if the divisor is on a GPU."""
    if reduction != "mean":
        return 1.0
    if hasattr(divisor, "astype"):
        return Tensor(array_module(divisor).where(divisor != 0, 1 / divisor, np.nan).astype(dtype))
    return 1 / divisor if divisor else np.nan


@op("x target", tex=r"L = \frac{1}{n} \sum_k (x_k - t_k)^2",
    examples=[example(normal(2, 3), normal(2, 3)), example(normal(2, 3), normal(2, 3), reduction="sum"),
              example(normal(2, 3, 2, 2), normal(2, 3, 2, 2), reduction="none")])
def mse_loss(x, target, reduction="mean"):
    """The mean squared error: y = Σ (x − target)² / n; "sum" does not divide, "none" keeps every square.

    Shapes:    x and target the same -> y (), or their shape with "none".
    Backward:  grad_x = grad_y · 2 (x − target) / n, grad_target = −grad_x.
    """
    same_shape("mse_loss", x, target)
    a, b = operands("mse_loss", x, target, division=True)
    n = a.size if reduction == "mean" else 1
    rows = as_array(a - b)
    y = reduce_rows("mse_loss", np.multiply(rows, rows, out=rows), reduction, n)
    need_x, need_target = needs_grad(x, target)

    def backward(grad_y):
        grad_x = grad_y * ((x - target) * (2 / n if n else np.nan))
        return grad_x if need_x else None, -grad_x if need_target else None

    return y, backward


@op("x target weight", constant=("weight",),
    tex=r"L = -\frac{1}{\sum_n w_{t_n}} \sum_n w_{t_n} \ln \frac{e^{x_{n,t_n}}}{\sum_c e^{x_{nc}}}",
    examples=[example(normal(4, 3), integers(0, 3, 4)),
              example(normal(4, 3), shuffled(0, 1, 2, 1), positive(3), ignore_index=1, label_smoothing=0.1),
              example(normal(2, 3, 2, 2), integers(0, 3, 2, 2, 2), reduction="none"), example(normal(3), integers(0, 3), reduction="sum"),
              example(normal(2, 3), positive(2, 3), positive(3), label_smoothing=0.2)])
def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """How surprised a model with the class scores x is by the truth: y = −Σ_c q_c · log softmax(x)_c for every row.

    q is 1 at the labelled class; label smoothing s makes it (1 − s) there and adds s/C everywhere; weight[c] multiplies
    class c. A target of floats is q itself. The mean divides by the summed weight of the labels (of q: by the rows).

    Shapes:    x (N, C) or (N, C, ...) or (C), target as x without C (or as x, for q), weight (C) -> y (), or (N, ...) with "none".
    Backward:  grad_x = grad_y · (softmax(x) · Σ_c q_c − q) / n: what the model believes minus what is true.
               grad_q = −grad_y · log softmax(x) / n.
    """
    axis, soft = check_cross_entropy(x, target, weight, ignore_index)
    if not 0 <= label_smoothing <= 1:
        raise explained(ArgumentError, "cross_entropy", "label_smoothing is a share between 0 and 1.",
                        [f"label_smoothing: {label_smoothing}"], "0.1 is usual.")
    check_reduction("cross_entropy", reduction)
    array = floating(x)
    if not soft:
        return labelled(x, array, target, weight, axis, ignore_index, reduction, label_smoothing)
    C, w = array.shape[axis], class_weights(weight, array, axis)
    logs = backend.run("log_softmax", array, dim=axis)
    q = soft_truth(Tensor(target.array), w, label_smoothing, C).array.astype(array.dtype, copy=False)
    divisor = target.array.size // C if C else 0
    terms = q * array_module(array).where(q != 0, logs, 0)  # an impossible class that is not the label counts 0, not 0 · −∞
    y = reduce_rows("cross_entropy", -terms.sum(axis), reduction, divisor)
    need_x, need_target = needs_grad(x, target)
    scale = scale_of(reduction, divisor, array.dtype)
    target_saved = target if need_x else None

    def backward(grad_y):
        grad_rows = (grad_y.unsqueeze(axis) if reduction == "none" else grad_y) * scale
        grad_x = grad_target = None
        if need_x:
            q = soft_truth(target_saved, w, label_smoothing, C)
            grad_x = grad_rows * (softmax(x, axis) * q.sum(axis, True) - q)
        if need_target:
            grad_q = -(grad_rows * log_softmax(x, axis))
            grad_target = (grad_q if w is None else grad_q * Tensor(w)) * (1 - label_smoothing)
        return grad_x, grad_target, None

    return y, backward


def labelled(x, array, target, weight, axis, ignore_index, reduction, label_smoothing):
    """cross_entropy of class labels: what the op returns."""
    w = None if weight is None else weight.array.astype(array.dtype, copy=False)
    rows, divisor, total = backend.run("cross_entropy", array, target.array, w, axis=axis, smoothing=label_smoothing,
                                       ignore_index=ignore_index)
    if total is None or reduction == "none":
        y = reduce_rows("cross_entropy", rows, reduction, divisor)
    else:
        y = total[reduction]
    scale, shape = scale_of(reduction, divisor, array.dtype), rows.shape

    def backward(grad_y):
        grad_rows = (grad_y if reduction == "none" else grad_y.expand(shape)) * scale
        return cross_entropy_grad(grad_rows, x, target, weight, ignore_index, label_smoothing), None, None

    return y, backward


@op("grad_rows x target weight", constant=("weight",),
    tex=r"\bar x_{nc} = \bar y_n \left( p_{nc} \sum_k q_{nk} - q_{nc} \right),\quad p = \operatorname{softmax}(x)",
    examples=[example(normal(4), normal(4, 3), integers(0, 3, 4)),
              example(normal(4), normal(4, 3), shuffled(0, 1, 2, 1), positive(3), ignore_index=1, label_smoothing=0.1),
              example(normal(2, 2, 2), normal(2, 3, 2, 2), integers(0, 3, 2, 2, 2))])
def cross_entropy_grad(grad_rows, x, target, weight=None, ignore_index=-100, label_smoothing=0.0):
    """The gradient of cross_entropy of class labels: what the model believes minus what is true, times the row's gradient.

        grad_x = grad_rows · D,   D = p · Σ_c q_c − q,   p = softmax(x)      q as in cross_entropy

    Shapes:    grad_rows and target (N, ...),  x (N, C, ...),  weight (C)  ->  grad_x as x
    Backward:  it is linear in grad_rows: Σ_c x2 · D, x2 being the gradient that arrives (it takes x's place). Towards x only
               p moves, as in softmax: grad_x2 = grad_rows · Σ_c q_c · p · (x2 − Σ_c x2 · p).
    """
    axis = check_rows_and_labels("cross_entropy_grad", x, target, weight, ignore_index)
    array, labels = floating(x), target.array
    w = None if weight is None else weight.array.astype(array.dtype, copy=False)
    how = {"axis": axis, "smoothing": label_smoothing, "ignore_index": ignore_index}
    grad_x = backend.run("cross_entropy_grad", grad_rows.array, array, labels, w, **how)

    def backward(x2):
        q, p = Tensor(truth(array, labels, w, **how)[0]), softmax(x, axis)
        total = q.sum(axis, True)
        towards_rows = (x2 * (p * total - q)).sum(axis)
        return towards_rows, grad_rows.unsqueeze(axis) * total * p * (x2 - (x2 * p).sum(axis, True)), None, None

    return grad_x, backward


def class_weights(weight, array, axis):
    """The weights as an array that broadcasts along the class axis, or None."""
    if weight is None:
        return None
    return weight.array.astype(array.dtype).reshape([-1 if k == axis else 1 for k in range(array.ndim)])


def soft_truth(target, w, s, C):
    """q of a target that holds shares: smoothed, then weighted. A Tensor, because the target may want a gradient."""
    q = target * (1 - s) + s / C if s else target
    return q if w is None else q * Tensor(w)


def check_cross_entropy(x, target, weight, ignore_index):
    """The class axis, and whether the target holds shares of every class; or the error that names what is wrong."""
    soft = is_floating(target.dtype)
    if not soft or not x.ndim:
        return check_rows_and_labels("cross_entropy", x, target, weight, ignore_index), soft
    if target.shape != x.shape:
        raise float_labels("cross_entropy", x, target, f" A target of floats holds a share for every class, shape {x.shape}.")
    same_device("cross_entropy", *(t for t in (x, target, weight) if t is not None))
    axis = 1 if x.ndim > 1 else 0
    check_class_weights("cross_entropy", x, target, weight, axis)
    return axis, soft


def check_rows_and_labels(call, x, target, weight, ignore_index):
    """The class axis of scores with one label per row; or the error that names what is wrong."""
    same_device(call, *(t for t in (x, target, weight) if t is not None))
    shapes = shapes_of(x, target)
    if not x.ndim:
        raise explained(ShapeError, call, "x needs an axis of class scores.", shapes, "Rows of scores have the shape (N, C).")
    axis = 1 if x.ndim > 1 else 0
    rows = x.shape[:axis] + x.shape[axis + 1:]
    if is_floating(target.dtype):
        raise float_labels(call, x, target)
    if target.shape != rows:
        raise explained(ShapeError, call, "the target has one label per row of scores.", [*shapes, f"expected target: {rows}"],
                        "Did you mean target.argmax(1) (one-hot labels)?" if target.shape == x.shape else
                        "x is (N, C) or (N, C, d1, ...), target (N) or (N, d1, ...).")
    check_class_weights(call, x, target, weight, axis)
    check_labels(call, target.array, x.shape[axis], ignore_index)
    return axis


def shapes_of(x, target):
    """The facts that every message about a target shows."""
    return [f"x: {x.shape}, {x.dtype}", f"target: {target.shape}, {target.dtype}"]


def float_labels(call, x, target, more=""):
    """The error for labels that are no whole numbers."""
    return explained(DTypeError, call, "class labels are whole numbers.", shapes_of(x, target), f"Convert them: target.long().{more}")


def check_class_weights(call, x, target, weight, axis):
    """One constant per class, if there are any."""
    C = x.shape[axis]
    if weight is not None and (weight.shape != (C,) or weight.requires_grad):
        raise explained(ShapeError, call, "weight has one constant per class.",
                        [f"weight: {weight.shape}, requires_grad={weight.requires_grad}", *shapes_of(x, target)],
                        f"Pass a tensor of shape ({C},) that does not require grad.")


def check_labels(call, labels, C, ignore_index):
    """Every label must be a class or ignore_index; the error names the first one that is not."""
    if not labels.size or on_cpu(labels) and labels.min() >= 0 and labels.max() < C:
        return
    wrong = ((labels < 0) | (labels >= C)) & (labels != ignore_index)

    def complain():
        first = tuple(int(k[0]) for k in wrong.nonzero()) if wrong.ndim else ()
        raise explained(RangeError, call, f"a label must lie between 0 and C − 1 = {C - 1}.",
                        [f"target[{', '.join(map(str, first))}] = {int(labels[first])}", f"classes: C = {C}",
                         f"ignore_index: {ignore_index}"],
                        "Do the labels start at 1? Then pass target - 1." if int(labels[first]) == C else
                        "Check the labels, or the number of classes.")

    require(~wrong.any(), complain)


__all__ = ["cross_entropy", "cross_entropy_grad", "mse_loss"]
