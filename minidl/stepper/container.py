"""Traces in files: a zip of trace.json (what describe() says) and the raw bytes of the smaller tensors. Nothing in it can run.

A file may come from a stranger: every part of it is checked against PATTERN before a trace is built from it.
"""

import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from minidl.core.dtypes import DTYPES
from minidl.core.errors import MinidlError, explained
from minidl.core.files import write_complete
from minidl.stepper.compare import Compared
from minidl.stepper.describe import FORMAT, VERSION, described
from minidl.stepper.pattern import PATTERN, mismatch
from minidl.stepper.ran import Run
from minidl.stepper.text import byte_size, safe
from minidl.stepper.trace import Backward, Change, Contribution, Forward, Rule, Trace, Update
from minidl.stepper.values import Value

BUDGET = 4_000_000       # bytes of a saved trace, before compression
LARGEST = 1_000_000_000  # bytes that are read from a file, at most
FORBIDDEN = "a saved trace holds numbers and texts only"


class TraceError(MinidlError, ValueError):
    """A file is not a trace, or a damaged one."""


# --- saving ---------------------------------------------------------------------------------------------------------

def save(trace, path, budget=BUDGET, **settings):
    """Write a trace. Thumbnails shrink and large tensors stay out until it fits the budget; returns what was left out, in words."""
    whole, values = described(trace, budget=budget, **settings)
    arrays, room = {}, budget - len(json.dumps(whole))
    for number, value in sorted(enumerate(values), key=lambda pair: nbytes(pair[1])):
        if value.array is not None and value.recorded and nbytes(value) <= room:
            room -= nbytes(value)
            arrays[number] = np.ascontiguousarray(value.array)
    if len(arrays) < len(values):
        whole["shrunk"].append(f"{len(values) - len(arrays)} of {len(values)} tensors are here as statistics and pictures only: "
                               f"they did not fit into {byte_size(budget)}")
    whole["arrays"] = sorted(arrays)
    write_complete(Path(path), lambda file: write(file, whole, arrays))  # who reads the name finds the old trace or the new one
    return whole["shrunk"]


def write(file, whole, arrays):
    """The zip itself."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("trace.json", json.dumps(whole, allow_nan=False, separators=(",", ":")))
        for number, array in arrays.items():
            archive.writestr(f"tensors/{number}", array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())


def nbytes(value):
    """The bytes of a tensor."""
    return int(np.prod(value.shape, dtype=np.int64)) * np.dtype(value.dtype).itemsize


# --- loading --------------------------------------------------------------------------------------------------------

def load(path):
    """Read a trace that save() wrote: everything but the arrays that were too large, and nothing is executed."""
    name = safe(os.path.basename(os.fspath(path)))
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > LARGEST:
                raise broken(name, f"it unpacks to more than {byte_size(LARGEST)}")
            data = json.loads(archive.read("trace.json"), parse_constant=refuse)
            if why := mismatch(data, {"format": str, "version": int}, "trace"):
                raise broken(name, why)
            if data["format"] != FORMAT or data["version"] != VERSION:
                raise broken(name, f"its format is {safe(data['format'])!r} {data['version']}, this is {FORMAT!r} {VERSION}")
            if why := mismatch(data, PATTERN, "trace"):
                raise broken(name, why)
            return Reader(data, archive).trace
    except FileNotFoundError:
        raise
    except TraceError:
        raise
    except (zipfile.BadZipFile, zlib.error, LookupError, ValueError, TypeError, OSError, EOFError, RuntimeError) as error:
        raise broken(name, f"{type(error).__name__}: {safe(error)}") from None


def refuse(word):
    """For NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{word} is not JSON")


def broken(name, why):
    """The error for a file that cannot be read as a trace."""
    return explained(TraceError, f"step {name}", "this file is not a trace, or a damaged one.", [why[:300], FORBIDDEN],
                     "Traces are written by `minidl step --save FILE` or trace.save(FILE).")


def numbered(line):
    """A line of source: (number, text)."""
    number, text = line
    if not isinstance(number, int) or not isinstance(text, str):
        raise ValueError("a line of source is a number and a text")
    return number, text


def counted(facts):
    """Statistics: counts stay whole, everything else is a float."""
    return facts and {name: number if isinstance(number, int) else float(number) for name, number in facts.items()}


class Said(str):
    """A setting as a saved trace tells it; it prints as it is."""

    __slots__ = ()
    __repr__ = str.__str__


class StoredOp:
    """What a saved trace says of an op: enough to show it, not to run it."""

    takes_list, constant, function = False, (), None

    def __init__(self, name, said, arguments):
        self.name, self.tensors, self.tex, self.effect = name, arguments, said["tex"], said["effect"]
        formula = "\n".join(f"    {line}" for line in said["formula"])
        self.doc = f"{said['summary']}\n\n{formula}\n\nShapes:    {said['shapes']}\nBackward:  {said['gradient']}"

    def input_name(self, number):
        """What the op's author calls tensor input `number`."""
        return self.tensors[number]


