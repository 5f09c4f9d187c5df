"""What looks ill in a trace: NaN and where it began, dead units, saturation, gradients that explode or vanish, stray float64.

flags() judges one step, blame() follows a NaN to the op that made it, findings() sums up the whole trace.
"""

import numpy as np

from minidl.core.anomaly import PLACED
from minidl.stepper.text import number, safe
from minidl.stepper.values import Value

GREW = 1000          # times: values that grew so much on their way are named
EXPLODED = 1e4       # |gradient| from which on it is called exploding ...
VANISHED = 1e-7      # ... and below which it is called vanishing
RECTIFIERS = {"relu"}
LIMITS = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}  # ops that flatten out, and where
FLAT = 1e-3          # so close to a limit counts as saturated
MOSTLY = 0.5         # a share that is worth a word


def bad(value):
    """"nan", "inf" or "": what a tensor holds that is not finite."""
    facts = value.facts if value is not None else None
    return "" if not facts else "nan" if facts["nan"] else "inf" if facts["inf"] else ""


def where(item):
    """A step's name for people: layer4.2 add (op 70)."""
    item = item.forward if item.kind == "backward" else item
    path = f"{safe(item.path)} " if item.path else ""
    return f"{path}{safe(item.op.name)}" + (f" ({item.label})" if item.number else "")


def flags(item):
    """[{"kind", "tensor": Value, "text"}] of one step."""
    if "flags" in item.stored:
        return item.stored["flags"]
    return {"forward": forward_flags, "backward": backward_flags, "update": update_flags}[item.kind](item)


def forward_flags(item):
    """Of a forward step: what its outputs hold."""
    found = [not_finite(y) for y in item.outputs if bad(y)]
    floats = [x.dtype for x in item.inputs if isinstance(x, Value) and np.dtype(x.dtype).kind == "f"]
    wanted = item.op.name == "to" or "dtype" in item.settings
    for y in item.outputs:
        if floats and np.dtype(y.dtype) == np.float64 and np.float64 not in floats and not wanted:
            found.append({"kind": "float64", "tensor": y, "text": f"{floats[0]} went in, float64 came out"})
    y = item.outputs[0] if item.outputs else None
    if item.op.name in RECTIFIERS and (text := dead(y)):
        found.append({"kind": "dead", "tensor": y, "text": text})
    if item.op.name in LIMITS and (text := saturated(y, LIMITS[item.op.name])):
        found.append({"kind": "saturated", "tensor": y, "text": text})
    return found


def backward_flags(item):
    """Of a backward step: what the gradients look like that it made.

    A parameter's tiny gradient says little: that of a bias before a normalisation is 0 but for rounding.
    """
    found = []
    for part in item.contributions:
        facts = part.grad.facts
        if bad(part.grad):
            found.append(not_finite(part.grad))
        elif facts and facts["size"]:
            size, name = facts.get("absmax", 0.0), f"grad_{part.argument}"
            if size >= EXPLODED:
                found.append({"kind": "exploding", "tensor": part.grad, "text": f"{name} reaches {number(size)}"})
            elif not size and part.to.role == "parameter" and part.complete:
                found.append({"kind": "zero-grad", "tensor": part.grad, "text": f"{part.to.name} learns nothing: its gradient is 0"})
            elif 0 < size < VANISHED and part.to.role != "parameter" and facts["size"] > 1 and starts_larger(item):
                found.append({"kind": "vanishing", "tensor": part.grad, "text": f"{name} is at most {number(size)}"})
    return found


def starts_larger(item):
    """Does a walk's vanishing begin here, or is it small all the way because the loss is?"""
    return any(grad.facts and grad.facts.get("absmax", 0.0) >= VANISHED for _, grad in item.grads_in)


def update_flags(item):
    """Of an optimiser's step: parameters that it broke, and those that it did not move."""
    found = [not_finite(row.after) for row in item.rows if bad(row.after)]
    wild = [row for row in item.rows if row.change is not None and 1 < row.change < float("inf")]
    return found + [{"kind": "exploding", "tensor": row.after,
                     "text": f"{row.before.name} changed by {number(100 * row.change)} % in one step"} for row in wild]


