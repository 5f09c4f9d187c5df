"""How the stepper writes things down: numbers, sizes, tables, and text that cannot disturb a terminal.

A line is a list of (text, style) pairs; terminal.py draws it, with colours or without.
"""

import math
import unicodedata

import numpy as np

from minidl.core.show import safe  # noqa: F401 - for those who write lines with this file

BARS = "▁▂▃▄▅▆▇█"


def cells(text):
    """How many columns of a terminal the text takes."""
    wide = (unicodedata.east_asian_width(c) in "WF" for c in text)
    return sum(0 if unicodedata.combining(c) else 1 + w for c, w in zip(text, wide, strict=True))


def pad(text, width, right=False):
    """Fill with spaces up to a width in columns."""
    space = " " * (width - cells(text))
    return space + text if right else text + space


def shorten(text, width):
    """Cut a text that is too long, and show that it was cut."""
    if cells(text) <= width:
        return text
    while text and cells(text) > width - 1:
        text = text[:-1]
    return text + "…"


def fit(line, width):
    """A line cut to a width in columns."""
    result, left = [], width
    for number, (text, style) in enumerate(line):
        room = left - (number + 1 < len(line) and left == cells(text))  # leave room for "…" where more was to come
        piece = shorten(text, room)
        result.append((piece, style))
        if piece != text:
            break
        left -= cells(piece)
    return result


def number(value):
    """Three digits: 0.0312, -3.12e-5, 1.5e4."""
    text = f"{value:.3g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return "0" if text == "-0" else text


def byte_size(count):
    """512 B, 4.3 kB, 1.2 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def duration(seconds):
    """12 µs, 4.1 ms, 2.3 s."""
    for unit, scale in (("s", 1), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.2g} {unit}" if seconds / scale < 100 else f"{seconds / scale:.0f} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def spread(histogram, bins=8):
    """A histogram between min and max as a row of bars; "" where there is nothing to spread."""
    if histogram is None:
        return ""
    each = len(histogram["counts"]) // bins
    counts = [sum(histogram["counts"][k * each:(k + 1) * each]) for k in range(bins)]
    return "".join(BARS[math.ceil(c / (max(counts) or 1) * (len(BARS) - 1))] for c in counts)


def facts_row(found, histogram, dtype):
    """What the table of tensors says of one tensor: column -> text. `found` are its statistics."""
    row = {"nan": str(found["nan"]) + (f"+{found['inf']} inf" if found["inf"] else "")}
    if not found["size"]:
        return {"nan": "", "μ": "empty"}
    row["0%"] = number(100 * found["zero"] / found["size"])
    if "mean" in found:
        biggest = max(abs(found["min"]), abs(found["max"]))
        noise = np.finfo(dtype).eps * biggest if np.dtype(dtype).kind == "f" else 0
        row["μ"] = number(found["mean"]) if found["mean"] == 0 or abs(found["mean"]) > noise else "≈0"  # its digits would be rounding
        if found["size"] > 1:
            row |= {"min": number(found["min"]), "max": number(found["max"]), "σ": number(found["std"])}
    row["spread"] = spread(histogram)
    return row


HEADINGS = {"_argument": "argument"}
LEAST = {"_argument": 6, "min": 7, "max": 7, "μ": 7, "σ": 7}  # so that the columns stand still from step to step
RIGHT = {"min", "max", "μ", "σ", "0%", "nan", "time", "share", "change"}
DROP = ("σ", "0%", "spread", "min", "max")  # what a narrow terminal does without, first to go first


def table(columns, rows, width, indent=2, headings=None):
    """Lines of a table: `rows` are dicts column -> text; columns in which nothing stands, or for which there is no room, go.

    `headings`: what stands above a column, where that is not its name. One that begins with _ has none.
    """
    heads = {c: "" if c[0] == "_" else c for c in columns} | HEADINGS | (headings or {})
    kept = [c for c in columns if any(row.get(c) for row in rows)]

    def sizes():
        return {c: max(cells(heads[c] or c.strip("_")), LEAST.get(c, 0), *(cells(row.get(c, "")) for row in rows)) for c in kept}

    for victim in DROP:
        if indent + sum(sizes().values()) + 2 * (len(kept) - 1) <= width:
            break
        kept = [c for c in kept if c != victim]
    size = sizes()
    lines = [[(" " * indent + "  ".join(pad(heads[c], size[c], c in RIGHT) for c in kept).rstrip(), "dim")]]
    for row in rows:
        line = [(" " * indent, "")]
        for c in kept:
            line += [(pad(row.get(c, ""), size[c], c in RIGHT), style_of(c, row.get(c, ""))), ("  ", "")]
        lines.append(line[:-1])
    return lines


def style_of(column, text):
    """Colour where it says something that the text says too."""
    if column == "nan" and text not in ("", "0"):
        return "bold red"
    styles = {"_": "dim", "tensor": "cyan", "spread": "green", "shape": "dim", "part": "yellow",
              "graph": "green", "flags": "bold red", "back": "dim"}
    return styles.get(column, "")
