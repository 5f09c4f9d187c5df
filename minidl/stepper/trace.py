"""A trace: every forward op, every backward step and every optimiser step of some code, in the order in which they ran.

record.py makes one from running code, container.py from a file. Nothing here computes a gradient.
"""

import numpy as np

from minidl.core.tensor import Tensor
from minidl.stepper.source import output_names


class Forward:
    """One op that ran forward."""

    kind = "forward"

    def __init__(self, op, node, site, seconds=0.0, path=None):
        self.op = op
        self.in_graph = node is not None  # can a walk come back through it?
        self.site = site              # (code, instruction) of the line that called it
        self.seconds = seconds
        self.path = path              # the module that called it, "" for the outermost, None outside of every module
        self.number = None            # its place among the forward ops, from 1; None for an op outside that list
        self.step = None              # its place among all steps, from 1
        self.inputs = []              # what stood in the tensor arguments: Values, numbers, None
        self.settings = {}            # the other arguments of the call, by name
        self.outputs = []             # Values
        self.users = []               # the Forwards that read an output
        self.backwards = []           # the Backwards that went through it
        self.known = True             # False for an op that ran before recording began
        self.multiply_adds = 0
        self.is_leaf_module = False   # does the module at `path` consist of nothing but its own ops?
        self.backward_code = getattr(getattr(node, "backward", None), "__code__", None)
        self.runs = []                # what backend.run() did for it: see ran.py
        self.kept = kept(node)        # [(name in the backward, bytes)]: what the node keeps alive for its backward
        self.stored = {}              # what a saved trace said of it

    label = property(lambda self: f"op{self.number}" if self.number else self.op.name)
    forward = property(lambda self: self)


class Contribution:
    """What one backward step added to the gradient of one of its inputs."""

    def __init__(self, argument, to, grad, before, after):
        self.argument = argument      # what the op calls this input
        self.to = to                  # the Value
        self.grad = grad              # the part that this step adds: a Value, like the next two
        self.before, self.after = before, after  # the sum so far, without and with it
        self.index, self.count = 0, None         # this is contribution `index` of `count`; None if the walk never ended

    complete = property(lambda self: self.index == self.count)


class Backward:
    """One node that a walk went through."""

    kind = "backward"

    def __init__(self, forward, grads_in, ran, seconds):
        self.forward = forward
        self.grads_in = grads_in      # [(Value of the output, Value of its gradient)]
        self.contributions = []       # one per input that gets a gradient
        self.ran = ran                # names of the ops that this backward ran
        self.runs = []                # what backend.run() did for them: see ran.py
        self.seconds = seconds
        self.number = None            # its place among the backward steps, from 1
        self.step = None              # its place among all steps, from 1
        self.stored = {}              # what a saved trace said of it

    op = property(lambda self: self.forward.op)
    path = property(lambda self: self.forward.path)
    site = property(lambda self: self.forward.site)
    settings = property(lambda self: self.forward.settings)
    label = property(lambda self: f"back{self.number}")


class Rule:
    """An optimiser, in the place of an op."""

    tex = ""

    def __init__(self, name, doc=""):
        self.name, self.doc = name, doc


class Change:
    """What an optimiser's step did to one parameter."""

    def __init__(self, before, grad, after):
        self.before, self.grad, self.after = before, grad, after  # Values
        self.stored = None

    @property
    def change(self):
        """|change| / |parameter|, both as Euclidean norms."""
        if self.stored is not None or self.after.array is None:
            return self.stored
        size = float(np.linalg.norm(self.before.array.ravel()))
        change = float(np.linalg.norm((self.after.array - self.before.array).ravel()))
        return change / size if size else change and float("inf")


class Update:
    """One step of an optimiser: the last act, which changes the parameters."""

    kind, known = "update", True
    path, backwards, users = None, (), ()
    forward = property(lambda self: self)

    def __init__(self, op, settings, site, code, seconds=0.0):
        self.op, self.settings, self.site, self.seconds = op, settings, site, seconds
        self.code = code              # of the rule itself
        self.rows, self.runs = [], []  # Changes; what backend.run() did for it
        self.number = self.step = None
        self.stored = {}

    label = property(lambda self: f"update{self.number}")


