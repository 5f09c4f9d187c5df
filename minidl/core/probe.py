"""Slopes of a function along a line, from its values alone: central differences with an error estimate, and how
noisy the values are. gradcheck.py compares them with gradients; kinks.py looks for what is not smooth.
"""

import math
from typing import NamedTuple

import numpy as np

EPS = float(np.finfo(np.float64).eps)
TINY = 5e-324         # the smallest number above 0: what underflow rounds to
FIRST = 2.0**-4       # the largest step, as a part of the input's scale
HALVINGS = 34         # the smallest step is FIRST / 2**HALVINGS
LARGER = 10           # so many times FIRST is doubled where rounding alone limits what can be seen
NOISE_STEPS = 2.0**-20, 2.0**-24  # noise that is as large at both is float32's: what is smooth shrinks with the step
FINE_STEP = 2.0**-38  # so small that nothing but float64's rounding is left
FINE_POINTS, NOISE_POINTS = 8, 12


class Slope(NamedTuple):
    """A derivative from function values: its value, how far it may be off, the step, whether it can be trusted, and
    whether rounding is what limits it."""

    value: float
    error: float
    step: float
    resolved: bool
    noisy: bool


class Line:
    """phi(t) = <u, f(x + t·v)>: the values are computed once per t."""

    def __init__(self, phi, size, noise=None):
        self.phi = phi
        self.size = size        # sum(|u · f(x)|): what phi's rounding errors are relative to
        self.known = {}
        self.noise = noise      # how far one value of phi may be off; measured if not given
        self.steepest = 0.0     # the largest slope seen, kinks and cancelling directions included
        self.restless = False   # do the values jitter more than float64 explains?

    def at(self, t):
        """phi(t)."""
        if t not in self.known:
            self.known[t] = self.phi(t)
        return self.known[t]

    def central(self, h):
        """(phi(h) − phi(−h)) / 2h."""
        return (self.at(h) - self.at(-h)) / (2 * h)

    def asymmetry(self, h):
        """Slope on the right minus slope on the left; goes to 0 with h unless there is a kink at 0."""
        return (self.at(h) + self.at(-h) - 2 * self.at(0.0)) / h

    def jitter(self, step, points=NOISE_POINTS):
        """Fourth differences of neighbouring values: what is smooth cancels, noise is left: (the usual, the largest, the slope)."""
        values = np.array([self.at(k * step) for k in range(1, points + 1)])
        with np.errstate(invalid="ignore", over="ignore"):
            fourth = np.diff(values, 4)
        if not np.isfinite(fourth).all() or np.count_nonzero(np.diff(np.sign(fourth))) < 2:
            return 0.0, 0.0, 0.0  # noise changes its sign; a cusp does not
        across = abs(float(values[-1] - values[0])) / ((points - 1) * step)
        usual, worst = (float(pick(np.abs(fourth))) / math.sqrt(70) for pick in (np.median, np.max))  # the norm of the weights 1 4 6 4 1
        return usual, worst, across

    def measure_noise(self):
        """How far one value of phi may be off; `restless` where that is more than float64 explains."""
        if self.noise is None:
            _, fine, _ = self.jitter(FINE_STEP, FINE_POINTS)
            self.noise = EPS * self.size + fine + TINY * (self.size > 0)
            self.restless = True
            for step, kind in zip(NOISE_STEPS, (0, 1), strict=True):  # some neighbours are equal where the steps are small
                *coarse, across = self.jitter(step)
                if not coarse[kind] > 1e-11 * self.size + 1e3 * EPS * across:
                    self.restless = False
                    break
        return self.noise

    def reach(self, h):
        """How steep the function is over a step, kinks and cancelling directions included."""
        return max(abs(self.at(h) - self.at(0.0)), abs(self.at(-h) - self.at(0.0))) / h

    def estimate(self, h):
        """(Slope from the steps h, h/2, h/4, what does not go to 0 with rounding, what is rounding).

        What the extrapolation changed is the truncation; another extrapolation, which allows for a second derivative
        that jumps, must agree; and what is left of the asymmetry when h goes to 0 is a kink nearer than h.
        """
        coarse, middle, fine = (self.central(s) for s in (h, h / 2, h / 4))
        once = (4 * fine - middle) / 3
        value = (16 * once - (4 * middle - coarse) / 3) / 15
        with_jump = (8 * fine - 6 * middle + coarse) / 3
        a, b, c = (self.asymmetry(s) for s in (h, h / 2, h / 4))
        kink = (8 * (2 * c - b) - (2 * b - a)) / 7
        change = abs(value - once) + abs(value - with_jump) + abs(kink)
        rounding = 16 * (self.noise / h + 8 * EPS * self.reach(h))
        error = change + rounding
        if error > 1e-9 * abs(value) and abs(value - with_jump) > change / 4 > rounding:
            again = (8 * self.central(h / 8) - 6 * fine + middle) / 3
            if abs(again - with_jump) < abs(value - with_jump) / 4:  # the second derivative does jump here
                value, change = again, abs(again - with_jump) + abs(kink)
                rounding *= 2
                error = change + rounding
        resolved = error <= 1e-6 * abs(value) + 1e-9 * max(self.size, self.steepest)
        return Slope(value, error, h, resolved, rounding > change / 4), change, rounding

    def slope(self, first=FIRST, halvings=HALVINGS):
        """The derivative at 0, extrapolated from three steps h, h/2, h/4; the h whose error estimate is smallest."""
        self.measure_noise()
        best = Slope(math.nan, math.inf, first, False, False)
        for k in range(halvings - 1):
            h = first / 2**k
            reach = self.reach(h)
            self.steepest = max(self.steepest, reach) if reach < math.inf else self.steepest
            found, change, rounding = self.estimate(h)
            if found.error < best.error:  # never true for NaN: a step that leaves the domain is passed over
                best = found
            if found.error <= 1e-10 * abs(found.value) or change <= 4 * rounding or best.resolved and rounding > best.error:
                break
        for k in range(1, LARGER + 1 if best.noisy and not best.error <= 1e-9 * abs(best.value) and best.step == first else 0):
            found, change, rounding = self.estimate(first * 2**k)
            if not change <= 4 * rounding:
                break
            best = min(best, found, key=lambda slope: slope.error)
        return best

    def curve(self, derivative, halvings=36):
        """[(h, |central difference − derivative|)] for h = 1/2, 1/4, ...: down with the truncation, up with the rounding."""
        return [(h, abs(self.central(h) - derivative)) for h in (2.0**-k for k in range(1, halvings + 1))]


def scale_of(x, floor=0.05):
    """Per element, the size of a step that changes the input by its own order: |x|, but not less than floor · rms(x)."""
    magnitude = np.where(np.isfinite(x), np.abs(x), 0.0)
    largest = float(np.max(magnitude, initial=0.0))
    rms = largest * float(np.sqrt(np.mean(np.square(magnitude / largest)))) if largest else 1.0  # squares underflow, ratios do not
    return np.where(magnitude == 0, 0.05 * rms, np.maximum(magnitude, floor * rms))


def direction(rng, x, allowed, floor=0.05):
    """A random direction in the units of scale_of(x); zero where `allowed` is False."""
    return np.where(allowed, rng.standard_normal(x.shape) * scale_of(x, floor), 0.0)
