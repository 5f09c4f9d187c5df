"""describe(): a trace as plain dicts, lists, strings and numbers, ready for JSON. Page and saved traces are built on it.

A number that is not finite is the string "nan", "inf" or "-inf"; other numbers have six digits. `id` of a step is its place
among all steps from 1, `id` of a tensor its place in "tensors" from 0. Every text may come from a stranger: escape it.

    {"format": "minidl trace", "version": 3, "minidl": "0.1.0", "made": {"python", "numpy", "system"},
     "title": [line, ...],                what the first screen says; "error": what ended the recorded code, or ""
     "counts": {"forward", "backward", "update"}, "seconds": {"forward", "backward", "update"},
     "shrunk": [sentence, ...],           what was left out to stay within the budget
     "doctor": [sentence, ...],           what looks ill, most important first; [] if nothing does
     "ops": {name: {"summary", "formula": [line, ...], "shapes", "gradient", "tex", "effect": what it does to the gradient}},
     "sources": [{"file", "lines": [[number, text], ...]}, ...],
     "modules": [{"path", "type", "text", "parent": path or null, "steps": [ids of its forward steps], "alike": same number for
                  neighbours that are built alike, so that they may be folded}, ...],           in order of first use
     "diffs": [{"backend", "rows": [{"step", "alone", "added", "ours", "theirs"}, ...], "left": [{"why", "ops"}, ...]}, ...],
                                          every forward op on another backend: see diff.py
     "tensors": [...], "steps": [...]}

A tensor:
    {"id", "name", "role": "input" | "parameter" | "buffer" | "activation" | "gradient", "shape": [...], "dtype", "device",
     "axes": ["N", "C", "H", "W"] or [],  what its axes are, where that is known
     "made_by": step id or null,          the forward step whose output it is
     "of": tensor id or null,             for a gradient: whose
     "gradient": tensor id or null,       its complete gradient
     "facts": {"size", "nan", "inf", "zero" (counts), "min", "max", "mean", "std", "absmax"} or null (not recorded),
     "histogram": {"low", "high", "counts": 48 of them} or null,
     "thumbnails": see values.pictures() or null,
     "corner": {"at": "[0, 0, :8, :8]", "values": [[...], ...]} or null,
     "compared": [{"where": "the training step before", "tensor": id or null (in another trace), "facts": its facts or null,
                   "apart": max |difference| / max |it| or null}, ...]}

A step:
    {"id", "kind": "forward" | "backward" | "update", "number" (among its kind, from 1), "op", "path": module path, "" (the
     outermost) or null, "label": "op7", "settings": {name: text}, "usual": [names of
     the settings that are as always], "seconds",
     "call": {"file", "line", "text"} or null,
     "source": {"forward": number in "sources" or null, "backward": the same},
     "inputs": [{"argument", "tensor": id or null, "text": for what is no tensor}, ...], "outputs": the same,
     "flags": [{"kind": "nan" | "inf" | "dead" | "saturated" | "exploding" | "vanishing" | "zero-grad" | "float64", "tensor": id,
                "text"}, ...],
     "measured": what it did to the gradient, in numbers of this recording, or "",
     "runs": [{"op", "name": "cpu/winograd", "seconds", "why", "others": [[name, why not, "fallback" or ""], ...],
               "launches": [{"file": "conv.cu", "name", "grid", "block", "source": number in "sources" or null}, ...]}, ...],
     "worked": [...],                     numbers worked out, see worked.py
     "check": null or {"ok", "cropped": sentence or "", "rows": [{"argument", "verdict", "error", "allowed", "probes", "reason",
               "details": [...], "skipped": [...], "curve": [[h, error], ...]}]}}
  a forward step also has
    {"without": [names of tensors and settings that the op knows and that are not used here],
     "back": [ids of the backward steps through it], "users": [ids of the forward steps that read its outputs],
     "keeps": [{"name", "bytes"}, ...], "flops": two per multiply-add, "bytes": moved in and out}
  a backward step also has
    {"forward": id or null, "ran": [names of the ops that it ran],
     "parts": [{"argument": "x", "to": tensor id, "tensor": the part that this step adds, "before": the sum without it or null,
                "after": the sum with it, "index", "count" (null if the walk broke off), "complete"}, ...]}
                                          its "outputs" are the same parts, as {"argument": "grad_x", "tensor"}
  an update (an optimiser's step) also has
    {"parameters": [{"tensor": id before, "after": id, "gradient": id, "change": |change| / |before|}, ...]}

A worked number:
    {"of": "y" or "grad_x", "tensor": id, "index": [...], "name": "w̄[0,0,1,1]", "kind": "sum" | "formula",
     "terms": [{"text": "grad_y[0,0,3,4]", "value", "factor", "product"}, ...],   the largest, at most 8; "+ more = rest"
     "more": how many others, "rest": their sum, "total", "stored", "agree": true | false, "text": all of it in one line}
"""

