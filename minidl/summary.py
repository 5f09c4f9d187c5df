"""What a network is made of and what it costs, layer by layer: summarize(model, (3, 224, 224)). summary_table.py prints it.

The network runs once on zeros with use_backend("shapes"): every op takes place, functional ones too, an observer sees
its shapes, and the expensive ones compute nothing. Modules are seen by hooks, so the rows form the tree of calls.
"""

import weakref

from minidl.core.config import enable_grad, use_backend
from minidl.core.count import kept_arrays, multiply_adds, observed, owner
from minidl.core.create import zeros
from minidl.core.errors import MinidlError
from minidl.core.fields import Field, after
from minidl.core.tensor import Tensor


class Row:
    """One call of a module, or of a function inside a module that holds others."""

    def __init__(self, path, type, name):
        self.path, self.type, self.name = path, type, name
        self.rows = []                 # calls inside this one, in order; empty for a layer
        self.inputs, self.outputs = [], []
        self.parameters = self.multiply_adds = self.output_bytes = self.saved_bytes = 0
        self.field = None              # the receptive field of its output
        self.module = None

    @property
    def is_layer(self):
        """Does it hold all its ops itself?"""
        return not self.rows

    def total(self, what):
        """The sum of a number over this row and all rows inside it."""
        return getattr(self, what) + sum(row.total(what) for row in self.rows)

    def signature(self):
        """Equal for calls that do and cost the same; the field is left out, it grows from block to block."""
        settings = self.module.extra_repr() if self.module is not None else ""
        return (self.type, settings, str(self.inputs), str(self.outputs), self.parameters, self.multiply_adds, self.output_bytes,
                self.saved_bytes, tuple((row.name, row.signature()) for row in self.rows))

    def as_dict(self):
        """For JSON, with the sums of what is inside."""
        return {"path": self.path, "type": self.type, "inputs": self.inputs, "outputs": self.outputs,
                **{name: self.total(name) for name in COUNTED}, "receptive_field": self.field and self.field.as_dict()}


COUNTED = ("parameters", "multiply_adds", "output_bytes", "saved_bytes")


class Summary:
    """The tree of calls, the totals, and the error that ended it, if any."""

    def __init__(self, model, root, title, batch, train, error):
        self.root, self.title, self.batch, self.train, self.error = root, title, batch, train, error
        self.parameters = sum(p.numel() for p in model.parameters())
        self.trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.buffers = sum(b.numel() for b in model.buffers())
        self.weight_bytes = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))

    @property
    def multiply_adds(self):
        """Of one image."""
        return self.root.total("multiply_adds") // self.batch

    def rows(self, depth=None):
        """The rows that a table or JSON lists: layers, and modules at `depth` as one row each."""
        found = []

        def walk(row, level):
            if row.is_layer or level == depth:
                found.append(row)
                return
            for inner in row.rows:
                walk(inner, level + 1)

        walk(self.root, 0)
        return found

    def as_dict(self, depth=None):
        """Everything, for JSON."""
        totals = {"parameters": self.parameters, "trainable": self.trainable, "buffers": self.buffers,
                  "parameters_seen": self.root.total("parameters"), "multiply_adds_per_image": self.multiply_adds,
                  **{name: self.root.total(name) for name in COUNTED[1:]}, "weight_bytes": self.weight_bytes}
        return {"model": self.title, "batch": self.batch, "mode": "train" if self.train else "eval",
                "layers": [row.as_dict() for row in self.rows(depth)], "totals": totals,
                "error": None if self.error is None else {"at": self.error[0], "message": str(self.error[1])}}

    def __str__(self):
        from minidl.summary_table import render

        return render(self)


def summarize(model, input=(3, 224, 224), batch=1, train=False, title=None):
    """Run `model` once on zeros of shape (batch, *input) and count. The model stays in the mode it was in.

    With train=True as in training: auxiliary heads run, and batch norm needs more than one image. A shape error ends the
    summary where it happens: it stands in .error as (path, exception).
    """
    watcher, was_training = Watcher(model), [m for m in model.modules() if m.training]
    averages = [(buffer, buffer.array.copy()) for buffer in model.buffers()] if train else []
    x = zeros(batch, *input)
    error = None
    model.train(train)
    try:
        with use_backend("shapes"), enable_grad(), observed(watcher.op), watcher:
            if len(input) == 3:
                watcher.fields[id(x)] = (weakref.ref(x), Field())
            model(x)
    except MinidlError as raised:
        error = (watcher.stack[-1].path or type(model).__name__, raised)
    finally:
        model.eval()
        for module in was_training:
            module.training = True
        for buffer, values in averages:  # a summary of the training mode leaves the running averages alone
            buffer.copy_(Tensor(values))
    return Summary(model, watcher.root, title or type(model).__name__, batch, train, error)


