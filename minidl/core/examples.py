"""Sample inputs of the ops: small, distinct, of size O(1). Registered beside each op, built by whoever needs them.

An example describes arrays; build() makes them from a seed, so that tests, docs and benchmarks see the same call.
"""

import numpy as np


class Spec:
    """A recipe for one array: shape, kind of numbers, dtype None for "the floating dtype under test"."""

    def __init__(self, kind, shape, draw, dtype=None):
        self.kind, self.shape, self.draw, self.dtype = kind, shape, draw, dtype

    def __repr__(self):
        return f"{self.kind}{self.shape}"

    def build(self, rng, dtype):
        return np.asarray(self.draw(rng, self.shape)).astype(self.dtype or dtype)


def normal(*shape):
    """Standard normal numbers."""
    return Spec("normal", shape, lambda rng, s: rng.standard_normal(s))


def positive(*shape):
    """Numbers between 0.5 and 2."""
    return Spec("positive", shape, lambda rng, s: rng.uniform(0.5, 2.0, s))


def nonzero(*shape):
    """Numbers of either sign with absolute value between 0.5 and 2: away from a kink or a pole at 0."""
    return Spec("nonzero", shape, lambda rng, s: rng.uniform(0.5, 2.0, s) * rng.choice([-1.0, 1.0], s))


def distinct(*shape):
    """Numbers no two of which are closer than 0.1: no ties for max, min, sort."""
    def draw(rng, s):
        n = int(np.prod(s, dtype=int))
        return (rng.permutation(n).reshape(s) - n / 2) * 0.2 + rng.uniform(0, 0.1, s)
    return Spec("distinct", shape, draw)


def integers(low, high, *shape):
    """Integers from low to high - 1 (labels, indices)."""
    return Spec("integers", shape, lambda rng, s: rng.integers(low, high, s), np.dtype("int64"))


def shuffled(*numbers):
    """These integers in a random order: where a draw of its own could miss the one that matters."""
    return Spec("shuffled", (len(numbers),), lambda rng, s: rng.permutation(numbers), np.dtype("int64"))


def booleans(*shape):
    """True and False."""
    return Spec("booleans", shape, lambda rng, s: rng.random(s) < 0.5, np.dtype("bool"))


class Example:
    """One sample call: positional arguments (Specs, lists of Specs, or plain values) and settings."""

    def __init__(self, args, settings):
        self.args, self.settings = args, settings

    def __repr__(self):
        parts = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.settings.items()]
        return ", ".join(parts)

    def build(self, seed=0, dtype=np.float64):
        """(args, settings) with arrays in place of the Specs."""
        rng = np.random.default_rng([seed, 77])

        def make(value):
            if isinstance(value, Spec):
                return value.build(rng, np.dtype(dtype))
            if isinstance(value, (list, tuple)) and any(isinstance(v, Spec) for v in value):
                return type(value)(make(v) for v in value)
            return value

        return [make(a) for a in self.args], {k: make(v) for k, v in self.settings.items()}


def example(*args, **settings):
    """Describe a sample call, as `examples=[example(normal(2, 3), dim=1)]` in @op."""
    return Example(args, settings)
