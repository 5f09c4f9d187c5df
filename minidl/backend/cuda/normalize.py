"""Launchers of batchnorm.cu, batchnorm_grad.cu and layernorm.cu: batch, instance, group and layer normalisation.

All but layer norm are S segments of R rows of C channels in G groups: batch norm is one segment, instance and group norm
have one per image. Layer norm has rows of its own.
"""

from functools import partial

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.cuda import launch
from minidl.backend.cuda.geometry import THREADS, aligned, ceil_div, contiguous, only_float32, tiles
from minidl.backend.layout import empty, stored
from minidl.core.device import array_module

MOST_SEGMENTS = 65535  # the third size of a grid
FINE = 4096            # blocks of a kernel that merges nothing: a last wave that is half empty is then a small part
MOST_IN_REGISTERS = 4 * 4 * THREADS  # columns: PACKS of four floats for each thread
RUNGS = {4: "v3_float4", 1: "v2_tile"}


class Shape:
    """How the kernels see an array: S segments of R rows of C channels in G groups, cut into tiles."""

    def __init__(self, x, per_image=False, groups=None, width=1):
        self.C, self.S = x.shape[1], x.shape[0] if per_image else 1
        self.R, self.G = x.size // (self.C * self.S), groups or x.shape[1]
        self.grid, self.block, self.rows = tiles(self.R, self.C, self.S, width)
        self.T, self.width = self.grid[1], width
        self.fine = tiles(self.R, self.C, self.S, width, blocks=FINE)

    def parts(self, like):
        """Two numbers for every tile and channel."""
        return (array_module(like).empty((self.S, self.T, self.C), np.float32) for _ in range(2))

    def run(self, file, name, fine=False, **arguments):
        """Launch a tile kernel of this rung; fine where no tile leaves a part that must be merged."""
        grid, block, rows = self.fine if fine else (self.grid, self.block, self.rows)
        launch.kernel(file, f"{name}_{RUNGS[self.width]}")(grid, block, **arguments, R=self.R, C=self.C, rows_of_tile=rows)

    def warps(self, n):
        """(grid, block) with one warp for each of n numbers."""
        return (ceil_div(32 * n, 128),), (128,)


def statistics(x, shape):
    """Mean and variance of every segment and group, (S·G)."""
    part_mean, part_m2 = shape.parts(x)
    shape.run("batchnorm.cu", "norm_statistics", x=x, part_mean=part_mean, part_m2=part_m2)
    mean, var = (array_module(x).empty(shape.S * shape.G, np.float32) for _ in range(2))
    launch.kernel("batchnorm.cu", "norm_merge")(
        *shape.warps(shape.S * shape.G), part_mean=part_mean, part_m2=part_m2, mean=mean, var=var, S=shape.S, R=shape.R, C=shape.C,
        G=shape.G, T=shape.T, rows_of_tile=shape.rows)
    return mean, var


def applied(x, mean, var, weight, bias, add, eps, relu, shape):
    """y from statistics that are known."""
    y = empty(x.shape, x.dtype, x)
    shape.run("batchnorm.cu", "norm_apply", True, x=x, mean=mean, var=var, w=contiguous(weight), b=contiguous(bias),
              add=None if add is None else stored(add), y=y, eps=eps, with_relu=int(relu), G=shape.G)
    return y


def gradients(grad_y, x, y, weight, bias, mean, var, eps, relu, shape, need_add=False):
    """(grad_x, grad_w, grad_b, grad_add); y None with relu computes the mask again from x."""
    xp, (grad_y, x) = array_module(x), (stored(grad_y), stored(x))
    part_g, part_gu = shape.parts(x)
    y = None if y is None else stored(y)
    common = {"grad_y": grad_y, "x": x, "y": y, "mean": mean, "var": var, "w": contiguous(weight), "b": contiguous(bias), "eps": eps,
              "with_relu": int(relu), "G": shape.G}
    shape.run("batchnorm_grad.cu", "norm_grad_sums", **common, part_g=part_g, part_gu=part_gu)
    mean_g, mean_gu = (xp.empty(shape.S * shape.G, np.float32) for _ in range(2))
    grad_w, grad_b = (xp.empty(shape.C, np.float32) for _ in range(2))
    launch.kernel("batchnorm_grad.cu", "norm_grad_merge")(
        *shape.warps(shape.S * shape.G + shape.C), part_g=part_g, part_gu=part_gu, w=common["w"], mean_g=mean_g, mean_gu=mean_gu,
        grad_w=grad_w, grad_b=grad_b, S=shape.S, R=shape.R, C=shape.C, G=shape.G, T=shape.T)
    grad_x = empty(x.shape, x.dtype, x)
    grad_add = empty(x.shape, x.dtype, x) if need_add else None
    shape.run("batchnorm_grad.cu", "norm_grad_apply", True, **common, mean_g=mean_g, mean_gu=mean_gu, grad_x=grad_x, grad_add=grad_add)
    return grad_x, grad_w, grad_b, grad_add


