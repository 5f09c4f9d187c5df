"""The launchers of convolution's ladder, kernels/conv*.cu and im2col.cu: LADDER lists the rungs in the order in which they are tried.

Each rung says "" or why it leaves a call to the next one; docs/kernels/conv.md explains what each of them adds.
"""

import functools

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.cuda import launch
from minidl.backend.cuda.conv_call import arrays_of, call_of, result_of
from minidl.backend.cuda.geometry import THREADS, aligned, ceil_div
from minidl.backend.cuda.tiles import tile as known_tile
from minidl.backend.generic.conv import batches
from minidl.backend.layout import empty
from minidl.core.config import STATE
from minidl.core.device import array_module

OPS = ("conv2d", "conv2d_grad_x", "conv2d_grad_w")
LARGEST = 2**31         # elements: places in an array are 32-bit numbers from v2 on
DOUBLE_WORK = 2**24     # multiply-adds in float64 that a plain kernel may do; above, one product of im2col's columns is faster
NOTHING = NotFor("there is nothing to multiply: generic fills in the zeros")


# --- what a rung takes: (call, arrays) -> "" or why not ---------------------------------------------------------------

def common(call, arrays):
    """"" or why no kernel from v2 on takes these arrays."""
    if arrays[0].dtype != np.float32:
        return f"the kernel computes in float32, and the arrays are {arrays[0].dtype}"
    if not call.work:
        return NOTHING
    return f"an array has {LARGEST} elements or more: places in it need 64 bits" if call.elements >= LARGEST else ""


def at_least(columns, call, arrays, newest=0):
    """"" or why a rung that works in tiles leaves this call to others: too few columns to fill one, or too old a device."""
    here = architecture(arrays[0])
    if here < newest:
        return f"it needs compute capability {newest / 10}, and this device has {here / 10}"
    if call.product[2] >= 2**16:
        return f"{call.product[2]} products side by side are more than a grid's third axis takes"
    narrow = min(call.product[:2]) if call.op == "conv2d_grad_w" else call.product[1]
    return common(call, arrays) or (NotFor(f"{narrow} columns would fill too little of a tile") if narrow < columns else "")


def shared_tile(call, arrays):
    """v2, from 8 columns on. The filter gradient already from 2: v1 has a thread a weight, far too few for its long sums."""
    return at_least(2 if call.op == "conv2d_grad_w" else 8, call, arrays)


def architecture(array):
    """Compute capability as a number, 90 for an H200; where nobody says it, the newest that the kernels are written for."""
    return int(getattr(getattr(array, "device", None), "compute_capability", 90))


def plain(call, arrays):
    """v1 takes everything; much float64 goes faster as one product of matrices."""
    dtype = arrays[0].dtype
    if not call.work:
        return NOTHING
    if dtype == np.float64 and call.work > DOUBLE_WORK:
        return NotFor(f"{call.work:.2g} multiply-adds in float64 are faster as a product of im2col's columns")
    return "" if dtype in (np.float32, np.float64) else f"the kernel computes in float32 and float64, and the arrays are {dtype}"


def tensor_cores(precision, call, arrays):
    """TF32 keeps 10 bits of a number: only where the user says so."""
    if STATE.tf32 != precision:
        return NotFor(f"tensor cores round to 10 bits: only inside use_tf32({'' if precision is True else repr(precision)})")
    if call.O % 4 or call.C % 4 and (call.groups > 1 or call.op == "conv2d_grad_x") or not aligned(*arrays):
        return NotFor("16-byte loads need channels in fours and aligned arrays")
    return at_least(16, call, arrays, 80)


def one_channel(call, arrays):
    """Depthwise: one input channel a group, and more than one group."""
    return common(call, arrays) or ("" if call.C == 1 and call.groups > 1 else NotFor("not depthwise: groups have several channels"))


def one_group(call, arrays):
    """im2col's columns are one matrix."""
    return common(call, arrays) or (NotFor("every group would be a matrix of its own") if call.groups > 1 else "")


# --- how it runs: (call, arrays by name), the last of them the result -------------------------------------------------

def run_plain(call, arrays):
    """v1: a thread per number of the result."""
    result = list(arrays.values())[-1]
    per = {"conv2d": "output", "conv2d_grad_x": "pixel", "conv2d_grad_w": "weight"}[call.op]
    double = "_f64" if result.dtype == np.float64 else ""
    launch.kernel("conv.cu", f"{call.op}_v1_thread_per_{per}{double}")(
        (ceil_div(result.size, THREADS),), (THREADS,), **arrays, **call.numbers)


