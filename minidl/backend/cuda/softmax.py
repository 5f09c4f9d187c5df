"""Launchers of softmax.cu: softmax and log_softmax along any axis, cross-entropy of class labels with its gradient."""

from functools import partial

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.cuda import launch
from minidl.backend.cuda.geometry import THREADS, ceil_div, contiguous, only_float32
from minidl.backend.layout import empty, stored
from minidl.core.device import array_module

KEPT = 32 * 32       # numbers of a row that a warp keeps in registers
WARPS = THREADS // 32
MOST = 2**31 - 1     # rows, or numbers of a line


def line_sizes(x, dim):
    """(outer, n, inner) of an axis, in the order in which x is stored."""
    order = (0, 2, 3, 1) if x.ndim == 4 else tuple(range(x.ndim))
    at, shape = order.index(dim % x.ndim), [x.shape[k] for k in order]
    return int(np.prod(shape[:at])), shape[at], int(np.prod(shape[at + 1:]))


def accepts(x, dim, rung):
    """"" or why this rung cannot."""
    reason = only_float32(x)
    if reason:
        return reason
    outer, n, inner = line_sizes(x, dim)
    if max(outer, n, inner) > MOST:
        return "more than 2³¹ lines"
    if rung != "softmax_v1_thread_per_line" and inner > 1:
        return NotFor("the lines are no rows in memory")
    return NotFor(f"a warp keeps at most {KEPT} numbers in registers") if rung == "softmax_v2_warp_per_row" and n > KEPT else ""


def _softmax(x, dim, rung, logarithm):
    x = stored(x)
    (outer, n, inner), y = line_sizes(x, dim), empty(x.shape, x.dtype, x)
    common = {"x": x, "y": y, "n": n, "logarithm": logarithm}
    start = launch.kernel("softmax.cu", rung)
    if rung == "softmax_v2_warp_per_row":
        start((ceil_div(outer, WARPS),), (THREADS,), **common, rows=outer)
    elif rung == "softmax_v3_block_per_row_online":
        start((outer,), (THREADS,), **common)
    else:
        start((ceil_div(outer * inner, THREADS),), (THREADS,), **common, lines=outer * inner, inner=inner)
    return y


RUNGS = {"softmax_v2_warp_per_row": "a warp per row, which stays in its registers",
         "softmax_v3_block_per_row_online": "a block per row, largest and sum in one reading",
         "softmax_v1_thread_per_line": "a thread per line, along any axis"}
for _rung, _why in RUNGS.items():
    for _op in ("softmax", "log_softmax"):
        implements(_op, f"cuda/{_rung}", partial(accepts, rung=_rung), _why)(partial(_softmax, rung=_rung, logarithm=int(_op != "softmax")))


# --- cross-entropy of class labels ------------------------------------------------------------------------------------

def rows_of_classes(x, *others):
    """"" if the class axis of x (the second, or the only one) is the last in memory, in float32; else why not."""
    return only_float32(x, *others) or ("" if x.ndim in (1, 2, 4) else "the classes of a row do not lie side by side")


def accepts_loss(x, labels, weight, axis, smoothing, ignore_index):
    """"" or why the kernels cannot."""
    return rows_of_classes(x, weight)


def accepts_grad(grad_rows, x, labels, weight, axis, smoothing, ignore_index):
    """"" or why the kernels cannot."""
    return rows_of_classes(x, grad_rows, weight)


def as_labels(labels):
    """Labels as the kernels take them."""
    return contiguous(labels.astype(np.int64, copy=False))


@implements("cross_entropy", "cuda/cross_entropy_rows", accepts_loss, "softmax, loss and their sums without an array between them")
def cross_entropy(x, labels, weight, axis, smoothing, ignore_index):
    """(loss of every row, what the mean divides by, the sum and the mean)."""
    loss, sums = rows_and_sums(x, labels, weight, smoothing, ignore_index)
    return loss, sums[1], {"sum": sums[0], "mean": sums[2]}


@implements("cross_entropy_grad", "cuda/cross_entropy_grad", accepts_grad, "reads the scores, writes the gradient, nothing between")
def cross_entropy_grad(grad_rows, x, labels, weight, axis, smoothing, ignore_index):
    """grad_rows · (softmax(x) · Σ q − q)."""
    return grad_of_rows(grad_rows, x, labels, weight, None, smoothing, ignore_index)


def rows_and_sums(x, labels, weight, smoothing, ignore_index):
    """(loss of every row, [Σ loss, Σ weight of the labels, their quotient]); nothing leaves the device."""
    x, xp = stored(x), array_module(x)
    C = x.shape[1 if x.ndim > 1 else 0]
    rows = x.size // C
    loss, weights = (xp.empty(labels.shape, np.float32) for _ in range(2))
    launch.kernel("softmax.cu", "cross_entropy_rows")(
        (ceil_div(rows, WARPS),), (THREADS,), x=x, labels=as_labels(labels), w=contiguous(weight), loss=loss, weight=weights,
        rows=rows, C=C, smoothing=smoothing, ignored=ignore_index)
    sums = xp.empty(3, np.float32)
    launch.kernel("softmax.cu", "cross_entropy_total")((1,), (THREADS,), loss=loss, weight=weights, sums=sums, rows=rows)
    return loss, sums


def grad_of_rows(grad, x, labels, weight, divisor, smoothing, ignore_index):
    """grad_x; grad is one number or one per row, divisor None or an array of one number."""
    x, grad = stored(x), contiguous(grad)
    C, grad_x = x.shape[1 if x.ndim > 1 else 0], empty(x.shape, x.dtype, x)
    rows = x.size // C
    launch.kernel("softmax.cu", "cross_entropy_grad")(
        (ceil_div(rows, WARPS),), (THREADS,), grad=grad, divisor=divisor, x=x, labels=as_labels(labels), w=contiguous(weight),
        grad_x=grad_x, grad_step=int(grad.size > 1), rows=rows, C=C, smoothing=smoothing,
        ignored=ignore_index)
    return grad_x
