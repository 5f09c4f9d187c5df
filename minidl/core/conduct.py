"""What a gradient check finds without any finite difference: how a backward behaves. It must not write into other people's
arrays, must give the same gradient again, be linear in the gradient it is given, and not care which inputs want a gradient
or how their numbers lie in memory. gradcheck.py asks problem() before it probes, and late_problem() after.
"""

import numpy as np

from minidl.core.device import CPU, move
from minidl.core.function import spaced
from minidl.core.probe import EPS, direction

HELD = "a later backward changed a gradient that an earlier one returned: the array is kept and used again"
AGAIN = "another gradient when the same graph is walked again (retain_graph=True): backward destroys what it saved"
FACTORS = 2.0**30, 2.0**-40  # powers of two: what is linear then agrees to the last bit
CLOSE = 1e-9                 # of the largest gradient: what another order of summation may change
ALONE = 8                    # so many arguments are asked for one by one (cat may have a hundred)
SHARED = 2                   # so many pairs of arguments are tried as one tensor


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
    looks = [(repeated, "")]
    if options["undefined"] and len(base) > 1 and first_order:
        looks.append((one_output, ""))
    return first_of(looks, f, mine, u, options)


def late_problem(f, u, options):
    """The same, for what is looked at only once the gradient has agreed with finite differences, which explain more."""
    return first_of(LATE, f, [a.copy() for a in f.arrays], u, options)


def first_of(looks, f, mine, u, options):
    """The first of these functions that finds something."""
    for look, when in looks:
        try:
            found = look(f, mine, u, options)
        except Exception as error:  # whatever the backward under test raises is the finding
            return "everything", "wrong", f"backward raised {type(error).__name__}{when}: {error}", error
        if found:
            return found[0], "wrong", found[1], found[2] if len(found) > 2 else None
    return None


def raised(error, name, when):
    """A finding: (argument or output, what happened, the exception)."""
    return name, f"backward raised {type(error).__name__} {when}: {error}", error


def repeated(f, mine, u, options):
    """Several backward calls at one point, from one graph and from others."""
    given = [w.copy() for w in u]
    graph = f.record(mine)
    outputs = [np.array(move(y.array, CPU)) for y in graph.ys]
    first = graph.gradients(u)
    kept = [g.copy() for g in first]
    changed = written(f, mine)
    if changed or not same(u, given):
        return changed or "the incoming gradient", f"backward wrote into {changed or 'the gradient it was given'}"
    second, with_graph = f.gradients(mine, u), f.gradients(mine, u, create_graph=True)
    graph.gradients([-2 * w for w in u])
    held = [not same([a], [before]) for a, before in zip(first, kept, strict=True)]
    third = graph.gradients(u)
    for name, y, before in zip(f.output_names, graph.ys, outputs, strict=True):
        if not same([move(y.array, CPU)], [before]):
            return name, f"backward wrote into {name}, the function's own output"
    for name, a, b, c, d, changed in zip(f.names, kept, second, third, with_graph, held, strict=True):
        if changed:
            return name, HELD
        if not same([a], [b], options["nondet_tol"]):
            return name, "not deterministic: two backward calls gave different gradients"
        if not same([a], [c], options["nondet_tol"]):
            return name, AGAIN
        if not same([a], [d], rounding([a])):
            return name, "the gradient with create_graph=True is another than without"
    return None


def linear(f, mine, u, options):
    """The gradient of a·u is a times that of u, however large a is; that of 1 + u is the sum of both."""
    graph = f.record(mine)
    once = graph.gradients(u)
    for factor in FACTORS:
        times = [g / factor for g in graph.gradients([w * factor for w in u])]
        name = differs(f, mine, u, times, once)
        if name:
            return name, f"backward is not linear: {factor:.0e} times the incoming gradient does not give {factor:.0e} times the gradient"
    ones = [np.ones(w.shape) for w in u]
    both = graph.gradients([w + one for w, one in zip(u, ones, strict=True)])
    of_ones = graph.gradients(ones)
    name = differs(f, mine, u, both, [a + b for a, b in zip(once, of_ones, strict=True)], of_ones, 1e-5)  # float32 is another finding
    return (name, "backward is not linear: the gradient of 1 + u is not the sum of those of 1 and of u") if name else None


def stored_otherwise(f, mine, u, options):
    """The same numbers in another order of memory, with gaps between them."""
    graph = f.record(mine)
    once = graph.gradients(u)
    name = differs(f, mine, u, graph.gradients([spaced(w) for w in u]), once)
    if name:
        return name, "another gradient when the incoming gradient lies in memory with gaps (a transposed slice of the same numbers)"
    graph_of_spaced = f.record([spaced(a) for a in mine])
    values, other = ([np.array(move(y.array, CPU)) for y in g.ys] for g in (graph, graph_of_spaced))
    if [y.shape for y in values] != [y.shape for y in other] or not same(values, other, CLOSE * largest(values)):
        return "everything", "another value when the inputs lie in memory with gaps (transposed slices of the same numbers)"
    name = differs(f, mine, u, graph_of_spaced.gradients(u), once)
    return (name, "another gradient when the inputs lie in memory with gaps (transposed slices of the same numbers)") if name else None


