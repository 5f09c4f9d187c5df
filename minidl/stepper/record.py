"""step(): record every op of some code, forward and backward, and every optimiser step, as a Trace that can be walked through.

Forward ops come from the observers in core/op.py, backward steps from the one walk in core/graph.py, as
Tensor.backward() runs it, optimiser steps from Optimizer.step(). Nothing here computes a gradient.
"""

import sys
import textwrap
import threading
from time import perf_counter

import numpy as np

from minidl.core.config import use_fusion
from minidl.core.count import multiply_adds
from minidl.core.derivative import WATCHERS
from minidl.core.device import CPU, move
from minidl.core.op import OBSERVERS, OPS
from minidl.core.site import call_site
from minidl.core.tensor import Tensor
from minidl.nn.module import current_path, running_modules
from minidl.optim.optimizer import STEP_OBSERVERS
from minidl.stepper.compare import tensors
from minidl.stepper.modules import describe_modules
from minidl.stepper.ran import Heard
from minidl.stepper.trace import Backward, Change, Contribution, Forward, Rule, Trace, Update
from minidl.stepper.values import Value, pieces


class step:  # noqa: N801 - reads like no_grad
    """`with minidl.step(model) as trace:` record every op inside, forward and backward; then trace.explore().

    The model's parameters keep the names they have there; other tensors are called after the module that made them, or
    what the program calls them. Fused ops run as the separate ones they stand for. If the block raises, the trace has
    everything up to there. `last=3` keeps the last three training steps (each ends with an optimiser's), so a long training
    may run inside.
    """

    def __init__(self, model=None, progress=None, last=None):
        self.progress = progress  # called with the number of steps so far
        self.last = last          # how many training steps are kept, of a recording that goes on; None: all
        self.names, self.outermost = {}, []
        self.trace = Trace()
        self.found = {}     # id(tensor) -> its newest Value
        self.grads = {}     # (id(array), id(Value)) -> the Value of that gradient
        self.latest = {}    # id(Value) -> the newest sum of its gradient
        self.alive = []     # every tensor in `found` and `grads`: its id must stay its own
        self.by_node = {}   # Node -> Forward
        self.walks = 0      # how many walks are running now, one inside the other
        self.ran = []       # names of the ops that the current backward step ran
        self.plain = use_fusion(False)
        self.learn_model(model)

    def learn_model(self, model):
        """Remember what a model calls its parameters and buffers."""
        self.outermost.append(model)
        for role, list_them in (("parameter", "named_parameters"), ("buffer", "named_buffers")):
            for name, tensor in getattr(model, list_them, tuple)():
                self.names.setdefault(id(tensor), (role, name))
                self.alive.append(tensor)

    def __enter__(self):
        self.thread = threading.get_ident()
        self.forwards = {op.forward.__code__ for op in OPS.values()}  # to see that a call came from inside an op
        self.observer, self.watcher, self.updated = self.see_call, self.watch, self.see_update
        OBSERVERS.append(self.observer)
        WATCHERS.append(self.watcher)
        STEP_OBSERVERS.append(self.updated)
        self.heard = Heard(self.forwards).__enter__()
        self.plain.__enter__()
        return self.trace

    def __exit__(self, kind, error, traceback):
        self.plain.__exit__()
        OBSERVERS.remove(self.observer)
        WATCHERS.remove(self.watcher)
        STEP_OBSERVERS.remove(self.updated)
        self.heard.__exit__()
        if kind is not None:
            self.trace.error = f"{kind.__name__}: {error}"
        self.learn_names(sys._getframe(1))
        self.trace.settle_names()
        self.trace.modules = describe_modules(self.trace, [model for model in self.outermost if hasattr(model, "named_modules")])
        self.found, self.grads, self.latest, self.alive, self.by_node = {}, {}, {}, [], {}  # a trace keeps arrays alive, not graphs

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
        running = running_modules()
        if running and not any(running[0] is model for model in self.outermost):
            self.learn_model(running[0])
        item = Forward(call.op, node, call.site, call.seconds, current_path())
        item.multiply_adds = multiply_adds(call)
        item.is_leaf_module = bool(running) and not any(running[-1].children())
        item.inputs = [self.value(x) if isinstance(x, Tensor) else x for x in call.inputs]
        others = call.args[1 if call.op.takes_list else len(call.op.tensors):]
        item.settings = {**dict(zip(call.op.settings, others, strict=False)), **call.settings}
        if not self.walks:
            self.add(item)
        for value in {id(v): v for v in item.inputs if isinstance(v, Value)}.values():
            if value.made_by is not None:
                value.made_by.users.append(item)
        item.outputs = [self.made(y, item, number) for number, y in enumerate(call.outputs)]
        if not self.walks:  # in a walk they are the backward step's
            self.take_runs(item)
        if node is not None:
            self.by_node[node] = item
        if any(isinstance(v, Value) and v.known is None for v in item.inputs):
            self.learn_names(frame)

    def take_runs(self, item):
        """What computed a forward op; what ran after the one before it, outside of any op, belongs to that (running averages)."""
        item.runs, between = self.heard.take()
        before = self.trace.steps[-2] if len(self.trace.steps) > 1 else None  # the last one is the item
        if before is not None and before.kind == "forward":
            before.runs += between

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
        if value is None or value.made_by is None and not same(value.array, move(tensor.array, CPU)):
            role, known = self.names.get(id(tensor), ("parameter" if tensor.requires_grad else "input", None))
            known = value.known if value else known
            value = self.remember(tensor, Value(tensor.array.copy()))  # a copy: what no op made, an optimiser may overwrite
            value.known, value.role = known, role
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
        item = Backward(forward, [(value, self.gradient(grad, value)) for value, grad in grads if grad is not None], ran, seconds)
        item.runs = [run for runs in self.heard.take() for run in runs]
        for number, (edge, grad, sums) in enumerate(zip(step.edges, step.grads_out, step.sums, strict=True)):
            if sums is None:
                continue
            to = self.edge_value(edge)
            parts = [self.gradient(g, to) for g in (grad, *sums)]
            self.latest[id(to)] = parts[2]
            contribution = Contribution(step.node.op.input_name(number), to, *parts)
            so_far = counts.setdefault(edge, [])
            # A sum that was there before any contribution is the gradient that the walk started with.
            contribution.index = so_far[-1].index + 1 if so_far else 1 + (sums[0] is not None)
            so_far.append(contribution)
            item.contributions.append(contribution)
        self.add(item)
        forward.backwards.append(item)

    def gradient(self, tensor, of):
        """The Value of a gradient; the same array comes by as what one step gives and what the next one takes."""
        if tensor is None:
            return None
        key = id(tensor.array), id(of)
        if key not in self.grads:
            self.alive.append(tensor)
            self.grads[key] = Value(tensor.array, of=of)
        return self.grads[key]

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

    # --- the optimiser ----------------------------------------------------------------------------------------
    def see_update(self, optimizer, seconds):
        """Record an optimiser's step: every parameter before and after it, and the gradient that it used."""
        if threading.get_ident() != self.thread:
            return
        group = optimizer.param_groups[0]
        settings = {name: value for name, value in group.items() if name[:5] != "param" and value not in (None, False, 0)}
        rule = Rule(type(optimizer).__name__, textwrap.dedent("    " + (type(optimizer).__doc__ or "")))
        item = Update(rule, settings, call_site(), type(optimizer).update.__code__, seconds)
        item.runs = [run for runs in self.heard.take() for run in runs]
        for param in (param for group in optimizer.param_groups for param in group["params"] if param.grad is not None):
            before = self.found.get(id(param))
            if before is None:  # not used since the recording began: what it was is gone
                continue
            after, grad = self.value(param), self.latest.get(id(before))
            if after is not before:
                after.version = before.version + 1
            if grad is None or not same(grad.array, move(param.grad.array, CPU)):  # clipped, or summed over several walks
                grad = self.gradient(param.grad, before)
                grad.name = f"grad_{before.known or ''} used"
            item.rows.append(Change(before, grad, after))
        self.add(item)
        if self.last:
            self.forget(forget_before(self.trace, self.last))

    def forget(self, kept):
        """Let go of all tensors but those of the Values in `kept` (by id): nothing of a training step outlives its end."""
        if kept is None:
            return
        self.found = {key: value for key, value in self.found.items() if id(value) in kept or value.role in ("parameter", "buffer")}
        self.grads = {key: value for key, value in self.grads.items() if id(value) in kept}
        self.latest = {key: value for key, value in self.latest.items() if key in kept}
        arrays = {array for array, _ in self.grads}
        alive = {id(tensor): tensor for tensor in self.alive}.values()
        self.alive = [tensor for tensor in alive if id(tensor) in self.found or id(tensor.array) in arrays or id(tensor) in self.names]
        self.by_node = {node: item for node, item in self.by_node.items() if item.step and any_step(self.trace, item)}

    def add(self, item):
        """Append a step, and tell who waits for the recording."""
        self.trace.add(item)
        if self.progress:
            self.progress(item.step)


