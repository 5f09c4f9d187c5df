"""How far a float32 gradient may be from the float64 one: what float32's rounding explains, and no more."""

import numpy as np

from minidl.core import op as registry
from minidl.core.dtypes import float32, float64, is_floating
from minidl.core.function import Function, op_call
from minidl.core.report import Row

ROUNDINGS = 6    # of the inputs, at random: where a variance is small, one alone may happen to change little
USELESS = 0.1    # allowed errors of this part of the gradient say nothing
EPS32 = float(np.finfo(np.float32).eps)


def float32_error(op, example, seed=0, device="cpu"):
    """(error, allowed, problem): both in units of float32's eps times the gradient's largest entry.

    Allowed is 4 times what rounding the inputs and the incoming gradient alone changes (the gradient's own condition,
    measured in float64: a sum that cancels has a bad one) plus 8 · sqrt(n) roundings of the largest of n entries.
    `problem` names a result that is not float32, or "".
    """
    fn, inputs, settings = op_call(op, example, seed, float32)
    f = Function(fn, inputs, [*op.tensors, *op.settings], settings, device=device)
    f.pick_outputs()
    if not f.arrays or not f.outputs or "dtype" in settings:
        return 0.0, 0.0, ""
    rng = np.random.default_rng([seed, 32])
    u = [np.asarray(rng.standard_normal(y.shape)).astype(float32) for y in f.evaluate(f.arrays)]
    found, problem = narrow_gradients(narrow(f), f.arrays, u)
    if problem:
        return 0.0, 0.0, problem
    exact = f.gradients(f.arrays, u)
    nudged = [f.gradients([rounded(a, rng) for a in f.arrays], [rounded(w, rng) for w in u]) for _ in range(ROUNDINGS)]
    return *compare(found, exact, nudged), ""


def narrow(f):
    """The same function of float32 arrays."""
    other = f.in_dtype(float32)
    other.outputs = f.outputs
    return other


def rounded(array, rng):
    """An array that differs by up to float32's eps."""
    return array * (1 + EPS32 * rng.uniform(-1, 1, array.shape))


def narrow_gradients(f, arrays, u):
    """(gradients, "") of a function of float32, or (None, what is not float32)."""
    graph = f.record([a.astype(float32) for a in arrays])
    wrong = [y.dtype for y in graph.ys if y.dtype != float32]
    if wrong:
        return None, f"float32 inputs gave {wrong[0]}"
    if not all(np.isfinite(y.array).all() for y in graph.ys):
        return None, "float32 inputs gave values that are not finite"
    found = graph.gradients([w.astype(float32) for w in u])
    wrong = [g.dtype for g in found if g.dtype != float32]
    return (None, f"float32 inputs gave a gradient of {wrong[0]}") if wrong else (found, "")


def compare(found, exact, nudged):
    """(error, allowed) of the worst argument, in units of float32's eps times the largest entry."""
    worst, allowed = 0.0, 0.0
    for number, (g, e) in enumerate(zip(found, exact, strict=True)):
        if not g.size:
            continue
        unit = EPS32 * max(float(np.max(np.abs(e))), 1e-30)
        worst = max(worst, float(np.max(np.abs(g.astype(float64) - e))) / unit)
        moved = max(float(np.max(np.abs(n[number] - e))) for n in nudged)
        allowed = max(allowed, 8 * np.sqrt(e.size) + 4 * moved / unit)
    return worst, allowed


def compare_float32(f, rng):
    """A Row that compares a user's function in float32 with itself in float64, or None where float32 can say nothing.

    What is allowed is what changes when every op on the way, forward and backward, rounds its result to float32.
    """
    u = [np.asarray(rng.standard_normal(shape)).astype(float32) for shape in f.shapes]
    with np.errstate(all="ignore"):
        arrays = [a.astype(float32).astype(float64) for a in f.arrays]
        try:
            exact = f.gradients(arrays, u)
            found, problem = narrow_gradients(narrow(f), arrays, u)
            if problem or not all(np.abs(e).max(initial=0) < 1e37 for e in exact):  # float64 constants inside, or out of range
                return None
            nudged = [f.gradients([rounded(a, rng) for a in arrays], u) for _ in range(ROUNDINGS // 2)]
            nudged += [with_rounding(f, arrays, u, rng) for _ in range(ROUNDINGS // 2)]
        except Exception:
            return None  # it was not written for float32
        error, allowed = compare(found, exact, nudged)
    if not allowed * EPS32 < USELESS:
        return None
    row = Row(1, -1, "in float32")
    row.probes, row.size, row.dtype, row.error, row.tolerance = 1, 1.0, "float32", error * EPS32, allowed * EPS32
    if not error <= allowed:  # this way round NaN fails
        row.verdict, row.reason = "wrong", "the float32 gradient is not the float64 one, rounded"
        row.guess = "a constant or a condition that float32 does not allow, or a branch for this dtype"
    return row


def with_rounding(f, arrays, u, rng):
    """The gradients in float64 when every op's result is rounded at random as float32 would round it."""

    def watch(call):
        for y in call.outputs:
            a = y.array
            if is_floating(y.dtype) and isinstance(a, np.ndarray) and a.base is None and a.flags.writeable:
                a *= 1 + EPS32 * rng.uniform(-1, 1, a.shape)

    registry.OBSERVERS.append(watch)
    try:
        return f.gradients([rounded(a, rng) for a in arrays], u)
    finally:
        registry.OBSERVERS.remove(watch)
