"""One call of a convolution as its kernels see it: the numbers they take, the size of the matrix product, its three arrays."""

import copy
import math

from minidl.backend.cuda.geometry import ceil_div, contiguous
from minidl.backend.layout import empty, stored
from minidl.backend.window import output_size

PROCESSORS = 132        # of a large GPU. A constant: where sums are cut must not depend on the device
BLOCKS_WANTED = 528     # the filter gradient is cut until it has about this many blocks: four for each processor
SHORTEST_PART = 512     # positions in one part of that sum, at least: shorter ones cost more to add up than they gain
SHORTEST_DEPTH = 256    # the same for convolution and its image gradient, where a part writes a whole result
MOST_PARTS = 8          # of those: each is a result to write and to read


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

    @property
    def depth(self):
        """How long the sums are; of the image gradient's classes, those of the largest."""
        if self.op == "conv2d_grad_w":
            return self.positions
        if self.op == "conv2d":
            return self.taps * self.C
        n = self.numbers
        return self.O * math.prod(ceil_div(K, S // math.gcd(S, D)) for K, S, D in (
            (n["KH"], n["SH"], n["DH"]), (n["KW"], n["SW"], n["DW"])))

    def cut(self, blocks):
        """(how much of k is a part, how many parts) of the sums, where one part takes so many blocks.

        From the sizes alone, never from the device: same sizes, same bits.
        """
        if self.op == "conv2d_grad_w":
            wanted = min(ceil_div(BLOCKS_WANTED, blocks), ceil_div(self.depth, SHORTEST_PART))
        elif blocks < 2 * PROCESSORS:
            most = max(1, min(MOST_PARTS, self.depth // SHORTEST_DEPTH))  # rounds of blocks, each shorter; and 3 % for a part's own result
            wanted = min(range(1, most + 1), key=lambda parts: ceil_div(blocks * parts, PROCESSORS) / parts + 0.03 * parts)
        else:
            wanted = 1
        part = ceil_div(ceil_div(self.depth, wanted), 16) * 16  # whole steps of the tile loops
        return part, ceil_div(self.depth, part)


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