def forget_before(trace, last):
    """Drop all but the last training steps of a trace; returns the ids of the Values that are left, None if nothing went."""
    ends = [k for k, item in enumerate(trace.steps) if item.kind == "update"]
    if len(ends) <= last:
        return None
    steps = trace.steps[ends[-last - 1] + 1:]
    gone = len(trace.steps) - len(steps)
    trace.steps, trace.counts = [], dict.fromkeys(trace.counts, 0)
    trace.forgotten += gone
    for item in steps:
        trace.add(item)
    ids = {id(value) for item in steps for value in every_value(item)}
    trace.values = [value for value in trace.values if id(value) in ids]
    for value in trace.values:
        if value.made_by is not None and value.made_by.step and not any_step(trace, value.made_by):
            value.made_by = None  # made before what is kept: like something given
    return ids


def any_step(trace, item):
    """Is this still a step of the trace?"""
    return item.step <= len(trace.steps) and trace.steps[item.step - 1] is item


def every_value(item):
    """All Values that a step speaks of."""
    return [value for value in tensors(item) if isinstance(value, Value)] + [
        value for part in getattr(item, "contributions", ()) for value in (part.to, part.before) if value is not None] + [
        value for value, _ in getattr(item, "grads_in", ())]


def calling_frame(code, forwards):
    """The frame that runs this code, and whether the forward of some op stands between it and the observer."""
    frame, nested = sys._getframe(2), code in forwards
    while frame is not None and frame.f_code is not code:
        nested = nested or frame.f_code in forwards
        frame = frame.f_back
    return frame, nested


def same(a, b):
    """Do two arrays hold the same values (NaN equal to itself)? Large ones a piece at a time, until two differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return all(bool((x == y).all()) or bool(((x == y) | ((x != x) & (y != y))).all())
               for x, y in zip(pieces(a), pieces(b), strict=True))
