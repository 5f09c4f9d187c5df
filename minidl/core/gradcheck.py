"""Is this gradient right? check() compares it with finite differences, to any order, and says what is wrong if it is not.

A random direction v and a random cotangent u turn f into a function of one number, phi(t) = <u, f(x + t·v)>, whose
slope must be <grad, v>. probe.py finds that slope from values, kinks.py what is not smooth, diagnose.py what went wrong.
"""

import numpy as np

from minidl.core import conduct
from minidl.core.diagnose import diagnose, largest_inside, narrow_ops
from minidl.core.errors import ArgumentError, describe, explained
from minidl.core.function import Function, op_call
from minidl.core.kinks import LEFT_OUT, Skips, localise, magnitude, name_ties, place, usable, weigh
from minidl.core.probe import EPS, NOISE_STEPS, Line, direction
from minidl.core.report import Report, Row
from minidl.core.rounding import compare_float32
from minidl.core.tensor import Tensor

RTOL = 1e-9      # of sum(|grad · v|): what summation in float64 may cost the gradient itself
TELLING = 1e-3   # of the gradient's size: a slope that is known less well than this tells nothing
ROUGH = 1e-5     # of the slope: good enough on a second try
RANGE = 1e8      # outputs whose sizes differ by more than this are weighted, or the small ones drown in the large ones' rounding
OUTSIDE = 1e-3   # how far beyond the slopes on both sides of a kink a gradient may lie, for rounding
NOTHING = ("no floating point input", "no output is floating point")


def check(fn, inputs, order=2, seed=0, *, probes=3, names=None, settings=None, rtol=RTOL, atol=0.0, step=None, nondet_tol=0.0,
          check_undefined_grad=True, start=1, grad_outputs=None, strided=False, chosen=None, explain=True,
          device=None, progress=None, float32=True):
    """Compare the gradients of fn at `inputs` with finite differences, up to the given order; returns a Report.

        print(minidl.check(lambda x, w: (x @ w).tanh(), (minidl.randn(2, 3), minidl.randn(3, 4))))

    Floating point inputs are copied to float64 and checked one by one; everything else stays constant. The tolerance
    is derived from the steps taken; rtol (of the gradient's size) and atol come on top of it. Points where fn is not
    smooth are found from its values, left out, and listed. `chosen(tensor)` says which inputs to check, `start` is the
    first order, grad_outputs are the cotangents of the second, explain=False leaves the diagnosis out.
    `device` moves the inputs there first. The float32 gradient is compared with the float64 one unless float32=False.
    """
    if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order < 1:
        is_input = isinstance(order, (Tensor, np.ndarray))
        fix = "The inputs go into one tuple: check(f, (x, w))." if is_input else "check(f, (x, w), order=2) checks orders 1 and 2."
        raise explained(ArgumentError, "check", "order is a whole number, 1 or more: how often to differentiate.",
                        [f"order: {describe(order)}"], fix)
    inputs = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    report = Report(progress=progress)
    function, before = Function(fn, inputs, names, settings, chosen, device=device), None
    options = {"probes": probes, "rtol": rtol, "atol": atol, "step": step, "nondet_tol": nondet_tol, "undefined": check_undefined_grad,
               "explain": explain, "float32": float32}
    for level in range(1, order + 1):
        rng = np.random.default_rng([seed, level, 2024])
        if level > 1:
            u = grad_outputs if level == 2 and grad_outputs is not None else before.cotangent(rng)
            function = function.derivative(u, strided, before.skips.allowed)
        before = _Level(function, level, report if level >= start else Report(), rng, options, before)
        before.run()
        if report.rows and not report.ok:
            break  # higher orders of a wrong gradient say nothing
    return report


