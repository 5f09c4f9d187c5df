"""Launchers of convolution's ladder, kernels/conv*.cu: which rung takes a call (accepts), with which tile, on which grid.

The rungs stand in conv_rungs.py's order of preference; each says "" or why it leaves a call to the next. docs/kernels/conv.md
explains what each of them adds.
"""

import copy
import functools
import math

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.cuda import launch
from minidl.backend.cuda.geometry import THREADS, aligned, ceil_div, contiguous
from minidl.backend.layout import empty, stored
from minidl.backend.window import output_size
from minidl.core.config import STATE

OPS = ("conv2d", "conv2d_grad_x", "conv2d_grad_w")
LARGEST = 2**31         # elements: places in an array are 32-bit numbers from v2 on
BLOCKS_WANTED = 528     # the filter gradient is cut until it has about this many blocks: four for each processor of a large GPU
SHORTEST_PART = 512     # positions in one part of that sum, at least: shorter ones cost more to add up than they gain
DOUBLE_WORK = 2**24     # multiply-adds in float64 that a plain kernel may do; above, one product of im2col's columns is faster


class Call:
    """One convolution, whichever of its three arrays is wanted: the numbers that kernels take, and the size of the product."""

    def __init__(self, op, x_shape, w_shape, y_shape, stride, padding, dilation, groups):
        (N, C, H, W), (O, _, KH, KW), (_, _, OH, OW) = x_shape, w_shape, y_shape
        self.op, self.groups, self.stride = op, groups, stride
        self.C, self.O, self.taps = C // groups, O // groups, KH * KW
        self.elements = max(map(math.prod, (x_shape, w_shape, y_shape)))
        self.work = math.prod(y_shape) * self.taps * self.C
        self.pointwise = (KH, KW, *stride, *padding[0], *padding[1]) == (1, 1, 1, 1, 0, 0, 0, 0)
        if self.pointwise:  # one image, one row: positions are numbered through
            (N, H, W), (OH, OW) = (1, 1, N * H * W), (1, N * H * W)
        self.numbers = {"N": N, "C": C, "H": H, "W": W, "O": O, "OH": OH, "OW": OW, "KH": KH, "KW": KW, "SH": stride[0], "SW": stride[1],
                        "PT": padding[0][0], "PL": padding[1][0], "DH": dilation[0], "DW": dilation[1], "groups": groups}

    def with_channels(self, C):
        """The same call on an image that got more channels (one group)."""
        other = copy.copy(self)
        other.C, other.numbers = C, self.numbers | {"C": C}
        return other

    @property
    def product(self):
        """(M, N) of the matrix product, and how many such products there are side by side."""
        n = self.numbers
        if self.op == "conv2d":
            return n["N"] * n["OH"] * n["OW"], self.O, self.groups
        if self.op == "conv2d_grad_w":
            return self.O, self.taps * self.C, self.groups
        return n["N"] * ceil_div(n["H"], n["SH"]) * ceil_div(n["W"], n["SW"]), self.C, self.groups * n["SH"] * n["SW"]

    @property
    def positions(self):
        """How many windows there are: the length of the filter gradient's sums."""
        return self.numbers["N"] * self.numbers["OH"] * self.numbers["OW"]

    @functools.cached_property
    def cut(self):
        """(positions in a part, how many parts) of the filter gradient's sums. From the sizes alone: same sizes, same bits."""
        M, N, groups = self.product
        wanted = min(ceil_div(BLOCKS_WANTED, ceil_div(M, 128) * ceil_div(N, 128) * groups), ceil_div(self.positions, SHORTEST_PART))
        part = ceil_div(ceil_div(self.positions, wanted), 16) * 16  # whole steps of the tile loops
        return part, ceil_div(self.positions, part)


def call_of(op, first, second, stride, padding, dilation, groups, x_shape=None, w_shape=None):
    """The Call of an op, from its first two arrays as backends get them."""
    how = (stride, padding, dilation, groups)
    if op == "conv2d":
        size = output_size(first.shape, second.shape[2:], stride, padding, dilation)
        return Call(op, first.shape, second.shape, (first.shape[0], second.shape[0], *size), *how)
    if op == "conv2d_grad_x":
        return Call(op, x_shape, second.shape, first.shape, *how)
    return Call(op, first.shape, w_shape, second.shape, *how)


# --- the arrays, by the names in the .cu text -------------------------------------------------------------------------

def arrays_of(op, first, second, bias, result):
    """What every kernel of the op takes, in storage order."""
    first, second = stored(first), stored(second)
    if op == "conv2d":
        return {"x": first, "w": second, "bias": contiguous(bias), "y": result}
    if op == "conv2d_grad_x":
        return {"grad_y": first, "w": second, "grad_x": result}
    return {"x": first, "grad_y": second, "grad_w": result}