def not_finite(value):
    """The flag of a tensor with NaN or Inf."""
    facts = value.facts
    parts = [f"{facts[kind]} {word}" for kind, word in (("nan", "NaN"), ("inf", "Inf")) if facts[kind]]
    return {"kind": bad(value), "tensor": value, "text": f"{value.name} holds {' and '.join(parts)} of {facts['size']}"}


def dead(value):
    """How many channels of a rectifier's output are 0 for every sample and position; "" if none."""
    if value.array is None or value.array.ndim < 2 or not value.array.size:
        return ""
    axes = tuple(k for k in range(value.array.ndim) if k != 1)
    count = int((~(value.array != 0).any(axes)).sum())
    return f"{count} of {value.array.shape[1]} channels are 0 for every sample" if count else ""


def saturated(value, limits):
    """Which share of a squashing op's output lies at its limits, where its slope is 0; "" if little."""
    if value.array is None or not value.array.size:
        return ""
    share = float(((value.array < limits[0] + FLAT) | (value.array > limits[1] - FLAT)).mean())
    return f"{number(100 * share)} % lies at its limits, where the slope is 0" if share > MOSTLY else ""


# --- why nan --------------------------------------------------------------------------------------------------------

class Blame:
    """Where something that is not finite began."""

    def __init__(self, symptom, cause, value, lines):
        self.symptom = symptom   # the step where it showed
        self.cause = cause       # the step that made it out of finite numbers; None if a leaf brought it
        self.value = value       # the tensor that holds it
        self.lines = lines       # what to say


def blame(trace, item=None):
    """The Blame for what is not finite at this step, or for the first NaN (else infinity) in the trace; None if all is finite."""
    symptom = item if item is not None and step_bad(item) else None
    for kind in ("nan", "inf"):
        symptom = symptom or next((s for s in trace.steps if step_bad(s) == kind and not on_purpose(s)), None)
    if symptom is None:
        return None
    if symptom.kind == "backward" and not any(bad(y) for y in symptom.forward.outputs):
        return blame_back(trace, symptom)
    if symptom.kind == "update":
        value = next(row.after for row in symptom.rows if bad(row.after))
        source = next((b for b in trace.backwards if any(bad(p.grad) for p in b.contributions)), None)
        if source is not None:
            return blame(trace, source)
        return Blame(symptom, symptom, value, [f"{where(symptom)} made {bad(value)} in {safe(value.name)} out of finite gradients."])
    forward = symptom if symptom.kind == "forward" else symptom.forward
    return blame_forward(symptom, next(y for y in forward.outputs if bad(y)))


def step_bad(item):
    """What a step made that is not finite."""
    made = {"forward": lambda: item.outputs, "backward": lambda: [p.grad for p in item.contributions],
            "update": lambda: [row.after for row in item.rows]}[item.kind]()
    kinds = {bad(value) for value in made}
    return "nan" if "nan" in kinds else "inf" if "inf" in kinds else ""


def on_purpose(item):
    """Ops through which people put infinities where they want them."""
    return item.kind == "forward" and item.op.name in PLACED and step_bad(item) == "inf"


def blame_forward(symptom, value):
    """Follow a value back to the op that made it non-finite from finite inputs, or to the leaf that brought it."""
    seen = []
    while value.made_by is not None and value.made_by.known:
        maker = value.made_by
        inputs = [x for x in maker.inputs if isinstance(x, Value) and bad(x)]
        seen.append(maker)
        worst = next((x for x in inputs if bad(x) == "nan"), None)
        if worst is None and bad(value) == "nan":  # made here, perhaps of an infinity that came in
            worst = next((x for x in inputs if not from_outside(x)), None)
        elif worst is None:
            worst = next(iter(inputs), None)
        if worst is None:
            return Blame(symptom, maker, value, made_lines(symptom, maker, value))
        value = worst
    if value.made_by is None:
        whose = "a parameter: look at the last optimiser step" if value.role == "parameter" else "data: look at its source"
        first = seen[-1] if seen else symptom
        return Blame(symptom, None, value, [f"{not_finite(value)['text']}. No op made them: it is {whose}.",
                                            f"It is first read by {where(first)}; it showed at {where(symptom)}."])
    return Blame(symptom, None, value, [f"{safe(value.name)} was made before the recording began: record more to see its op."])


