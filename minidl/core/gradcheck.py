"""Is this gradient right? check() compares it with finite differences, to any order, and says what is wrong if it is not.

A random direction v and a random cotangent u turn f into a function of one number, phi(t) = <u, f(x + t·v)>, whose
slope must be <grad, v>. probe.py finds that slope from values, kinks.py what is not smooth, diagnose.py what went wrong.
"""

import inspect

import numpy as np

from minidl.core import conduct, derivative
from minidl.core.config import set_grad_enabled
from minidl.core.device import CPU, device_of, move
from minidl.core.diagnose import diagnose, narrow_ops
from minidl.core.dtypes import is_floating
from minidl.core.errors import DTypeError, RangeError, explained
from minidl.core.kinks import Skips, localise, name_ties, weigh
from minidl.core.probe import Line, direction
from minidl.core.report import Report, Row
from minidl.core.tensor import Tensor

RTOL = 1e-9  # of sum(|grad · v|): what summation in float64 may cost the gradient itself
NOTHING = ("no floating point input", "no output is floating point")


class Function:
    """fn as a function of float64 arrays (arguments that are not floating stay as they are), and its gradients."""

    def __init__(self, fn, inputs, names=None, settings=None, chosen=None, dtype=np.float64, device=None):
        self.fn, self.dtype, self.device = fn, dtype, device
        self.arrays, self.names, self.devices, self.constants = [], [], [], []
        self.template = [self._take(value, name, chosen) for value, name in zip(inputs, _argument_names(fn, inputs, names), strict=True)]
        self.settings = {key: self._constant(value) if isinstance(value, Tensor) else value for key, value in (settings or {}).items()}
        self.outputs = None  # numbers of the outputs that are checked; None until pick_outputs()
        self.output_names = []

    def _take(self, value, name, chosen):
        """Copy one argument into self.arrays; what is returned stands for it in the call."""
        if isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value):
            return type(value)(self._take(v, f"{name}[{k}]", chosen) for k, v in enumerate(value))
        if isinstance(value, Tensor) or isinstance(value, np.ndarray) and is_floating(value.dtype):
            array = value.array if isinstance(value, Tensor) else value
            if is_floating(array.dtype) and (chosen is None or chosen(value)):
                self.arrays.append(np.array(move(array, CPU), self.dtype, order="K"))
                self.names.append(name)
                self.devices.append(self.device or device_of(array))
                return _Slot(len(self.arrays) - 1)
            value = self._constant(Tensor(array))
            self.constants.append((name, value.array, value.array.copy()))
        return value

    def _constant(self, x):
        """A copy of a tensor that is not checked, in the dtype of the check and on its device."""
        array = x.array.astype(self.dtype) if is_floating(x.dtype) else x.array.copy()
        return Tensor(move(array, self.device or device_of(array)))

    def leaves(self, arrays):
        """The arrays as leaves that require grad."""
        return [Tensor(move(np.asarray(a), d), True) for a, d in zip(arrays, self.devices, strict=True)]

    def call(self, leaves, record):
        """fn's outputs as a flat list of Tensors."""

        def fill(part):
            if isinstance(part, _Slot):
                return leaves[part.number]
            return type(part)(fill(p) for p in part) if isinstance(part, (list, tuple)) else part

        with set_grad_enabled(record):
            result = self.fn(*[fill(part) for part in self.template], **self.settings)
        flat = _flatten(result)
        return flat if self.outputs is None else [flat[k] for k in self.outputs]

    def pick_outputs(self):
        """Check the floating outputs that carry a gradient; if none does, all floating ones, whose gradient is then zero."""
        ys = self.call(self.leaves([a.copy() for a in self.arrays]), True)
        floating = [k for k, y in enumerate(ys) if is_floating(y.dtype)]
        self.outputs = [k for k in floating if ys[k].requires_grad] or floating
        self.output_names = ["y"] if len(ys) == 1 else [f"y[{k}]" for k in self.outputs]
        return [ys[k] for k in self.outputs]

    def evaluate(self, arrays):
        """The outputs' values, in float64."""
        with np.errstate(all="ignore"):  # a probe may step out of the domain
            values = [np.asarray(move(y.array, CPU), np.float64) for y in self.call(self.leaves(arrays), False)]
        self.shapes = [y.shape for y in values]
        return values

    def probe(self, arrays):
        """The same near a point where it is known to work: an error there is an edge of the domain, as NaN is, and passed over."""
        try:
            return self.evaluate(arrays)
        except (ArithmeticError, ValueError, RangeError):
            return [np.full(shape, np.nan) for shape in self.shapes]

    def gradients(self, arrays, cotangents, create_graph=False):
        """Arrays <u, df/dx>, one per argument, by backward."""
        leaves = self.leaves(arrays)
        found = _grads(self.call(leaves, True), leaves, [Tensor(np.asarray(u)) for u in cotangents], create_graph)
        return [np.asarray(move(g.array, CPU)) for g in found]

    def gradients_of_one(self, arrays, cotangents, k):
        """The same where only output k has a gradient, and none arrives at the others."""
        leaves = self.leaves(arrays)
        y = self.call(leaves, True)[k]
        return [np.asarray(move(g.array, CPU)) for g in _grads([y], leaves, [Tensor(np.asarray(cotangents[k]))], False)]

    def derivative(self, rng, cotangents=None, strided=False):
        """The function (x..., u...) -> gradients: checking it checks the next order."""
        if self.outputs is None:
            self.pick_outputs()
        if cotangents is None:
            cotangents = [np.asarray(rng.standard_normal(y.shape)) for y in self.evaluate(self.arrays)]
        if strided:
            cotangents = [np.repeat(u[..., None], 2, axis=-1)[..., 0] for u in cotangents]
        return Derivative(self, cotangents)


