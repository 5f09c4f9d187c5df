"""How tensors print: the values of small ones, statistics for big ones; and text that cannot disturb a terminal."""

import numpy as np

SMALL = 64  # up to so many elements the values are shown


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
        with np.errstate(over="ignore"):
            found |= {"min": float(finite.min()), "max": float(finite.max()), "mean": float(finite.mean()), "std": float(finite.std())}
    return found


def statistics_text(array):
    """The statistics in one line."""
    s = statistics(array)
    if "min" not in s:
        return f"nothing finite, nan={s['nan']}, inf={s['inf']}" if s["size"] else "empty"
    text = f"min={s['min']:.4g}, max={s['max']:.4g}, mean={s['mean']:.4g}, nan={s['nan']}"
    return text + (f", inf={s['inf']}" if s["inf"] else "")


def safe(text):
    """The text with everything that could move a cursor, change colours or turn the writing direction made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
