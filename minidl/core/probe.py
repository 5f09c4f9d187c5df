"""Slopes of a function along a line, from its values alone: central differences with an error estimate, one-sided
slopes, and how noisy the values are. gradcheck.py compares them with gradients; kinks.py looks for what is not smooth.
"""

import math
from typing import NamedTuple

import numpy as np

EPS = float(np.finfo(np.float64).eps)
FIRST = 2.0**-4       # the largest step, as a part of the input's scale
HALVINGS = 28         # the smallest step is FIRST / 2**HALVINGS
NOISE_STEP = 2.0**-20
NOISE_POINTS = 12


class Slope(NamedTuple):
    """A derivative from function values: its value, how far it may be off, the step, and whether it can be trusted."""

    value: float
    error: float
    step: float
    resolved: bool


class Line:
    """phi(t) = <u, f(x + t·v)>: the values are computed once per t."""

    def __init__(self, phi, size, noise=None):
        self.phi = phi
        self.size = size        # sum(|u · f(x)|): what phi's rounding errors are relative to
        self.known = {}
        self.noise = noise      # how far one value of phi may be off; measured if not given
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

    def measure_noise(self):
        """Fourth differences of neighbouring values: what is smooth cancels, what is left is noise."""
        if self.noise is None:
            values = np.array([self.at(k * NOISE_STEP) for k in range(1, NOISE_POINTS + 1)])
            with np.errstate(invalid="ignore"):
                fourth = np.diff(values, 4)
            if not np.isfinite(fourth).all():
                fourth = np.zeros(1)
            floor = EPS * self.size
            jitter = float(np.median(np.abs(fourth))) / math.sqrt(70)  # sqrt(70): the norm of the weights 1 4 6 4 1
            if np.count_nonzero(np.diff(np.sign(fourth))) < 2:
                jitter = 0.0  # noise changes its sign; a cusp does not
            self.noise = floor + jitter
            across = abs(float(values[-1] - values[0])) / ((NOISE_POINTS - 1) * NOISE_STEP)
            self.restless = bool(jitter > 1e-11 * self.size + 1e3 * EPS * across)
        return self.noise

    def slope(self, first=FIRST, halvings=HALVINGS):
        """The derivative at 0, extrapolated from three steps h, h/2, h/4; the h whose error estimate is smallest.

        The estimate has three parts: what the last extrapolation changed (truncation), what is left of the asymmetry
        when h is extrapolated to 0 (a kink nearer than h), and the noise of the values divided by h (rounding).
        """
        noise = self.measure_noise()
        best = Slope(math.nan, math.inf, first, False)
        for k in range(halvings - 1):
            h = first / 2**k
            coarse, middle, fine = (self.central(s) for s in (h, h / 2, h / 4))
            once = (4 * fine - middle) / 3
            value = (16 * once - (4 * middle - coarse) / 3) / 15
            a, b, c = (self.asymmetry(s) for s in (h, h / 2, h / 4))
            kink = (8 * (2 * c - b) - (2 * b - a)) / 7
            change = abs(value - once) + abs(kink)
            rounding = 16 * noise / h
            error = change + rounding
            if error < best.error:  # never true for NaN: a step that leaves the domain is passed over
                best = Slope(value, error, h, error <= 1e-6 * abs(value) + 1e-9 * self.size)
            if error <= 1e-10 * abs(value) or change <= 4 * rounding or best.resolved and rounding > best.error:
                break
        return best

    def side(self, sign):
        """The one-sided slope (sign +1: right, −1: left), without using phi(0), so that a jump at 0 does not matter."""
        noise = self.measure_noise()
        best = Slope(math.nan, math.inf, FIRST, False)
        for k in range(HALVINGS - 2):
            h = FIRST / 2**k
            q = [(self.at(sign * s) - self.at(sign * s / 2)) / (sign * s / 2) for s in (h, h / 2, h / 4)]
            once = 2 * q[2] - q[1]
            value = (4 * once - (2 * q[1] - q[0])) / 3
            error = abs(value - once) + 32 * noise / h
            if error < best.error:
                best = Slope(value, error, h, error <= 1e-4 * abs(value) + 1e-7 * self.size)
        return best

    def curve(self, derivative, halvings=36):
        """[(h, |central difference − derivative|)] for h = 1/2, 1/4, ...: down with the truncation, up with the rounding."""
        return [(h, abs(self.central(h) - derivative)) for h in (2.0**-k for k in range(1, halvings + 1))]


def scale_of(x, floor=0.05):
    """Per element, the size of a step that changes the input by its own order: |x|, but not less than floor · rms(x)."""
    magnitude = np.abs(x)
    rms = (float(np.sqrt(np.mean(np.square(magnitude)))) if x.size else 0.0) or 1.0
    return np.where(magnitude == 0, 0.05 * rms, np.maximum(magnitude, floor * rms))


def direction(rng, x, allowed, floor=0.05):
    """A random direction in the units of scale_of(x); zero where `allowed` is False."""
    return np.where(allowed, rng.standard_normal(x.shape) * scale_of(x, floor), 0.0)
