"""A Summary as text: one line per layer, equal neighbours folded into one, totals below, and the error where it stopped."""

import itertools
import os
import shutil

from minidl.summary import size_text


def render(summary, depth=None, width=None):
    """The table, fitted to `width` characters (the terminal's)."""
    width = width or shutil.get_terminal_size((100, 24)).columns
    lines = list(body(summary.root, depth))
    columns = fitted(lines, width)
    text = [heading(summary), "", *laid_out(lines, columns), "", *totals(summary)]
    if summary.error:
        text += ["", *stopped(summary)]
    return "\n".join(text)


def heading(summary):
    """The title line."""
    shape = "×".join(map(str, summary.root.inputs[0])) if summary.root.inputs else "?"
    return f"{summary.title}, input {shape}, {'training' if summary.train else 'evaluation'} mode"


# --- lines: dictionaries {column: text} -----------------------------------------------------------------------------------

COLUMNS = {  # title -> aligned to the right?
    "layer": False, "type": False, "input": True, "output": True, "parameters": True, "mult-adds": True, "out": True, "saved": True,
    "field": True,
}


def body(root, depth):
    """One line per row of the tree; of equal neighbours only the first."""
    for row, count, last in folded(root.rows or [root]):
        yield from lines_of(row, count, last, 0, depth)


def folded(rows):
    """(row, how many equal ones follow it in a row with itself, name of the last)."""
    for _, group in itertools.groupby(rows, key=lambda row: row.signature()):
        group = list(group)
        yield group[0], len(group), group[-1].name


def lines_of(row, count, last, level, depth):
    """The line of a row, and those of the rows inside it."""
    name = row.name if count == 1 else f"{several(row.name, last)} ×{count}"
    line = {"layer": "  " * level + name, "type": row.type,
            "input": shape_text(row.inputs), "output": shape_text(row.outputs)}
    opened = not row.is_layer and (depth is None or level + 1 < depth)
    if not opened:
        line |= {"parameters": f"{row.total('parameters'):,}" if row.total("parameters") else "", "field": str(row.field or ""),
                 "mult-adds": count_text(row.total("multiply_adds")), "out": short(row.total("output_bytes")),
                 "saved": short(row.total("saved_bytes"))}
    yield line
    if opened:
        for inner, times, last_inner in folded(row.rows):
            yield from lines_of(inner, times, last_inner, level + 1, depth)


def several(first, last):
    """1…5, or Mixed_6c…6d: what both names begin with comes once, but no number is cut."""
    shared = os.path.commonprefix([first, last]).rstrip("0123456789")  # noqa: RUF071 - letter by letter is what is wanted
    return first if first == last else f"{first}…{last[len(shared):]}"


def shape_text(shapes):
    """The first shape without the batch: 64×56×56; (+1) if there are more."""
    if not shapes:
        return ""
    text = "×".join(map(str, shapes[0][1:])) or "()"
    return text + (f" +{len(shapes) - 1}" if len(shapes) > 1 else "")


def count_text(count):
    """Multiply-adds as text: 118 M."""
    for unit in ("", " k", " M", " G", " T"):
        if count < 1000 or unit == " T":
            break
        count /= 1000
    return f"{count:.4g}{unit}" if count else ""


def short(count):
    """Bytes, nothing for none."""
    return size_text(count) if count else ""


# --- columns ----------------------------------------------------------------------------------------------------------------

def fitted(lines, width):
    """{title: width of its column}: what is left out or cut, in this order, until the table fits."""
    wide = {title: max(len(title), *(len(line.get(title, "")) for line in lines)) for title in COLUMNS}

    def over():
        return sum(wide.values()) + 2 * (len(wide) - 1) - width

    if over() > 0:
        del wide["input"]
    for title, least in (("type", 12), ("layer", 16)):
        wide[title] = max(min(least, wide[title]), wide[title] - max(over(), 0))
    if over() > 0:  # of the field only its size
        for line in lines:
            line["field"] = line.get("field", "").partition("/")[0]
        wide["field"] = max(len("field"), *(len(line["field"]) for line in lines))
    for title in ("out", "saved"):
        if over() > 0:
            del wide[title]
    return wide


def laid_out(lines, columns):
    """The lines under their titles."""
    head = {title: title for title in columns}
    rule = {title: "─" * size for title, size in columns.items()}
    for line in (head, rule, *lines):
        cells = []
        for title, size in columns.items():
            text = line.get(title, "")
            text = text if len(text) <= size else text[:size - 1] + "…"
            cells.append(text.rjust(size) if COLUMNS[title] else text.ljust(size))
        yield "  ".join(cells).rstrip()


def totals(summary):
    """The lines below the table."""
    seen = summary.root.total("parameters")
    yield f"parameters   {summary.parameters:,}, trainable {summary.trainable:,}"
    yield f"             with {summary.buffers:,} buffer elements {size_text(summary.weight_bytes)}"
    if seen != summary.parameters and not summary.error:
        yield f"             {summary.parameters - seen:,} of them in layers that did not run in this mode"
    yield f"mult-adds    {summary.multiply_adds:,} per image"
    outputs, saved = (size_text(summary.root.total(name)) for name in ("output_bytes", "saved_bytes"))
    yield f"memory       {outputs} of outputs, {saved} saved for backward, batch {summary.batch}"
    yield "field        pixels an output sees / stride / first pixel (below 0: padding);"
    yield "             of folded layers that of the first"


def stopped(summary):
    """Where and why it ended."""
    path, error = summary.error
    yield f"stopped at {path}:"
    yield from ("    " + line for line in str(error).splitlines())
