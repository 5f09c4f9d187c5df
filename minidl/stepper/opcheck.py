"""ck: the finite-difference check of one recorded op, on its real inputs, cut down where they are large."""

import math

import numpy as np

from minidl.core.device import CPU, move
from minidl.core.errors import MinidlError
from minidl.core.tensor import Tensor
from minidl.stepper.screen import labelled, shape_text, wrapped
from minidl.stepper.text import cells, fit, number, pad, safe
from minidl.stepper.values import Value
from minidl.stepper.worked import available

SKIPPED = 3       # how many left-out elements are named
LARGE = 20_000    # elements of the inputs from which on the check looks at a part of them only
SIZES = (8, 12, 16, 32, 64)  # to which long axes are cut, the smallest with which the op still runs
BARS = "▁▂▃▄▅▆▇█"


class Part:
    """An op's arguments for the check: all of them, or the first elements along every long axis."""

    def __init__(self, forward, size=None):
        self.forward, self.size = forward, size
        self.longest = {}  # axis length -> what it is cut to; equal lengths stay equal
        inputs = [self.cut(x) if isinstance(x, Value) else x for x in forward.inputs]
        fixed = [k for k, name in enumerate(forward.op.tensors) if name in forward.op.constant and not forward.op.takes_list]
        self.inputs = [Tensor(x) if isinstance(x, np.ndarray) and k not in fixed else x for k, x in enumerate(inputs)]
        self.settings = {name: self.longest.get(value, value) if name == "groups" else value for name, value in forward.settings.items()}
        for k in reversed(fixed):  # class weights are settings of the check
            x = self.inputs.pop(k) if k < len(self.inputs) else None
            self.settings[forward.op.tensors[k]] = Tensor(x) if isinstance(x, np.ndarray) else x
        self.names = [forward.op.input_name(k) for k in range(len(self.inputs))]

    def cut(self, value):
        """The array of an input, or the part that is checked; labels stay below the number of classes that are left."""
        array = move(value.array, CPU)
        if self.size is None:
            return array
        array = array[tuple(slice(self.shorter(n)) for n in array.shape)]
        if array.dtype.kind in "iu" and self.longest:
            array = np.where(array >= self.size, array % self.size, array)
        return array

    def shorter(self, n):
        """What an axis of this length is cut to."""
        if n <= self.size:
            return n
        self.longest[n] = self.size
        return self.size

    def run(self, *tensors, **settings):
        """The op on these arguments."""
        op = self.forward.op
        return op.function(list(tensors), **settings) if op.takes_list else op.function(*tensors, **settings)

    def runs(self):
        """Does the op accept the arguments like this?"""
        try:
            with np.errstate(all="ignore"):
                self.run(*self.inputs, **self.settings)
        except (MinidlError, ValueError, IndexError):
            return False
        return True

    def said(self):
        """In words what was cut off; "" if nothing was."""
        if not self.longest:
            return ""
        parts = [f"{safe(self.forward.op.input_name(k))} {shape_text(tuple(min(n, self.size) for n in x.shape))} of {shape_text(x.shape)}"
                 for k, x in enumerate(self.forward.inputs) if isinstance(x, Value) and any(n > self.size for n in x.shape)]
        return "on a corner: " + ", ".join(parts)


def part_of(forward, full=False):
    """The whole call, or the smallest part of a large one that the op accepts."""
    total = sum(math.prod(x.shape) for x in forward.inputs if isinstance(x, Value))
    if total > LARGE and not full:
        for size in SIZES:
            part = Part(forward, size)
            if part.runs():
                return part
    return Part(forward)


def check_op(forward, full=False, **options):
    """minidl.check's report on a recorded op, in float64: its inputs as they were (or a corner of them), its settings, order 1."""
    return check_part(part_of(forward, full), **options)


def check_part(part, **options):
    """The check itself."""
    from minidl.core.gradcheck import check  # only who checks pays for loading it

    return check(part.run, part.inputs, order=1, float32=False, names=part.names, settings=part.settings, **options)


def checked(forward, full=False, curve=True):
    """The check as plain data, as describe.py says; a text where there can be none."""
    if "check" in forward.stored:
        return forward.stored["check"] or "the trace came from a file, without a check of this op"
    if why := available(forward):
        return f"not possible here: {why}"
    part = part_of(forward, full)
    try:
        report = check_part(part)
        rows = [row_of(row, curve) for row in report.rows]
    except MinidlError as error:
        return " ".join(str(error).split())
    return {"ok": bool(report.ok), "cropped": part.said(), "rows": rows}


def row_of(row, curve):
    """One argument's verdict as plain data."""
    allowed = row.tolerance / row.size if row.size else row.tolerance
    points = []
    if curve and row.probes and row.curve:
        points = [[h, float(f"{error:.3g}")] for h, error in row.curve() if np.isfinite(error)]
    details = [*row.details, *([f"guess: {row.guess}"] if row.guess else [])]
    return {"argument": row.argument, "verdict": row.verdict, "error": finite(row.relative), "allowed": finite(allowed),
            "probes": row.probes, "reason": row.reason, "details": details, "skipped": list(row.skipped), "curve": points}


def finite(value):
    """A number for JSON."""
    return float(value) if np.isfinite(value) else str(float(value))


def check_lines(forward, width, full=False, curve=False):
    """The verdict on each gradient of an op, what was left out and why, and the error against h if asked for."""
    found = checked(forward, full, curve)
    if isinstance(found, str):
        return wrapped("check", safe(found), width)
    lines, size = [], max((cells(gradient_name(row)) for row in found["rows"]), default=0)
    for row in found["rows"]:
        error, allowed = (number(float(row[key])) for key in ("error", "allowed"))
        said = f"error {error} (allowed {allowed}), {row['probes']} probes" if row["probes"] else ""
        said = ": ".join(text for text in (said, safe(row["reason"])) if text)
        line = labelled("" if lines else "check", pad(gradient_name(row), size) + "  ")
        good = row["verdict"] == "ok"
        lines.append([*line, (pad("✓ ok" if good else f"✗ {row['verdict']}", 6), "green" if good else "bold red"), (f"  {said}", "")])
        for text in row["details"]:
            lines += [[("    ", ""), *line] for line in wrapped("", safe(text), width - 4)]
        if row["skipped"]:
            lines.append(labelled("", f"  {len(row['skipped'])} left out: {safe('; '.join(row['skipped'][:SKIPPED]))}", "dim"))
        if curve and row["curve"]:
            lines += curve_lines(row["curve"])
    if found["cropped"]:
        lines += wrapped("", f"{found['cropped']}   (ck full takes all)", width)
    return [fit(line, width) for line in lines]


def gradient_name(row):
    """grad_x; the row about float32 goes by its own name."""
    name = safe(row["argument"])
    return name if name.startswith("in ") else f"grad_{name}"


def curve_lines(points):
    """The error against the step h, from large to small: down with the truncation, up again with the rounding."""
    logs = [math.log10(max(error, 1e-18)) for _, error in points]
    low, high = min(logs), max(logs)
    bars = "".join(BARS[round((value - low) / ((high - low) or 1) * (len(BARS) - 1))] for value in logs)
    best = min(points, key=lambda point: point[1])
    return [labelled("", f"  error against h  {number(points[0][0])} {bars} {number(points[-1][0])}", ""),
            labelled("", f"  least {number(best[1])} at h = {number(best[0])}: larger steps bend, smaller ones round", "dim")]
