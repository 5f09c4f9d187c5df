"""@op: one decorated function is all it takes to add an op. OPS, the registry, is what every tool enumerates.

An op computes with arrays and returns (y, backward). Inside backward there are only Tensors, so the gradient is
itself made of ops and can be differentiated again.
"""

import functools
import inspect
from time import perf_counter

import numpy as np

from minidl.backend.layout import as_array
from minidl.core.config import STATE
from minidl.core.device import different_devices
from minidl.core.errors import ArgumentError, DTypeError, GraphError, describe, explained
from minidl.core.examples import Example, example
from minidl.core.graph import Node
from minidl.core.later import settle
from minidl.core.site import call_site, resolve
from minidl.core.tensor import QUICK, TENSORS, Tensor, as_constant

OPS = {}        # name -> Op
OBSERVERS = []  # functions called with a Call after every op that ran

NUMBERS = (bool, int, float, np.generic)
ndarray = np.ndarray
ALIASES = {"axis": "dim", "keepdims": "keepdim"}  # NumPy's words for PyTorch's, as PyTorch accepts them too


class Op:
    """What is known about one op besides how to run it."""

    def __init__(self, forward, tensors, examples, tex, uses_output, non_differentiable, name, constant=()):
        self.name = name or forward.__name__
        self.forward = forward
        self.takes_list = tensors.startswith("[")        # "[tensors]": one list of tensors
        self.tensors = tensors.strip("[]").split()       # names of the tensor arguments; they come first
        code = forward.__code__                          # quicker than inspect.signature(), which import pays for every op
        self.settings = [p for p in code.co_varnames[:code.co_argcount + code.co_kwonlyargcount] if p not in self.tensors]
        if list(code.co_varnames[:len(self.tensors)]) != self.tensors:
            raise explained(ArgumentError, f"@op({tensors!r})", "the tensor arguments are the first parameters of the function, by name.",
                            [f"parameters of {self.name}: {', '.join(code.co_varnames[:code.co_argcount])}"],
                            f"Did you mean @op({' '.join(code.co_varnames[:len(self.tensors)])!r})?")
        self.examples = examples
        self.tex = tex
        self.uses_output = uses_output                   # backward(grad_y, y): the formula is in terms of y
        self.non_differentiable = non_differentiable     # output numbers that never carry a gradient (indices)
        self.constant = constant                         # tensor arguments that never get a gradient (class weights)
        self.function = None                             # the public function; @op sets it

    def __repr__(self):
        return f"<Op {self.name}>"

    @functools.cached_property
    def doc(self):
        """The docstring, without its indentation."""
        return inspect.getdoc(self.forward) or ""

    def input_name(self, number):
        """What the op's author calls tensor input `number`."""
        return f"{self.tensors[0]}[{number}]" if self.takes_list else self.tensors[number]

    def wrap_output(self, node):
        """The saved output as a Tensor on its own node again, so that second derivatives go through it."""
        return Tensor(node.saved_output, True, (node, 0))

    def outputs(self, y, backward, edges, site):
        """The results of a forward as Tensors on a new node."""
        if type(y) is not tuple:
            y = as_array(y)
            node = Node(self, backward, edges, ((y.shape, y.dtype),), site, y if self.uses_output else None)
            return Tensor(y, True, (node, 0))
        arrays = [as_array(a) for a in y]
        node = Node(self, backward, edges, [(a.shape, a.dtype) for a in arrays], site)
        return tuple([Tensor(a) if k in self.non_differentiable else Tensor(a, True, (node, k)) for k, a in enumerate(arrays)])

    def checked(self, result):
        """What a forward returned, if it is (y, backward)."""
        if type(result) is tuple and len(result) == 2 and (result[1] is None or callable(result[1])) and not isinstance(result[0], Tensor):
            return result
        y_is_tensor = type(result) is tuple and len(result) == 2 and isinstance(result[0], Tensor)
        raise explained(
            GraphError, self.name, "a forward returns (y, backward): an array (or a tuple of arrays), and a function.",
            [f"it returned: {', '.join(map(describe, result)) if type(result) is tuple else describe(result)}"],
            "Compute with x.array: y must be an array, not a Tensor." if y_is_tensor else "Did you forget `return y, backward`?")

    def check_devices(self, inputs):
        """After an error: inputs on different devices, or a check on a GPU that nobody has looked at yet, are the better message."""
        settle()
        arrays = {self.input_name(k): x.array for k, x in enumerate(inputs) if isinstance(x, Tensor)}
        reason = different_devices(self.name, arrays)
        if reason is not None:
            raise reason from None

    def constants(self, y):
        """The results of a forward as Tensors outside the graph."""
        return tuple([Tensor(as_array(a)) for a in y]) if type(y) is tuple else Tensor(as_array(y))

    def arrange(self, args, settings):
        """Put tensor arguments that came by keyword in their places."""
        renamed = {}
        for key, value in settings.items():
            if key in ("input", "other") and key not in self.tensors and not self.takes_list:
                key = self.tensors[min(key == "other", len(self.tensors) - 1)]
            renamed[ALIASES.get(key, key)] = value
        args = list(args)
        for name in self.tensors[len(args):]:
            if any(later in renamed for later in self.tensors[len(args):]):
                args.append(renamed.pop(name, None))
        unknown = [key for key in renamed if key not in self.settings]
        if unknown:
            raise explained(DTypeError, self.name, f"there is no argument {unknown[0]!r}.",
                            [f"arguments: {', '.join(self.tensors + self.settings)}"], "Check the spelling.")
        return args, renamed

    def admit(self, args):
        """Turn NumPy arrays among the tensor arguments into constants; refuse what no op can use."""
        count = 1 if self.takes_list else len(self.tensors)
        inputs = list(args[0]) if self.takes_list and args and isinstance(args[0], (list, tuple)) else list(args[:count])
        for number, x in enumerate(inputs):
            if isinstance(x, np.ndarray):
                inputs[number] = as_constant(x)
            elif not (x is None or isinstance(x, (Tensor, *NUMBERS))) or self.takes_list and not isinstance(x, Tensor):
                fix = f"minidl.tensor({x!r})" if isinstance(x, (list, tuple)) and len(repr(x)) < 40 else "minidl.tensor(...)"
                raise explained(DTypeError, self.name, f"{self.input_name(number)} must be a Tensor.", [f"it is {describe(x)}"],
                                f"Did you mean {fix}?")
        return [inputs, *args[1:]] if self.takes_list else inputs + list(args[count:])


