"""What the stepper shows of a trace, as lines of (text, style) pairs: one step, its source, a tensor, a worked number."""

import textwrap

import numpy as np

from minidl.core.device import CPU, move
from minidl.core.tensor import Tensor
from minidl.stepper import source
from minidl.stepper.compare import turn_of
from minidl.stepper.doctor import flags
from minidl.stepper.effect import measured, sentence
from minidl.stepper.ran import in_words
from minidl.stepper.text import byte_size, cells, duration, facts_row, fit, number, pad, safe, table
from minidl.stepper.values import Value
from minidl.stepper.worked import said, updated, worked_out

COLUMNS = ("_way", "_argument", "tensor", "shape", "min", "max", "μ", "σ", "0%", "nan", "spread", "part")
SOURCE_LINES = 6   # of a backward, on the screen of a step; `l` shows all
WINDOWS = {"stride", "padding", "dilation", "kernel_size", "output_padding"}
QUICK = 1_000_000  # elements of an op's inputs up to which its screen works a number out; beyond, `w` does
UPDATED = 12       # parameters that an optimiser's step shows: those that moved most


def shape_text(shape):
    """8×6; a scalar is ()."""
    return "×".join(str(n) for n in shape) or "()"


def labelled(label, text, style=""):
    """A line of a screen: what it is about, and what is to be said."""
    return [("  " + pad(label, 9), "dim"), (text, style)]


def wrapped(label, text, width, limit=3):
    """A longer text in at most `limit` lines, aligned under the first."""
    lines = textwrap.wrap(text, max(20, width - 11)) or [""]
    if len(lines) > limit:
        lines = [*lines[:limit - 1], " ".join(lines[limit - 1:])]
    return [labelled(label if k == 0 else "", line) for k, line in enumerate(lines)]


def settings_text(item):
    """An op's settings as in the call, dim=1, keepdim=True; those that are as always stay out."""
    usual = source.usual(item)
    parts = [f"{name}={'Tensor' if isinstance(value, Tensor) else compact(name, repr(value))}"
             for name, value in item.settings.items() if name not in usual]
    return safe(", ".join(parts))


def compact(name, text):
    """stride=(2, 2) is written 2, as in most calls."""
    sizes = text.strip("()[]").split(", ") if name in WINDOWS else ()
    return sizes[0] if len(sizes) > 1 and len(set(sizes)) == 1 else text


def signature(forward):
    """What goes in and what comes out: (8, 2), (2, 6) → (8, 6)."""
    before = [shape_text(x.shape) if isinstance(x, Value) else safe(x) for x in forward.inputs if x is not None]
    after = ", ".join(shape_text(y.shape) for y in forward.outputs)
    return f"{', '.join(before)} → {after}" if before else f"→ {after}"


def header(trace, item, width):
    """The first line of a step: where am I, and on what."""
    word, colour = {"forward": ("fwd", "green"), "backward": ("bwd", "magenta"), "update": ("upd", "yellow")}[item.kind]
    number, total, _, turn = turn_of(trace, item)
    place = "  ".join(filter(None, (f"step {item.step}/{len(trace.steps)}", turn, f"{word} {number}/{total}")))
    line = [("● ", f"bold {colour}"), (f"{place}  ", "bold")]
    if item.path:
        line.append((safe(item.path) + "  ", "bold"))
    line.append((safe(item.op.name), "bold cyan"))
    if item.kind == "update":
        return [*line, (f"  {len(item.rows)} parameters  ", ""), (settings_text(item), "yellow")]
    forward = item.forward
    if item.kind == "backward" and forward.number:
        line.append((f" of {forward.label}", "dim"))
    line.append(("  " + signature(forward), ""))
    if settings_text(forward):
        line.append(("  " + settings_text(forward), "yellow"))
    right = f"{forward.outputs[0].dtype} {forward.outputs[0].device}" if forward.outputs else ""
    room = width - sum(cells(text) for text, _ in line) - cells(right)
    return [*line, (" " * room + right, "dim")] if room >= 2 else line


