"""What the stepper shows of a trace, as lines of (text, style) pairs: one step, the outline, source, a tensor."""

import textwrap

import numpy as np

from minidl.core.device import CPU, move
from minidl.core.tensor import Tensor
from minidl.stepper import source
from minidl.stepper.text import byte_size, cells, duration, facts, fit, number, pad, safe, table
from minidl.stepper.trace import Backward, Forward
from minidl.stepper.values import Value

COLUMNS = ("_way", "_argument", "tensor", "shape", "min", "max", "μ", "σ", "0%", "nan", "spread", "part")
SOURCE_LINES = 6  # of a backward, on the screen of a step; `l` shows all


def host(array):
    """The array on the CPU: the stepper looks at values, wherever they were computed."""
    return move(array, CPU)


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


def settings_text(forward):
    """An op's settings as in the call: dim=1, keepdim=True."""
    parts = [f"{name}={'Tensor' if isinstance(value, Tensor) else value!r}" for name, value in forward.settings.items()]
    return safe(", ".join(parts))


def signature(forward):
    """What goes in and what comes out: (8, 2), (2, 6) → (8, 6)."""
    before = [shape_text(x.shape) if isinstance(x, Value) else safe(x) for x in forward.inputs if x is not None]
    after = ", ".join(shape_text(y.shape) for y in forward.outputs)
    return f"{', '.join(before)} → {after}" if before else f"→ {after}"


def header(trace, item, width):
    """The first line of a step: where am I, and on what."""
    back = type(item) is Backward
    forward = item.forward if back else item
    total = trace.counts[type(item)]
    line = [("● ", "bold magenta" if back else "bold green"),
            (f"{'bwd' if back else 'fwd'} {item.number}/{total}  ", "bold"),
            (safe(forward.op.name), "bold cyan")]
    if back and forward.number:
        line.append((f" of {forward.label}", "dim"))
    line.append(("  " + signature(forward), ""))
    if settings_text(forward):
        line.append(("  " + settings_text(forward), "yellow"))
    array = forward.outputs[0].array
    right = f"{array.dtype} {'cpu' if isinstance(array, np.ndarray) else 'cuda'}"
    room = width - sum(cells(text) for text, _ in line) - cells(right)
    return [*line, (" " * room + right, "dim")] if room >= 2 else line


def step_screen(trace, item, width):
    """Everything about one step."""
    lines = [header(trace, item, width)]
    forward = item.forward if type(item) is Backward else item
    if forward.site is not None:
        name, line, text = source.call_line(forward.site)
        lines.append([*labelled("called", f"{safe(name)}:{line}", "blue"), ("  ", ""), (safe(text), "code")])
    lines += backward_part(item, width) if type(item) is Backward else forward_part(item, width)
    return [fit(line, width) for line in lines]


def forward_part(item, width):
    """The rest of a forward step's screen."""
    name, code = source.forward_lines(item.op)
    lines = [labelled("forward", f"{safe(name)}:{code[0][0] if code else item.op.forward.__code__.co_firstlineno}", "blue")]
    for text in source.formula(item.op)[:2]:
        lines += wrapped("maths", safe(text), width, 2)
    rows = []
    for k, x in enumerate(item.inputs):
        if isinstance(x, Value):
            rows.append(tensor_row("in", item.op.input_name(k), x, x.array))
        elif x is not None:
            rows.append({"_way": "in", "_argument": item.op.input_name(k), "tensor": safe(x)})
    for k, y in enumerate(item.outputs):
        rows.append(tensor_row("out", "y" if len(item.outputs) == 1 else f"y[{k}]", y, y.array))
    lines += table(COLUMNS, rows, width)
    if item.users:
        several = f", so {len(item.users)} gradients will add up in it" if len(item.users) > 1 else ""
        lines.append(labelled("read by", " and ".join(f"{user.op.name} ({user.label})" for user in item.users) + several))
    keeps = ", ".join(f"{safe(n)} {byte_size(size)}" for n, size in item.kept) or "nothing"
    if item.in_graph:
        lines.append(labelled("keeps", f"{keeps}, for its backward"))
    lines.append(labelled("took", duration(item.seconds)))
    return lines