class Derivative(Function):
    """The gradient of a function, as a function of the same arguments and of the cotangents."""

    def __init__(self, inner, cotangents):
        self.inner = inner
        self.arrays = [*inner.arrays, *(np.asarray(u, np.float64) for u in cotangents)]
        self.names = [*inner.names, *(f"grad_{name}" for name in inner.output_names)]
        self.devices = [*inner.devices, *([inner.devices[0] if inner.devices else CPU] * len(cotangents))]
        self.constants, self.settings = inner.constants, {}
        self.outputs = list(range(len(inner.arrays)))
        self.output_names = [f"grad_{name}" for name in inner.names]

    def call(self, leaves, record):
        """The inner gradients, recorded if they are to be differentiated again."""
        count = len(self.inner.arrays)
        return _grads(self.inner.call(leaves[:count], True), leaves[:count], leaves[count:], record)

    def pick_outputs(self):
        """All of them: a gradient that carries no graph may be a detached one."""
        return self.call(self.leaves([a.copy() for a in self.arrays]), True)


class _Slot:
    def __init__(self, number):
        self.number = number


def _grads(ys, leaves, cotangents, create_graph):
    """grad() of the outputs that require grad; zeros where no path leads to an argument."""
    with_grad = [(y, move_to(u, y)) for y, u in zip(ys, cotangents, strict=True) if y.requires_grad]
    found = [None] * len(leaves)
    if with_grad:
        roots, grads = zip(*with_grad, strict=True)
        found = derivative.grad(list(roots), leaves, list(grads), create_graph=create_graph, allow_unused=True)
    return [Tensor(np.zeros(x.shape, x.dtype)) if g is None else g for g, x in zip(found, leaves, strict=True)]


def move_to(u, y):
    """The cotangent on its output's device."""
    return u if u.device == y.device else Tensor(move(u.array, y.device))


def _flatten(result):
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, (tuple, list)) and result and all(isinstance(y, (Tensor, tuple, list)) for y in result):
        return [y for part in result for y in _flatten(part)]
    raise explained(DTypeError, "check", "the function must return a Tensor or a tuple of Tensors.",
                    [f"it returned a {type(result).__name__}"], "Return the tensor itself, not .item() or .array.")


def _argument_names(fn, inputs, names):
    if names is None:
        try:
            parameters = list(inspect.signature(fn).parameters.values())
            names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        except (TypeError, ValueError):
            names = []
    return [names[k] if k < len(names) else f"input {k}" for k in range(len(inputs))]


def check(fn, inputs, order=2, seed=0, *, probes=3, names=None, settings=None, rtol=RTOL, atol=0.0, step=None, nondet_tol=0.0,
          check_undefined_grad=True, start=1, grad_outputs=None, strided=False, chosen=None, explain=True,
          device=None, progress=None):
    """Compare the gradients of fn at `inputs` with finite differences, up to the given order; returns a Report.

        print(minidl.check(lambda x, w: (x @ w).tanh(), (minidl.randn(2, 3), minidl.randn(3, 4))))

    Floating point inputs are copied to float64 and checked one by one; everything else stays constant. The tolerance
    is derived from the steps taken; rtol (of the gradient's size) and atol come on top of it. Points where fn is not
    smooth are found from its values, left out, and listed. `chosen(tensor)` says which inputs to check, `start` is the
    first order, grad_outputs are the cotangents of the second, explain=False leaves the diagnosis out.
    `device` moves the inputs there first.
    """
    inputs = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    report = Report(progress=progress)
    function = Function(fn, inputs, names, settings, chosen, device=device)
    options = {"probes": probes, "rtol": rtol, "atol": atol, "step": step, "nondet_tol": nondet_tol, "undefined": check_undefined_grad,
               "explain": explain}
    for level in range(1, order + 1):
        rng = np.random.default_rng([seed, level, 2024])
        if level > 1:
            function = function.derivative(rng, grad_outputs if level == 2 else None, strided)
        if level >= start:
            _Level(function, level, report, rng, options).run()
        if report.rows and not report.ok:
            break  # higher orders of a wrong gradient say nothing
    return report


