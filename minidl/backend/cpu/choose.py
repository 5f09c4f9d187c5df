"""Which rung of the ladder computes a convolution: LADDER from top to bottom, the first that does not say why not.

A rung has two predicates, which get the Call and return "" or a reason: can it do this one, and is it worth it? The second
is what was measured, on two cores of an AMD EPYC with OpenBLAS's AVX-512 kernels (SkylakeX), numbers in GFLOP/s counted as
direct convolution. `minidl.explain` shows the reasons; use_backend("cpu/winograd_2x2") forces a rung that can, worth it or not.
"""

import functools
import math
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.cpu import depthwise, im2col_blocked, im2col_narrow, products, winograd, winograd_grad_w, winograd_rows
from minidl.backend.cpu.matmul import few_columns, has_unpacked_kernels
from minidl.backend.window import output_size
from minidl.core.config import STATE

OUTPUTS = {(3, 3): (4, 4), (5, 5): (4, 4), (1, 3): (1, 4), (3, 1): (4, 1), (1, 5): (1, 4), (5, 1): (4, 1), (1, 7): (1, 4), (7, 1): (4, 1)}
FEWEST = 16   # channels: with 8 columns are faster (32×8×64×64: 1.8 ms, Winograd 2.3), with 16 F(4×4) is (128×16×32×32 -> 64: 6.9, 6.5)
SMALL = 2_000_000  # multiply-adds: 1×16×16×16 -> 16 has 0.6 M (columns 29 µs, rows 41), 1×16×32×32 2.4 M (64, 55), two of them (129, 77)
ROWS = 1536   # C · O: 8×24×28×28 -> 64 takes 0.61 ms with transformed rows, 0.72 with tiles; 8×64×56×56 -> 64 4.5 and 2.7
NARROW = 16   # channels with which windows are better gathered for several outputs at a time
WORTH = 8192  # tiles of 4×4 × channels: 8×32×14×14 -> 128 has 4096 (columns 272, Winograd 212), 8×192×7×7 6144 (equal), 8×96×14×14 12288
              # and 8×512×7×7 16384: alone, columns are faster there (5.1 ms, F(2×2) 7.3), but with them ResNet-18's step takes 2.7 % more
FEW = 200     # tiles of 4×4 below which F(2×2) is faster for many channels: 8×256×14×14 has 128 (538 against 369)
MANY = 96     # channels: 8×96×14×14 -> 208 has 497 with F(2×2), 420 with F(4×4)
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Call(NamedTuple):
    """What a predicate may ask about one of the three ops: always the shapes of conv2d itself."""

    op: str
    dtype: np.dtype
    x_shape: tuple
    w_shape: tuple
    size: tuple  # (OH, OW)
    stride: tuple
    padding: tuple
    dilation: tuple
    groups: int


def pointwise(call):
    """1×1 of one group: the image is the matrix of its columns already."""
    if call.w_shape[2:] != (1, 1) or call.groups > 1 or any(map(any, call.padding)):
        return NotFor("for 1×1 kernels of one group without padding")
    return ""


def rows_can(call):
    """3×3 with results (for grad_w: outputs) of whole rows of tiles."""
    size = call.x_shape[2:] if call.op == "conv2d_grad_x" else call.size
    if call.w_shape[2:] != (3, 3) or size[0] % 4:
        return NotFor("for 3×3 kernels and a result whose height is a multiple of 4")
    return winograd_can(call)


def rows_worth(call):
    """Few channels, of about the same number: where tiles would be gathered for longer than they are multiplied."""
    O, C = call.w_shape[:2]
    work = call.x_shape[0] * math.prod(call.size) * math.prod(call.w_shape)
    if work < SMALL:
        return NotFor(f"{work:,} multiply-adds < {SMALL:,}: columns are as fast and round less (1×16×16×16 -> 16: 29 µs, rows 41)")
    if C * O > ROWS:
        return NotFor(f"{C} -> {O} channels: tiles save more multiplications (128×64×8×8 -> 64: 1.1 ms, rows 2.1)")
    if max(O, C) > 8 * min(O, C):
        return NotFor(f"{C} -> {O} channels: columns are faster where one side has hardly any (8×3×224×224 -> 64: 6.1 ms, rows 6.4)")
    return "" if call.size[1] >= 12 else NotFor("rows shorter than 12 outputs: nothing to gain (128×16×8×8 -> 16: 0.35 ms, columns 0.34)")


