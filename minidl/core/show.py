"""How tensors and modules print, as text and as HTML for a notebook: the values of small ones, statistics for big ones.

The HTML holds no script, stays below 40 KB, and every text in it is escaped, and cannot disturb a terminal: errors.safe().
"""

import numpy as np

from minidl.core.errors import safe

SMALL = 64   # up to so many elements the values are shown
CORNER = 8   # rows and columns of a large tensor in a notebook
TILES = 8    # channels of an image in a notebook
SIDE = 40    # pixels: larger channels are thinned out to so many
ROOM = 22_000  # characters for the modules of a network: what does not fit is counted


def tensor_repr(x):
    """tensor(...) with shape, dtype, device; for big tensors min, max, mean and the NaN count instead of values."""
    facts = [f"dtype={x.dtype}"]
    if str(x.device) != "cpu":
        facts.append(f"device='{x.device}'")
    if x.edge is not None:
        facts.append(f"made by {x.edge[0].op.name}")
    elif x.requires_grad:
        facts.append("requires_grad=True")
    array = x.detach().numpy()
    if array.size <= SMALL:
        body = np.array2string(array, separator=", ", prefix="tensor(", precision=4, suppress_small=True, floatmode="maxprec")
        shape = f"shape={tuple(array.shape)}, " if array.size == 0 else ""
        return f"tensor({body}, {shape}{', '.join(facts)})"
    return f"tensor(shape={tuple(array.shape)}, {statistics_text(array)}, {', '.join(facts)})"


def statistics(array):
    """min, max, mean, std of the finite values, and how many are NaN, infinite, zero."""
    values = array.astype(np.float64, copy=False) if array.dtype.kind in "fiu" else array.astype(np.float64)
    nan, inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    finite = values[np.isfinite(values)] if nan or inf else values
    found = {"nan": nan, "inf": inf, "zero": int((values == 0).sum()), "size": int(values.size)}
    if finite.size:
        with np.errstate(over="ignore", invalid="ignore"):  # the sum of finite float64 values may be infinite
            found |= {"min": float(finite.min()), "max": float(finite.max()), "mean": float(finite.mean()), "std": float(finite.std())}
    return found


def statistics_text(array):
    """The statistics in one line."""
    s = statistics(array)
    if "min" not in s:
        return f"nothing finite, nan={s['nan']}, inf={s['inf']}" if s["size"] else "empty"
    text = f"min={s['min']:.4g}, max={s['max']:.4g}, mean={s['mean']:.4g}, nan={s['nan']}"
    return text + (f", inf={s['inf']}" if s["inf"] else "")


# --- in a notebook ------------------------------------------------------------------------------------------------------
def tensor_html(x):
    """A tensor as HTML: what it is, its statistics and histogram, its values or a corner of them, and images as tiles."""
    array = x.detach().numpy()
    made = f"made by {x.edge[0].op.name}" if x.edge is not None else "requires_grad" if x.requires_grad else ""
    facts = [f"tensor {'×'.join(map(str, array.shape)) or '()'}", str(x.dtype), str(x.device), made]
    parts = [f"<b>{escaped(facts[0])}</b> " + escaped(" · ".join(fact for fact in facts[1:] if fact))]
    if array.size > SMALL:
        parts.append(escaped(statistics_text(array)) + histogram_svg(array))
    if array.ndim == 4 and array.size > SMALL and min(array.shape[2:]) > 1:
        parts.append(tiles_html(array))
    parts.append(values_html(array))
    return "<div style='font-family:monospace'>" + "".join(f"<div>{part}</div>" for part in parts if part) + "</div>"


def values_html(array):
    """The values of a small tensor, or the first rows and columns of the last two axes of a large one, as a table."""
    if not array.size:
        return ""
    lead = (0,) * max(0, array.ndim - 2)
    if array.size <= SMALL and array.ndim > 2:
        return f"<pre>{escaped(np.array2string(array, separator=', ', precision=4, suppress_small=True, floatmode='maxprec'))}</pre>"
    rows = np.atleast_2d(array[lead])
    small = array.size <= SMALL
    part = rows if small else rows[:CORNER, :CORNER]
    cell = "<td style='text-align:right'>{}</td>".format
    body = "".join(f"<tr>{''.join(cell(value_text(v)) for v in row)}{cell('…') if len(row) < rows.shape[1] else ''}</tr>" for row in part)
    at = "" if small else f"[{', '.join([*map(str, lead), *(f':{min(CORNER, n)}' for n in array.shape[-2:])])}]"
    return f"{at}<table>{body}</table>{'⋮' if len(part) < len(rows) else ''}"


