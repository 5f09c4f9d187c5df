"""Launchers of optim.cu: one step of SGD, Adam or AdamW for all parameters of a group in one launch."""

import math

import numpy as np

from minidl.backend import NotFor, implements
from minidl.backend.cuda import launch
from minidl.backend.cuda.geometry import THREADS, ceil_div, only_float32
from minidl.backend.layout import flat
from minidl.core.device import array_module, on_cpu

PIECE = 1 << 14         # elements that one block updates
ARRAYS = 5              # addresses of a parameter in the table
NONE = 2**64 - 1        # no array
TABLES = {}             # addresses and sizes -> (table, pieces): gradients usually lie where they lay the step before
MOST_TABLES = 64        # for more groups of parameters than that, tables are made again


def sgd_numbers(lr, momentum, weight_decay, nesterov, maximize, share):
    """What the kernel knows of one parameter."""
    return lr, momentum, weight_decay, share, -1.0 if maximize else 1.0, float(nesterov)


def adam_numbers(lr, betas, eps, weight_decay, maximize, decoupled, seen):
    """What the kernel knows of one parameter."""
    return (lr / seen[0], 1 - betas[0], betas[1], 1 - betas[1], eps, 0.0 if decoupled else weight_decay,
            1 - lr * weight_decay if decoupled else 1.0, math.sqrt(seen[1]), -1.0 if maximize else 1.0)


RULES = {"SGD.update": ("sgd_all_parameters", sgd_numbers), "Adam.update": ("adam_all_parameters", adam_numbers)}


def accepts(first, rule, work):
    """"" or why the kernels cannot."""
    if getattr(rule, "__qualname__", None) not in RULES:
        return f"there is no kernel for {getattr(rule, '__qualname__', rule)}"
    arrays = [array for arrays, _ in work for array in flat(arrays)]
    if not any(array.size for array in arrays):
        return NotFor("there are no elements: nothing to launch")
    return only_float32(*(a for a in arrays if a.size)) or (
        "" if all(a.ndim == 1 and a.flags.c_contiguous for a in arrays) else "an array is no single piece in storage order")


@implements("update_parameters", "cuda/all_parameters", accepts, "one launch for all parameters, their addresses in a table")
def update_parameters(first, rule, work):
    """Apply the rule to every parameter: work holds ((parameter, gradient, more arrays), numbers) for each."""
    name, numbers_of = RULES[rule.__qualname__]
    every = [(flat(arrays), numbers) for arrays, numbers in work]
    numbers = np.array([numbers_of(**numbers) for _, numbers in every])
    if on_cpu(first):
        return in_one_array(name, [arrays for arrays, _ in every], numbers)
    xp = array_module(first)
    key = (xp, first.device, tuple((arrays[0].size, *map(address, arrays)) for arrays, _ in every))
    if key not in TABLES:
        if len(TABLES) >= MOST_TABLES:
            TABLES.clear()
        sizes, addresses = [arrays[0].size for arrays, _ in every], [[address(a) for a in arrays] for arrays, _ in every]
        TABLES[key] = [xp.asarray(a) for a in tables(sizes, addresses)]
    table, pieces = TABLES[key]
    launch.kernel("optim.cu", name)((len(pieces),), (THREADS,), base=None, table=table, pieces=pieces, numbers=xp.asarray(numbers))


def in_one_array(name, parameters, numbers, shift=0):
    """The same on the CPU runner, whose check mode knows only arrays that are arguments: all of them in one, addresses from its start."""
    begins, end = [], shift
    for arrays in parameters:
        begins.append([end + k * ceil_div(arrays[0].size, 4) * 4 for k in range(len(arrays))])
        end += len(arrays) * ceil_div(arrays[0].size, 4) * 4
    whole = np.zeros(end, np.float32)
    parts = [(whole[begin:begin + a.size], a) for row, arrays in zip(begins, parameters, strict=True)
             for begin, a in zip(row, arrays, strict=True)]
    for part, array in parts:
        part[:] = array
    table, pieces = tables([arrays[0].size for arrays in parameters], [[4 * begin for begin in row] for row in begins])
    launch.kernel("optim.cu", name)((len(pieces),), (THREADS,), base=whole, table=table, pieces=pieces, numbers=numbers)
    for part, array in parts:
        array[:] = part


def tables(sizes, addresses):
    """(table of addresses (P, 5), pieces (B, 3)) as optim.cu reads them."""
    rows = [[*row, *[NONE] * (ARRAYS - len(row))] for row in addresses]
    pieces = [(k, start, min(PIECE, size - start)) for k, size in enumerate(sizes) for start in range(0, size, PIECE)]
    return np.array(rows, np.uint64), np.array(pieces, np.int64)


def address(array):
    """Where an array's memory starts on the device."""
    return array.data.ptr