import json
import platform

import numpy as np

from minidl.core.version import __version__
from minidl.stepper import doctor, source
from minidl.stepper.compare import comparisons
from minidl.stepper.diff import differences
from minidl.stepper.effect import measured, sentence
from minidl.stepper.opcheck import checked
from minidl.stepper.text import safe
from minidl.stepper.values import PICTURES, SIDE, Value, plain
from minidl.stepper.worked import LIMIT, updated, worked_out

FORMAT, VERSION = "minidl trace", 3
AXES = {4: ["N", "C", "H", "W"], 2: ["N", "C"]}


def describe(trace, budget=None, check=False, limit=LIMIT, progress=None, diff=()):
    """The whole trace as plain data.

    `budget`: bytes of JSON to stay within, by way of smaller and fewer thumbnails (statistics are never dropped).
    `check`: check every op by finite differences too, large ones on a corner (True) or whole ("full").
    `limit`: elements of inputs up to which an op is worked out.
    `progress(done, all)` is called after every step.
    `diff`: backends on which every forward op runs once more, beside the recording.
    """
    return described(trace, budget, check, limit, progress, diff)[0]


def described(trace, budget=None, check=False, limit=LIMIT, progress=None, diff=()):
    """(what describe() returns, the Values behind its tensors)."""
    description = Description(trace, check, limit, progress)
    whole = description.whole()
    description.compare(whole)
    whole["diffs"] += [finite(differences(trace, backend)) for backend in diff]
    shrink(whole, description.values, budget)
    return whole, description.values


