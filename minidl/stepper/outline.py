"""g and t: the outline of a trace with its skips drawn as lines, and where the time went."""

from minidl.stepper.layout import flow
from minidl.stepper.layout import outline as outline_rows
from minidl.stepper.text import duration, fit, safe, table
from minidl.stepper.values import Value

FEW = 45    # so many rows are shown without folding
SLOWEST = 15


def outline(trace, cursor, width, everything=False, under=None):
    """The forward ops in order with the steps back through each: identical blocks folded, but for where the cursor is."""
    forwards, lines = trace.forwards, []
    if not forwards:
        return [[("  No op ran forward.", "")]]
    here = None if cursor.kind == "update" or not cursor.forward.step else forwards.index(cursor.forward)
    rows = outline_rows(flow(as_ops(trace)))
    shown = visible(rows, here, everything or len(forwards) <= FEW, under)
    drawn = [(lanes(rows[k]), rows[k]) for k in shown]
    room = max((len(text) for text, _ in drawn), default=0)
    for text, row in drawn:
        lines.append(row_line(trace, row, here, text.ljust(room), "←" if cursor.kind == "backward" else "●"))
    columns = ("_", "step", "graph", "op", "shape", "back", "flags")
    lines = table(columns, lines, 10_000, indent=0)
    for line in lines[1:]:
        if line[1][0].strip():
            line[:] = [(text, "bold") for text, _ in line]
    if len(shown) < len(rows):
        folded = "what is alike is folded: g all unfolds it, g PATH shows a part"
        rest = folded if under is None else "this is a part: g shows the whole"
        lines.append([("   " + rest, "dim")])
    return [fit(line, width) for line in lines]


def row_line(trace, row, here, graph, mark):
    """One row of the outline: an op, or a module that stands for several. `mark`: the cursor, as it goes forward or back."""
    first, last = trace.forwards[row["first"]], trace.forwards[row["last"]]
    inside = here is not None and row["first"] <= here <= row["last"]
    name = safe(row["name"])
    if row["op"] >= 0:
        name = name if name == safe(first.op.name) else f"{name}  {safe(first.op.name)}"
    backs = sorted(back.step for item in trace.forwards[row["first"]:row["last"] + 1] for back in item.backwards)
    marks = sorted({flag["kind"] for item in trace.forwards[row["first"]:row["last"] + 1] for flag in flags_around(item)})
    return {"_": mark if inside else "", "step": str(first.step) if first is last else f"{first.step}-{last.step}", "graph": graph,
            "op": "  " * (row["level"] - 1) + name + (f" ×{row['copies']}" if row["copies"] > 1 else ""),
            "shape": ", ".join("×".join(map(str, y.shape)) or "()" for y in last.outputs[:1] if isinstance(y, Value)),
            "back": (str(backs[0]) if len(backs) == 1 else f"{backs[0]}-{backs[-1]}") if backs else "-", "flags": " ".join(marks)}


def flags_around(item):
    """The flags of a forward op and of the steps back through it."""
    from minidl.stepper.doctor import flags

    return [flag for step in (item, *item.backwards) for flag in flags(step)]


def visible(rows, here, everything, under):
    """The numbers of the rows to show."""
    shown = []
    for k, row in enumerate(rows):
        if under is not None:
            keep = (row["path"] + ".").startswith(under + ".") or row["op"] < 0 and under.startswith(row["path"] + ".")
        else:
            parent = row["parent"]
            keep = everything or parent < 0 or row["level"] <= 2 or opened(rows, parent, here)
        if keep and (row["parent"] < 0 or row["parent"] in shown or under is not None):
            shown.append(k)
    return shown


def opened(rows, k, here):
    """Is the cursor inside this row?"""
    return here is not None and rows[k]["first"] <= here <= rows[k]["last"]


def lanes(row):
    """The graph column: ● the op in its lane, │ what passes by, ╮ and ╯ where a line leaves and comes in."""
    highest = max([row["lane"], *row["in"], *row["out"], *(lane for pair in row["past"] for lane in pair)])
    cells = [" "] * (highest + 1)
    for before, after in row["past"]:
        cells[before] = "│"
        cells[after] = "│"
    for lane in row["in"]:
        if lane != row["lane"]:
            cells[lane] = "╯" if cells[lane] == " " else "┤"
    for lane in row["out"]:
        if lane != row["lane"]:
            cells[lane] = "╮" if cells[lane] == " " else "┤"
    cells[row["lane"]] = "●" if row["op"] >= 0 else "○"
    return " ".join(cells)


def as_ops(trace):
    """The forward steps as layout.py sees them: a training step ends with an update."""
    numbers, turn = {id(value): number for number, value in enumerate(trace.values)}, 1
    for item in trace.steps:
        if item.kind == "forward":
            reads, makes = ([(numbers[id(x)], x.shape, x.made_by is not None and bool(x.made_by.step))
                             for x in side if isinstance(x, Value)] for side in (item.inputs, item.outputs))
            settings = {name: repr(value) for name, value in item.settings.items()}
            yield item.op.name, item.path or "", settings, reads, makes, turn
        turn += item.kind == "update"


def time_table(trace, width):
    """t: the steps that took longest, forward and backward apart, and what all took."""
    lines, total = [], {}
    for item in trace.steps:
        total[item.kind] = total.get(item.kind, 0.0) + item.seconds
    whole = sum(total.values()) or 1.0
    said = ", ".join(f"{kind} {duration(seconds)}" for kind, seconds in total.items())
    lines.append([(f"  {said}. Recording itself comes on top; the slowest:", "")])
    rows = []
    for item in sorted(trace.steps, key=lambda item: -item.seconds)[:SLOWEST]:
        share = item.seconds / whole
        speed = rate(item)
        rows.append({"step": str(item.step), "kind": item.kind, "op": safe(item.op.name), "module": safe(item.path or ""),
                     "time": duration(item.seconds), "share": f"{100 * share:.0f} %", "speed": speed, "_bar": "█" * round(20 * share)})
    lines += table(("step", "kind", "op", "module", "time", "share", "speed", "_bar"), rows, width)
    return [fit(line, width) for line in lines]


def rate(item):
    """Multiply-adds per second of a forward op, as GFLOP/s (two operations each); "" where there are none."""
    if item.kind != "forward" or not item.multiply_adds or not item.seconds:
        return ""
    return f"{2e-9 * item.multiply_adds / item.seconds:.1f} GFLOP/s"