# --- what is accepted -------------------------------------------------------------------------------------------------

def rows_of_channels(x, *others, width=1):
    """"" if x is (N, C) or stored channels-last, in float32, and the rung takes its number of channels."""
    if x.ndim not in (2, 4):
        return f"{x.ndim}-D arrays are not stored channels-last"
    reason = only_float32(x, *others)
    if reason:
        return reason
    if width == 4 and (x.shape[1] % 4 or not aligned(x, *others)):
        return NotFor("16-byte loads need a multiple of 4 channels" if x.shape[1] % 4 else "16-byte loads need aligned arrays")
    return ""


def over_images(x, axes, groups, weight_axes):
    """Is this instance or group norm of images? "" or why not."""
    if x.ndim == 4 and tuple(axes) == (2, 3) and tuple(weight_axes) == (1,):
        return "" if x.shape[0] <= MOST_SEGMENTS else f"more than {MOST_SEGMENTS} images"
    return NotFor("not a mean over the positions of an image")


def over_rows(x, axes, groups, weight_axes):
    """Is this layer norm of rows that lie in one piece? "" or why not."""
    if groups is not None or tuple(axes) != tuple(weight_axes) or tuple(axes) != tuple(range(x.ndim - len(axes), x.ndim)) or not axes:
        return NotFor("not a mean over the last axes")
    return "a row is no single piece of a channels-last array" if x.ndim == 4 and axes[0] > 1 else ""


# --- batch norm -------------------------------------------------------------------------------------------------------

def _train(x, weight, bias, add, eps, relu, width):
    x, shape = stored(x), Shape(x, width=width)
    mean, var = statistics(x, shape)
    return applied(x, mean, var, weight, bias, add, eps, relu, shape), mean, var


def _eval(x, mean, var, weight, bias, add, eps, relu, width):
    return applied(stored(x), contiguous(mean), contiguous(var), weight, bias, add, eps, relu, Shape(x, width=width))


def _grad(grad_y, x, weight, mean, var, y=None, *, eps, add=False, width):
    grads = gradients(grad_y, x, y, weight, None, contiguous(mean), contiguous(var), eps, y is not None, Shape(x, width=width), add)
    return grads if add else grads[:3]


def accepts_train(x, weight, bias, add, eps, relu, width=1):
    """"" or why the kernels cannot."""
    return rows_of_channels(x, weight, bias, add, width=width)


def accepts_eval(x, mean, var, weight, bias, add, eps, relu, width=1):
    """"" or why the kernels cannot."""
    return rows_of_channels(x, mean, var, weight, bias, add, width=width)


def accepts_grad(grad_y, x, weight, mean, var, y=None, *, eps, add=False, width=1):
    """"" or why the kernels cannot."""
    return rows_of_channels(x, grad_y, weight, mean, var, y, width=width)


WHY = {4: "three passes over the batch, 16 bytes a load", 1: "three passes over the batch, neighbours read neighbours"}
for _width, _rung in RUNGS.items():
    for _op, _function, _accepts in (("batch_norm_train", _train, accepts_train), ("batch_norm_eval", _eval, accepts_eval),
                                     ("batch_norm_grad", _grad, accepts_grad)):
        implements(_op, f"cuda/norm_{_rung}", partial(_accepts, width=_width), WHY[_width])(partial(_function, width=_width))