def run_shared(call, arrays):
    """v2: a block of TILE × TILE threads."""
    name = f"{call.op}_v2_shared_tile"
    few = min(call.product[:2]) <= 16  # groups of few filters
    TILE = known_tile(f"{name}/narrow" if few else name, like=result_in(arrays), TILE=16 if few else 32)["TILE"]
    tiled(call, arrays, "conv.cu", name, (TILE, TILE), (TILE, TILE), TILE=TILE)


def blocked(rung, call, arrays):
    """v3 and v4: 8 × 8 outputs a thread; 16-byte loads where all channels come in fours."""
    in_fours = call.C % 4 == call.O % 4 == 0 and aligned(*arrays.values())
    shape = tile_for(call, f"{call.op}_{rung}", arrays, small=in_fours)
    tiled(call, arrays, "conv_blocked.cu", f"{call.op}_{rung}", (shape["BM"], shape["BN"]), (shape["BM"] * shape["BN"] // 64,),
          **shape, VEC=4 if in_fours else 1, POINTWISE=int(call.pointwise))


def run_mma(rung, call, arrays):
    """v5 and v6: tensor cores. An image of 3 channels gets a fourth, so that 16-byte loads fit."""
    if call.C % 4:
        whole = ceil_div(call.C, 4) * 4
        arrays = arrays | {name: padded(arrays[name], whole) for name in arrays if name in ("x", "w")}
        call = call.with_channels(whole)
    wide = rung == "v5_tf32" and call.op != "conv2d_grad_x"  # the others have no registers for 64 × 64 outputs a warp
    shape = tile_for(call, f"{call.op}_{rung}", arrays, WM=64, WN=64 if wide else 32)
    BM, BN = shape["BM"], shape["BN"]
    tiled(call, arrays, "conv_mma.cu", f"{call.op}_{rung}", (BM, BN), (BM // shape["WM"] * (BN // shape["WN"]) * 32,), **shape,
          POINTWISE=int(call.pointwise))


def run_depthwise(call, arrays):
    """32 channels side by side, 8 positions below one another."""
    n = call.numbers
    if call.op == "conv2d_grad_w":
        columns = ceil_div(n["O"], 32)
        in_parts(call, arrays, launch.kernel("conv_depthwise.cu", "conv2d_grad_w_depthwise"),
                 lambda splits: (columns, call.taps, splits), (32, 8), call.cut(columns * call.taps), n["O"] * call.taps)
        return
    width, positions = (n["O"], call.positions) if call.op == "conv2d" else (n["C"], n["N"] * n["H"] * n["W"])
    launch.kernel("conv_depthwise.cu", f"{call.op}_depthwise")(
        (ceil_div(width, 32), min(ceil_div(positions, 8), 65535)), (32, 8), **arrays, **n)


def run_im2col(call, arrays):
    """The baseline: the columns written out, and one product of matrices by the vendor's library; a few images at a time."""
    if call.op == "conv2d_grad_x":
        image, output = arrays["grad_x"], arrays["grad_y"]
    else:
        image, output = arrays["x"], arrays["y" if call.op == "conv2d" else "grad_y"]
    grad_w = arrays.get("grad_w")
    filters = (arrays["w"] if grad_w is None else grad_w).transpose(0, 2, 3, 1).reshape(output.shape[1], -1)  # (O, KH·KW·C)
    KH, KW = (arrays["w"] if grad_w is None else grad_w).shape[2:]
    numbers = {k: call.numbers[k] for k in ("SH", "SW", "PT", "PL", "DH", "DW")}
    C, H, W, OH, OW = *image.shape[1:], *output.shape[2:]
    numbers |= {"C": C, "H": H, "W": W, "OH": OH, "OW": OW, "KH": KH, "KW": KW}
    matmul, total = array_module(image).matmul, None
    for part in batches(image.shape, (KH, KW), (OH, OW), image.itemsize):
        images, rows = image[part], output[part].transpose(0, 2, 3, 1).reshape(-1, output.shape[1])  # rows: (N·OH·OW, O)
        if call.op == "conv2d_grad_x":
            columns = matmul(rows, filters)
            launch.kernel("im2col.cu", "col2im")(grid(images), (THREADS,), columns=columns, x=images, N=images.shape[0], **numbers)
            continue
        columns = empty((rows.shape[0], filters.shape[1]), image.dtype, image)
        launch.kernel("im2col.cu", "im2col")(grid(columns), (THREADS,), x=images, columns=columns, N=images.shape[0], **numbers)
        if call.op == "conv2d":
            matmul(columns, filters.T, out=rows)
        else:
            total = matmul(rows.T, columns) if total is None else total + matmul(rows.T, columns)
    if total is not None:
        filters[...] = total
    elif arrays.get("bias") is not None:
        output += arrays["bias"].reshape(-1, 1, 1)


# --- grids ------------------------------------------------------------------------------------------------------------

def grid(array):
    """One thread per number."""
    return (ceil_div(array.size, THREADS),)


def result_in(arrays):
    """The array that a call fills."""
    return list(arrays.values())[-1]


def tile_for(call, name, arrays, small=True, **more):
    """BM, BN: 128 × 128, less where the result is narrow; a table of the device knows better."""
    M, N, _ = call.product
    key = f"{name}/narrow" if N <= 64 else name  # a shape measured for wide results would be half empty on narrow ones
    return known_tile(key, like=result_in(arrays), BM=64 if small and M <= 64 else 128, BN=64 if N <= 64 else 128, **more)


def tiled(call, arrays, file, name, tile, threads, **defines):
    """v2 to v6: one block per tile and part of the sum."""
    M, N, products = call.product
    across, cut = ceil_div(M, tile[0]) * ceil_div(N, tile[1]), call.cut(ceil_div(M, 128) * ceil_div(N, 128) * products)
    size = M * N * products if call.op == "conv2d_grad_w" else result_in(arrays).size
    in_parts(call, arrays, launch.kernel(file, name, **defines), lambda splits: (across, 1, products * splits), threads, cut, size)


def in_parts(call, arrays, kernel, grid_of, threads, cut, size):
    """Parts of the sums side by side, each with a result of its own, then added up in their order."""
    (name, result), (part, splits), bias = list(arrays.items())[-1], cut, {}
    C = result.shape[1]
    whole = call.C if call.op == "conv2d_grad_w" else C  # they differ where channels were added to make 16 bytes
    parts = result if splits == 1 and whole == C else empty((splits, size), result.dtype, result)
    if parts is not result and call.op == "conv2d":
        bias = {"bias": None}  # added once, to the sum of the parts
    kernel(grid_of(splits), threads, **arrays | {name: parts} | bias, part=part, splits=splits, **call.numbers)
    if parts is not result:
        launch.kernel("conv_parts.cu", "sum_in_order")(
            grid(result), (THREADS,), parts=parts, bias=arrays.get("bias"), sum=result, PARTS=splits, SIZE=result.size, C=C, WHOLE=whole)


def padded(array, whole):
    """The same image or filters with zeros for channels beyond its own."""
    n, c, h, w = array.shape
    y = empty((n, whole, h, w), array.dtype, array)
    launch.kernel("conv_parts.cu", "pad_channels")(
        (ceil_div(n * h * w, THREADS),), (THREADS,), x=array, y=y, PIXELS=n * h * w, C=c, WHOLE=whole)
    return y


# --- the ladder -------------------------------------------------------------------------------------------------------

LADDER = [  # name, how it runs, what it takes, what it is good for
    ("depthwise", run_depthwise, one_channel, "one channel a group: a thread per output, channels side by side"),
    ("v5_tf32", functools.partial(run_mma, "v5_tf32"), functools.partial(tensor_cores, True), "tensor cores, factors rounded to 10 bits"),
    ("v6_3xtf32", functools.partial(run_mma, "v6_3xtf32"), functools.partial(tensor_cores, "3x"),
     "tensor cores, three products for one: about float32's precision"),
    ("v4_double_buffered", functools.partial(blocked, "v4_double_buffered"), lambda call, arrays: at_least(16, call, arrays, 80),
     "8 × 8 outputs a thread, the next tiles on their way meanwhile"),
    ("v3_register_blocked", functools.partial(blocked, "v3_register_blocked"), lambda call, arrays: at_least(16, call, arrays),
     "8 × 8 outputs a thread"),
    ("v2_shared_tile", run_shared, shared_tile, "tiles of the product in shared memory"),
    ("v1_thread_per_output", run_plain, plain, "a thread per number of the result, the formula as it stands"),
    ("im2col", run_im2col, one_group, "the columns written out, then one product of matrices"),
]


def register(op, name, runner, accepts, why):
    """One rung as an implementation of one op."""

    def takes(*arrays, **how):
        return accepts(call_of(op, *arrays[:2], **how), [a for a in arrays if a is not None])

    def run(first, second, bias=None, **how):
        arrays = arrays_of(op, first, second, bias, result_of(op, first, second, **how))
        runner(call_of(op, first, second, **how), arrays)
        return result_in(arrays)

    implements(op, f"cuda/{name}", takes, why)(run)


for _op in OPS:
    for _rung in LADDER:
        register(_op, *_rung)