def alone(f, mine, u, options):
    """Each argument's gradient when no other one is asked for."""
    if len(mine) < 2:
        return None
    together = f.gradients(mine, u)
    for k, name in enumerate(f.names[:ALONE]):
        try:
            found = f.gradients(mine, u, only=k)[k]
        except Exception as error:  # as above
            return raised(error, name, f"when only {name} requires grad")
        if differs(f, mine, u, [found if j == k else g for j, g in enumerate(together)], together):
            return name, f"another gradient when only {name} requires grad"
    return None


def one_tensor_twice(f, mine, u, options):
    """fn(x, x): the gradient is the sum of those of two equal tensors."""
    pairs = [(j, k) for k in range(len(mine)) for j in range(k) if mine[j].shape == mine[k].shape and mine[k].size]
    for j, k in pairs[:SHARED]:
        arrays = [mine[j] if n == k else a for n, a in enumerate(mine)]
        try:
            apart = f.record([a.copy() for a in arrays])
            found = apart.gradients(u)
        except Exception:
            continue  # equal arguments are outside of this function's domain
        if not all(np.isfinite(move(y.array, CPU)).all() for y in apart.ys):
            continue
        total = found[j] + found[k]
        shared = f.record(arrays, same=(j, k)).gradients(u)[j]
        if not np.allclose(shared, total, rtol=0, atol=CLOSE * largest([found[j], found[k]]), equal_nan=True):
            return f.names[j], f"{f.names[j]} and {f.names[k]} as one tensor: its gradient is not the sum of both"
    return None


def one_output(f, mine, u, options):
    """Gradients that arrive at only one of several outputs must count like zeros at the others."""
    graph = f.record(mine)
    for k, name in enumerate(f.output_names):
        with_zeros = graph.gradients([w if j == k else np.zeros(w.shape) for j, w in enumerate(u)])
        try:
            one = graph.of_one(u, k)
        except Exception as error:  # as above
            return raised(error, name, f"when only {name} has a gradient")
        if differs(f, mine, u, one, with_zeros):
            return name, f"another gradient when only {name} has one than with zeros for the other outputs"
    return None


LATE = ((linear, ""), (stored_otherwise, " when the numbers lie in memory with gaps"), (alone, ""),
        (one_tensor_twice, " when two arguments are the same tensor"))


def detached(f, rng):
    """(output, reason) for outputs that carry no gradient although their values change smoothly with an argument."""
    checked, f.outputs = f.outputs, f.detached
    try:
        here, found = f.evaluate(f.arrays), []
        for number, x in enumerate(f.arrays):
            v = direction(rng, x, np.ones(x.shape, bool))
            far, near = (f.probe([a + h * v if k == number else a for k, a in enumerate(f.arrays)]) for h in (2.0**-12, 2.0**-14))
            for k, y, a, b in zip(f.detached, here, far, near, strict=True):
                change, smaller = np.sum(np.abs(a - y)), np.sum(np.abs(b - y))
                if 2 * smaller < change < 8 * smaller and f"y[{k}]" not in dict(found):  # a jump does not shrink with the step
                    found.append((f"y[{k}]", f"output y[{k}] carries no gradient although it depends on {f.names[number]}: detached?"))
        return found
    finally:
        f.outputs = checked


def written(f, mine):
    """The name of an input that was written to, or ""."""
    for name, now, before in [*zip(f.names, mine, f.arrays, strict=True), *f.constants]:
        if not np.array_equal(move(now, CPU), move(before, CPU), equal_nan=True):
            return name
    return ""


def same(xs, ys, tolerance=0.0):
    """Are these lists of arrays equal, NaN equal to NaN?"""
    return all(np.allclose(x, y, rtol=0, atol=tolerance, equal_nan=True) for x, y in zip(xs, ys, strict=True))


def differs(f, mine, u, xs, ys, beside=(), close=CLOSE):
    """The name of the first argument whose two gradients differ by more than rounding explains, or ""."""
    for number, (x, y) in enumerate(zip(xs, ys, strict=True)):
        allowed = close * largest([y, *beside[number:number + 1]])
        if not same([x], [y], allowed) and not same([x], [y], allowed + 64 * moved(f, mine, u, number)):
            return f.names[number]
    return ""


def moved(f, mine, u, number, v=None):
    """How much a gradient, or its slope along v, changes when its inputs and the incoming gradient change by their own rounding."""
    rng = np.random.default_rng(3)
    here = f.gradients(mine, u)[number]
    nudged = [[a * (1 + 4 * EPS * rng.standard_normal(a.shape)) for a in arrays] for arrays in (mine, u)]
    with np.errstate(invalid="ignore"):
        change = np.abs(f.gradients(*nudged)[number] - here)
    if v is not None:
        return abs(float(np.sum(np.multiply(change, np.abs(v), where=v != 0, out=np.zeros(v.shape)))))
    return float(np.max(change, where=np.isfinite(change), initial=0))


def largest(arrays):
    """The largest finite number, without its sign."""
    return max((float(np.max(np.abs(a), where=np.isfinite(a), initial=0)) for a in arrays), default=0)


def rounding(arrays):
    """What two ways to compute the same gradients may differ by: a few units in the last place of the largest number."""
    return 64 * EPS * largest(arrays)
