"""step(): record every op of some code, forward and backward, as a Trace that can be walked through.

Forward ops come from the observers in core/op.py, backward steps from the one walk in core/graph.py, as
Tensor.backward() runs it. Nothing here computes a gradient.
"""

import sys
import threading
from time import perf_counter

import numpy as np

from minidl.core.derivative import WATCHERS
from minidl.core.op import OBSERVERS, OPS
from minidl.core.site import call_site
from minidl.core.tensor import Tensor


class Value:
    """A tensor as it was when it was recorded."""

    def __init__(self, array, made_by=None, number=0):
        self.array = array
        self.made_by = made_by        # the Forward whose output it is, or None
        self.number = number          # which output
        self.known = None             # what the model or the program calls it
        self.name = ""                # what the stepper calls it; Trace.settle_names() decides

    shape = property(lambda self: tuple(self.array.shape))
    dtype = property(lambda self: self.array.dtype)

    def default_name(self, given):
        """A name for a tensor that nobody named: after the op that made it, or its number among the given ones."""
        if self.made_by is None:
            return f"given{given}"
        return f"{self.made_by.label}.y" + (str(self.number + 1) if len(self.made_by.outputs) > 1 else "")


class Forward:
    """One op that ran forward."""

    def __init__(self, op, node, site, seconds=0.0):
        self.op = op
        self.in_graph = node is not None  # can a walk come back through it?
        self.site = site              # (code, instruction) of the line that called it
        self.seconds = seconds
        self.number = None            # its place among the forward ops, from 1; None for an op outside that list
        self.step = None              # its place among all steps, from 1
        self.inputs = []              # what stood in the tensor arguments: Values, numbers, None
        self.settings = {}            # the other arguments of the call, by name
        self.outputs = []             # Values
        self.users = []               # the Forwards that read an output
        self.backwards = []           # the Backwards that went through it
        self.known = True             # False for an op that ran before recording began
        self.backward_code = getattr(getattr(node, "backward", None), "__code__", None)
        self.kept = kept(node)        # [(name in the backward, bytes)]: what the node keeps alive for its backward

    label = property(lambda self: f"op{self.number}" if self.number else self.op.name)


class Contribution:
    """What one backward step added to the gradient of one of its inputs."""

    def __init__(self, argument, to, grad, before, after):
        self.argument = argument      # what the op calls this input
        self.to = to                  # the Value
        self.grad = grad              # the part that this step adds
        self.before, self.after = before, after  # the sum so far, without and with it
        self.index, self.count = 0, None         # this is contribution `index` of `count`; None if the walk never ended

    complete = property(lambda self: self.index == self.count)


class Backward:
    """One node that a walk went through."""

    def __init__(self, forward, grads_in, ran, seconds):
        self.forward = forward
        self.grads_in = grads_in      # [(Value of the output, gradient)]
        self.contributions = []       # one per input that gets a gradient
        self.ran = ran                # names of the ops that this backward ran
        self.seconds = seconds
        self.number = None            # its place among the backward steps, from 1
        self.step = None              # its place among all steps, from 1

    op = property(lambda self: self.forward.op)


class Trace:
    """What was recorded: every forward op and every backward step, in the order in which they ran."""

    def __init__(self):
        self.steps = []       # Forwards and Backwards
        self.counts = {Forward: 0, Backward: 0}
        self.values = []      # every Value, in order of appearance
        self.error = ""       # what the recorded code raised, if anything: "ShapeError: add: the shapes ..."

    forwards = property(lambda self: [s for s in self.steps if type(s) is Forward])
    backwards = property(lambda self: [s for s in self.steps if type(s) is Backward])

    def __repr__(self):
        ended = f", ended by {self.error.partition(':')[0]}" if self.error else ""
        return f"<Trace: {self.counts[Forward]} forward ops, {self.counts[Backward]} backward steps{ended}>"

    def add(self, item):
        """Append a step and number it."""
        self.counts[type(item)] += 1
        self.steps.append(item)
        item.number, item.step = self.counts[type(item)], len(self.steps)

    def settle_names(self):
        """Give every value a name, and no two the same one."""
        given, taken = 0, set()
        for value in self.values:
            given += value.made_by is None
            name = value.known or value.default_name(given)
            if name in taken:  # a variable that was assigned again: say by which op
                name = f"{name}@{value.made_by.label if value.made_by else given}"
            while name in taken:
                name += "'"
            taken.add(name)
            value.name = name

    def find(self, name):
        """The Value of this name, or None."""
        return next((value for value in self.values if value.name == name), None)

    def explore(self, commands=None):
        """Walk through the trace at a prompt; `commands` such as "c back; n; ck; q" come first."""
        from minidl.stepper.terminal import explore

        explore(self, commands)


