"""Where a function is not smooth: kinks, ties, jumps, edges of its domain. Found from function values alone, never from
the gradient under test, so that a wrong gradient cannot excuse itself as a kink.
"""

from typing import NamedTuple

import numpy as np

from minidl.core.probe import FIRST, Line, scale_of

LINES = 600      # so many directions are tried at most; what is left is skipped as a block
SMALL = 2.0**-20


def place(name, index):
    """x[0, 3], or x for a 0-d tensor."""
    return f"{name}[{', '.join(map(str, index))}]" if len(index) else name


class Skips:
    """The elements of one function's arguments that no probe may move, and why."""

    def __init__(self, arrays):
        self.allowed = [np.ones(a.shape, bool) for a in arrays]
        self.reasons = {}  # (argument number, flat index) -> text
        self.blocks = {}   # argument number -> texts about elements that were not told apart

    def texts(self, number, name, shape):
        """One line per skipped element of an argument."""
        lines = [f"{place(name, np.unravel_index(flat, shape))}: {text}" for (k, flat), text in sorted(self.reasons.items()) if k == number]
        return lines + [f"{name}: {text}" for text in self.blocks.get(number, [])]

    def exclude(self, number, flat, text):
        """No probe moves this element from now on."""
        self.allowed[number].flat[flat] = False
        self.reasons[number, int(flat)] = text


def localise(evaluate, arrays, number, v, u, size, noise, skips):
    """Halve the direction until single elements are left along which phi is not smooth, and exclude those."""
    x = arrays[number]

    def line(indices):
        part = np.zeros(x.size)
        part[indices] = v.ravel()[indices]
        part = part.reshape(x.shape)
        return Line(lambda t: weigh(u, evaluate([a + t * part if k == number else a for k, a in enumerate(arrays)])), size, noise)

    def block(indices, text):
        skips.allowed[number].flat[indices] = False
        skips.blocks.setdefault(number, []).append(f"{len(indices)} elements {text}")

    rough, tried = [np.flatnonzero(skips.allowed[number])], 0  # sets of elements along which phi is not smooth
    while rough:
        indices = rough.pop()
        if tried > LINES:
            block(indices, "not told apart: not smooth together")
        elif len(indices) == 1:
            skips.exclude(number, indices[0], describe(evaluate, arrays, number, indices[0]))
        else:
            halves = [indices[:len(indices) // 2], indices[len(indices) // 2:]]
            tried += 2
            worse = [half for half in halves if not line(half).slope().resolved]
            rough += worse
            if not worse:
                block(indices, "not smooth when they move together")


def weigh(u, outputs):
    """<u, f>, in float64."""
    return float(sum(np.sum(w * y) for w, y in zip(u, outputs, strict=True)))


def describe(evaluate, arrays, number, flat):
    """Say what happens at one element: the output that changes most there, its slopes on both sides."""
    x = arrays[number]
    step = float(scale_of(x, floor=0).flat[flat])

    def at(t):
        moved = x.copy()
        moved.flat[flat] += t * step
        return np.concatenate([y.ravel() for y in evaluate([moved if k == number else a for k, a in enumerate(arrays)])])

    middle, right, left, right2, left2 = (at(t) for t in (0.0, SMALL, -SMALL, SMALL / 2, -SMALL / 2))
    for side, values in (("left", left), ("right", right)):
        bad = ~np.isfinite(values)
        if bad.any():
            return f"edge of the domain, {values[bad][0]} on the {side}"
    slope_right, slope_left = (right - right2) / (SMALL / 2 * step), (left2 - left) / (SMALL / 2 * step)
    nearer = at(SMALL / 64) - middle, at(-SMALL / 64) - middle
    for k in range(middle.size):
        gap = max(abs(nearer[0][k]), abs(nearer[1][k]))
        usual = max(0.5 * abs(right[k] - middle[k]), 0.5 * abs(left[k] - middle[k]), SMALL / 8 * abs(slope_right[k] * step), 1e-12)
        if gap > usual:
            return f"jump, {left[k]:.4g} on the left, {middle[k]:.4g} here, {right[k]:.4g} on the right"
    worst = int(np.argmax(np.abs(slope_right - slope_left)))
    a, b = slope_left[worst], slope_right[worst]
    far = (at(FIRST)[worst] - middle[worst]) / (FIRST * step)
    if max(abs(a), abs(b)) > 50 * abs(far) > 0:
        return f"vertical slope, {a:+.3g} on the left, {b:+.3g} on the right"
    if abs(a - b) <= 1e-5 * max(abs(a), abs(b)):
        return "no step gives a trustworthy slope"
    return f"kink, slope {_number(a)} on the left, {_number(b)} on the right"


def _number(value):
    rounded = round(value, 5)
    return "0" if rounded == 0 else f"{rounded:+.5g}"


class Tie(NamedTuple):
    """Equal elements: the numbers of their arguments, a move of all of them, a cotangent, and the slope along that move."""

    numbers: list
    moves: list
    u: list
    slope: tuple


def name_ties(evaluate, arrays, names, skips):
    """Kinks that vanish when equal elements move together are ties: say so, and with whom. Returns the Ties."""
    groups, ties = {}, []
    for number, flat in skips.reasons:
        if skips.reasons[number, flat].startswith("kink"):
            groups.setdefault(float(arrays[number].flat[flat]), []).append((number, flat))
    rng = np.random.default_rng(5)
    for value, members in groups.items():
        if len(members) < 2:
            continue
        moves = [np.zeros(a.shape) for a in arrays]
        for number, flat in members:
            moves[number].flat[flat] = 1.0
        here = evaluate(arrays)
        u = [np.asarray(rng.standard_normal(y.shape)) for y in here]
        size = float(sum(np.sum(np.abs(w * y)) for w, y in zip(u, here, strict=True)))
        step = max(abs(value), 0.1)

        def phi(t, u=u, moves=moves, step=step):
            return weigh(u, evaluate([a + t * step * m for a, m in zip(arrays, moves, strict=True)]))

        slope = Line(phi, size).slope()
        if slope.resolved:
            ties.append(Tie([number for number, _ in members], [step * m for m in moves], u, slope))
            for number, flat in members:
                other = next(m for m in members if m != (number, flat))
                text = skips.reasons[number, flat].replace("kink, ", "")
                where = place(names[other[0]], np.unravel_index(other[1], arrays[other[0]].shape))
                skips.reasons[number, flat] = f"tie with {where}{' and others' if len(members) > 2 else ''}, {text}"
    return ties
