"""What the launchers outside conv share: grids cut by shape alone, dtype and alignment checks, arrays in storage order.

No size here depends on the device: a sum is cut and merged the same way everywhere, so the same input gives the same bits.
"""

import numpy as np

from minidl.backend import NotFor

THREADS = 256         # of a block; MAX_THREADS of the kernels
ROWS_IN_FLIGHT = 4    # rows that a thread loads before it uses the first, as in batchnorm.cu
BLOCKS = 1024         # several for each processor of a large GPU; more would leave more parts to merge
WAVE = 1 << 20        # threads in flight that are enough for any GPU: grids of elementwise kernels are not larger than this


def ceil_div(a, b):
    """⌈a / b⌉."""
    return -(-a // b)


def tiles(R, C, S=1, width=1, threads=THREADS, flight=ROWS_IN_FLIGHT, blocks=BLOCKS):
    """(grid, block, rows of a tile) for S segments of R rows of C columns, `width` columns a thread."""
    packs = ceil_div(C, width)
    TX = min(32, 1 << (packs - 1).bit_length())
    TY, across = threads // TX, ceil_div(packs, TX)
    T = max(1, min(ceil_div(R, TY * flight), ceil_div(blocks, across * S)))
    rows = ceil_div(R, T)
    return (across, ceil_div(R, rows), S), (TX, TY), rows


def flat(n, per_thread=1, threads=THREADS):
    """(grid, block) of a kernel that walks over n elements in strides of the whole grid."""
    return (max(1, min(ceil_div(n, threads * per_thread), WAVE // threads)),), (threads,)


def address(array):
    """Where the memory of a GPU array starts; 0 for NumPy's, which the CPU runner copies to an aligned place."""
    return getattr(array.data, "ptr", 0)


def aligned(*arrays):
    """Do all of them (None aside) start at a multiple of 16 bytes?"""
    return all(array is None or address(array) % 16 == 0 for array in arrays)


def only_float32(*arrays):
    """"" or the reason why kernels for float32 cannot take these."""
    first = next(a for a in arrays if a is not None)
    wrong = next((a for a in arrays if a is not None and a.dtype != np.float32), None)
    if wrong is not None:
        return f"the kernels compute in float32, and an array is {wrong.dtype}"
    return "" if first.size else NotFor("there are no elements: nothing to launch")


def contiguous(array):
    """The same values in C order, None as None: for weights and statistics, which are small."""
    if array is None or array.flags.c_contiguous:
        return array
    return array.copy("C")