def from_outside(value):
    """Was this infinity put there by people: in a leaf, or through where, masked_fill or pad?"""
    while value.made_by is not None:
        if value.made_by.op.name in PLACED:
            return True
        value = next((x for x in value.made_by.inputs if isinstance(x, Value) and bad(x)), None)
        if value is None:
            return False
    return True


def made_lines(symptom, maker, value):
    """What is said of the op that made the first bad number."""
    facts = [f"first bad: {where(maker)}, step {maker.step}: {not_finite(value)['text']}."]
    for k, x in enumerate(maker.inputs):
        if isinstance(x, Value) and x.facts and x.facts["size"]:
            name = safe(maker.op.input_name(k))
            if bad(x):
                facts.append(f"its input {name} = {safe(x.name)} has an infinity, put there on purpose or given.")
            elif "min" in x.facts:
                facts.append(f"its input {name} = {safe(x.name)} is finite, from {number(x.facts['min'])} to {number(x.facts['max'])}"
                             + (f", with {x.facts['zero']} zeros" if x.facts["zero"] else "") + ".")
    if symptom is not maker:
        facts.append(f"it showed at {'the backward of ' if symptom.kind == 'backward' else ''}{where(symptom)}, step {symptom.step}.")
    return facts + growth(maker)


def growth(maker):
    """Where the values that reached this op grew a thousandfold."""
    inputs = [x for x in maker.inputs if isinstance(x, Value) and x.facts]
    value = max(inputs, key=lambda x: x.facts.get("absmax", 0.0), default=None)
    reached = value.facts.get("absmax", 0.0) if value else 0.0
    while value is not None and value.made_by is not None and value.made_by.known:
        item = value.made_by
        inputs = [x for x in item.inputs if isinstance(x, Value) and x.facts]
        before = max(inputs, key=lambda x: x.facts.get("absmax", 0.0), default=None)
        size = before.facts.get("absmax", 0.0) if before else 0.0
        if size and reached >= GREW * size:
            return [f"growth began at {where(item)}, step {item.step}: |max| went from {number(size)} to "
                    f"{number(value.facts['absmax'])}, and {number(reached)} reached the bad op (×{number(reached / size)})."]
        value = before
    return []


def blame_back(trace, symptom):
    """The first step back that made a non-finite gradient out of finite ones."""
    for item in trace.backwards:
        if item.step > symptom.step:
            break
        made = [part for part in item.contributions if bad(part.grad)]
        if made and not any(bad(grad) for _, grad in item.grads_in):
            given = next((x for x in item.forward.inputs if isinstance(x, Value) and bad(x) and not from_outside(x)), None)
            if given is not None:  # this backward multiplied with what was not finite forward: that op is to blame
                return blame_forward(symptom, given)
            lines = [f"first bad: the backward of {where(item)}, step {item.step}: "
                     f"grad_{safe(made[0].argument)} holds {bad(made[0].grad)}, the gradient that came in is finite."]
            for k, x in enumerate(item.forward.inputs):
                if isinstance(x, Value) and x.facts and "min" in x.facts:
                    lines.append(f"forward, its input {safe(item.op.input_name(k))} went from {number(x.facts['min'])} to "
                                 f"{number(x.facts['max'])}, with {x.facts['zero']} zeros: is the slope infinite there (√0, 0/0, log 0)?")
            return Blame(symptom, item, made[0].grad, lines)
    return Blame(symptom, None, None, ["the walk started with a gradient that is not finite."])


def findings(trace):
    """Sentences on the whole trace, the most important first; [] if nothing looks ill."""
    found = blame(trace)
    lines = [" ".join(found.lines)] if found else []
    by_kind = {}
    for item in trace.steps:
        for flag in flags(item):
            by_kind.setdefault(flag["kind"], []).append((item, flag))
    for kind in ("exploding", "vanishing", "zero-grad", "dead", "saturated", "float64"):
        cases = by_kind.get(kind, [])
        if cases:
            item, flag = cases[0]
            more = f", and {len(cases) - 1} more steps" if len(cases) > 1 else ""
            lines.append(f"{kind}: {where(item)}, step {item.step}: {safe(flag['text'])}{more}.")
    return lines