def step_screen(trace, item, width):
    """Everything about one step."""
    lines = [header(trace, item, width)]
    if called := source.call(item):
        lines.append([*labelled("called", f"{safe(called['file'])}:{called['line']}", "blue"), ("  ", ""), (safe(called["text"]), "code")])
    lines += {"forward": forward_part, "backward": backward_part, "update": update_part}[item.kind](item, width)
    return [fit(line, width) for line in lines]


def forward_part(item, width):
    """The rest of a forward step's screen."""
    name, code = source.forward(item)
    lines = [labelled("forward", f"{safe(name)}:{code[0][0]}" if code else safe(name) or "its source was not recorded", "blue")]
    for k, text in enumerate(source.formula(item.op)[:2]):
        lines += wrapped("" if k else "maths", safe(text), width, 2)
    if missing := source.without(item):
        lines.append(labelled("", f"here without {safe(' and '.join(missing))}"))
    lines += worked_lines(item, width) + gradient_lines(item, width)
    rows = []
    for k, x in enumerate(item.inputs):
        if isinstance(x, Value):
            rows.append(tensor_row("in", item.op.input_name(k), x, path=item.path))
        elif x is not None:
            rows.append({"_way": "in", "_argument": item.op.input_name(k), "tensor": safe(x)})
    for k, y in enumerate(item.outputs):
        rows.append(tensor_row("out", "y" if len(item.outputs) == 1 else f"y[{k}]", y, path=item.path))
    lines += table(COLUMNS, rows, width)
    lines += flag_lines(item, width)
    if item.users:
        several = f", so {len(item.users)} gradients will add up in it" if len(item.users) > 1 else ""
        lines.append(labelled("read by", " and ".join(f"{safe(user.op.name)} ({user.label})" for user in item.users) + several))
    keeps = ", ".join(f"{safe(n)} {byte_size(size)}" for n, size in item.kept) or "nothing"
    if item.in_graph:
        lines.append(labelled("keeps", f"{keeps}, for its backward"))
    lines += wrapped("ran", f"{in_words(item)}; {duration(item.seconds)} with the checks and the set-up around it" if item.runs else
                     f"plain array expressions; {duration(item.seconds)}", width, 2)
    return lines


def backward_part(item, width):
    """The rest of a backward step's screen: the lines that ran, the gradient in, the gradients out, what they add up to."""
    lines, forward, code = [], item.forward, source.backward(item)
    if code is not None:
        name, found = code
        lines.append(labelled("backward", f"{safe(name)}:{found[0][0]}" if found else safe(name), "blue"))
        for n, text in found[:SOURCE_LINES]:
            lines += code_lines(n, text, width)
        if len(found) > SOURCE_LINES:
            lines.append(labelled("", f"... {len(found) - SOURCE_LINES} more lines: l", "dim"))
    lines += wrapped("maths", safe(source.gradient_formula(item.op)), width)
    lines += worked_lines(item, width) + gradient_lines(item, width)
    several = len(forward.outputs) > 1
    rows = [tensor_row("in", f"grad_y[{value.number}]" if several else "grad_y", grad, value, item.path) for value, grad in item.grads_in]
    notes = []
    for part in item.contributions:
        row = tensor_row("out", f"grad_{part.argument}", part.grad, part.to, item.path)
        row["part"] = f"{part.index} of {part.count or '?'}"
        rows.append(row)
        if part.before is not None:
            rows.append(tensor_row("sum", "total" if part.complete else "so far", part.after, part.to, item.path))
        notes += fan_out(part, width)
    lines += table(COLUMNS, rows, width, headings={"tensor": "gradient of"})
    lines += notes
    lines += flag_lines(item, width)
    if item.ran:
        lines += wrapped("ran", f"{safe(', '.join(item.ran))}: {duration(item.seconds)}", width, 1)
        if item.runs:
            lines += wrapped("on", in_words(item), width, 3)
    else:
        lines.append(labelled("ran", f"no op at all: {duration(item.seconds)}"))
    return lines


