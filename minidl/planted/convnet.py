"""Mistakes in convolution and pooling: windows that overlap, filters the wrong way round, groups, borders, ceil_mode."""

import numpy as np

from minidl.core.examples import distinct, normal
from minidl.core.op import example
from minidl.core.tensor import Tensor
from minidl.ops import cat, conv2d_grad_x, flip
from minidl.planted.plant import changed, mistake

CONV = [example(normal(2, 2, 4, 3), normal(2, 2, 3, 3), normal(2), padding=1)]


@mistake("conv2d", guess="= for += ?", examples=[example(normal(1, 2, 4, 5), normal(2, 2, 3, 2))])
def col2im_assigns(right, a):
    """grad_x[window] = ... instead of grad_x[window] += ...

    A pixel that several windows saw keeps the gradient of the last one. With stride = kernel size it is right.
    """
    def backward(grad_y):
        columns = np.einsum("nopq,ocij->ncijpq", grad_y.array, a.weight.array)                      # (N, C, KH, KW, OH, OW)
        grad_x = np.zeros(a.x.shape, a.x.dtype)
        for i, j in np.ndindex(*a.weight.shape[2:]):
            grad_x[:, :, i:i + grad_y.shape[2], j:j + grad_y.shape[3]] = columns[:, :, i, j]
        return Tensor(grad_x), *right(grad_y)[1:]

    return backward


@mistake("conv2d", examples=CONV)
def kernel_not_turned_round(right, a):
    """The image's gradient is correlated with the filter as it is, not turned by 180°.

    The gradient of a correlation is a convolution. Symmetric filters hide it.
    """
    def backward(grad_y):
        turned = conv2d_grad_x(grad_y, flip(a.weight, (2, 3)), a.x.shape, a.stride, a.padding, a.dilation, a.groups)
        return turned, *right(grad_y)[1:]

    return backward


@mistake("conv2d", guess="transposed", examples=CONV)
def kernel_axes_exchanged(right, a):
    """Rows and columns of the filters' gradient are exchanged.

    KH and KW in the wrong order in one reshape; square filters have the right shape.
    """
    def exchanged(grad_w):
        return grad_w.transpose(2, 3)

    def backward(grad_y):
        return changed(right(grad_y), 1, exchanged)

    return backward


@mistake("conv2d", guess="off by the factor 0.5", examples=CONV)
def bias_gradient_averaged(right, a):
    """The bias's gradient is the mean over the batch instead of the sum.

    The loss has taken its mean already.
    """
    def averaged(grad_bias):
        return grad_bias / a.x.shape[0]

    def backward(grad_y):
        return changed(right(grad_y), 2, averaged)

    return backward


@mistake("conv2d", examples=[example(normal(2, 4, 4, 3), normal(4, 2, 2, 2), groups=2)])
def groups_mixed_up(right, a):
    """The filters' gradient of one group is given to the other.

    reshape(groups, ...) on the wrong one of two neighbouring axes.
    """
    def other_group_first(grad_w):
        half = grad_w.shape[0] // 2
        return cat([grad_w.narrow(0, half, half), grad_w.narrow(0, 0, half)])

    def backward(grad_y):
        return changed(right(grad_y), 1, other_group_first)

    return backward


@mistake("avg_pool2d", examples=[example(normal(1, 2, 5, 4), 3, 2, 1, count_include_pad=False)])
def padding_counted_in_the_mean(right, a):
    """The gradient divides by the size of the kernel, also at the border where fewer pixels were averaged.

    count_include_pad in the forward, forgotten in the backward: wrong along the border only.
    """
    def backward(grad_y):
        padded = np.pad(np.ones(a.x.shape), ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]  # (N, C, OH, OW, 3, 3)
        return right(grad_y * Tensor(windows.sum((4, 5)) / 9))

    return backward


@mistake("avg_pool2d", examples=[example(normal(1, 2, 5, 5), 2, ceil_mode=True)])
def ceil_mode_ends_one_early(right, a):
    """The windows that ceil_mode adds at the far side get no gradient.

    The backward computes its own number of windows, rounded down.
    """
    def backward(grad_y):
        inner = np.zeros(grad_y.shape)
        inner[:, :, :-1, :-1] = 1
        return right(grad_y * Tensor(inner))

    return backward


@mistake("max_pool2d", examples=[example(distinct(1, 2, 4, 4), 2)])
def pool_gradient_to_the_whole_window(right, a):
    """Every pixel of a window gets a share of the gradient.

    The gradient of average pooling. The network trains, a little worse.
    """
    def backward(grad_y, *indices):
        return Tensor(np.repeat(np.repeat(grad_y.array, 2, 2), 2, 3) / 4)

    return backward


@mistake("max_pool2d", guess="= for += ?", examples=[example(distinct(1, 1, 5, 5), 3, 1)])
def overlapping_winners_assigned(right, a):
    """grad_x[winner] = grad_y: a pixel that won several windows keeps the gradient of one.

    = for += again; it shows only where windows overlap.
    """
    def backward(grad_y, *indices):
        grad_x = np.zeros(a.x.shape)
        for p, q in np.ndindex(*grad_y.shape[2:]):
            window = a.x.array[0, 0, p:p + 3, q:q + 3]
            i, j = np.unravel_index(window.argmax(), window.shape)
            grad_x[0, 0, p + i, q + j] = grad_y.array[0, 0, p, q]
        return Tensor(grad_x)

    return backward
