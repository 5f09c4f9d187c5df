"""What a gradient check finds without any finite difference: writes into other people's arrays, chance, NaN, a backward
that raises, one gradient with create_graph and another without. gradcheck.py asks problem() before it probes.
"""

import numpy as np

from minidl.core.device import CPU, move
from minidl.core.probe import EPS

HELD = "a later backward changed a gradient that an earlier one returned: the array is kept and used again"


def problem(f, base, u, options, first_order):
    """(argument, verdict, reason, cause) of the first thing that is wrong with a Function at its arrays, or None.

    `base` are its outputs, u a cotangent for each of them; cause is the exception that a backward raised, if one did.
    """
    mine = [a.copy() for a in f.arrays]
    again = f.evaluate(mine)
    changed = written(f, mine)
    if changed:
        return changed, "wrong", "the function wrote into its input", None
    if [y.shape for y in base] != [y.shape for y in again] or not same(base, again, options["nondet_tol"]):
        return "everything", "wrong", "not deterministic: two calls with the same inputs gave different values", None
    for name, y in zip(f.output_names, base, strict=True):
        if not np.isfinite(y).all():
            return name, "wrong", f"the function value is not finite: {name} has {y[~np.isfinite(y)][0]}", None
    found = backward_problem(f, mine, u, options)
    return found or (undefined_problem(f, mine, u) if options["undefined"] and len(base) > 1 and first_order else None)


def backward_problem(f, mine, u, options):
    """Several backward calls at one point."""
    given = [w.copy() for w in u]
    try:
        first = f.gradients(mine, u)
        kept = [g.copy() for g in first]
        second, with_graph = f.gradients(mine, u), f.gradients(mine, u, create_graph=True)
        f.gradients(mine, [-2 * w for w in u])
    except Exception as error:  # whatever the backward under test raises is the finding
        return "everything", "wrong", f"backward raised {type(error).__name__}: {error}", error
    changed = written(f, mine)
    if changed or not same(u, given):
        return changed or "the incoming gradient", "wrong", f"backward wrote into {changed or 'the gradient it was given'}", None
    for name, a, b, c, before in zip(f.names, first, second, with_graph, kept, strict=True):
        if not same([a], [before]):
            return name, "wrong", HELD, None
        if not same([a], [b], options["nondet_tol"]):
            return name, "wrong", "not deterministic: two backward calls gave different gradients", None
        if not same([a], [c], rounding([a])):
            return name, "wrong", "the gradient with create_graph=True is another than without", None
    return None


def undefined_problem(f, mine, u):
    """Gradients that arrive at only one of several outputs must count like zeros at the others."""
    for k, name in enumerate(f.output_names):
        with_zeros = f.gradients(mine, [w if j == k else np.zeros(w.shape) for j, w in enumerate(u)])
        try:
            alone = f.gradients_of_one(mine, u, k)
        except Exception as error:
            return name, "wrong", f"backward raised {type(error).__name__} when only {name} has a gradient: {error}", error
        if not same(alone, with_zeros, rounding(with_zeros)):
            return name, "wrong", f"another gradient when only {name} has one than with zeros for the other outputs", None
    return None


def written(f, mine):
    """The name of an input that was written to, or ""."""
    for name, now, before in [*zip(f.names, mine, f.arrays, strict=True), *f.constants]:
        if not np.array_equal(move(now, CPU), move(before, CPU), equal_nan=True):
            return name
    return ""


def same(xs, ys, tolerance=0.0):
    """Are these lists of arrays equal, NaN equal to NaN?"""
    return all(np.allclose(x, y, rtol=0, atol=tolerance, equal_nan=True) for x, y in zip(xs, ys, strict=True))


def rounding(arrays):
    """What two ways to compute the same gradients may differ by: a few units in the last place of the largest number."""
    return 64 * EPS * max((float(np.max(np.abs(a), where=np.isfinite(a), initial=0)) for a in arrays), default=0)
