"""Three ways in which gradients are often checked, each with one weakness, to see what that weakness lets through.

Apart from it they are good: float64, central differences of every element, all examples, the tolerance that
torch.autograd.gradcheck has by default (10⁻⁵ absolute, 10⁻³ relative). Like most checks they look at first derivatives only.
Each returns True if it finds nothing wrong.
"""

import numpy as np

from minidl.core.gradcheck import Function
from minidl.core.kinks import weigh

STEP, ATOL, RTOL = 1e-6, 1e-5, 1e-3


def ones_seeded(fn, inputs, settings, names, seed):
    """y.sum().backward(): the incoming gradient is 1 everywhere. Blind where errors cancel in the sum."""
    f = function(fn, inputs, settings, names)
    u = [np.ones(y.shape) for y in f.evaluate(f.arrays)]
    return all(agree(f, u, number, range(x.size)) for number, x in enumerate(f.arrays))


def one_element(fn, inputs, settings, names, seed):
    """One element of each argument, drawn at random, stands for all of them. Blind for what is wrong elsewhere."""
    f, rng = function(fn, inputs, settings, names), np.random.default_rng([seed, 1])
    u = random_like(f, rng)
    return all(agree(f, u, number, [int(rng.integers(x.size))]) for number, x in enumerate(f.arrays))


def first_argument(fn, inputs, settings, names, seed):
    """Only the first argument is checked. Blind for weights and biases."""
    f, rng = function(fn, inputs, settings, names), np.random.default_rng([seed, 2])
    return agree(f, random_like(f, rng), 0, range(f.arrays[0].size))


NAIVE = {"seeded with ones": ones_seeded, "one element": one_element, "first argument": first_argument}


def function(fn, inputs, settings, names):
    """fn as a function of float64 arrays."""
    f = Function(fn, inputs, names, settings)
    f.pick_outputs()
    return f


def random_like(f, rng):
    """A random incoming gradient for every output."""
    return [rng.standard_normal(y.shape) for y in f.evaluate(f.arrays)]


def agree(f, u, number, elements):
    """Do backward and central differences agree on these elements of one argument?"""
    x = f.arrays[number]
    found = f.gradients([a.copy() for a in f.arrays], [w.copy() for w in u])[number].ravel()
    for k in elements:
        sides = []
        for step in (STEP, -STEP):
            moved = x.copy()
            moved.flat[k] += step
            sides.append(weigh(u, f.evaluate([moved if n == number else a.copy() for n, a in enumerate(f.arrays)])))
        expected = (sides[0] - sides[1]) / (2 * STEP)
        if not abs(found[k] - expected) <= ATOL + RTOL * abs(expected):
            return False
    return True


def finds(naive, bug, seed=0):
    """Does this check notice a planted bug on any of its calls? A backward that raises is noticed too."""
    for fn, inputs, settings, names, _ in bug.calls(seed):
        try:
            if not naive(fn, inputs, settings, names, seed):
                return True
        except Exception:
            return True
    return False
