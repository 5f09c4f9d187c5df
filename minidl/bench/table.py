"""A result as tables: plain text, Markdown, or rich's on a terminal. Correctness stands first; what is wrong has no speed."""

from minidl.bench import timing
from minidl.core.show import safe

HEADER = ("correct", "implementation", "median", "p20–p80", "n", "GFLOP/s", "GB/s", "of ceiling", "")
NUMBERS = ("median", "n", "GFLOP/s", "GB/s", "of ceiling", "time", "share")
MARKS = {"ok": "✓", "wrong": "✗ wrong", "missing": "–"}


def duration(seconds):
    """0.0123 -> '12.3 ms'."""
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 999.5 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def number(value):
    """Three digits."""
    return "" if value is None else f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def cells(row):
    """One row as text."""
    mark = MARKS[row["status"]]
    if row["status"] == "ok" and row["error"] is not None:
        mark = f"✓ {row['error']:.0e} ≤ {row['allowed']:.0e}" if row["allowed"] else "✓ exact"
    name = row["implementation"] + (" ←" if row["chosen"] and row["op"] != "whole call" else "")
    if row.get("median") is None:
        return (mark, name, "", "", "", "", "", "", row["why"])
    notes = ["noisy"] if row.get("noisy") else []
    if row.get("bound", 1) != 1:
        notes.append(f"bound: {row['bound']} times a direct sum's")
    if len(row.get("outputs", ())) > 1:
        notes.append("outputs at " + ", ".join(f"{share:.2g}" for share in row["outputs"]) + " of their bounds")
    if row.get("launch_s"):
        notes.append(f"first call {duration(row['first_s'])}, launch {duration(row['launch_s'])}")
    spread = f"{duration(row['p20'])} – {duration(row['p80'])}"
    share = f"{row['share']:.0%}" if row.get("share") is not None else ""
    return (mark, name, duration(row["median"]), spread, str(row["n"]), number(row.get("gflop_s")), number(row.get("gb_s")), share,
            ", ".join(notes))


def folded(rows):
    """Rows; neighbours of one backend that are missing for one reason become one row, as all of CUDA on a machine without a GPU."""
    result = []
    for row in rows:
        backend, last = row["implementation"].partition("/")[0], result[-1] if result else None
        if last and row["status"] == "missing" == last["status"] and row["why"] == last["why"] and last["backend"] == backend:
            last["count"] += 1
            last["implementation"] = f"{backend}/… ({last['count']})"
        else:
            result.append({**row, "backend": backend, "count": 1})
    return result


def sections(result):
    """[(title, header, rows of cells)] of everything in a result; a newline in a name or a reason begins no row."""
    found, ordered = {}, []
    for row in result["rows"]:
        key = (row["case"], row["label"], row["op"], row["direction"], row["inputs"])
        if key not in found:
            found[key] = []
            ordered.append(key)
        found[key].append(row)
    tables = []
    for case, label, op, direction, inputs in ordered:
        title = f"{case} {label}: {direction}" + ("" if op == case and direction == "forward" else f", {op} {inputs}".rstrip())
        tables.append((title, HEADER, [cells(row) for row in folded(found[case, label, op, direction, inputs])]))
    for sweep in result["sweeps"]:
        rows = [(row["label"], *cells(row)) for row in sweep["rows"]]
        tables.append((f"{sweep['case']}: {sweep['grows']}, forward", ("size", *HEADER), rows))
    for step in result["steps"]:
        tables += step_tables(step)
    return [(safe(title), header, [tuple(safe(cell) for cell in row) for row in rows]) for title, header, rows in tables]


def step_tables(step):
    """A model's step: times by part, then where it goes."""
    if step["status"] == "wrong":
        return [(f"training step, {step['label']}", ("correct", "why"), [("✗ wrong", step["why"])])]
    best = min((c["step"]["median"] for key, c in step["contenders"].items() if key != "minidl"), default=None)
    rows = []
    for key, parts in step["contenders"].items():
        whole = parts["step"]
        ratio = f"{best / whole['median']:.2f}" if best and key == "minidl" else ""
        spread = f"{duration(whole['p20'])} – {duration(whole['p80'])}" + (" noisy" if timing.is_noisy(whole) else "")
        rows.append(("✓", key, *(duration(parts[p]["median"]) for p in ("forward", "backward", "optimizer")), duration(whole["median"]),
                     spread, str(whole["n"]), ratio))
    header = ("correct", "", "forward", "backward", "optimizer", "step", "p20–p80", "n", "PyTorch's best / minidl" if best else "")
    tables = [(f"training step, {step['label']}", header, rows)]
    if step["breakdown"]:
        b = step["breakdown"]
        for title, key in (("by kind of work, about", "by_kind"), ("by op", "by_op")):
            shares = [(name, spent, spent / b["seconds"]) for name, spent in b[key].items()]
            parts = [(name, duration(spent), f"{share:.0%}") for name, spent, share in shares if share > 0.004]
            tables.append((f"where it goes, {title}", ("", "time", "share"), parts))
    return tables


def facts(result):
    """The lines about the machine and the notes."""
    e, m = result["environment"], result["machine"]
    lines = [f"{e['processor']}, {e['cores']} cores, {e['system']}; {e['threads']} threads; python {e['python']}, numpy {e['numpy']} "
             f"({e['blas']})" + (f", torch {e['torch']}" if e.get("torch") else ""),
             f"minidl {e['minidl']}, commit {e['commit'] or 'unknown'}, {e['date']}, load {e['load']}"]
    if m:
        lines.append(f"ceilings measured here: copy {m['copy_gb_s']:.0f} GB/s, product of {m['gemm_size']}² matrices "
                     f"{m['gemm_gflop_s']:.0f} GFLOP/s")
    return [safe(line) for line in (*lines, *(f"note: {note}" for note in result["notes"]))]


def plain(title, header, rows):
    """One table as aligned text."""
    lines = [header, *rows]
    widths = [max(len(str(line[k])) for line in lines) for k in range(len(header))]
    text = [title]
    for line in lines:
        text.append("    " + "  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return "\n".join(text)


def markdown(result):
    """Everything as Markdown."""
    parts = []
    for title, header, rows in sections(result):
        lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in (header, *rows)]
        parts.append("\n".join([f"### {title}", "", lines[0], "|" + "---|" * len(header), *lines[1:]]))
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in facts(result))]) + "\n"


def text(result):
    """Everything as plain text."""
    return "\n\n".join([*(plain(*section) for section in sections(result)), "\n".join(facts(result))])


def rich_tables(result):
    """The tables for a terminal that can show them."""
    from rich.table import Table
    from rich.text import Text

    for title, header, rows in sections(result):
        table = Table(title=Text(title), title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
        for name in header:
            table.add_column(Text(name), justify="right" if name in NUMBERS else "left", overflow="fold")
        for row in rows:
            style = "red" if row[0].startswith("✗") else "dim" if row[0] == "–" else "bold" if "←" in row[1] else ""
            table.add_row(*(Text(str(cell)) for cell in row), style=style)
        yield table