def backward_part(item, width):
    """The rest of a backward step's screen: the lines that ran, the gradient in, the gradients out, what they add up to."""
    lines, forward = [], item.forward
    if forward.backward_code is not None:
        name, code = source.backward_lines(forward.backward_code)
        lines.append(labelled("backward", f"{safe(name)}:{forward.backward_code.co_firstlineno}", "blue"))
        for n, text in code[:SOURCE_LINES]:
            lines += code_lines(n, text, width)
        if len(code) > SOURCE_LINES:
            lines.append(labelled("", f"... {len(code) - SOURCE_LINES} more lines: l", "dim"))
    lines += wrapped("maths", safe(source.gradient_formula(item.op)), width)
    outputs = len(forward.outputs)
    rows = [tensor_row("in", "grad_y" if outputs == 1 else f"grad_y[{value.number}]", value, grad.array) for value, grad in item.grads_in]
    notes = []
    for part in item.contributions:
        row = tensor_row("out", f"grad_{part.argument}", part.to, part.grad.array)
        row["part"] = f"{part.index} of {part.count or '?'}"
        rows.append(row)
        if part.before is not None:
            rows.append(tensor_row("sum", "total" if part.complete else "so far", part.to, part.after.array))
        notes += fan_out(part, width)
    lines += table(COLUMNS, rows, width)
    lines += notes
    if item.ran:
        lines += wrapped("ran", f"{', '.join(item.ran)}: {duration(item.seconds)}", width, 1)
    else:
        lines.append(labelled("ran", f"no op at all: {duration(item.seconds)}"))
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


def tensor_row(way, argument, value, array):
    """One tensor in the table of a step."""
    row = {"_way": way, "_argument": safe(argument), "tensor": safe(value.name), "shape": shape_text(array.shape)}
    if not (value.made_by is None or value.made_by.known) and array is value.array:
        return {**row, "μ": "not recorded"}
    return row | facts(host(array))


def outline(trace, cursor, width):
    """All forward ops in order, the steps that went back through each, and where the cursor is."""
    rows = []
    for forward in trace.forwards:
        here = cursor is forward or cursor in forward.backwards
        rows.append({
            "_": "●" if here else "", "step": str(forward.step), "op": safe(forward.op.name),
            "reads": safe(", ".join(x.name if isinstance(x, Value) else str(x) for x in forward.inputs if x is not None)),
            "makes": safe(", ".join(y.name for y in forward.outputs)),
            "shape": ", ".join(shape_text(y.shape) for y in forward.outputs),
            "back": " ".join(str(back.step) for back in forward.backwards) or "-"})
    columns = ("_", "step", "op", "reads", "makes", "shape", "back")
    lines = table(columns, rows, 10_000, indent=0)
    for line, row in zip(lines[1:], rows, strict=True):
        if row["_"]:
            line[:] = [(text, "bold") for text, _ in line]
    return [fit(line, width) for line in lines]


def listing(item, width):
    """The source of a step: the call, the op's forward, and the backward; the one that is being stepped is marked."""
    forward = item.forward if type(item) is Backward else item
    lines = []
    if forward.site is not None:
        name, line, text = source.call_line(forward.site)
        lines += [labelled("called", safe(name), "blue"), *code_lines(line, text, width)]
    name, code = source.forward_lines(forward.op)
    lines += numbered("forward", name, code, type(item) is Forward, width)
    if forward.backward_code is not None:
        name, code = source.backward_lines(forward.backward_code)
        lines += numbered("backward", name, code, type(item) is Backward, width)
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
    array = host(array)
    lines = table(COLUMNS, [{"tensor": safe(name), "shape": shape_text(array.shape)} | facts(array)], width)
    with np.printoptions(threshold=200, edgeitems=4, linewidth=max(40, width - 4), precision=4):
        text = str(array) if array.ndim else number(array.item())
    return lines + [fit([("  " + line, "")], width) for line in text.splitlines()]
