"""The same tensor somewhere else: in the training step before, or in another trace (another device, backend or seed).

Two recordings are laid side by side by what ran: the k-th call of an op in a module is held against the k-th there, and
their tensors by the places at which they stand.
"""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np

from minidl.core.device import CPU, move
from minidl.stepper.text import safe
from minidl.stepper.values import Value, pieces

BEFORE = "the training step before"


class Compared:
    """A tensor's counterpart: where it is from, the Value there, and max |difference| / max |it| where both have their numbers."""

    def __init__(self, where, value, apart):
        self.where, self.value, self.apart = where, value, apart


def training_steps(trace):
    """The steps of a trace, cut after every optimiser's step."""
    parts = [[]]
    for item in trace.steps:
        parts[-1].append(item)
        if item.kind == "update":
            parts.append([])
    return [part for part in parts if part]


def turn_of(trace, item):
    """Where a step stands: (its number among those of its kind in its training step, how many these are, what that training
    step is made of, "training step 2 of 3" or "" where there is but one)."""
    parts = training_steps(trace)
    number = next((k for k, part in enumerate(parts) if part[0].step <= item.step <= part[-1].step), 0)
    part, kinds = parts[number], {"forward": "forward", "backward": "back", "update": "update"}
    alike = [one for one in part if one.kind == item.kind]
    counts = {word: sum(one.kind == kind for one in part) for kind, word in kinds.items()}
    trained = [one for one in parts if one[-1].kind == "update"]
    turn = "" if len(parts) == 1 else f"training step {number + 1} of {len(trained)}" if part in trained else "after the last update"
    return alike.index(item) + 1, len(alike), ", ".join(f"{count} {word}" for word, count in counts.items() if count), turn


def comparisons(trace):
    """{id(Value): [Compared]} of all tensors of a trace that have a counterpart."""
    found, parts = defaultdict(list, {number: list(rows) for number, rows in trace.compared.items()}), training_steps(trace)
    for before, after in pairwise(parts) if not trace.compared else ():
        add(found, BEFORE, pairs(after, before))
    for name, other in trace.others:
        add(found, safe(name), pairs(trace.steps, other.steps))
    return found


def add(found, where, paired):
    """Note the counterparts of one pairing."""
    for value, other in paired:
        if all(row.where != where for row in found[id(value)]):  # made by one training step, read by the next: once is enough
            found[id(value)].append(Compared(where, other, apart(value, other)))


def pairs(ours, theirs):
    """[(Value, its counterpart)] of two lists of steps, each Value once, those of equal shape that are not the same."""
    there, count, paired, seen = {}, Counter(), [], set()
    for item in theirs:
        there[key(item, count)] = item
    count.clear()
    for item in ours:
        other = there.get(key(item, count))
        for a, b in zip(tensors(item), tensors(other) if other else (), strict=False):
            if isinstance(a, Value) and isinstance(b, Value) and a is not b and a.shape == b.shape and id(a) not in seen:
                seen.add(id(a))
                paired.append((a, b))
    return paired


def key(item, count):
    """What kind of step it is, and the how-manieth of its kind."""
    kind = item.kind, item.op.name, item.path
    count[kind] += 1
    return (*kind, count[kind])


def tensors(item):
    """All tensors of a step, in an order that depends on its kind alone; None where one is missing."""
    if item.kind == "update":
        return [value for row in item.rows for value in (row.before, row.grad, row.after)]
    if item.kind == "forward":
        return [*item.inputs, *item.outputs]
    given = [grad for _, grad in item.grads_in]
    return [*given, *(value for part in item.contributions for value in (part.grad, part.after))]


def apart(value, other):
    """max |difference| / max |other|, None where the numbers of one are gone."""
    a, b = value.array, other.array
    if a is None or b is None or not a.size or a.dtype.kind not in "fiu" or b.dtype.kind not in "fiu":
        return None
    worst, scale = 0.0, 0.0
    with np.errstate(all="ignore"):
        for x, y in zip(pieces(move(a, CPU)), pieces(move(b, CPU)), strict=True):
            x, y = x.astype(np.float64), y.astype(np.float64)
            worst, scale = np.maximum(worst, np.abs(x - y).max()), np.maximum(scale, np.abs(y).max())  # NaN stays
    return float(worst / scale if scale else worst)
