"""A function as the gradient check sees it: of float64 arrays, with values and gradients as arrays; and its derivatives.

gradcheck.py probes one, conduct.py looks at how its backward behaves, rounding.py runs it in float32.
"""

import inspect

import numpy as np

from minidl.core import derivative
from minidl.core import op as registry
from minidl.core.config import set_grad_enabled
from minidl.core.device import CPU, device_of, move
from minidl.core.dtypes import is_floating
from minidl.core.errors import DTypeError, RangeError, explained
from minidl.core.tensor import Tensor


class Function:
    """fn as a function of float64 arrays (arguments that are not floating stay as they are), and its gradients."""

    def __init__(self, fn, inputs, names=None, settings=None, chosen=None, dtype=np.float64, device=None):
        self.fn, self.dtype, self.device = fn, dtype, device
        self.given = fn, inputs, names, settings, chosen
        self.arrays, self.names, self.devices, self.constants = [], [], [], []
        self.template = [self._take(value, name, chosen) for value, name in zip(inputs, _argument_names(fn, inputs, names), strict=True)]
        self.settings = {key: self._constant(value) if isinstance(value, Tensor) else value for key, value in (settings or {}).items()}
        self.outputs = None  # numbers of the outputs that are checked; None until pick_outputs()
        self.infinite = False  # of a Derivative: did the last values include infinite ones that are left out?
        self.detached = []   # numbers of floating outputs that carry no gradient although another one does
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

    def in_dtype(self, dtype):
        """The same function of arrays of another dtype."""
        return Function(*self.given, dtype=dtype, device=self.device)

    def leaves(self, arrays, only=None):
        """The arrays as leaves that require grad, or of which only one does."""
        return [Tensor(move(np.asarray(a), d), only in (None, k)) for k, (a, d) in enumerate(zip(arrays, self.devices, strict=True))]

    def call(self, leaves, record):
        """fn's outputs as a flat list of Tensors."""

        def fill(part):
            if isinstance(part, _Slot):
                return leaves[part.number]
            return type(part)(fill(p) for p in part) if isinstance(part, (list, tuple)) else part

        with set_grad_enabled(record), np.errstate(all="ignore"):  # a probe may step out of the domain
            result = self.fn(*[fill(part) for part in self.template], **self.settings)
        flat = _flatten(result)
        return flat if self.outputs is None else [flat[k] for k in self.outputs]

    def pick_outputs(self):
        """Check the floating outputs that carry a gradient; if none does, all floating ones, whose gradient is then zero."""
        exempt = []  # what an op says has no gradient

        def watch(call):
            exempt.extend(call.outputs[k] for k in call.op.non_differentiable if k < len(call.outputs))

        registry.OBSERVERS.append(watch)
        try:
            ys = self.call(self.leaves([a.copy() for a in self.arrays]), True)
        finally:
            registry.OBSERVERS.remove(watch)
        floating = [k for k, y in enumerate(ys) if is_floating(y.dtype)]
        self.outputs = [k for k in floating if ys[k].requires_grad] or floating
        self.detached = [k for k in floating if k not in self.outputs and not any(ys[k] is e for e in exempt)]
        self.output_names = ["y"] if len(ys) == 1 else [f"y[{k}]" for k in self.outputs]
        return [ys[k] for k in self.outputs]

    def evaluate(self, arrays):
        """The outputs' values, in float64."""
        values = [np.asarray(move(y.array, CPU), np.float64) for y in self.call(self.leaves(arrays), False)]
        self.shapes = [y.shape for y in values]
        return values

    def probe(self, arrays):
        """The same near a point where it is known to work: an error there is an edge of the domain, as NaN is, and passed over."""
        try:
            return self.evaluate(arrays)
        except (ArithmeticError, ValueError, RangeError):
            return [np.full(shape, np.nan) for shape in self.shapes]

    def record(self, arrays, only=None, same=None):
        """Run forward once, to go backward from it as often as wanted; `same` are two arguments that become one tensor."""
        leaves = self.leaves(arrays, only)
        if same:
            leaves[same[1]] = leaves[same[0]]
        return Recorded(self.call(leaves, True), leaves)

    def gradients(self, arrays, cotangents, create_graph=False, only=None):
        """Arrays <u, df/dx>, one per argument, by backward."""
        return self.record(arrays, only).gradients(cotangents, create_graph)

    def derivative(self, cotangents, strided=False, defined=None):
        """The function (x..., u...) -> gradients: checking it checks the next order. `defined` says where there is one."""
        if self.outputs is None:
            self.pick_outputs()
        return Derivative(self, [spaced(u) for u in cotangents] if strided else cotangents, defined)


class Derivative(Function):
    """The gradient of a function, as a function of the same arguments and of the cotangents."""

    def __init__(self, inner, cotangents, defined=None):
        self.inner = inner
        self.defined = defined or [np.ones(a.shape, bool) for a in inner.arrays]  # False where the inner function is not smooth
        self.detached = []
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

    def evaluate(self, arrays):
        """The inner gradients; 0 where the inner function has none."""
        values = super().evaluate(arrays)
        self.infinite = not all(np.isfinite(y).all() for y in values)
        return [np.where(there, y, 0.0) for there, y in zip(self.defined, values, strict=True)]


class Recorded:
    """A forward that has run: its outputs, and the gradients that backward finds from them, again and again."""

    def __init__(self, ys, leaves):
        self.ys, self.leaves = ys, leaves

    def gradients(self, cotangents, create_graph=False):
        """Arrays <u, df/dx>, one per argument."""
        return self._arrays(self.ys, cotangents, create_graph)

    def of_one(self, cotangents, k):
        """The same where only output k has a gradient, and none arrives at the others."""
        return self._arrays([self.ys[k]], [cotangents[k]], False)

    def _arrays(self, ys, cotangents, create_graph):
        found = _grads(ys, self.leaves, [Tensor(np.asarray(u)) for u in cotangents], create_graph, True)
        return [np.asarray(move(g.array, CPU)) for g in found]


def spaced(array):
    """The same numbers in another order of memory, with gaps."""
    return np.repeat(array.T[..., None], 2, axis=-1)[..., 0].T


class _Slot:
    def __init__(self, number):
        self.number = number


def _grads(ys, leaves, cotangents, create_graph, retain_graph=None):
    """grad() of the outputs that require grad; zeros where no path leads to an argument."""
    with_grad = [(y, move_to(u, y)) for y, u in zip(ys, cotangents, strict=True) if y.requires_grad]
    wanted, found = [x for x in leaves if x.requires_grad], {}
    if with_grad and wanted:
        roots, grads = zip(*with_grad, strict=True)
        with np.errstate(all="ignore"):  # where the function is not smooth, its gradient may be infinite
            found = derivative.grad(list(roots), wanted, list(grads), retain_graph, create_graph, allow_unused=True)
        found = {id(x): g for x, g in zip(wanted, found, strict=True) if g is not None}
    return [found[id(x)] if id(x) in found else Tensor(np.zeros(x.shape, x.dtype)) for x in leaves]


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
