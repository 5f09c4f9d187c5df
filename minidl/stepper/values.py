"""What a trace knows of one tensor: its array while it is there, and what is kept of it when it is not.

Statistics, histogram, thumbnails and an 8×8 corner are computed when first asked for, and are all that a saved trace holds.
"""

import base64

import numpy as np

from minidl.core.device import CPU, device_of, move
from minidl.core.show import statistics
from minidl.stepper.source import output_names

BINS = 48         # of a histogram
PICTURES = 8      # thumbnails of one tensor
SIDE = 28         # pixels of a thumbnail, at most
ROW = 8           # times as many pixels in a single row of numbers, which the page wraps
CORNER = 8        # rows and columns of raw numbers
PIECE = 1 << 18   # elements that are looked at in one go: they stay in the cache


class Value:
    """A tensor as it was when it was recorded."""

    def __init__(self, array, made_by=None, number=0, of=None, known=None):
        self.array = array            # None where only the facts were kept
        self.made_by = made_by        # the Forward whose output it is, or None
        self.number = number          # which output
        self.of = of                  # for a gradient: the Value it is the gradient of
        self.role = "activation" if made_by else "gradient" if of else "input"  # or "parameter", "buffer"
        self.known = known            # what the model or the program calls it
        self.version = 0              # of a parameter: how many times an optimiser had changed it
        self.name = known or ""       # what the stepper calls it; Trace.settle_names() decides
        self.stored = {}              # what a saved trace said of it
        self.looked = {}              # what was computed of it so far
        if array is not None:
            self.shape, self.dtype, self.device = tuple(array.shape), array.dtype, str(device_of(array))
            self.array = move(array, CPU)  # from here on everything is looked at there

    # Values that stand for an op from before the recording have a shape, and no numbers.
    weight = property(lambda self: (self.of or self).role == "parameter")  # a gradient looks like what it is the gradient of
    recorded = property(lambda self: self.made_by is None or self.made_by.known)
    facts = property(lambda self: self.look("facts", facts_of))
    histogram = property(lambda self: self.look("histogram", histogram))
    corner = property(lambda self: self.look("corner", corner))

    def look(self, what, compute):
        """Something computed from the array once, or what a saved trace said."""
        if what not in self.looked:
            known = self.array is not None and self.recorded
            self.looked[what] = compute(move(self.array, CPU)) if known else self.stored.get(what)
        return self.looked[what]

    def thumbnails(self, side=SIDE, count=PICTURES):
        """Small pictures of it, or None: see pictures()."""
        kind = "rgb" if self.role == "input" and len(self.shape) == 4 and self.shape[1] == 3 else "channels"
        return self.look(("thumbnails", side, count), lambda array: pictures(array, kind, self.weight, side, count)) \
            if self.array is not None else self.stored.get("thumbnails")

    def default_name(self, given):
        """A name for a tensor that nobody named: after the op that made it, or its number among the given ones."""
        if self.made_by is None:
            return f"given{given}"
        count = len(self.made_by.outputs)
        return f"{self.made_by.label}.{output_names(self.made_by.op, count)[self.number] if count > 1 else 'y'}"


def plain(value):
    """A number as JSON has it: six digits; what is not finite is "nan", "inf" or "-inf"."""
    value = float(value)
    return float(f"{value:.6g}") if np.isfinite(value) else str(value)


def largest(array):
    """The largest |value| among the finite ones; 0 if there is none."""
    values = array[np.isfinite(array)] if array.dtype.kind == "f" and not np.isfinite(array).all() else array
    if not values.size:
        return 0.0
    return float(max(abs(float(values.max())), abs(float(values.min()))))