class _Level:
    """The check of one order."""

    def __init__(self, function, order, report, rng, options, before=None):
        self.function, self.order, self.report, self.rng, self.options = function, order, report, rng, options
        self.skips = Skips(function.arrays)
        if before:
            self.skips.inherit(before.skips)
        self.base, self.weights = [], []
        self.wide = bool(before) and any((w > 1).any() for w in before.weights)  # cotangents of very different sizes

    def run(self):
        """Everything that can be wrong with one order; rows go to the report."""
        f = self.function
        f.pick_outputs()
        if not f.outputs or not f.arrays:
            reason = NOTHING[0] if not f.arrays else NOTHING[1]
            return self.finish("everything", "not checked", reason)
        self.base = f.evaluate([a.copy() for a in f.arrays])
        self.infinite = f.infinite
        self.weights = self.weigh_outputs()
        found = conduct.problem(f, self.base, self.cotangent(), self.options, self.order == 1)
        if found:
            return self.finish(*found)
        rows = [self.argument(number) for number in range(len(f.arrays))]
        if self.order == 1:
            self.kinks(rows)
        for tie in name_ties(f.probe, f.arrays, f.names, self.skips):
            self.tie(tie, rows)
        for row in rows:
            row.skipped = self.skips.texts(row.number, row.argument, f.arrays[row.number].shape)
            self.report.add(row)
        for name, reason in conduct.detached(f, self.rng) if f.detached else ():
            self.finish(name, "not checked", reason)
        if self.order == 1 and self.report.ok:
            self.last_looks()
        return None

    def last_looks(self):
        """What is looked at when the gradient agrees with finite differences."""
        found = conduct.late_problem(self.function, self.cotangent(), self.options)
        if found:
            return self.finish(*found)
        row = compare_float32(self.function, self.rng) if self.options["float32"] else None
        if row:
            self.report.add(row)
        return None

    def finish(self, name, verdict, reason, cause=None):
        self.report.cause = cause
        self.report.add(Row(self.order, -1, name, verdict=verdict, reason=reason))

    def weigh_outputs(self):
        """Per output element what its cotangent is multiplied with: 0 where a gradient has no slope, 1 elsewhere, and more
        for small values among others that are very much larger, as softmax has them."""
        f = self.function
        if self.order > 1:
            return [there.astype(np.float64) for there in f.defined]
        sizes = [np.abs(y) for y in self.base]
        least, most = (pick((float(pick(y[y > 0])) for y in sizes if (y > 0).any()), default=1.0) for pick in (min, max))
        if not most / RANGE > least:
            return [np.ones(y.shape) for y in sizes]
        nudged = f.probe([a * (1 + 4 * EPS * self.rng.standard_normal(a.shape)) for a in f.arrays])
        steady = [np.abs(n - y) <= 1e-3 * np.abs(y) for n, y in zip(nudged, self.base, strict=True)]  # else it is rounding itself
        return [np.where(s & (y > 0), most / np.maximum(y, 1e-200 * most), 1.0) for s, y in zip(steady, sizes, strict=True)]

    def cotangent(self, rng=None):
        """A random cotangent per output."""
        return [np.asarray((rng or self.rng).standard_normal(w.shape)) * w for w in self.weights]

    def argument(self, number):
        """Probe one argument in several directions."""
        f, name, telling = self.function, self.function.names[number], False
        row = Row(self.order, number, name)
        row.curve = lambda: self.curve(number)
        if f.arrays[number].size == 0 or all(y.size == 0 for y in self.base):
            row.verdict, row.reason = "ok", "no elements"
            return row
        noise = None
        for _ in range(self.options["probes"]):
            u = self.cotangent()
            gradient = np.asarray(f.gradients(f.arrays, u)[number], np.float64)
            for flat in np.flatnonzero(~np.isfinite(gradient) & self.skips.allowed[number]) if self.infinite else ():
                self.skips.exclude(number, flat, LEFT_OUT)  # 0 · inf: the way back leads through what is left out
            line, slope, v = self.smooth_line(number, u, noise)
            noise = line.noise
            row.reason = self.no_slope(number, line, slope, row)
            if row.reason:
                return row
            product = np.multiply(gradient, v, where=v != 0, out=np.zeros(v.shape))  # what is not moved may be infinite
            size, analytic = float(np.sum(np.abs(product))), float(np.sum(product))
            doubt, extra = slope.error, self.options["rtol"] * size + self.options["atol"]
            if not abs(analytic - slope.value) <= doubt + extra:  # rounding may be worse than a few samples of it
                doubt += 3 * slope.error * slope.noisy + 64 * conduct.moved(f, f.arrays, u, number, v)
            row.probes += 1
            row.take(analytic, slope, doubt + extra, max(size, abs(slope.value)) if size else max(line.size, line.steepest))
            if row.verdict == "wrong":
                if self.options["explain"]:
                    row.guess, row.details = diagnose(f, number, self.order, self.skips.allowed[number], u, row, line.noise)
                return row
            lost = not size and np.any((gradient != 0) & (v != 0)) or size and doubt > TELLING * max(size, abs(slope.value))
            telling = telling or not (lost and self.is_steady(number, u, gradient))
        if not telling:
            row.verdict = "not checked"
            row.reason = (f"the slope, about {size:.1e}, drowns in rounding, {doubt:.1e}" if size else
                          "the function's values, or their gradients, underflow: use larger inputs")
        return row

    def no_slope(self, number, line, slope, row):
        """Why there is no slope to compare an argument's gradient with, or "" if there is one; sets the verdict."""
        f = self.function
        if line.restless:
            row.verdict = "wrong"
            row.guess = narrow_ops(lambda: f.call(f.leaves(f.arrays), True))
            return "the values are too noisy for float64"
        if usable(slope):
            return "" if self.skips.allowed[number].any() else self.nothing_left(row)
        row.verdict = "not checked"
        if not self.skips.allowed[number].any():
            return self.nothing_left(row)
        if slope.noisy:
            return f"the slope along a line is known only as {slope.value:.1e} ± {slope.error:.1e}: rounding of the function's values"
        return "no step gives a trustworthy slope"

    @staticmethod
    def nothing_left(row):
        """No element can be moved."""
        row.verdict = "not checked"
        return "every element is skipped"

    def is_steady(self, number, u, gradient):
        """Is this a gradient, or only what rounding left of a zero? That changes when everything changes by its rounding."""
        moved = conduct.moved(self.function, self.function.arrays, u, number)
        return moved <= 1e-2 * conduct.largest([gradient])

    def kinks(self, rows):
        """At a kink no gradient is right, but one that lies between the slopes on both sides is usual."""
        f = self.function
        if not self.skips.slopes:
            return
        u = self.cotangent()
        found = f.gradients(f.arrays, u)
        weights = np.concatenate([w.ravel() for w in u])
        for (number, flat), sides in self.skips.slopes.items():
            left, right = (weights * side for side in sides)
            low, high = float(np.sum(np.minimum(left, right))), float(np.sum(np.maximum(left, right)))
            g, row = float(found[number].flat[flat]), rows[number]
            room = OUTSIDE * float(np.sum(np.maximum(np.abs(left), np.abs(right))))
            if row.verdict != "wrong" and not low - room <= g <= high + room:
                where = place(row.argument, np.unravel_index(flat, f.arrays[number].shape))
                row.verdict, row.reason = "wrong", f"at the kink {where} the gradient is not between the slopes on its two sides"
                row.details = [f"with a random incoming gradient it is {g:.6g}, the slopes are {float(np.sum(left)):.6g} on the left and "
                               f"{float(np.sum(right)):.6g} on the right"]

    def tie(self, tie, rows):
        """Equal elements that move together: however the gradient is shared among them, its slope along that line is known."""
        f, row = self.function, rows[tie.numbers[0]]
        products = [g * move for g, move in zip(f.gradients(f.arrays, tie.u), tie.moves, strict=True)]
        analytic, size = (float(sum(np.sum(p) for p in parts)) for parts in (products, map(np.abs, products)))
        tolerance = tie.slope.error + self.options["rtol"] * size + self.options["atol"]
        if row.verdict != "wrong" and not abs(analytic - tie.slope.value) <= tolerance:
            row.probes += 1
            row.take(analytic, tie.slope, tolerance, max(size, abs(tie.slope.value)))
            row.reason = "the gradients of equal elements do not add up to the slope that they have together"
            row.guess = "a tie counted more than once, or not at all"

    def smooth_line(self, number, u, noise):
        """A line along which phi is smooth, after the elements that prevent it are excluded."""
        f = self.function
        x = f.arrays[number]
        size = magnitude(u, self.base)
        for attempt in range(5):
            floor = 0.0 if attempt or self.wide else 0.05  # without it steps that no element, however small, finds large
            v = direction(self.rng, x, self.skips.allowed[number], floor)
            line = self.line(number, u, v, size)
            line.noise = noise
            slope = line.slope(*(() if self.options["step"] is None else (self.options["step"], 4)))
            if line.restless and self.is_cancellation(line):
                line.restless = False
                slope = line.slope()
            if slope.noisy and not usable(slope) and slope.error <= RTOL * self.inside() * sum(float(np.abs(w).sum()) for w in u):
                slope = slope._replace(resolved=True)  # a zero, up to the rounding of what cancels to give it
            if attempt and slope.error <= ROUGH * abs(slope.value):
                slope = slope._replace(resolved=True)
            if usable(slope) or line.restless or not self.skips.allowed[number].any():
                break
            if attempt and not slope.noisy:
                localise(f.probe, f.arrays, number, v, u, size, line.noise, self.skips)
        return line, slope, v

    def inside(self):
        """The largest number that any op inside the function returns."""
        return largest_inside(lambda: self.function.call(self.function.leaves(self.function.arrays), True))

    def is_cancellation(self, line):
        """Large numbers that cancel inside the function, as in (x + 1e8) - 1e8, leave noise that is float64's own."""
        jitter = max(line.jitter(step)[1] for step in NOISE_STEPS)
        line.noise = max(line.noise, jitter)
        return jitter <= 1e3 * EPS * line.size * max(1.0, self.inside() / max(conduct.largest(self.base), 1e-300))

    def line(self, number, u, v, size):
        f = self.function

        def phi(t):
            moved = [a + t * v if k == number else a for k, a in enumerate(f.arrays)]
            return weigh(u, f.probe(moved))

        return Line(phi, size)

    def curve(self, number):
        """[(h, error)] of the plain central difference along one random direction."""
        u, v = self.cotangent(), direction(self.rng, self.function.arrays[number], self.skips.allowed[number])
        analytic = float(np.sum(self.function.gradients(self.function.arrays, u)[number] * v))
        return self.line(number, u, v, 1.0).curve(analytic)


def check_op(op, example, order=2, seed=0, **options):
    """check() on one example of a registered op; float32 is compared by rounding.float32_error()."""
    fn, inputs, settings = op_call(op, example, seed)
    report = check(fn, inputs, order, seed, names=[*op.tensors, *op.settings], settings=settings, **{"float32": False} | options)
    for row in report.rows:
        if row.reason in NOTHING:  # an op may well have no gradient; a user's function that has none is a mistake
            row.verdict = "ok"
    return report