class Watcher:
    """Builds the tree: hooks say which module is running, the observer says what it does."""

    def __init__(self, model):
        self.paths = {}
        for path, module in model.named_modules():
            self.paths[module] = path
        self.root = Row("", type(model).__name__, type(model).__name__)
        self.stack = [self.root]
        self.fields = {}                                            # id of a tensor -> (weak reference to it, its Field)
        self.counted = set()                                        # parameters that have their row
        self.own = {id(owner(t.array)) for t in (*model.parameters(), *model.buffers())}
        self.seen = {}                                              # arrays kept for backward, by id: alive, so ids stay theirs
        self.model, self.handles = model, []

    def __enter__(self):
        for module in self.paths:
            self.handles += [module.register_forward_pre_hook(self.enter, prepend=True), module.register_forward_hook(self.leave)]
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    # --- modules --------------------------------------------------------------------------------------------------------
    def enter(self, module, args):
        """A module begins."""
        if module is self.model:
            row = self.root
        else:
            path = self.paths[module]
            outer = self.stack[-1].path
            row = Row(path, type(module).__name__, path.removeprefix(outer + ".") if outer else path)
            self.stack[-1].rows.append(row)
            self.stack.append(row)
        row.module = module
        row.inputs = shapes_of(args)
        row.holds = any(True for _ in module.children())  # its functions get rows of their own
        if not row.holds:
            self.count_parameters(row, module.parameters())

    def leave(self, module, args, output):
        """A module is done."""
        row = self.root if module is self.model else self.stack.pop()
        outputs = tensors_in(output)
        row.outputs = shapes_of(outputs)
        row.field = next((field for field in map(self.field_of, outputs) if field), None)
        if row.is_layer:
            given = {id(owner(x.array)) for x in tensors_in(args)}
            row.output_bytes = sum(y.nbytes for y in outputs if id(owner(y.array)) not in given)

    def count_parameters(self, row, parameters):
        """Add parameters to a row, each once in the whole table."""
        for param in parameters:
            if param not in self.counted:
                self.counted.add(param)
                row.parameters += param.numel()

    # --- ops --------------------------------------------------------------------------------------------------------------
    def op(self, call):
        """An op has run: it belongs to the layer that is running, or is a row itself."""
        row = self.stack[-1]
        if row.holds:
            row = self.function_row(row, call)
        row.multiply_adds += multiply_adds(call)
        self.follow_field(call)
        node = next((y.edge[0] for y in call.outputs if y.edge), None)
        for key, array in (kept_arrays(node) if node else {}).items():
            if key not in self.own and key not in self.seen:
                self.seen[key] = array
                row.saved_bytes += array.nbytes
        if row.module is None:
            row.field = self.field_of(call.outputs[0])

    def function_row(self, outer, call):
        """The row of a function that a module with children calls itself, as in `x + y` or `F.relu(x)`."""
        name = f"{call.op.name}()"
        before = sum(row.name.partition("#")[0] == name for row in outer.rows)
        name += f"#{before + 1}" if before else ""
        row = Row(f"{outer.path}.{name}" if outer.path else name, "function", name)
        outer.rows.append(row)
        inputs = [x for x in call.inputs if isinstance(x, Tensor)]
        row.inputs, row.outputs = shapes_of(inputs[:2]), shapes_of(call.outputs)
        given = {id(owner(x.array)) for x in inputs}
        row.output_bytes = sum(y.nbytes for y in call.outputs if id(owner(y.array)) not in given)
        self.count_parameters(row, [x for x in inputs if id(owner(x.array)) in self.own and x.requires_grad and x.is_leaf])
        return row

    def follow_field(self, call):
        """The receptive field of the outputs."""
        found = {k: self.field_of(x) for k, x in enumerate(call.inputs)}
        field = after(call, {k: f for k, f in found.items() if f})
        for y in call.outputs if field else ():
            self.fields[id(y)] = (weakref.ref(y), field)

    def field_of(self, x):
        """The field of a tensor, if it is known."""
        reference, field = self.fields.get(id(x), (None, None))
        return field if reference is not None and reference() is x else None


def tensors_in(value):
    """The Tensors in a tensor, a tuple, a list or a dictionary."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def shapes_of(values):
    """Their shapes, as lists."""
    return [list(tensor.shape) for tensor in tensors_in(list(values))]


def size_text(count):
    """Bytes as text: 3.1 MB."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count} B"
        count /= 1000
    return f"{count:.3g} GB"


__all__ = ["Row", "Summary", "size_text", "summarize"]
