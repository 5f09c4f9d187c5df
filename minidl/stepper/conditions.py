"""Conditions on steps, as c, rc and b take them: nan, dead, |g|>1e3, an op, a path like layer3.*, a shape like 2x64x*."""

import difflib
import fnmatch
import re

from minidl.core.errors import ArgumentError, explained
from minidl.core.op import OPS
from minidl.stepper import doctor
from minidl.stepper.text import safe

FLAGS = {"dead": "dead", "saturated": "saturated", "exploding": "exploding", "vanishing": "vanishing", "zero-grad": "zero-grad",
         "float64": "float64"}
SIZES = re.compile(r"\|(g|y)\|([<>])([-+.\deE]+)$")
DRIFT = re.compile(r"drift>([-+.\deE]+)$")
SHAPE = re.compile(r"(\d+|\*)([x×](\d+|\*))+$")
KNOWN = ("nan  inf  dead  saturated  exploding  vanishing  zero-grad  float64  |g|>1e3  |y|>1e3  check-fail  drift>1e-4  "
         "2x64x*  conv2d  layer3.*")


class Condition:
    """A condition on a step: what was typed, what it means, and a function of a step."""

    def __init__(self, text, meaning, holds):
        self.text, self.meaning, self.holds = text, meaning, holds


def condition(text, trace):
    """The Condition that a text stands for; what is none of the known ones is an op or a path of this trace, or an error."""
    simple = text.strip()
    if simple in ("nan", "inf"):
        return Condition(simple, f"a tensor with {'NaN' if simple == 'nan' else 'Inf'}", lambda item: has(item, simple))
    if simple in FLAGS:
        return Condition(simple, f"a step flagged {simple}", lambda item: any(flag["kind"] == simple for flag in doctor.flags(item)))
    if simple == "check-fail":
        return Condition(simple, "an op whose gradient check fails", fails)
    if found := DRIFT.match(simple):
        limit = float_of(found[1], simple)
        return Condition(simple, f"an op that differs by more than {found[1]} between backends", lambda item: drifts(item, limit))
    if found := SIZES.match(simple):
        limit, above = float_of(found[3], simple), found[2] == ">"
        what = "gradient" if found[1] == "g" else "forward value"
        return Condition(simple, f"a {what} with |max| {found[2]} {found[3]}", lambda item: any(
            (size > limit) == above and size != limit for size in sizes(item, found[1])))
    if SHAPE.match(simple):
        wanted = [None if n == "*" else int(n) for n in re.split("[x×]", simple)]
        return Condition(simple, f"a tensor of shape {simple}", lambda item: any(fits(value.shape, wanted) for value in made(item)))
    return place(simple, trace)


def place(text, trace):
    """An op by name, or a module path with * and ?; both as in this trace."""
    ops = {item.op.name for item in trace.steps}
    if text in ops:
        return Condition(text, f"op {text}", lambda item: item.op.name == text)
    paths = {item.path for item in trace.steps if item.path}
    if any(matches(path, text) for path in paths):
        return Condition(text, f"a step in {text}", lambda item: bool(item.path) and matches(item.path, text))
    near = nearest(text, ops | paths)
    what = f"there is no {text} in this trace" if text in OPS else "no such condition, op or module in this trace"
    raise explained(ArgumentError, f"condition {safe(text)}", f"{what}.",
                    [f"conditions: {KNOWN}", f"ops here: {', '.join(sorted(safe(name) for name in ops))}"],
                    f"Did you mean {' or '.join(safe(name) for name in near)}?" if near else "g shows the ops and modules of the trace.")


def nearest(text, names):
    """What somebody who typed this may have meant: an op, a module or a condition of nearly this name."""
    words = {*names, *FLAGS, "nan", "inf", "check-fail"}
    lower = {name.lower(): name for name in words}
    return [lower[name] for name in difflib.get_close_matches(text.lower(), lower, 2, 0.6)]


def matches(path, pattern):
    """Is a module this one, or inside it?  layer3 and layer3.* take all of layer3."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern + ".*")


def made(item):
    """The tensors that a step made: outputs, gradients, or parameters."""
    if item.kind == "forward":
        return item.outputs
    return [part.grad for part in item.contributions] if item.kind == "backward" else [row.after for row in item.rows]


def has(item, kind):
    """Does a step make something with NaN, or with Inf? What was put there on purpose counts too."""
    return any(value.facts and value.facts[kind] for value in made(item))


def sizes(item, which):
    """|max| of the gradients (g) or of the forward values (y) that a step made."""
    if (item.kind == "forward") != (which == "y"):
        return []
    return [value.facts.get("absmax", 0.0) for value in made(item) if value.facts]


def fits(shape, wanted):
    """Does a shape have these sizes, None for any?"""
    return len(shape) == len(wanted) and all(n in (None, size) for n, size in zip(wanted, shape, strict=True))


def float_of(text, whole):
    """The number in a condition."""
    try:
        return float(text)
    except ValueError:
        raise explained(ArgumentError, f"condition {safe(whole)}", "the limit must be a number.", [f"it is {safe(text)!r}"],
                        "Write it as in |g|>1e3.") from None


def fails(item):
    """Is the op under this step refuted by finite differences?"""
    from minidl.stepper.opcheck import checked

    report = checked(item.forward) if item.kind == "backward" else None
    return report is not None and not report["ok"]


def drifts(item, limit):
    """Does the op give another result on the reference backend than in the recording?"""
    from minidl.stepper.diff import isolated

    rows = isolated(item, "reference") if item.kind == "forward" else []
    return any(isinstance(row["apart"], float) and row["apart"] > limit for row in rows)