class Call:
    """One executed op, as observers see it."""

    __slots__ = ("op", "inputs", "args", "settings", "outputs", "site", "seconds", "inside")

    def __init__(self, op, inputs, args, settings, outputs, site, seconds):
        self.op = op
        self.inputs = inputs      # what stood in the tensor arguments, in order
        self.args = args          # all positional arguments: op.function(*args, **settings) repeats the call
        self.settings = settings
        self.outputs = outputs    # a tuple of Tensors
        self.site = site          # (code, instruction) of the line that called
        self.seconds = seconds    # how long its forward took
        self.inside = STATE.walking  # the Node whose backward made this call, if any


def op(tensors, examples=(), tex="", uses_output=False, non_differentiable=(), name=None, method=False, constant=()):
    """Register a differentiable op. `tensors` names its tensor arguments ("x weight bias", or "[tensors]" for a list)."""

    def register(forward):
        record = Op(forward, tensors, examples, tex, uses_output, non_differentiable, name, constant)
        record.function = functools.wraps(forward)(_recorded(record))
        record.function.op = record
        OPS[record.name] = record
        if method:
            setattr(Tensor, record.name, record.function)
        return record.function

    return register


def _recorded(record):
    """The function people call: the op's forward, then its place in the graph."""
    forward, takes_list, count = record.forward, record.takes_list, len(record.tensors)

    def call(*args, **settings):
        if settings:
            args, settings = record.arrange(args, settings)
        inputs = args[0] if takes_list else args[:count]
        edges, wanted = [], False
        for x in inputs:
            if isinstance(x, Tensor):
                edges.append((x.edge or x) if x.requires_grad else None)
                wanted = wanted or x.requires_grad
            elif x is None or isinstance(x, NUMBERS):
                edges.append(None)
            else:
                return call(*record.admit(args), **settings)
        started = perf_counter() if OBSERVERS else None
        try:
            y, backward = record.checked(forward(*args, **settings))
        except Exception:
            record.check_devices(inputs)
            raise
        seconds = perf_counter() - started if started else 0.0  # an observer may have come while the op ran
        site = call_site() if STATE.recording or OBSERVERS else None
        if wanted and STATE.recording and backward is not None:
            y = record.outputs(y, backward, edges + [None] * (count - len(edges)), site)
        else:
            y = record.constants(y)
        if OBSERVERS:
            notify(Call(record, tuple(inputs), args, settings, y if type(y) is tuple else (y,), site, seconds))
        return y

    return _quick_unary(record, call) if count == 1 and not takes_list else _quick_binary(record, call) if count == 2 else call


