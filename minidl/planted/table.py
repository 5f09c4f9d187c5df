"""The table of planted bugs: what minidl's check says about each, and which weaker checks would have missed it."""

from minidl.planted.naive import NAIVE, finds
from minidl.planted.plant import CATALOGUE, bug

COLUMNS = ("bug", "op", "minidl check", *NAIVE)


def results(names=None, seed=0, progress=None):
    """One dict per bug: plant it, check it, let the weaker checks try, take it out."""
    rows = []
    for entry in [CATALOGUE[name] for name in names or CATALOGUE]:
        if progress:
            progress(entry.name)
        with bug(entry):
            found = entry.finding(seed)
            rows.append({"bug": entry.name, "op": entry.op, "caught": found is not None, "order": found and found.order,
                         "says": found.text if found else "", "guess": found.guess if found else "",
                         "what": entry.what, "why": entry.why}
                        | {weak: finds(check, entry, seed) for weak, check in NAIVE.items()})
    return rows


def cells(row):
    """A row of results() as texts."""
    said = f"order {row['order']}: {row['says'].splitlines()[0]}" if row["caught"] else "MISSED"
    return [row["bug"], row["op"], said, *("caught" if row[weak] else "missed" for weak in NAIVE)]


def summary(rows):
    """One line that counts."""
    caught = sum(row["caught"] for row in rows)
    weaker = ", ".join(f"{weak}: {sum(row[weak] for row in rows)}" for weak in NAIVE)
    return f"{caught} of {len(rows)} planted bugs caught; by weaker checks: {weaker}"


def lines(rows, width=72):
    """The table as lines of text, columns aligned; long guesses are cut."""
    table = [list(COLUMNS), *map(cells, rows)]
    table = [[text if len(text) <= width else text[:width - 1] + "…" for text in row] for row in table]
    widths = [max(len(row[k]) for row in table) for k in range(len(COLUMNS))]
    return ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in table]


def markdown(rows):
    """The table for docs/planted.md."""
    table = [["bug", "op", "what is wrong, and why people write it", "minidl check", *NAIVE]]
    for row in rows:
        name, op, said, *weak = cells(row)
        table.append([f"`{name}`", f"[{op}](ops/{op}.md)", f"{row['what']} {row['why']}", said, *weak])
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    return "\n".join([text[0], "|" + "---|" * len(table[0]), *text[1:]])