def accepts_v1(x, weight, bias, add, eps, relu):
    """"" or why the first rung cannot."""
    return rows_of_channels(x, weight, bias) or (NotFor("this rung adds nothing and has no relu") if relu or add is not None else "")


@implements("batch_norm_train", "cuda/batch_norm_v1_block_per_channel", accepts_v1, "the readable one: a block per channel")
def block_per_channel(x, weight, bias, add, eps, relu):
    """(y, mean, variance): a block per channel, for reading."""
    x, (C, xp) = stored(x), (x.shape[1], array_module(x))
    y, mean, var = empty(x.shape, x.dtype, x), xp.empty(C, np.float32), xp.empty(C, np.float32)
    launch.kernel("batchnorm.cu", "batch_norm_v1_block_per_channel")(
        (C,), (THREADS,), x=x, w=contiguous(weight), b=contiguous(bias), y=y, mean=mean, var=var, eps=eps, R=x.size // C, C=C)
    return y, mean, var


def accepts_running(mean, var, running_mean, running_var, momentum, unbias):
    """"" or why the kernel cannot."""
    arrays = [a for a in (mean, var, running_mean, running_var) if a is not None]
    return only_float32(*arrays) or ("" if all(a.flags.c_contiguous for a in arrays) else "an array is no single piece of memory")


@implements("running_averages", "cuda/norm_running_averages", accepts_running)
def running_averages(mean, var, running_mean, running_var, momentum, unbias):
    """Move the running averages (either may be None) in place, both in one launch."""
    C = mean.size
    launch.kernel("batchnorm.cu", "norm_running_averages")(
        (ceil_div(C, THREADS),), (THREADS,), mean=mean, var=var, running_mean=running_mean, running_var=running_var,
        momentum=momentum, unbias=unbias, C=C)


# --- instance, group and layer norm -----------------------------------------------------------------------------------

def per_channel(values, x, groups):
    """Statistics (S·G) as the op hands them on: (N, C, 1, 1), every group's repeated for its channels."""
    N, C = x.shape[:2]
    return values.reshape(N, groups, 1).repeat(C // groups, axis=2).reshape(N, C, 1, 1) if groups else values.reshape(N, C, 1, 1)


def per_group(values, groups):
    """The way back: one of the equal numbers of every group."""
    N, C = values.shape[:2]
    return contiguous(values.reshape(N, groups or C, -1)[:, :, 0]).reshape(-1)


def _images(x, weight, bias, axes, groups, weight_axes, eps, width):
    x, shape = stored(x), Shape(x, True, groups, width)
    mean, var = statistics(x, shape)
    y = applied(x, mean, var, weight, bias, None, eps, False, shape)
    return y, per_channel(mean, x, groups), per_channel(var, x, groups)


def _images_grad(grad_y, x, weight, mean, var, axes, groups, weight_axes, eps, width):
    shape = Shape(x, True, groups, width)
    return gradients(grad_y, x, None, weight, None, per_group(mean, groups), per_group(var, groups), eps, False, shape)[:3]


def accepts_images(x, weight, bias, axes, groups, weight_axes, eps, width=1):
    """"" or why the kernels cannot."""
    return over_images(x, axes, groups, weight_axes) or rows_of_channels(x, weight, bias, width=width)


def accepts_images_grad(grad_y, x, weight, mean, var, axes, groups, weight_axes, eps, width=1):
    """"" or why the kernels cannot."""
    return over_images(x, axes, groups, weight_axes) or rows_of_channels(x, grad_y, weight, mean, var, width=width)


for _width, _rung in RUNGS.items():
    implements("normalize_over", f"cuda/norm_{_rung}", partial(accepts_images, width=_width), WHY[_width])(partial(_images, width=_width))
    implements("normalize_over_grad", f"cuda/norm_{_rung}", partial(accepts_images_grad, width=_width), "five passes over the batch")(
        partial(_images_grad, width=_width))


def as_lies(weight, x):
    """A weight over the last axes in the order in which a row of x lies in memory: channels last in a 4-D x."""
    return contiguous(weight.transpose(1, 2, 0) if weight is not None and x.ndim == 4 else weight)


def columns_of(x, axes):
    """How many numbers a row has."""
    return int(np.prod([x.shape[k] for k in axes]))


def accepts_rows(x, weight, bias, axes, groups, weight_axes, eps):
    """"" or why the kernels cannot."""
    return over_rows(x, axes, groups, weight_axes) or only_float32(x, weight, bias)


def accepts_registers(x, weight, bias, axes, groups, weight_axes, eps):
    """"" or why the row cannot stay in registers."""
    reason, C = accepts_rows(x, weight, bias, axes, groups, weight_axes, eps), columns_of(x, axes)
    if reason or C % 4 == 0 and C <= MOST_IN_REGISTERS and aligned(x, weight, bias):
        return reason
    return NotFor(f"the row has {C} numbers: registers take aligned multiples of 4 up to {MOST_IN_REGISTERS}")


def _rows(x, weight, bias, axes, groups, weight_axes, eps, rung):
    x, C, xp = stored(x), columns_of(x, axes), array_module(x)
    R = x.size // C
    y, mean, var = empty(x.shape, x.dtype, x), xp.empty(R, np.float32), xp.empty(R, np.float32)
    threads = min(THREADS, 32 * ceil_div(C, 16 * 32))  # four packs of four numbers for each
    launch.kernel("layernorm.cu", rung)((R,), (threads,), x=x, w=as_lies(weight, x), b=as_lies(bias, x), y=y, mean=mean, var=var,
                                        eps=eps, C=C)
    kept = [1 if k in axes else n for k, n in enumerate(x.shape)]
    return y, mean.reshape(kept), var.reshape(kept)


for _rung, _accepts, _why in (("layer_norm_v2_row_in_registers", accepts_registers, "reads every row once, 16 bytes a load"),
                              ("layer_norm_v1_block_per_row", accepts_rows, "a block per row, of any length")):
    implements("normalize_over", f"cuda/{_rung}", _accepts, _why)(partial(_rows, rung=_rung))


def accepts_rows_grad(grad_y, x, weight, mean, var, axes, groups, weight_axes, eps):
    """"" or why the kernels cannot."""
    return over_rows(x, axes, groups, weight_axes) or only_float32(x, grad_y, weight, mean, var)


@implements("normalize_over_grad", "cuda/layer_norm_grad_rows", accepts_rows_grad)
def rows_grad(grad_y, x, weight, mean, var, axes, groups, weight_axes, eps):
    """(grad_x, grad_w, grad_b): a block per row for grad_x, tiles of rows for the columns' sums."""
    grad_y, x, C, xp = stored(grad_y), stored(x), columns_of(x, axes), array_module(x)
    R, mean, var = x.size // C, contiguous(mean).reshape(-1), contiguous(var).reshape(-1)
    grad_x = empty(x.shape, x.dtype, x)
    launch.kernel("layernorm.cu", "layer_norm_grad_rows")((R,), (THREADS,), grad_y=grad_y, x=x, w=as_lies(weight, x), mean=mean, var=var,
                                                          grad_x=grad_x, eps=eps, C=C)
    grid, block, rows = tiles(R, C)
    part_g, part_gu = (xp.empty((grid[1], C), np.float32) for _ in range(2))
    launch.kernel("layernorm.cu", "layer_norm_grad_columns")(grid[:2], block, grad_y=grad_y, x=x, mean=mean, var=var, part_g=part_g,
                                                             part_gu=part_gu, eps=eps, R=R, C=C, rows_of_tile=rows)
    grad_w, grad_b = xp.empty(C, np.float32), xp.empty(C, np.float32)
    launch.kernel("batchnorm_grad.cu", "norm_grad_merge")(
        (ceil_div(32 * C, 128),), (128,), part_g=part_g, part_gu=part_gu, w=None, mean_g=None, mean_gu=None, grad_w=grad_w,
        grad_b=grad_b, S=1, R=R, C=C, G=0, T=grid[1])
    sizes = [x.shape[k] for k in axes]
    if x.ndim == 4 and len(axes) == 3:  # back from the order in which a row lies
        return grad_x, *(contiguous(g.reshape(*sizes[1:], sizes[0]).transpose(2, 0, 1)) for g in (grad_w, grad_b))
    return grad_x, grad_w.reshape(sizes), grad_b.reshape(sizes)