# The same as call() for one or two tensors and no keywords. For small arrays Python's own time is all the time:
# without these two, the 999 small ops of benchmarks/small_ops.py take 1.2 times as long, forward and backward.

def _quick_unary(record, call):
    forward, uses_output = record.forward, record.uses_output

    def unary(x=None, /, *rest, **settings):
        if settings or OBSERVERS or type(x) not in TENSORS:
            return call(*(() if x is None else (x,)), *rest, **settings)
        result = forward(x, *rest)
        y, backward = result if type(result) is tuple else record.checked(result)
        if type(y) is not ndarray:
            y = as_array(record.checked(result)[0])
        if not (STATE.recording and x.requires_grad) or backward is None:
            return record.constants(y) if type(y) is tuple else Tensor(y)
        if type(y) is tuple:
            return record.outputs(y, backward, [x.edge or x], call_site())
        node = Node(record, backward, (x.edge or x,), ((y.shape, y.dtype),), call_site(), y if uses_output else None)
        return Tensor(y, True, (node, 0))

    return unary


def _quick_binary(record, call):
    forward, uses_output = record.forward, record.uses_output

    def binary(x=None, other=None, /, *rest, **settings):
        if settings or OBSERVERS or type(x) not in QUICK or type(other) not in QUICK:
            return call(*((x,) if other is None and not rest else (x, other)), *rest, **settings)
        try:
            result = forward(x, other, *rest)
        except Exception:
            record.check_devices((x, other))
            raise
        y, backward = result if type(result) is tuple else record.checked(result)
        if type(y) is not ndarray:
            y = as_array(record.checked(result)[0])
        x_edge = (x.edge or x) if type(x) in TENSORS and x.requires_grad else None
        other_edge = (other.edge or other) if type(other) in TENSORS and other.requires_grad else None
        if not STATE.recording or x_edge is None and other_edge is None or backward is None:
            return record.constants(y) if type(y) is tuple else Tensor(y)
        if type(y) is tuple:
            return record.outputs(y, backward, [x_edge, other_edge], call_site())
        node = Node(record, backward, (x_edge, other_edge), ((y.shape, y.dtype),), call_site(), y if uses_output else None)
        return Tensor(y, True, (node, 0))

    return binary


def notify(call):
    """Tell every observer; a copy of the list, so that one may remove itself."""
    for observer in tuple(OBSERVERS):
        observer(call)


def needs_grad(x, other=None, *more):
    """For each argument: will a gradient be asked for it? Save only what those formulas name."""
    if type(x) in TENSORS and type(other) in TENSORS and not more:
        return x.requires_grad, other.requires_grad
    return [isinstance(t, Tensor) and t.requires_grad for t in (x, other, *more)]


__all__ = ["OBSERVERS", "OPS", "Call", "Example", "Op", "call_site", "example", "needs_grad", "op", "resolve"]