class Reader:
    """Builds a Trace from checked data."""

    def __init__(self, data, archive):
        self.data = data
        self.values = [self.value(tensor) for tensor in data["tensors"]]
        for number in data["arrays"]:
            self.values[number].array = self.array(self.values[number], archive.read(f"tensors/{number}"))
        self.sources = [(source["file"], [numbered(line) for line in source["lines"]]) for source in data["sources"]]
        self.trace = trace = Trace()
        trace.title, trace.error, trace.modules, trace.shrunk = data["title"], data["error"], data["modules"], data["shrunk"]
        trace.diffs = data["diffs"]
        if any(not 0 < row["step"] <= len(data["steps"]) for diff in data["diffs"] for row in diff["rows"]):
            raise ValueError("a difference is of a step that is not there")
        self.by_id = {}
        for number, step in enumerate(data["steps"], 1):
            if step["id"] != number:
                raise ValueError(f"step {number} calls itself {step['id']}")
            self.by_id[number] = item = getattr(self, step["kind"])(step)
            item.runs = [Run.of(run, self.source) for run in step["runs"]]
            item.stored |= {"usual": step["usual"], "measured": step["measured"]}
            item.stored |= {"call": step["call"], "worked": step["worked"], "check": step["check"], "flags": [
                {**flag, "tensor": self.values[flag["tensor"]]} for flag in step["flags"]]}
            trace.add(item)
        for step in data["steps"]:
            if step["kind"] == "forward":
                self.by_id[step["id"]].users = [self.by_id[k] for k in step["users"]]
        for tensor, value in zip(data["tensors"], self.values, strict=True):
            value.of = None if tensor["of"] is None else self.values[tensor["of"]]
            if tensor["compared"]:
                trace.compared[id(value)] = [self.compared(row) for row in tensor["compared"]]
            if tensor["role"] != "gradient":
                trace.values.append(value)
        for value in self.values:
            if value.made_by is None and value.role == "activation":
                value.role = "input"  # made by an op from before the recording

    def value(self, said):
        """One tensor."""
        value = Value(None)
        value.shape, value.dtype, value.device, value.role = tuple(said["shape"]), np.dtype(said["dtype"]), said["device"], said["role"]
        if value.dtype not in DTYPES or any(n < 0 for n in value.shape):
            raise ValueError(f"tensor {said['id']} has dtype {said['dtype']}, shape {said['shape']}")
        value.name, value.known = said["name"], said["name"]
        value.stored = {"facts": counted(said["facts"])}
        value.stored |= {"histogram": said["histogram"], "thumbnails": said["thumbnails"], "corner": said["corner"]}
        return value

    def compared(self, row):
        """A tensor's counterpart: another tensor of this file, or the statistics of one elsewhere."""
        other = Value(None) if row["tensor"] is None else self.values[row["tensor"]]
        if row["tensor"] is None:
            other.stored = {"facts": counted(row["facts"])}
        return Compared(row["where"], other, None if row["apart"] is None else float(row["apart"]))

    def array(self, value, raw):
        """The numbers of a tensor."""
        if len(raw) != nbytes(value):
            raise ValueError(f"{value.name} should have {nbytes(value)} bytes and has {len(raw)}")
        return np.frombuffer(raw, value.dtype.newbyteorder("<")).reshape(value.shape).astype(value.dtype)

    def arguments(self, rows):
        """Inputs of a step: tensors, or what stood there."""
        return [Said(row["text"]) if row["tensor"] is None else self.values[row["tensor"]] for row in rows]

    def source(self, number):
        return None if number is None else self.sources[number]

    def forward(self, step):
        """A forward step."""
        op = StoredOp(step["op"], self.data["ops"][step["op"]], [row["argument"] for row in step["inputs"]])
        item = Forward(op, None, None, step["seconds"], step["path"])
        item.settings = {name: Said(text) for name, text in step["settings"].items()}
        item.inputs, item.outputs = self.arguments(step["inputs"]), self.arguments(step["outputs"])
        for number, y in enumerate(item.outputs):
            y.made_by, y.number = item, number
        item.multiply_adds = step["flops"] // 2
        item.kept, item.in_graph = [(row["name"], row["bytes"]) for row in step["keeps"]], bool(step["back"] or step["keeps"])
        item.stored = {"forward": self.source(step["source"]["forward"]) or ("", []), "backward": self.source(step["source"]["backward"])}
        item.stored["without"] = step["without"]
        return item

    def backward(self, step):
        """A step back; one through an op from before the recording brings a stand-in for that op along."""
        forward = None if step["forward"] is None else self.by_id[step["forward"]]
        if forward is None:
            forward = Forward(StoredOp(step["op"], self.data["ops"][step["op"]], []), None, None)
            forward.known, forward.stored = False, {"without": [], "forward": ("", []), "call": None, "check": None}
        grads = self.arguments(step["inputs"])
        outputs = forward.outputs or [Value(np.zeros(()), forward)]
        numbers = [int(row["argument"][7:-1]) if "[" in row["argument"] else 0 for row in step["inputs"]]
        item = Backward(forward, [(outputs[k], grad) for k, grad in zip(numbers, grads, strict=True)], step["ran"], step["seconds"])
        for part in step["parts"]:
            to, grad, before, after = (None if part[k] is None else self.values[part[k]] for k in ("to", "tensor", "before", "after"))
            made = Contribution(part["argument"], to, grad, before, after)
            made.index, made.count = part["index"], part["count"]
            item.contributions.append(made)
        item.stored = {"forward": self.source(step["source"]["forward"]) or ("", []), "backward": self.source(step["source"]["backward"])}
        forward.backwards.append(item)
        return item

    def update(self, step):
        """An optimiser's step."""
        said = self.data["ops"][step["op"]]
        settings = {name: Said(text) for name, text in step["settings"].items()}
        rule = Rule(step["op"], f"{said['summary']}\n\n" + "\n".join(f"    {line}" for line in said["formula"]))
        rule.effect = said["effect"]
        item = Update(rule, settings, None, None, step["seconds"])
        for row in step["parameters"]:
            change = Change(*(self.values[row[k]] for k in ("tensor", "gradient", "after")))
            change.stored = float(row["change"])
            item.rows.append(change)
        item.stored = {"forward": self.source(step["source"]["forward"]) or ("", []), "backward": None}
        return item