def update_part(item, width):
    """The rest of an optimiser's screen: its rule, and what it did to the parameters."""
    name, code = source.forward(item)
    lines = [labelled("rule", f"{safe(name)}:{code[0][0]}" if code else safe(name), "blue")]
    for n, text in code[:SOURCE_LINES]:
        lines += code_lines(n, text, width)
    for k, text in enumerate(source.formula(item.op)[:3]):
        lines += wrapped("" if k else "maths", safe(text), width, 2)
    for row in updated(item):
        lines += wrapped("worked", row["text"], width)
    rows = []
    moved = sorted(item.rows, key=lambda row: -(row.change if row.change is not None and np.isfinite(row.change) else 1e300))
    for row in moved[:UPDATED]:
        before, grad = row.before.facts, row.grad.facts
        rows.append({"parameter": safe(row.before.name), "shape": shape_text(row.before.shape), "|w| max": largest(before),
                     "|grad| max": largest(grad), "change": "" if row.change is None else "from 0" if np.isinf(row.change)
                     else f"{number(100 * row.change)} %"})
    lines += table(("parameter", "shape", "|w| max", "|grad| max", "change"), rows, width)
    if len(item.rows) > UPDATED:
        lines.append(labelled("", f"... and {len(item.rows) - UPDATED} more that moved less", "dim"))
    lines += flag_lines(item, width)
    lines.append(labelled("took", duration(item.seconds)))
    return lines


def largest(facts):
    """The largest |value| as text."""
    return number(facts["absmax"]) if facts and "absmax" in facts else ""


def worked_lines(item, width):
    """One number of each tensor that a step makes, worked out; for a large op only on demand."""
    forward = item.forward
    if not item.stored and sum(int(np.prod(x.shape)) for x in forward.inputs if isinstance(x, Value)) > QUICK:
        return [labelled("worked", "the op is large: w works a number out", "dim")]
    lines = []
    for row in worked_out(forward).get(item.step, ()):
        lines += wrapped("" if lines else "worked", safe(row["text"]), width, 2)
    return lines


def gradient_lines(item, width):
    """What the op does to the gradient: in words, and in the numbers of this recording, also where the forward stands."""
    said_, numbers = sentence(item.op), measured(item)
    lines = wrapped("gradient", safe(said_), width, 2) if said_ else []
    if numbers:
        back = item.forward.backwards[-1:] if item.kind == "forward" else ()
        there = f"   (f: to step {back[0].step})" if back else ""
        lines += wrapped("" if lines else "gradient", numbers + there, width, 2)
    return [[(line[0][0], "dim"), (line[1][0], "magenta")] for line in lines]


def flag_lines(item, width):
    """What looks ill about a step."""
    lines = []
    for flag in flags(item):
        lines += [[(line[0][0], "dim"), (line[1][0], "bold red")] for line in
                  wrapped("" if lines else "flags", f"{safe(flag['kind'])}: {safe(flag['text'])}", width)]
    return lines


def fan_out(part, width):
    """Where a tensor was used more than once: which contribution this is, and whether the gradient is complete."""
    if part.count == 1 or part.count is None and part.before is None:
        return []
    users = part.to.made_by.users if part.to.made_by else []
    went = f" went to {' and '.join(user.label for user in users)}" if len(users) > 1 else ""
    if part.count is None:
        rest = "; the walk broke off, so more may have been to come"
    elif part.complete:
        rest = ": now its gradient is complete"
    else:
        rest = f", {part.count - part.index} still to come"
    text = f"{safe(part.to.name)}{went}: contribution {part.index}{f' of {part.count}' if part.count else ''}{rest}"
    return [[(line[0][0], "dim"), (line[1][0], "yellow")] for line in wrapped("fan-out", text, width)]


def tensor_row(way, argument, value, named=None, path=None):
    """One tensor in the table of a step, under the name of `named` if that is another (a gradient under its tensor's).

    What belongs to the module at `path` is called .weight, without the path, which the first line has.
    """
    name = (named or value).name
    name = name[len(path):] if path and name.startswith(path + ".") else name
    row = {"_way": way, "_argument": safe(argument), "tensor": safe(name), "shape": shape_text(value.shape)}
    if value.facts is None:
        return {**row, "μ": "not recorded"}
    return row | facts_row(value.facts, value.histogram, value.dtype)