def pieces(array):
    """An array cut along its first axis into views of about PIECE elements."""
    rows = max(1, PIECE * max(1, len(array)) // array.size) if array.ndim and array.size else 1
    return (array[k:k + rows] for k in range(0, len(array), rows)) if array.size > PIECE and array.ndim else iter((array,))


def facts_of(array):
    """min, max, mean, std of the finite values, |max|, and how many are NaN, infinite, zero; large arrays piece by piece."""
    if array.size <= PIECE:
        return statistics(array) | {"absmax": largest(array)}
    parts = [statistics(piece) for piece in pieces(array)]
    found = {name: sum(part[name] for part in parts) for name in ("nan", "inf", "zero", "size")}
    parts = [part for part in parts if "min" in part]
    if not parts:
        return found | {"absmax": 0.0}
    counts = np.array([part["size"] - part["nan"] - part["inf"] for part in parts], np.float64)
    means, deviations = (np.array([part[name] for part in parts]) for name in ("mean", "std"))
    with np.errstate(over="ignore", invalid="ignore"):  # the sum of finite float64 values may be infinite
        mean = float((counts * means).sum() / counts.sum())
        variance = float((counts * (deviations ** 2 + (means - mean) ** 2)).sum() / counts.sum())
    low, high = min(part["min"] for part in parts), max(part["max"] for part in parts)
    return found | {"min": low, "max": high, "mean": mean, "std": variance ** 0.5, "absmax": max(abs(low), abs(high))}


def histogram(array, bins=BINS):
    """{"low", "high", "counts"} of the finite values, or None where there is nothing to spread."""
    if array.size > PIECE and array.dtype.kind == "f":
        return histogram_of_pieces(array, bins)
    values = array[np.isfinite(array)].ravel() if array.dtype.kind == "f" else array.ravel().astype(np.float64)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not high > low:
        return None
    counts, _ = np.histogram(values.astype(np.float64, copy=False) / max(abs(low), abs(high)), bins)  # scaled: a span may overflow
    return {"low": plain(low), "high": plain(high), "counts": [int(c) for c in counts]}


def histogram_of_pieces(array, bins):
    """The same of a large array."""
    spans = [(float(piece.min()), float(piece.max())) for piece in pieces(array)]
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN or infinity somewhere: look only at the others
        finite = [piece[np.isfinite(piece)] for piece in pieces(array)]
        finite = [piece for piece in finite if piece.size]
        low, high = min((float(p.min()) for p in finite), default=0.0), max((float(p.max()) for p in finite), default=0.0)
    else:
        finite = pieces(array)
    if not high > low:
        return None
    scale = max(abs(low), abs(high))  # a span may overflow
    counts = np.zeros(bins, np.int64)
    for piece in finite:
        places = ((piece.ravel().astype(np.float64) / scale - low / scale) * (bins / (high / scale - low / scale))).astype(np.int64)
        counts += np.bincount(places.clip(0, bins - 1), minlength=bins)
    return {"low": plain(low), "high": plain(high), "counts": [int(c) for c in counts]}


def corner(array, size=CORNER):
    """{"at": "[0, 0, :8, :8]", "values": rows of numbers}: the first rows and columns of the last two axes."""
    if not array.size:
        return None
    lead = (0,) * max(0, array.ndim - 2)
    part = np.atleast_2d(array[lead])[:size, :size]
    cut = [f":{min(size, n)}" if n > size else ":" for n in array.shape[-2:]]
    return {"at": f"[{', '.join([*map(str, lead), *cut])}]" if array.ndim else "", "values": [[plain(v) for v in row] for row in part]}


def pictures(array, kind, parameter, side=SIDE, count=PICTURES):
    """Thumbnails: {"kind", "axis", "at", "shown", "total", "height", "width", "scale", "low", "high", "data"}, or None.

    "rgb" is one picture of three bytes a pixel, from `low` to `high`. The others have one byte a pixel: 0 where a value is
    not finite, else 128 + 127·value/scale. "channels" are of the first sample, "tiles" the filters of a weight
    (their first input channel), "matrix" and "row" the tensor itself. Too large ones are averaged over blocks.
    """
    if array.dtype.kind not in "fiub" or not array.size or array.ndim not in (1, 2, 4) or not count:
        return None
    if array.ndim == 4 and array.shape[2] * array.shape[3] == 1:  # a 1×1 convolution, an average over a whole image
        array = array[:, :, 0, 0]
    if array.ndim == 4 and kind == "rgb":
        images, axis, total, at = [array[0]], None, 1, "[0]"
    elif array.ndim == 4:
        kind, axis, at = ("tiles", 0, "[o, 0]") if parameter else ("channels", 1, "[0, c]")
        total = array.shape[axis]
        images = [array[k, 0] if parameter else array[0, k] for k in range(min(total, count))]
    else:
        kind, axis, total, at = ("matrix" if array.ndim == 2 and len(array) > 1 else "row"), None, 1, "[:]"
        images = [np.atleast_2d(array)]
    with np.errstate(all="ignore"):
        wide = side * ROW if kind == "row" else side
        images = [smaller(image.astype(np.float32, copy=False), side, wide) for image in images]
    scale, (low, high) = largest(np.stack(images)), span(images)
    if kind == "rgb":
        levels = np.moveaxis((images[0] - low) / ((high - low) or 1) * 255, 0, -1)[None]     # (1, H, W, 3)
    else:
        levels = np.where(np.isfinite(images), np.clip(np.round(128 + np.stack(images) / (scale or 1) * 127), 1, 255), 0)
    data = [base64.b64encode(np.nan_to_num(level).clip(0, 255).astype(np.uint8).tobytes()).decode() for level in levels]
    height, width = images[0].shape[-2:]
    return {"kind": kind, "axis": axis, "at": at, "shown": list(range(len(images))), "total": total, "height": height, "width": width,
            "scale": plain(scale), "low": plain(low), "high": plain(high), "data": data}


def span(images):
    """(smallest, largest) finite value."""
    values = np.stack(images)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def blocks(size, side):
    """(side, size): the matrix that averages neighbours."""
    side, result = min(side, size), np.zeros((min(side, size), size), np.float32)
    starts = np.arange(side) * size // side
    for row, (start, end) in enumerate(zip(starts, [*starts[1:], size], strict=True)):
        result[row, start:end] = 1 / (end - start)
    return result


def smaller(image, side, wide):
    """An image (..., H, W) averaged over blocks until it is no larger than side × wide."""
    if image.size > PIECE and image.ndim == 2 and np.isfinite(image.sum(dtype=np.float64)):  # as products: ten times as fast
        return blocks(image.shape[0], side) @ image @ blocks(image.shape[1], wide).T
    for axis, side in ((-2, side), (-1, wide)):  # noqa: B020 - the first is as it came
        size = image.shape[axis]
        if size > side:
            starts = np.arange(side) * size // side
            widths = np.diff([*starts, size])
            image = np.add.reduceat(image, starts, axis) / (widths[:, None] if axis == -2 else widths)
    return image