class _Level:
    """The check of one order."""

    def __init__(self, function, order, report, rng, options):
        self.function, self.order, self.report, self.rng, self.options = function, order, report, rng, options
        self.skips = Skips(function.arrays)

    def run(self):
        """Everything that can be wrong with one order; rows go to the report."""
        f = self.function
        f.pick_outputs()
        if not f.outputs or not f.arrays:
            reason = NOTHING[0] if not f.arrays else NOTHING[1]
            return self.finish("everything", "not checked", reason)
        self.base = f.evaluate([a.copy() for a in f.arrays])
        found = conduct.problem(f, self.base, self.cotangent(), self.options, self.order == 1)
        if found:
            self.report.cause = found[3]
            return self.finish(*found[:3])
        rows = [self.argument(number) for number in range(len(f.arrays))]
        for tie in name_ties(f.probe, f.arrays, f.names, self.skips):
            self.tie(tie, rows)
        for row in rows:
            row.skipped = self.skips.texts(row.number, row.argument, f.arrays[row.number].shape)
            self.report.add(row)
        return None

    def finish(self, name, verdict, reason):
        self.report.add(Row(self.order, -1, name, verdict=verdict, reason=reason))

    def cotangent(self):
        return [np.asarray(self.rng.standard_normal(y.shape)) for y in self.base]

    def argument(self, number):
        """Probe one argument in several directions."""
        f, name = self.function, self.function.names[number]
        row = Row(self.order, number, name)
        row.curve = lambda: self.curve(number)
        if f.arrays[number].size == 0 or all(y.size == 0 for y in self.base):
            row.verdict, row.reason = "ok", "no elements"
            return row
        noise = None
        for _ in range(self.options["probes"]):
            u = self.cotangent()
            gradient = np.asarray(f.gradients(f.arrays, u)[number], np.float64)
            line, slope, v = self.smooth_line(number, u, noise)
            noise = line.noise
            if line.restless:
                row.verdict, row.reason = "wrong", "the values are too noisy for float64"
                row.guess = narrow_ops(lambda: f.call(f.leaves(f.arrays), True))
                return row
            if not self.skips.allowed[number].any():
                row.verdict, row.reason = "not checked", "every element is skipped"
                return row
            if not slope.resolved:
                row.verdict, row.reason = "not checked", "no step gives a trustworthy slope"
                return row
            size = float(np.sum(np.abs(gradient * v)))
            analytic = float(np.sum(gradient * v))
            row.probes += 1
            row.take(analytic, slope, slope.error + self.options["rtol"] * size + self.options["atol"], max(size, abs(slope.value)))
            if row.verdict == "wrong" and self.options["explain"]:
                row.guess, row.details = diagnose(f, number, self.order, self.skips.allowed[number], u, row, line.noise)
            if row.verdict == "wrong":
                break
        return row

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
        size = float(sum(np.sum(np.abs(w * y)) for w, y in zip(u, self.base, strict=True)))
        for attempt in range(5):
            floor = 0.05 if attempt == 0 else 0.0  # then steps that no element, however small, finds large
            v = direction(self.rng, x, self.skips.allowed[number], floor)
            line = self.line(number, u, v, size)
            line.noise = noise
            slope = line.slope(*(() if self.options["step"] is None else (self.options["step"], 4)))
            if slope.resolved or line.restless or not self.skips.allowed[number].any():
                break
            if attempt:
                localise(f.probe, f.arrays, number, v, u, size, line.noise, self.skips)
        return line, slope, v

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


def op_call(op, example, seed=0, dtype=np.float64):
    """One example of a registered op as (fn, inputs, settings), ready for check(): arrays for tensor arguments as Tensors."""
    args, settings = example.build(seed, dtype)

    def tensor(value):
        if isinstance(value, (list, tuple)):
            return [tensor(v) for v in value]
        return Tensor(value) if isinstance(value, np.ndarray) else value

    count = 1 if op.takes_list else len(op.tensors)
    for name in op.tensors[len(args):count]:
        if any(later in settings for later in op.tensors[len(args):]):
            args.append(settings.pop(name, None))
    inputs = [tensor(a) if k < count else a for k, a in enumerate(args)]
    for name in op.constant:  # as a setting it stays out of what is differentiated, and so must all that follows it
        place = op.tensors.index(name)
        settings |= dict(zip([*op.tensors, *op.settings][place:], inputs[place:], strict=False))
        del inputs[place:]
    return op.function, inputs, settings


def check_op(op, example, order=2, seed=0, **options):
    """check() on one example of a registered op."""
    fn, inputs, settings = op_call(op, example, seed)
    report = check(fn, inputs, order, seed, names=[*op.tensors, *op.settings], settings=settings, **options)
    for row in report.rows:
        if row.reason in NOTHING:  # an op may well have no gradient; a user's function that has none is a mistake
            row.verdict = "ok"
    return report