def narrow_can(call):
    """One group; the cells of a kernel row neighbours in memory."""
    return "" if call.groups == 1 and call.dilation == (1, 1) else NotFor("for one group and dilation 1")


def narrow(call):
    """Few channels where the results are: then copying windows takes as long as the products."""
    (O, C, KH, KW), strided = call.w_shape, call.stride != (1, 1)
    if call.dtype != np.float32 or KW < 3 or not has_unpacked_kernels():
        return NotFor("for float32, kernels from 3 cells across on, and a BLAS quick at small products (OpenBLAS with AVX-512)")
    if call.op == "conv2d_grad_w":
        few = max(O, C) < 2 * NARROW or C <= NARROW and O <= 4 * NARROW
        return "" if few else NotFor(f"{C} -> {O} channels: sums of small products take longer (128×32×16×16 -> 32: 2.1 ms, Winograd 1.9)")
    if call.op == "conv2d":
        few = O <= NARROW and not strided and few_columns(KH * (KW + 1) * C, 2 * O)
        return "" if few else NotFor(f"{C} -> {O} channels: more multiplications take longer (128×32×16×16 -> 32: 2.3 ms, columns 2.1)")
    few = C < 2 * NARROW if strided else C <= NARROW and 8 * C > O and few_columns(KH * (KW + 1) * O, 2 * C)
    return "" if few else NotFor(f"{C} <- {O} channels: more multiplications take longer (8×64×56×56 <- 128, stride 2: 3.9 ms, col2im 3.1)")


def own_filters(call):
    """Depthwise: every channel has filters of its own."""
    return "" if 1 < call.groups == call.x_shape[1] else NotFor("for depthwise convolution: as many groups as channels")


def winograd_can(call):
    """Stride 1, float32, and not switched off."""
    if call.stride != (1, 1) or call.dilation != (1, 1) or call.groups > 1:
        return NotFor("for stride 1, dilation 1, one group")
    if call.dtype != np.float32:
        return NotFor("for float32: its rounding would spoil float64")
    return "" if STATE.winograd else NotFor("switched off by use_winograd(False)")


def large_tiles_can(call):
    """The kernels whose rounding was measured and found small."""
    if call.w_shape[2:] not in OUTPUTS:
        return NotFor("for kernels 3×3, 5×5 and 3, 5 or 7 cells in a line: with others its rounding grows too large")
    return winograd_can(call)


def small_tiles_can(call):
    """3×3 alone: for 5×5 the smallest tile that pays is the large one."""
    return winograd_can(call) if call.w_shape[2:] == (3, 3) else NotFor("for 3×3 kernels")