class Trace:
    """What was recorded: every forward op, backward step and optimiser step, in the order in which they ran."""

    def __init__(self):
        self.steps = []       # Forwards, Backwards and Updates
        self.counts = {Forward: 0, Backward: 0, Update: 0}
        self.values = []      # every Value that is no gradient, in order of appearance
        self.modules = []     # what describe() calls "modules"
        self.title = []       # lines for the first screen
        self.shrunk = []      # what was left out of a saved trace, in words
        self.others = []      # [(name, Trace)] to compare with: compare.py
        self.compared = {}    # what a saved trace says of that: {id(Value): [Compared]}
        self.diffs = []       # what a saved trace says of other backends: diff.py
        self.forgotten = 0    # steps that came before those that were kept
        self.error = ""       # what the recorded code raised, if anything: "ShapeError: add: the shapes ..."

    forwards = property(lambda self: [s for s in self.steps if type(s) is Forward])
    backwards = property(lambda self: [s for s in self.steps if type(s) is Backward])
    updates = property(lambda self: [s for s in self.steps if type(s) is Update])

    def __repr__(self):
        ended = f", ended by {self.error.partition(':')[0]}" if self.error else ""
        updates = f", {self.counts[Update]} updates" if self.counts[Update] else ""
        return f"<Trace: {self.counts[Forward]} forward ops, {self.counts[Backward]} backward steps{updates}{ended}>"

    def add(self, item):
        """Append a step and number it."""
        self.counts[type(item)] += 1
        self.steps.append(item)
        item.number, item.step = self.counts[type(item)], len(self.steps)

    @property
    def gradients(self):
        """{id(Value): the Value of its gradient, as complete as it got}."""
        found = {}
        for back in self.backwards:
            found.update((id(value), grad) for value, grad in back.grads_in)
            found.update((id(part.to), part.after) for part in back.contributions)
        return found

    def settle_names(self):
        """Give every value a name, and no two the same one."""
        given, taken, first = 0, set(), {}
        for value in self.values:
            given += value.made_by is None
            name = module_name(value) or value.known or value.default_name(given)
            age = value.version - first.setdefault(name, value.version)  # weight, weight', weight'', ..., weight'4
            name += "'" * age if age < 4 else f"'{age}"
            if name in taken:  # a variable that was assigned again: say by which op
                name = f"{name}@{value.made_by.label if value.made_by else given}"
            while name in taken:
                name += "'"
            taken.add(name)
            value.name = name
        for back in self.backwards:
            for value, grad in back.grads_in:
                grad.name = f"grad_{value.name}"
            for part in back.contributions:
                name = f"grad_{part.to.name}"
                part.after.name = name if part.complete else f"{name} so far"
                if part.grad is not part.after:
                    part.grad.name = f"{name} part {part.index}"

    def save(self, path, **settings):
        """Write the trace to a file, which `minidl step FILE` opens again; returns what did not fit into it, in words."""
        from minidl.stepper.container import save

        return save(self, path, **settings)

    def find(self, name):
        """The Value of this name, or None."""
        return next((value for value in self.values if value.name == name), None)

    def describe(self, **settings):
        """The trace as plain dicts and lists: describe.py says what stands where."""
        from minidl.stepper.describe import describe

        return describe(self, **settings)

    def show(self, path=None, **settings):
        """The trace as a page: inside a notebook, or else written to a file, which it names; notebook.py has the settings."""
        from minidl.stepper.notebook import show

        return show(self, path, **settings)

    def explore(self, commands=None):
        """Walk through the trace at a prompt; `commands` such as "c back; n; ck; q" come first."""
        from minidl.stepper.terminal import explore

        explore(self, commands)


def module_name(value):
    """layer1.0.conv1 for what the module of that path made; "" outside of modules and directly in the outermost."""
    item = value.made_by
    if item is None or not item.path:
        return ""
    name = item.path if item.is_leaf_module else f"{item.path}.{item.op.name}"
    return f"{name}.{output_names(item.op, len(item.outputs))[value.number]}" if value.number else name


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
