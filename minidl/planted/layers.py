"""Mistakes in what networks are made of: normalisation, embedding, dropout, sorting, products, gelu."""

import numpy as np

from minidl.core.examples import Spec, distinct, normal, shuffled
from minidl.core.op import example
from minidl.core.tensor import Tensor
from minidl.planted.plant import changed, mistake

IMAGES = [example(normal(2, 3, 2, 2), normal(3), normal(3))]
PLANE = (0, 2, 3)  # the axes that batch norm averages over


def normalised(a, constant):
    """(u, r): the normalised images and 1 / √(var + eps); with `constant` the statistics are detached."""
    mean, var = a.x.mean(PLANE, True), a.x.var(PLANE, False, True)
    if constant:
        mean, var = mean.detach(), var.detach()
    r = (var + a.eps) ** -0.5
    return (a.x - mean) * r, r


@mistake("batch_norm_train", examples=IMAGES)
def statistics_held_constant(right, a):
    """The mean and the variance count as constants: grad_x = grad_y · w · r.

    In evaluation they are constants. While training they move with x, and two terms are missing.
    """
    _, r = normalised(a, False)

    def backward(grad_y, *_):
        return grad_y * a.weight.reshape((1, 3, 1, 1)) * r, *right(grad_y, *_)[1:]

    return backward


@mistake("batch_norm_train", guess="right to first order", examples=IMAGES)
def saved_statistics_detached(right, a):
    """The formula is right, but the saved 1/√var and mean are raw arrays: right to first order, wrong to second.

    The forward saves them anyway, so the backward uses them. Found in published libraries.
    """
    def backward(grad_y, *_):
        u, r = normalised(a, True)
        g = grad_y * a.weight.reshape((1, 3, 1, 1))
        grad_x = r * (g - g.mean(PLANE, True) - u * (g * u).mean(PLANE, True))
        return grad_x, (grad_y * u).sum(PLANE), grad_y.sum(PLANE), None

    return backward


@mistake("batch_norm_train", examples=IMAGES)
def variance_does_not_move(right, a):
    """The mean's share is subtracted, the variance's is not.

    The shorter of two terms is remembered. The network still trains.
    """
    def backward(grad_y, *_):
        _, r = normalised(a, False)
        g = grad_y * a.weight.reshape((1, 3, 1, 1))
        return r * (g - g.mean(PLANE, True)), *right(grad_y, *_)[1:]

    return backward


@mistake("embed", guess="= for += ?", examples=[example(shuffled(0, 2, 2, 1), normal(4, 3))])
def word_counted_once(right, a):
    """grad_w[index] = grad_y: a word that occurs twice learns from one of its places.

    Fancy indexing on the left of = looks like addition to those who think in loops.
    """
    def backward(grad_y):
        grad_w = np.zeros(a.weight.shape, a.weight.dtype)
        grad_w[a.index.array] = grad_y.array
        return None, Tensor(grad_w)

    return backward


@mistake("masked_scale", guess="off by the factor 0.5", examples=[example(normal(2, 3), Spec("mask", (2, 3), lambda rng, s: rng.permuted(
    np.arange(6) % 2 == 0).reshape(s), np.dtype("bool")), 2.0)])
def dropout_scale_forgotten(right, a):
    """The gradient is masked, but not scaled by 1/(1 − p).

    The scale was added to the forward later, when dropout became "inverted".
    """
    def backward(grad_y):
        return grad_y * a.mask.to(grad_y.dtype), None

    return backward


CHANCE = np.random.default_rng(7)


@mistake("masked_scale", guess="not deterministic", examples=[example(normal(4, 5), Spec("mask", (4, 5), lambda rng, s: rng.permuted(
    np.arange(20) % 2 == 0).reshape(s), np.dtype("bool")), 2.0)])
def mask_drawn_again(right, a):
    """The backward draws its own random mask.

    Chance is called wherever a mask is needed: forward and backward drop different elements.
    """
    def dropped(grad):
        return grad * Tensor((CHANCE.random(grad.shape) < 0.5).astype(grad.dtype))

    def backward(grad_y):
        return changed(right(grad_y), 0, dropped)

    return backward


@mistake("sort", examples=[example(Spec("unsorted", (5,), lambda rng, s: np.roll([0.0, 1.5, 2.0, 3.5, 5.0], rng.integers(1, 5))))])
def gradient_stays_sorted(right, a):
    """The gradient is left in the order of the sorted values.

    It has to go back to where each value came from.
    """
    def backward(grad_y, *_):
        return grad_y

    return backward


@mistake("topk", examples=[example(distinct(2, 5), 2)])
def gradient_to_the_first_places(right, a):
    """The gradients of the k largest go to places 0 to k − 1.

    Ranks mixed up with positions.
    """
    def backward(grad_y, *_):
        grad_x = np.zeros(a.x.shape, a.x.dtype)
        grad_x[..., :a.k] = grad_y.array
        return Tensor(grad_x)

    return backward


@mistake("prod", guess="not finite", examples=[example(Spec("with a zero", (4,), lambda rng, s: rng.permuted([0.0, 1.5, -2.0, 0.7])))])
def product_divided_by_each_element(right, a):
    """grad_x = grad_y · y / x.

    Right until an element is 0: then it is 0/0. The product of the others exists all the same.
    """
    def backward(grad_y):
        y = a.x.array.prod()
        with np.errstate(all="ignore"):
            return Tensor(grad_y.array * y / a.x.array)

    return backward


@mistake("gelu", examples=[example(normal(2, 3))])
def slope_of_the_approximation(right, a):
    """The forward is the exact gelu, the backward differentiates the tanh approximation.

    Both are called gelu and differ by less than a thousandth.
    """
    def backward(grad_y, *_):
        c = (2 / np.pi) ** 0.5
        t = (c * (a.x + 0.044715 * a.x ** 3)).tanh()
        return grad_y * (0.5 * (1 + t) + 0.5 * a.x * (1 - t * t) * c * (1 + 3 * 0.044715 * a.x ** 2))

    return backward