def value_text(value):
    """One element of a table."""
    return f"{value:.4g}" if isinstance(value, np.floating) else str(value)


def histogram_svg(array, bins=24):
    """Bars for how many of the finite values lie where, as inline SVG; "" where there is nothing to spread."""
    values = array.astype(np.float64).ravel()
    values = values[np.isfinite(values)]
    scale = np.abs(values).max(initial=0.0)
    if not scale or values.min() == values.max():
        return ""
    counts = np.histogram(values / scale, bins)[0]  # scaled: the span of float64 values may overflow
    heights = np.ceil(counts / counts.max() * 28).astype(int)
    bars = "".join(f"<rect x='{5 * k}' y='{28 - h}' width='4' height='{h}'/>" for k, h in enumerate(heights) if h)
    return f"<br><svg width='{5 * bins}' height='28' fill='#4477aa' role='img' aria-label='histogram'>{bars}</svg>"


def tiles_html(array):
    """The first channels of the first image: grey from the smallest to the largest value, red where one is not finite."""
    channels = array[0, :TILES].astype(np.float64)
    channels = channels[:, ::-(-channels.shape[1] // SIDE), ::-(-channels.shape[2] // SIDE)]
    if not channels.size:
        return ""
    finite = channels[np.isfinite(channels)]
    low, high = (finite.min() / 2, finite.max() / 2) if finite.size else (0.0, 0.0)  # halves: their difference is finite
    levels = np.where(np.isfinite(channels), (np.nan_to_num(channels) / 2 - low) / ((high - low) or 1.0), 0.0)
    pixels = np.repeat((levels * 255).round().astype(np.uint8)[..., None], 3, axis=-1)      # (C, H, W, 3)
    pixels[~np.isfinite(channels)] = (204, 51, 17)
    style = "image-rendering:pixelated;margin:2px;display:inline-block"
    tiles = [f"<img style='{style}' width='64' height='{max(1, round(64 * tile.shape[0] / tile.shape[1]))}' alt='channel {c}' "
             f"title='channel {c}' src='data:image/png;base64,{png(tile)}'>" for c, tile in enumerate(pixels)]
    more = f" and {array.shape[1] - len(tiles)} more" if array.shape[1] > len(tiles) else ""
    return "".join(tiles) + f"<br>[0, :{len(tiles)}]: {len(tiles)} channel{'' if len(tiles) == 1 else 's'} of the first image{more}"


def png(pixels):
    """An image (H, W, 3) of bytes as a PNG file in base64."""
    import base64
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)  # each begins with its filter: none
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a colour, kind 2: red, green, blue
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return base64.b64encode(file).decode()


def module_html(module):
    """A module as nested <details>: what it holds, the shapes of its parameters, and how many numbers they have."""
    room = [ROOM]
    return f"<div style='font-family:monospace'>{module_details('', module, room, '<details open>')}</div>"


def module_details(name, module, room, opening="<details>"):
    """One module and what is inside it, while there is room."""
    count = sum(p.numel() for p in module.parameters())
    title = f"{f'({shortened(name)}) ' if name else ''}{shortened(type(module).__name__)}({shortened(module.extra_repr())})"
    head = f"{escaped(title)} <i>{count:,} parameter{'' if count == 1 else 's'}</i>"
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    lines = [escaped(shortened(f"{key} {'×'.join(map(str, x.shape)) or '()'}")) for key, x in own[:20]]
    lines += [f"and {len(own) - 20} more"] if len(own) > 20 else []
    inside = f"<div style='margin-left:2em'>{' · '.join(lines)}</div>" if lines else ""
    room[0] -= len(head) + len(inside) + 120
    children = list(module.named_children())
    for k, (key, child) in enumerate(children):
        if room[0] <= 0:
            inside += f"<div style='margin-left:2em'>and {len(children) - k} more</div>"
            break
        inside += f"<div style='margin-left:2em'>{module_details(key, child, room)}</div>"
    return f"{opening}<summary>{head}</summary>{inside}</details>" if inside else f"<div>{head}</div>"


def shortened(text, most=60):
    """At most so many characters of a text."""
    return text if len(text) <= most else text[:most - 1] + "…"


def escaped(text):
    """A text as HTML that is nothing but text."""
    import html

    return html.escape("\n".join(safe(line) for line in str(text).split("\n")))