def shrink(whole, values, budget):
    """Halve the thumbnails, then their number, until it all fits."""
    side, count = SIDE, PICTURES
    while budget and len(json.dumps(whole)) > budget and count:
        side, count = (side // 2, count) if side > 7 else (side, count // 2)
        for value, tensor in zip(values, whole["tensors"], strict=True):
            tensor["thumbnails"] = value.thumbnails(side, count) if count else None
    if (side, count) != (SIDE, PICTURES):
        whole["shrunk"] += [f"thumbnails are at most {side}×{side}, {count} of a tensor, to keep the file small" if count
                            else "there are no thumbnails, to keep the file small"]


class Description:
    """The tables that grow while the steps are described."""

    def __init__(self, trace, check, limit, progress):
        self.trace, self.check, self.limit, self.progress = trace, check, limit, progress
        self.ids, self.tensors, self.values = {}, [], []   # id(Value) -> number
        self.sources, self.ops, self.numbers, self.checks = {}, {}, {}, {}

    def whole(self):
        """All of it."""
        for value in self.trace.values:
            self.tensor(value)
        steps = [self.step(item) for item in self.trace.steps]
        for value in self.trace.values:
            gradient = self.trace.gradients.get(id(value))
            self.tensors[self.ids[id(value)]]["gradient"] = gradient and self.tensor(gradient)
        kinds = ("forward", "backward", "update")
        return {
            "format": FORMAT, "version": VERSION, "minidl": __version__,
            "made": {"python": platform.python_version(), "numpy": np.__version__, "system": f"{platform.system()} {platform.machine()}"},
            "title": list(self.trace.title), "error": self.trace.error,
            "counts": {kind: sum(step["kind"] == kind for step in steps) for kind in kinds},
            "seconds": {kind: plain(sum(step["seconds"] for step in steps if step["kind"] == kind)) for kind in kinds},
            "shrunk": list(self.trace.shrunk), "doctor": doctor.findings(self.trace), "ops": self.ops,
            "sources": [{"file": file, "lines": [list(line) for line in lines]} for file, lines in self.sources],
            "modules": self.trace.modules, "tensors": self.tensors, "steps": steps, "diffs": list(self.trace.diffs)}

    def compare(self, whole):
        """Put beside every tensor what stands at its place in the training step before, and in other traces."""
        for number, rows in comparisons(self.trace).items():
            if number not in self.ids:
                continue
            whole["tensors"][self.ids[number]]["compared"] += [
                {"where": row.where, "tensor": self.ids.get(id(row.value)), "facts": plain_facts(row.value.facts),
                 "apart": None if row.apart is None else plain(row.apart)} for row in rows]

    # --- tensors ----------------------------------------------------------------------------------------------------
    def tensor(self, value):
        """The number of a Value in "tensors"; it is described when it first comes up."""
        if value is None:
            return None
        if id(value) not in self.ids:
            self.ids[id(value)] = len(self.tensors)
            self.values.append(value)
            facts = value.facts
            self.tensors.append({
                "id": len(self.tensors), "name": value.name, "role": value.role, "shape": list(value.shape), "dtype": str(value.dtype),
                "device": value.device, "axes": axes(value), "made_by": value.made_by.step if value.made_by else None,
                "of": None, "gradient": None,
                "facts": plain_facts(facts), "histogram": value.histogram, "thumbnails": value.thumbnails(), "corner": value.corner,
                "compared": []})
            if value.of is not None:
                self.tensors[self.ids[id(value)]]["of"] = self.tensor(value.of)
        return self.ids[id(value)]

    def argument(self, name, x):
        """An input or output: a tensor, or the text of a number."""
        if isinstance(x, Value):
            return {"argument": name, "tensor": self.tensor(x), "text": ""}
        return {"argument": name, "tensor": None, "text": repr(x)}

    # --- steps ------------------------------------------------------------------------------------------------------
    def step(self, item):
        """One step of any kind."""
        common = {
            "id": item.step, "kind": item.kind, "number": item.number, "op": item.op.name, "path": item.path, "label": item.label,
            "settings": {name: setting_text(value) for name, value in item.settings.items()}, "usual": source.usual(item),
            "seconds": plain(item.seconds),
            "call": source.call(item),
            "source": {"forward": self.source(source.forward(item)), "backward": self.source(source.backward(item))},
            "flags": [{**flag, "tensor": self.tensor(flag["tensor"])} for flag in doctor.flags(item)],
            "measured": measured(item), "runs": [run.described(self.source) for run in item.runs],
            "worked": self.worked(item), "check": self.checked(item)}
        self.op(item.op)
        if self.progress:
            self.progress(item.step, len(self.trace.steps))
        return common | getattr(self, item.kind)(item)

    def worked(self, item):
        """The worked numbers of a step, with the number of the tensor that each is an element of."""
        if item.kind == "update":
            return [{**row, "tensor": self.tensor(self.trace.find(row["of"]))} for row in updated(item)]
        if item.step not in self.numbers:
            self.numbers.update(worked_out(item.forward, self.limit))
        tensors = {f"grad_{part.argument}": part.grad for part in item.contributions} if item.kind == "backward" else {
            "y" if len(item.outputs) == 1 else f"y[{k}]": y for k, y in enumerate(item.outputs)}
        return [{**row, "tensor": self.tensor(tensors[row["of"]])} for row in self.numbers.pop(item.step, ()) if row["of"] in tensors]

    def checked(self, item):
        """The check of a step's op: made with the forward step, kept for the steps back through it."""
        if item.kind == "update" or not (self.check or "check" in item.forward.stored):
            return None
        if id(item.forward) not in self.checks:
            found = checked(item.forward, self.check == "full")
            self.checks[id(item.forward)] = found if isinstance(found, dict) else None
        return self.checks[id(item.forward)]

    def forward(self, item):
        """What only a forward step has."""
        inputs = [self.argument(item.op.input_name(k), x) for k, x in enumerate(item.inputs) if x is not None]
        several = len(item.outputs) > 1
        outputs = [self.argument(f"y[{k}]" if several else "y", y) for k, y in enumerate(item.outputs)]
        moved = sum(nbytes(x) for x in [*item.inputs, *item.outputs] if isinstance(x, Value))
        return {"inputs": inputs, "outputs": outputs, "without": source.without(item),
                "back": [b.step for b in item.backwards], "users": [user.step for user in item.users if user.step],
                "keeps": [{"name": name, "bytes": size} for name, size in item.kept], "flops": 2 * item.multiply_adds, "bytes": moved}

    def backward(self, item):
        """What only a backward step has."""
        several = len(item.forward.outputs) > 1
        inputs = [self.argument(f"grad_y[{y.number}]" if several else "grad_y", grad) for y, grad in item.grads_in]
        parts = [{"argument": part.argument, "to": self.tensor(part.to), "tensor": self.tensor(part.grad),
                  "before": self.tensor(part.before), "after": self.tensor(part.after),
                  "index": part.index, "count": part.count, "complete": part.complete}
                 for part in item.contributions]
        outputs = [{"argument": f"grad_{part['argument']}", "tensor": part["tensor"], "text": ""} for part in parts]
        return {"inputs": inputs, "outputs": outputs, "forward": item.forward.step, "ran": list(item.ran), "parts": parts}

    def update(self, item):
        """What only an optimiser's step has."""
        rows = [{"tensor": self.tensor(row.before), "after": self.tensor(row.after), "gradient": self.tensor(row.grad),
                 "change": plain(row.change)} for row in item.rows]
        return {"parameters": rows, "inputs": [{"argument": "grad", "tensor": row["gradient"], "text": ""} for row in rows],
                "outputs": [{"argument": "param", "tensor": row["after"], "text": ""} for row in rows]}

    def op(self, op):
        """What its docstring says, once."""
        if op.name not in self.ops:
            self.ops[op.name] = {"summary": op.doc.split("\n")[0], "formula": source.formula(op), "shapes": source.paragraph(op, "Shapes:"),
                                 "gradient": source.gradient_formula(op), "tex": op.tex,
                                 "effect": sentence(op)}

    def source(self, found):
        """The number of a piece of source in "sources"."""
        if found is None or not found[1]:
            return None
        key = found[0], tuple(tuple(line) for line in found[1])
        return self.sources.setdefault(key, len(self.sources))


def plain_facts(facts):
    """Statistics for JSON; None stays None."""
    return facts and {k: v if isinstance(v, (int, str)) else plain(v) for k, v in facts.items()}


def finite(found):
    """What differences() says, for JSON."""
    return {**found, "rows": [{k: v if k == "step" else plain(v) for k, v in row.items()} for row in found["rows"]]}


def setting_text(value):
    """A setting as in the call."""
    return "Tensor" if hasattr(value, "array") else safe(value if isinstance(value, str) and value.startswith("<") else repr(value))


def nbytes(value):
    """The bytes of a tensor, whether or not it is still there."""
    return int(np.prod(value.shape, dtype=np.int64)) * np.dtype(value.dtype).itemsize


def axes(value):
    """What the axes of a tensor are called, where its number of axes and its role tell."""
    if value.weight:
        return {4: ["O", "C", "KH", "KW"], 2: ["O", "C"], 1: ["O"]}.get(len(value.shape), [])
    return AXES.get(len(value.shape), [])