def listing(item, width):
    """The source of a step: the call, the op's forward, and the backward; the one that is being stepped is marked."""
    lines = []
    if called := source.call(item):
        lines += [labelled("called", safe(called["file"]), "blue"), *code_lines(called["line"], called["text"], width)]
    lines += numbered("rule" if item.kind == "update" else "forward", *source.forward(item), item.kind != "backward", width)
    if code := source.backward(item):
        lines += numbered("backward", *code, item.kind == "backward", width)
    for launch in {(one.file, one.name): one for run in item.runs for one in run.launches}.values():
        lines += numbered("kernel", *(launch.text or (f"kernels/{launch.file}", [])), True, width)
    return [fit(line, width) for line in lines]


def numbered(label, name, code, current, width):
    """Lines of source with their numbers, and an arrow in front of those that the step ran."""
    lines = [labelled(label, safe(name) if code else f"{safe(name)}: the source is not there", "blue")]
    for n, text in code:
        lines += code_lines(n, text, width, "   → " if current else "     ")
    return lines


def code_lines(n, text, width, mark="     "):
    """A numbered line of source; what does not fit goes on below, indented."""
    indent = " " * (len(text) - len(text.lstrip()) + 8)
    pieces = textwrap.wrap(safe(text), max(20, width - 12), subsequent_indent=indent, break_on_hyphens=False) or [""]
    return [[(mark, "bold"), (f"{n if k == 0 else '':>5} ", "dim"), (piece, "code")] for k, piece in enumerate(pieces)]


def tensor_lines(name, array, width):
    """The values of a tensor, and its statistics."""
    value = Value(np.asarray(move(array, CPU)))
    row = {"tensor": safe(name), "shape": shape_text(value.shape)} | facts_row(value.facts, value.histogram, value.dtype)
    with np.printoptions(threshold=200, edgeitems=4, linewidth=max(40, width - 4), precision=4):
        text = str(value.array) if value.array.ndim else number(value.array.item())
    return table(COLUMNS, [row], width) + [fit([("  " + line, "")], width) for line in text.splitlines()]


def compared_lines(rows, width):
    """What stands at a tensor's place elsewhere, and how far it is from that."""
    lines = []
    for row in rows:
        known = row.value.facts
        facts = f"mean {number(known['mean'])}, largest {number(known['absmax'])}" if known and "mean" in known else "not recorded"
        far = "" if row.apart is None else "; the same" if row.apart == 0 else f"; max |difference| / max |it| {number(row.apart)}"
        lines += wrapped("compare", f"{safe(row.where)}: {facts}{far}", width)
    return [fit(line, width) for line in lines]


def stored_lines(name, value, width):
    """A tensor of which a saved trace has statistics and a corner only."""
    lines = table(COLUMNS, [tensor_row("", "", value)], width)
    if value.corner:
        lines.append([(f"  only {safe(name)}{safe(value.corner['at'])} is in this file:", "dim")])
        lines += table(tuple(map(str, range(len(value.corner["values"][0])))), [
            {str(k): said(v) for k, v in enumerate(row)} for row in value.corner["values"]], width)[1:]
    return [fit(line, width) for line in lines]


def worked_table(row, width):
    """A worked number in full: its terms, the rest, the sum, what was stored."""
    lines = [labelled("worked", safe(row["name"]), "bold cyan")]
    sum_kind = row["kind"] == "sum"
    rows = [{"term": safe(term["text"]), "value": said(term["value"]), "_x": "·" if sum_kind else "slope", "factor": said(term["factor"]),
             "_is": "=" if sum_kind else "", "product": said(term["product"]) if sum_kind else ""} for term in row["terms"]]
    if row["more"]:
        rows.append({"term": f"+ {row['more']} more", "_is": "=" if sum_kind else "", "product": said(row["rest"]) if sum_kind else ""})
    lines += table(("term", "value", "_x", "factor", "_is", "product"), rows, width, 11)[1:]
    lines.append(labelled("", f"= {said(row['total'])}   {'✓' if row['agree'] else '✗ NOT'} stored: {said(row['stored'])}",
                          "green" if row["agree"] else "bold red"))
    return [fit(line, width) for line in lines]
