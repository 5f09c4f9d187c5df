"""Where a function is not smooth: kinks, ties, jumps, edges of its domain. Found from function values alone, never from
the gradient under test, so that a wrong gradient cannot excuse itself as a kink.
"""

from typing import NamedTuple

import numpy as np

from minidl.core.probe import FIRST, HALVINGS, Line, scale_of

LINES = 600      # so many directions are tried at most; what is left is skipped as a block
FEWEST = 24      # of a large input, whose every line takes long: enough to find one element among millions
ENOUGH = 2_000_000  # lines times elements
FEW_HALVINGS = 8  # of the step, for a large input
KINKS = 50       # so many are remembered with their slopes
SMALL = 2.0**-20


def place(name, index):
    """x[0, 3], or x for a 0-d tensor."""
    return f"{name}[{', '.join(map(str, index))}]" if len(index) else name


LEFT_OUT = "the first derivative was not checked there"


class Skips:
    """The elements of one function's arguments that no probe may move, and why."""

    def __init__(self, arrays):
        self.allowed = [np.ones(a.shape, bool) for a in arrays]
        self.reasons = {}  # (argument number, flat index) -> text
        self.blocks = {}   # argument number -> texts about elements that were not told apart
        self.slopes = {}   # (argument number, flat index) of a kink -> the outputs' slopes on the left, on the right
        for number, a in enumerate(arrays):
            for flat in np.flatnonzero(~np.isfinite(a)):
                self.exclude(number, flat, f"{a.flat[flat]} cannot be moved")

    def inherit(self, skips):
        """Where a function is not smooth, its gradient has no slope: what was left out there is left out here."""
        for number, allowed in enumerate(skips.allowed):
            self.allowed[number] &= allowed
        self.reasons |= dict.fromkeys(skips.reasons, LEFT_OUT)
        self.blocks |= {number: list(texts) for number, texts in skips.blocks.items()}

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
    halvings = HALVINGS if x.size < ENOUGH // LINES else FEW_HALVINGS
    most = min(LINES, max(FEWEST, ENOUGH // max(x.size, 1)))
    while rough:
        indices = rough.pop()
        if tried > most:
            block(indices, "not told apart: not smooth together")
        elif len(indices) == 1:
            text, slopes = describe(evaluate, arrays, number, indices[0])
            skips.exclude(number, indices[0], text)
            if slopes and len(skips.slopes) < KINKS:
                skips.slopes[number, int(indices[0])] = slopes
        else:
            halves = [indices[:len(indices) // 2], indices[len(indices) // 2:]]
            tried += 2
            worse = [half for half in halves if not usable(line(half).slope(halvings=halvings))]
            rough += worse
            if not worse:
                block(indices, "not smooth when they move together")


def usable(slope):
    """Can a gradient be compared with it? Rounding makes it less precise, not wrong; then the tolerance says how much."""
    return slope.resolved or slope.noisy and slope.error <= 1e-3 * abs(slope.value)


def weigh(u, outputs):
    """<u, f>, in float64."""
    with np.errstate(over="ignore", invalid="ignore"):  # a probe may have left the domain
        return float(sum(np.sum(w * y) for w, y in zip(u, outputs, strict=True)))


def magnitude(u, outputs):
    """sum(|u · f|): what the rounding of <u, f> is relative to."""
    return float(sum(np.sum(np.abs(w * y)) for w, y in zip(u, outputs, strict=True)))


def describe(evaluate, arrays, number, flat):
    """Say what happens at one element: the output that changes most there, its slopes on both sides.

    Returns the text and, of a kink, the slopes of all outputs on the left and on the right.
    """
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
            return f"edge of the domain, {values[bad][0]} on the {side}", None
    slope_right, slope_left = (right - right2) / (SMALL / 2 * step), (left2 - left) / (SMALL / 2 * step)
    nearer = at(SMALL / 64) - middle, at(-SMALL / 64) - middle
    for k in range(middle.size):
        gap = max(abs(nearer[0][k]), abs(nearer[1][k]))
        usual = max(0.5 * abs(right[k] - middle[k]), 0.5 * abs(left[k] - middle[k]), SMALL / 8 * abs(slope_right[k] * step), 1e-12)
        if gap > usual:
            return f"jump, {left[k]:.4g} on the left, {middle[k]:.4g} here, {right[k]:.4g} on the right", None
    worst = int(np.argmax(np.abs(slope_right - slope_left)))
    a, b = slope_left[worst], slope_right[worst]
    far = (at(FIRST)[worst] - middle[worst]) / (FIRST * step)
    if max(abs(a), abs(b)) > 50 * abs(far) > 0:
        return f"vertical slope, {a:+.3g} on the left, {b:+.3g} on the right", None
    if abs(a - b) <= 1e-5 * max(abs(a), abs(b), abs(far)):
        return "no step gives a trustworthy slope", None
    return f"kink, slope {_number(a)} on the left, {_number(b)} on the right", (slope_left, slope_right)


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
        size = magnitude(u, here)
        step = max(abs(value), 0.1)

        def phi(t, u=u, moves=moves, step=step):
            return weigh(u, evaluate([a + t * step * m for a, m in zip(arrays, moves, strict=True)]))

        slope = Line(phi, size).slope()
        if usable(slope):
            ties.append(Tie([number for number, _ in members], [step * m for m in moves], u, slope))
            for number, flat in members:
                other = next(m for m in members if m != (number, flat))
                text = skips.reasons[number, flat].replace("kink, ", "")
                where = place(names[other[0]], np.unravel_index(other[1], arrays[other[0]].shape))
                skips.reasons[number, flat] = f"tie with {where}{' and others' if len(members) > 2 else ''}, {text}"
    return ties