class step:  # noqa: N801 - reads like no_grad
    """`with minidl.step(model) as trace:` record every op inside, forward and backward; then trace.explore().

    The model's parameters keep the names they have there; other tensors are called what the program calls them. If
    the block raises, the trace has everything up to there.
    """

    def __init__(self, model=None):
        names = model.named_parameters() if hasattr(model, "named_parameters") else ()
        self.names = {id(tensor): name for name, tensor in names}
        self.trace = Trace()
        self.found = {}     # id(tensor) -> its newest Value
        self.alive = []     # every tensor in `found`: its id must stay its own
        self.by_node = {}   # Node -> Forward
        self.walks = 0      # how many walks are running now, one inside the other
        self.ran = []       # names of the ops that the current backward step ran

    def __enter__(self):
        self.thread = threading.get_ident()
        self.forwards = {op.forward.__code__ for op in OPS.values()}  # to see that a call came from inside an op
        self.observer, self.watcher = self.see_call, self.watch
        OBSERVERS.append(self.observer)
        WATCHERS.append(self.watcher)
        return self.trace

    def __exit__(self, kind, error, traceback):
        OBSERVERS.remove(self.observer)
        WATCHERS.remove(self.watcher)
        if kind is not None:
            self.trace.error = f"{kind.__name__}: {error}"
        self.learn_names(sys._getframe(1))
        self.trace.settle_names()
        self.found, self.alive, self.by_node = {}, [], {}  # a trace keeps arrays alive, not graphs

    # --- forward ----------------------------------------------------------------------------------------------
    def see_call(self, call):
        """Record one op; the ops that an op's own forward calls, and those of other threads, are not steps."""
        if threading.get_ident() != self.thread:
            return
        frame, nested = calling_frame(call.site[0], self.forwards)
        if nested:
            return
        node = next((y.edge[0] for y in call.outputs if y.edge is not None), None)
        if self.walks:
            if call.inside is not None:  # else it is the walk itself, adding up contributions
                self.ran.append(call.op.name)
            if node is None:
                return
        item = Forward(call.op, node, call.site, call.seconds)
        item.inputs = [self.value(x) if isinstance(x, Tensor) else x for x in call.inputs]
        others = call.args[1 if call.op.takes_list else len(call.op.tensors):]
        item.settings = {**dict(zip(call.op.settings, others, strict=False)), **call.settings}
        if not self.walks:
            self.trace.add(item)
        for value in {id(v): v for v in item.inputs if isinstance(v, Value)}.values():
            if value.made_by is not None:
                value.made_by.users.append(item)
        item.outputs = [self.made(y, item, number) for number, y in enumerate(call.outputs)]
        if node is not None:
            self.by_node[node] = item
        if any(isinstance(v, Value) and v.known is None for v in item.inputs):
            self.learn_names(frame)

    def made(self, tensor, forward, number):
        """A new Value for an op's output."""
        return self.remember(tensor, Value(tensor.array, forward, number))

    def remember(self, tensor, value):
        """From now on this Value stands for this tensor."""
        self.alive.append(tensor)
        self.found[id(tensor)] = value
        self.trace.values.append(value)
        return value

    def value(self, tensor):
        """The Value of a tensor; a new one if it was never seen, or if someone has written into it since."""
        value = self.found.get(id(tensor))
        if value is None or value.made_by is None and not same(value.array, tensor.array):
            known = value.known if value else self.names.get(id(tensor))
            value = self.remember(tensor, Value(tensor.array.copy()))  # a copy: what no op made, an optimiser may overwrite
            value.known = known
        return value

    def learn_names(self, frame):
        """Call the tensors what the code in this frame calls them: its variables, and the attributes of its `self`."""
        if frame is None:
            return
        variables = dict(frame.f_locals)
        variables = {**getattr(variables.get("self"), "__dict__", {}), **variables}
        for name, tensor in variables.items():
            value = self.found.get(id(tensor)) if isinstance(tensor, Tensor) else None
            if value is not None and value.known is None and isinstance(name, str):
                value.known = name

    # --- backward ---------------------------------------------------------------------------------------------
    def watch(self, steps):
        """Let the steps of a walk pass, recording each."""
        if threading.get_ident() != self.thread:
            yield from steps
            return
        self.learn_names(calling_frame(call_site()[0], ())[0])  # what backward() is called on has its name by now
        counts = {}  # edge -> its contributions so far
        while True:
            outer, self.ran = self.ran, []
            self.walks += 1
            started = perf_counter()
            try:
                item = next(steps, None)
            finally:
                seconds = perf_counter() - started
                self.walks -= 1
                ran, self.ran = self.ran, outer
            if item is None:
                break
            self.see_step(item, counts, ran, seconds)
            yield item
        for contributions in counts.values():
            for contribution in contributions:
                contribution.count = contributions[-1].index

    def see_step(self, step, counts, ran, seconds):
        """Record one step of a walk; `counts` collects the contributions to every edge."""
        forward = self.by_node.get(step.node) or self.earlier(step.node)
        grads = zip(forward.outputs, step.grads_in, strict=True)
        item = Backward(forward, [(value, grad) for value, grad in grads if grad is not None], ran, seconds)
        for number, (edge, grad, sums) in enumerate(zip(step.edges, step.grads_out, step.sums, strict=True)):
            if sums is None:
                continue
            contribution = Contribution(step.node.op.input_name(number), self.edge_value(edge), grad, *sums)
            so_far = counts.setdefault(edge, [])
            # A sum that was there before any contribution is the gradient that the walk started with.
            contribution.index = so_far[-1].index + 1 if so_far else 1 + (sums[0] is not None)
            so_far.append(contribution)
            item.contributions.append(contribution)
        self.trace.add(item)
        forward.backwards.append(item)

    def edge_value(self, edge):
        """The Value that an edge of a node leads to."""
        if type(edge) is not tuple:
            return self.value(edge)
        return (self.by_node.get(edge[0]) or self.earlier(edge[0])).outputs[edge[1]]

    def earlier(self, node):
        """A stand-in for an op that ran before the recording: its output's values are gone, shape and dtype are known."""
        item = self.by_node[node] = Forward(node.op, None, node.site)
        item.known = False
        for number, (shape, dtype) in enumerate(node.outputs):
            item.outputs.append(Value(np.broadcast_to(np.zeros((), dtype), shape), item, number))
        self.trace.values += item.outputs
        return item


