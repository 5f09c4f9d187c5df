"""target[keys[k]] += values[k] where keys repeat: the sum behind every gradient of an index.

On a GPU the obvious way adds with atomics, in whatever order the threads arrive, so that two runs differ in their last
digits. Here keys are sorted and every key's values are added in a fixed order instead: same input, same bits.
"""

import numpy as np

from minidl.backend import implements, run
from minidl.core.device import array_module, on_cpu


@implements("add_at", "generic")
def add_at(target, keys, values):
    """Add row k of values (n, ...) to row keys[k] of target (V, ...), in place; rows that meet add up."""
    if on_cpu(target):
        np.add.at(target, keys, values)
        return target
    if not keys.size or not values.size:
        return target
    xp = array_module(target)
    order = xp.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    for step in (2**k for k in range((keys.size - 1).bit_length())):  # after each, values[k] holds 2·step rows of its key, from k on
        same = (keys[step:] == keys[:-step]).reshape((-1,) + (1,) * (values.ndim - 1))
        values[:-step] += xp.where(same, values[step:], 0)
    first = xp.concatenate([xp.ones(1, bool), keys[1:] != keys[:-1]])
    sums = xp.zeros((target.shape[0] + 1, *target.shape[1:]), target.dtype)  # the last row takes what nobody wants
    sums[xp.where(first, keys, target.shape[0])] = values
    target += sums[:-1]
    return target


def add_at_index(view, index, values):
    """view[index] += values for a tuple of index arrays and slices, each element as often as it is named; in place."""
    if on_cpu(view):
        np.add.at(view, index, values)
        return
    xp = array_module(view)
    keys = flat_positions(view.shape, index, xp)
    sums = run("add_at", xp.zeros(view.size, view.dtype), keys.reshape(-1), xp.broadcast_to(values, keys.shape).reshape(-1))
    view += sums.reshape(view.shape)


def flat_positions(shape, index, xp):
    """For every element of x[index] its number in the flattened x."""
    count = int(np.prod(shape))
    return xp.arange(count).reshape(shape)[index]


def last_of_each(keys):
    """For 1-d keys: True where a key stands for the last time."""
    xp = array_module(keys)
    order = xp.argsort(keys, kind="stable")
    ends = xp.ones(keys.shape, bool)
    ends[:-1] = keys[order][1:] != keys[order][:-1]
    found = xp.empty_like(ends)
    found[order] = ends
    return found