def result_of(op, first, second, stride, padding, dilation, x_shape=None, w_shape=None, **_):
    """An empty array for the op's result."""
    if op == "conv2d":
        shape = (first.shape[0], second.shape[0], *output_size(first.shape, second.shape[2:], stride, padding, dilation))
    else:
        shape = x_shape or w_shape
    return empty(tuple(shape), first.dtype, first)


# --- launching --------------------------------------------------------------------------------------------------------

def one_thread_each(call, arrays):
    """v1: a thread per element of the result."""
    result = list(arrays.values())[-1]
    per = {"conv2d": "output", "conv2d_grad_x": "pixel", "conv2d_grad_w": "weight"}[call.op]
    double = "_f64" if result.dtype == np.float64 else ""
    launch.kernel("conv.cu", f"{call.op}_v1_thread_per_{per}{double}")(
        (ceil_div(result.size, THREADS),), (THREADS,), **arrays, **call.numbers)


def tiled(call, arrays, file, name, tile, threads, **defines):
    """v2 to v6: a grid of tiles; the filter gradient in parts, which are added up afterwards in order."""
    (M, N, products), (BM, BN) = call.product, tile
    kernel = launch.kernel(file, name, **defines)
    across = ceil_div(M, BM) * ceil_div(N, BN)
    if call.op != "conv2d_grad_w":
        kernel((across, 1, products), threads, **arrays, **call.numbers)
        return
    grad_w, (part, splits) = arrays["grad_w"], call.cut
    C, whole = grad_w.shape[1], call.numbers["C"] // call.groups  # they differ where channels were added to make 16 bytes
    parts = grad_w if splits == 1 and whole == C else empty((splits * M * products, N), grad_w.dtype, grad_w)
    kernel((across, 1, products * splits), threads, **arrays | {"grad_w": parts}, part=part, splits=splits, **call.numbers)
    if parts is not grad_w:
        launch.kernel("conv_parts.cu", "sum_in_order")(
            (ceil_div(grad_w.size, THREADS),), (THREADS,), parts=parts, sum=grad_w, PARTS=splits, SIZE=grad_w.size, C=C, WHOLE=whole)


def tile_for(call):
    """(BM, BN) of the blocked rungs: 128 × 128, less where the result is narrow or has too few tiles to go round."""
    M, N, products = call.product
    BN = 64 if N <= 64 else 128
    few = ceil_div(M, 128) * ceil_div(N, BN) * products < BLOCKS_WANTED // 4 and call.op != "conv2d_grad_w"
    return (64 if M <= 64 or few else 128), BN


# --- what a rung takes ------------------------------------------------------------------------------------------------

def common(call, arrays):
    """"" or why no kernel from v2 on takes these arrays."""
    if arrays[0].dtype != np.float32:
        return f"the kernel computes in float32, and the arrays are {arrays[0].dtype}"
    if not call.work:
        return NotFor("there is nothing to multiply: generic fills in the zeros")
    return f"an array has {LARGEST} elements or more: places in it need 64 bits" if call.elements >= LARGEST else ""


def architecture(array):
    """Compute capability as a number, 90 for an H200; where nobody says it, the newest that the kernels are written for."""
    return int(getattr(getattr(array, "device", None), "compute_capability", 90))


def accepts_wide(call, arrays, least, newest=0):
    """"" or why a rung that works in tiles of at least `least` columns leaves this call to others."""
    narrow = min(call.product[:2]) if call.op == "conv2d_grad_w" else call.product[1]
    if architecture(arrays[0]) < newest:
        return f"it needs compute capability {newest / 10}, and this device has {architecture(arrays[0]) / 10}"
    return common(call, arrays) or (NotFor(f"{narrow} columns would fill too little of a tile of {least * 4}") if narrow < least else "")


def accepts_plain(call, arrays):
    """v1 takes everything; much float64 goes faster as one product of matrices."""
    if arrays[0].dtype == np.float64 and call.work <= DOUBLE_WORK and call.work:
        return ""
    if arrays[0].dtype == np.float64 and call.work:
        return NotFor(f"{call.work:.2g} multiply-adds in float64 are faster as a product of im2col's columns")
    if not call.work:
        return NotFor("there is nothing to multiply: generic fills in the zeros")
    return "" if arrays[0].dtype == np.float32 else f"the kernel computes in float32 and float64, and the arrays are {arrays[0].dtype}"