def calling_frame(code, forwards):
    """The frame that runs this code, and whether the forward of some op stands between it and the observer."""
    frame, nested = sys._getframe(2), code in forwards
    while frame is not None and frame.f_code is not code:
        nested = nested or frame.f_code in forwards
        frame = frame.f_back
    return frame, nested


def same(a, b):
    """Do two arrays hold the same values (NaN equal to itself)?"""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())


def kept(node):
    """[(name, bytes)] of the arrays that a node keeps alive for its backward, the saved output among them."""
    found, seen = [], set()
    if node is None or node.backward is None:
        return found
    names = getattr(getattr(node.backward, "__code__", None), "co_freevars", ())
    cells = getattr(node.backward, "__closure__", None) or ()
    closed = [(name, cell.cell_contents) for name, cell in zip(names, cells, strict=True) if not empty(cell)]
    for name, value in [*closed, ("y", node.saved_output)]:
        size = 0
        for item in value if isinstance(value, (tuple, list)) else (value,):
            array = item.array if isinstance(item, Tensor) else item
            if hasattr(array, "nbytes") and hasattr(array, "strides") and id(array) not in seen:
                seen.add(id(array))
                size += array.nbytes
        if size:
            found.append((name, size))
    return found


def empty(cell):
    """Does a closure's cell hold nothing (yet)?"""
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True
