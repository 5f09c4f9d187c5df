"""How far a float32 gradient may be from the float64 one: what float32's rounding explains, and no more."""

import numpy as np

from minidl.core.dtypes import float32, float64
from minidl.core.gradcheck import Function, op_call

ROUNDINGS = 6  # of the inputs, at random: where a variance is small, one alone may happen to change little

EPS32 = float(np.finfo(np.float32).eps)


def float32_error(op, example, seed=0, device="cpu"):
    """(error, allowed, problem): both in units of float32's eps times the gradient's largest entry.

    Allowed is 4 times what rounding the inputs alone changes (the gradient's own condition, measured in float64) plus
    8 · sqrt(n) roundings of the largest of n entries. `problem` names a result that is not float32, or "".
    """
    fn, inputs, settings = op_call(op, example, seed, float32)
    f = Function(fn, inputs, [*op.tensors, *op.settings], settings, device=device)
    f.pick_outputs()
    if not f.arrays or not f.outputs or "dtype" in settings:
        return 0.0, 0.0, ""
    rng = np.random.default_rng([seed, 32])
    u = [np.asarray(rng.standard_normal(y.shape)).astype(float32) for y in f.evaluate(f.arrays)]
    narrow = [a.astype(float32) for a in f.arrays]
    narrow_f = Function(fn, inputs, [*op.tensors, *op.settings], settings, dtype=float32, device=device)
    narrow_f.outputs = f.outputs
    ys = narrow_f.call(narrow_f.leaves(narrow), True)
    wrong = [y.dtype for y in ys if y.dtype != float32]
    if wrong:
        return 0.0, 0.0, f"float32 inputs gave {wrong[0]}"
    found = narrow_f.gradients(narrow, u)
    exact = f.gradients(f.arrays, u)
    nudged = [f.gradients([a * (1 + EPS32 * rng.uniform(-1, 1, a.shape)) for a in f.arrays], u) for _ in range(ROUNDINGS)]
    worst, allowed = 0.0, 0.0
    for number, (g, e) in enumerate(zip(found, exact, strict=True)):
        if g.dtype != float32:
            return 0.0, 0.0, f"float32 inputs gave a gradient of {g.dtype}"
        if not g.size:
            continue
        unit = EPS32 * max(float(np.max(np.abs(e))), 1e-30)
        difference = float(np.max(np.abs(g.astype(float64) - e)))
        worst = max(worst, difference / unit)
        moved = max(float(np.max(np.abs(n[number] - e))) for n in nudged)
        allowed = max(allowed, 8 * np.sqrt(e.size) + 4 * moved / unit)
    return worst, allowed, ""