def accepts_tensor_cores(call, arrays, precision):
    """TF32 keeps 10 bits of a number: only where the user says so."""
    if STATE.tf32 is not precision and STATE.tf32 != precision:
        wanted = "use_tf32()" if precision is True else f"use_tf32({precision!r})"
        return NotFor(f"tensor cores round to 10 bits: only inside {wanted}")
    if call.O % 4 or call.C % 4 and (call.groups > 1 or call.op == "conv2d_grad_x") or not aligned(*arrays):
        return NotFor("16-byte loads need channels in fours and aligned arrays")
    return accepts_wide(call, arrays, 16, 80)


# --- the rungs --------------------------------------------------------------------------------------------------------

def run_plain(call, arrays):
    """v1: a thread per number of the result, the formula as it stands."""
    one_thread_each(call, arrays)


def run_shared(call, arrays, tile=32):
    """v2: tiles of the product in shared memory."""
    tiled(call, arrays, "conv.cu", f"{call.op}_v2_shared_tile", (tile, tile), (tile, tile), TILE=tile)


def run_blocked(call, arrays, tile=None):
    """v3: 8 × 8 outputs a thread, 16 bytes a load."""
    BM, BN = tile or tile_for(call)
    VEC = 4 if call.C % 4 == call.O % 4 == 0 and aligned(*arrays.values()) else 1
    tiled(call, arrays, "conv_blocked.cu", f"{call.op}_v3_register_blocked", (BM, BN), (BM * BN // 64,), BM=BM, BN=BN, VEC=VEC,
          POINTWISE=int(call.pointwise))


def run_pipelined(call, arrays, tile=None):
    """v4: as v3, and the next tiles arrive while this one is multiplied."""
    BM, BN = tile or tile_for(call)
    in_fours = {"conv2d": (call.O,), "conv2d_grad_x": (call.C,), "conv2d_grad_w": (call.C, call.O)}[call.op]  # the others are turned anyway
    VEC = 4 if all(n % 4 == 0 for n in in_fours) and aligned(*arrays.values()) else 1
    tiled(call, arrays, "conv_blocked.cu", f"{call.op}_v4_double_buffered", (BM, BN), (BM * BN // 64,), BM=BM, BN=BN, VEC=VEC,
          POINTWISE=int(call.pointwise))


def run_mma(call, arrays, rung, tile=None):
    """v5 and v6: tensor cores. An image of 3 channels gets a fourth, so that 16-byte loads fit."""
    if call.C % 4:
        whole = ceil_div(call.C, 4) * 4
        arrays = arrays | {name: padded(arrays[name], whole) for name in arrays if name == "x" or name == "w"}
        call = call.with_channels(whole)
    BM, BN = tile or tile_for(call)
    WM = min(64, BM)
    tiled(call, arrays, "conv_mma.cu", f"{call.op}_{rung}", (BM, BN), (BM // WM * (BN // 32) * 32,), BM=BM, BN=BN, WM=WM, WN=32,
          POINTWISE=int(call.pointwise))


def padded(array, whole):
    """The same image or filters with zeros for channels beyond its own."""
    n, c, h, w = array.shape
    y = empty((n, whole, h, w), array.dtype, array)
    launch.kernel("conv_parts.cu", "pad_channels")(
        (ceil_div(n * h * w, THREADS),), (THREADS,), x=array, y=y, PIXELS=n * h * w, C=c, WHOLE=whole)
    return y


def register(name, runner, accepts, why):
    """One rung as an implementation of the three ops."""
    for op in OPS:
        def accept(*arrays, op=op, **how):
            return accepts(call_of(op, *arrays[:2], **how), arrays)

        def run(first, second, bias=None, *, op=op, **how):
            arrays = arrays_of(op, first, second, bias, result_of(op, first, second, **how))
            runner(call_of(op, first, second, **how), arrays)
            return list(arrays.values())[-1]

        implements(op, f"cuda/{name}", accept, why)(run)


register("v5_tf32", functools.partial(run_mma, rung="v5_tf32"), functools.partial(accepts_tensor_cores, precision=True),
         "tensor cores, factors rounded to 10 bits")
register("v6_3xtf32", functools.partial(run_mma, rung="v6_3xtf32"), functools.partial(accepts_tensor_cores, precision="3x"),
         "tensor cores, three products for one: about float32's precision")
register("v4_double_buffered", run_pipelined, lambda call, arrays: accepts_wide(call, arrays, 16, 80),
         "8 × 8 outputs a thread, the next tiles on their way meanwhile")
register("v3_register_blocked", run_blocked, lambda call, arrays: accepts_wide(call, arrays, 16), "8 × 8 outputs a thread")
register("v2_shared_tile", run_shared, lambda call, arrays: accepts_wide(call, arrays, 8), "tiles in shared memory")
register("v1_thread_per_output", run_plain, accepts_plain, "a thread per number of the result")