def count_tiles(call):
    """How many tiles of F(4×4), or F(4), cover the outputs of all images."""
    return call.x_shape[0] * math.prod(-(-places // m) for places, m in zip(call.size, OUTPUTS[call.w_shape[2:]], strict=True))


def too_little(call):
    """Where the transforms cost more than the multiplications that they save, whatever the tile."""
    channels, tiles = min(call.w_shape[:2]), count_tiles(call)
    if channels < FEWEST:
        return NotFor(f"{channels} channels: transforms would cost more than the products (32×8×64×64 -> 8: 2.3 ms, columns 1.8)")
    if tiles * channels < WORTH:
        return NotFor(f"{tiles} tiles × {channels} channels < {WORTH}: columns are faster there (32 channels at 14×14: 272 against 212)")
    return ""


def large_tiles(call):
    """All the rest but what is better with small tiles."""
    if too_little(call):
        return too_little(call)
    if not small_tiles(call):
        return NotFor(f"{count_tiles(call)} tiles < {FEW}: transforming filters to 6×6 costs more than it saves; F(2×2) makes them 4×4")
    return ""


def small_tiles(call):
    """Few outputs and many channels: the filters are what is transformed, and F(2×2) blows them up half as much."""
    if too_little(call):
        return too_little(call)
    tiles = count_tiles(call)
    if call.w_shape[2:] != (3, 3) or min(call.w_shape[:2]) < MANY:
        return NotFor(f"below {MANY} channels F(4×4) is faster")
    return "" if tiles < FEW else NotFor(f"{tiles} tiles of 4×4: F(4×4) is faster from {FEW} on")


def always(call):
    """Whatever it can do, it does best of what is left."""
    return ""


@functools.cache
def _tile(outputs, kernel):
    return winograd.Tile(outputs, kernel)


def winograd_rung(outputs):
    """The three ops with the tiles that `outputs` has for each kernel, called as every rung is."""

    def tile(w_shape):
        return _tile(outputs[tuple(w_shape[2:])], tuple(w_shape[2:]))

    def conv2d(x, weight, bias, stride, padding, dilation, groups):
        return winograd.forward(tile(weight.shape), x, weight, bias, padding)

    def conv2d_grad_x(grad_y, weight, x_shape, stride, padding, dilation, groups):
        return winograd.grad_x(tile(weight.shape), grad_y, weight, x_shape, padding)

    def conv2d_grad_w(x, grad_y, w_shape, stride, padding, dilation, groups):
        return winograd_grad_w.grad_w(tile(w_shape), x, grad_y, w_shape, padding)

    return SimpleNamespace(conv2d=conv2d, conv2d_grad_x=conv2d_grad_x, conv2d_grad_w=conv2d_grad_w)


LADDER = [  # name, the three ops, can it?, is it worth it?, what explain() says of it
    ("cpu/products", products, pointwise, always, "a 1×1 convolution is one product over all pixels, without columns"),
    ("cpu/winograd_rows", winograd_rows, rows_can, rows_worth, "few channels: transformed down the image alone, nothing is gathered"),
    ("cpu/im2col_narrow", im2col_narrow, narrow_can, narrow, "few channels: windows of neighbouring outputs gathered together"),
    ("cpu/winograd", winograd_rung(OUTPUTS), large_tiles_can, large_tiles, "half to a quarter of the multiplications that columns need"),
    ("cpu/winograd_2x2", winograd_rung({(3, 3): (2, 2)}), small_tiles_can, small_tiles,
     "2.25 times fewer multiplications than columns need"),
    ("cpu/depthwise", depthwise, own_filters, always, "one kernel cell at a time, in the cache: a product would have one column"),
    ("cpu/im2col_blocked", im2col_blocked, always, always, "columns gathered block by block in the cache, products written in place"),
]


def _accepts(op, name, can, worth):
    """The predicates as backend.run() calls them."""

    def accepts(first, second, bias=None, stride=None, padding=None, dilation=None, groups=None, x_shape=None, w_shape=None):
        if first.dtype not in FLOATS:
            return NotFor("for float32 and float64")
        image = first.shape if x_shape is None else tuple(x_shape)
        if 0 in image or not (first.size and second.size):
            return NotFor("nothing to compute: an axis has size 0")
        size = (second if op == "conv2d_grad_w" else first).shape[2:]
        filters = second.shape if w_shape is None else tuple(w_shape)
        if op == "conv2d":
            size = output_size(image, filters[2:], stride, padding, dilation)
        call = Call(op, first.dtype, image, filters, size, stride, padding, dilation, groups)
        return can(call) or ("" if STATE.backend == name else worth(call))

    return accepts


for _name, _rung, _can, _worth, _why in LADDER:
    for _op in ("conv2d", "conv2d_grad_x", "conv2d_grad_w"):
        implements(_op, _name, _accepts(_op, _name, _can, _worth), _why)(getattr(_rung, _op))
