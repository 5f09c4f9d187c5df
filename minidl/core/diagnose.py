"""What is wrong with a gradient that failed its check: the full Jacobian names the worst entry, and a guess says why.

Both Jacobians have one row per output element and one column per input element. The guesses look for the patterns
that real mistakes leave in them.
"""

import itertools
from typing import NamedTuple

import numpy as np

from minidl.core import op as registry
from minidl.core.dtypes import is_floating
from minidl.core.kinks import place
from minidl.core.probe import EPS, scale_of

LARGEST = 400             # rows and columns that are computed at most; the report says so when there are more
FEWEST = 8                # of a large function, whose every column takes long
ENOUGH = 2_000_000        # columns times elements
LATER = 40                # columns at most where the function is itself a gradient, which takes longer
LEVELS = [2.0**-k for k in range(4, 24, 2)]
CLOSE = 1e-6              # two entries are the same if they differ by less than this part of the largest one


class Jacobians(NamedTuple):
    """Analytic and numeric, both (rows, columns), with the flat numbers of the outputs and inputs they belong to."""

    analytic: np.ndarray
    numeric: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    x: np.ndarray
    out_shapes: list
    whole: bool

    @property
    def limit(self):
        """How far apart two equal entries may be."""
        return CLOSE * max(float(np.max(np.abs(self.numeric), initial=0)), 1e-30)

    def wrong(self):
        """True where the two disagree."""
        with np.errstate(invalid="ignore"):
            return ~(np.abs(self.analytic - self.numeric) <= self.limit)


def diagnose(f, number, order, allowed, u, row, noise):
    """(guess, lines of detail) for argument `number` of a Function whose gradient is wrong."""
    j = jacobians(f, number, allowed, noise)
    wrong = j.wrong()
    if not wrong.any():
        return small_or_crooked(j, row), ["no entry of the Jacobian is off by much"]
    details = [worst_entry(f, number, j, wrong)]
    details.append(f"{int(wrong.sum())} of {wrong.size} entries of the Jacobian are wrong")
    outputs, usable = sum(int(np.prod(s)) for s in j.out_shapes), int(np.count_nonzero(allowed))
    if len(j.rows) < outputs or len(j.columns) < usable:
        details.append(f"(the Jacobian is large: {len(j.rows)} of {outputs} rows and {len(j.columns)} of {usable} columns were computed)")
    if usable < j.x.size:
        details.append(f"({j.x.size - usable} of {j.x.size} columns are left out: the function is not smooth there)")
    return guess(f, number, order, j, wrong), details


def small_or_crooked(j, row):
    """Every entry is right, the product is not: rounding, or a backward that is not linear in the gradient it is given."""
    ratio = abs(row.error) / max(row.size, 1e-300)
    if ratio < 1e-5:
        return f"something in backward computes in float32, or adds a small number (an epsilon): the relative error is {ratio:.1e}"
    if ratio > 1e-3 and j.whole:
        return "backward is not linear in the incoming gradient: does it use its sign, or its size?"
    return f"it is wrong by a little, in many small entries: the relative error is {ratio:.1e}"


def jacobians(f, number, allowed, noise):
    """Numeric by columns, analytic by rows."""
    x = f.arrays[number]
    base = f.evaluate(f.arrays)
    shapes = [y.shape for y in base]
    sizes = [y.size for y in base]
    most = min(LATER if hasattr(f, "inner") else LARGEST, max(FEWEST, ENOUGH // max(x.size, sum(sizes), 1)))
    columns, rows = crop(np.flatnonzero(allowed), most), crop(np.arange(sum(sizes)), max(most, LATER))
    numeric = np.stack([column(f, number, flat, rows, noise) for flat in columns], axis=1)
    analytic = np.empty(numeric.shape)
    for r, flat in enumerate(rows):
        one_hot = np.zeros(sum(sizes))
        one_hot[flat] = 1.0
        u = [part.reshape(s) for part, s in zip(np.split(one_hot, np.cumsum(sizes)[:-1]), shapes, strict=True)]
        analytic[r] = f.gradients(f.arrays, u)[number].ravel()[columns]
    return Jacobians(analytic, numeric, rows, columns, x, shapes, len(rows) == sum(sizes) and len(columns) == x.size)


def crop(indices, most):
    """At most so many of them, evenly spread."""
    return indices if len(indices) <= most else indices[np.linspace(0, len(indices) - 1, most).astype(int)]


def column(f, number, flat, rows, noise):
    """Slopes of all outputs along one input element: per output the step whose error estimate is smallest."""
    x = f.arrays[number]
    scale = float(scale_of(x).flat[flat])

    def at(t):
        moved = x.copy()
        moved.flat[flat] += t
        ys = f.probe([moved if k == number else a for k, a in enumerate(f.arrays)])
        return np.concatenate([y.ravel() for y in ys])[rows]

    return slopes(at, scale, len(rows), noise)


def slopes(at, scale, count, noise):
    """d at(t) / dt at 0 of a function with `count` values."""
    value, error, before, coarse = np.full(count, np.nan), np.full(count, np.inf), None, None
    for h in LEVELS:
        with np.errstate(all="ignore"):
            fine = (at(h * scale) - at(-h * scale)) / (2 * h * scale)
            once = None if coarse is None else (16 * fine - coarse) / 15  # h is a quarter of the step before
            if before is not None:
                estimate = np.abs(once - before) + max(noise, EPS) / (h * scale)
                better = estimate < error
                value, error = np.where(better, once, value), np.where(better, estimate, error)
        if count and (error <= 1e-9 * np.abs(value).max()).all():
            break
        coarse, before = fine, once
    return value


def output_place(f, j, flat):
    """The name and index of one output element."""
    for name, shape in zip(f.output_names, j.out_shapes, strict=True):
        size = int(np.prod(shape))
        if flat < size:
            return place(name, np.unravel_index(flat, shape))
        flat -= size
    raise IndexError(flat)


def worst_entry(f, number, j, wrong):
    """Name the entry that is furthest off, with both numbers."""
    with np.errstate(invalid="ignore"):
        distance = np.where(np.isfinite(j.analytic), np.abs(j.analytic - j.numeric), np.inf)
    r, c = np.unravel_index(np.argmax(np.where(wrong, distance, -1)), wrong.shape)
    x_place = place(f.names[number], np.unravel_index(j.columns[c], j.x.shape))
    return (f"worst entry: d {output_place(f, j, j.rows[r])} / d {x_place}: "
            f"gradient {j.analytic[r, c]:.8g}, finite differences {j.numeric[r, c]:.8g}")


def guess(f, number, order, j, wrong):
    """The first pattern that fits, as one sentence."""
    if not np.isfinite(j.analytic).all():
        bad = j.columns[np.flatnonzero(~np.isfinite(j.analytic).all(axis=0))[0]]
        return f"the gradient is not finite at {place(f.names[number], np.unravel_index(bad, j.x.shape))} where the function is smooth"
    later = order > 1 and number < len(f.arrays) - len(f.inner.output_names)
    if not (np.abs(j.analytic) > j.limit).any():
        if later:
            return "constant during the second derivative (right to first order): backward uses a detached tensor or a raw array"
        return "zero everywhere: a detached term?"
    for pattern in PATTERNS:
        text = pattern(f, number, j, wrong)
        if text:
            return text + (" (right to first order)" if later else "")
    if later:
        return "a term is constant during the second derivative (right to first order): backward uses a detached tensor or a raw array"
    missing = np.count_nonzero(wrong & (np.abs(j.analytic) <= j.limit))
    if missing == np.count_nonzero(wrong):
        return "entries that should not be zero are: a term is missing"
    return "no known pattern; compare the formula with the worst entry"


def same(j, a, b):
    """Do two Jacobians agree?"""
    return a.shape == b.shape and bool((np.abs(a - b) <= j.limit).all())


def factor(f, number, j, wrong):
    """analytic = c · numeric everywhere."""
    square = float(np.sum(j.numeric**2))
    c = float(np.sum(j.analytic * j.numeric)) / square if square else 0.0
    if c == 0 or not (np.abs(j.analytic - c * j.numeric) <= abs(c) * j.limit).all():
        return ""
    if abs(c + 1) < 1e-6:
        return "sign slip: the gradient is the negative of the right one"
    larger = max(abs(c), 1 / abs(c))
    for size, what in products(f, number, j):
        if abs(c / ((size - 1) / size) - 1) < 1e-6 and size > 2:
            return f"off by the factor {size - 1}/{size}, {size} = {what}: n for n − 1?"
        if abs(larger / size - 1) < 1e-6:
            if size == 2:  # a forgotten 2 is as likely as a mean over an axis of size 2
                return f"off by the factor {c:.6g}; 2 is also {what}: mean for sum?"
            sign = "-" if c < 0 else ""
            if abs(c) > 1:
                return f"off by the factor {sign}{size} = {what}: a mean's 1/{size} is missing?"
            return f"off by the factor {sign}1/{size}, {size} = {what}: mean for sum?"
    return f"off by the factor {c:.6g}"


def products(f, number, j):
    """Products of axis sizes, smallest sets first: (product, what it is)."""
    shapes = [(f.names[k], a.shape) for k, a in enumerate(f.arrays) if k == number or k < 3]
    shapes = [shapes[min(number, len(shapes) - 1)], *shapes, *zip(f.output_names, j.out_shapes, strict=True)]
    seen = set()
    for count in (1, 2, 3, 4):
        for name, shape in shapes:
            for axes in itertools.combinations(range(len(shape)), count):
                p = int(np.prod([shape[k] for k in axes]))
                if p > 1 and p not in seen:
                    seen.add(p)
                    every = len(axes) == len(shape)
                    yield p, f"the size of {name}" if every else f"the size of axis {' x '.join(map(str, axes))} of {name}"


def transposed(f, number, j, wrong):
    """Two axes of the input, or of the incoming gradient, or the whole Jacobian."""
    name, n = f.names[number], len(j.x.shape)
    if not j.whole or len(j.out_shapes) != 1:
        return ""
    o, shape = j.out_shapes[0], j.x.shape
    a, b = j.analytic.reshape(o + shape), j.numeric.reshape(o + shape)
    for p, q in itertools.combinations(range(n), 2):
        if same(j, a.reshape(len(j.rows), *shape).swapaxes(p + 1, q + 1).reshape(j.numeric.shape), j.numeric):
            return f"transposed: axes {p} and {q} of grad_{name} are swapped"
    for p, q in itertools.combinations(range(len(o)), 2):
        if same(j, a.swapaxes(p, q), b):
            return f"transposed: axes {p} and {q} of the incoming gradient are swapped"
    if same(j, j.analytic.T, j.numeric):
        return f"transposed: the whole Jacobian is (a product with W where W transposed belongs) in grad_{name}"
    return ""


def swapped(f, number, j, wrong):
    """The gradient of another argument: its slope along one random direction is compared, not its whole Jacobian."""
    v = np.zeros(j.x.size)
    v[j.columns] = np.random.default_rng(4).standard_normal(len(j.columns))
    for other, x in enumerate(f.arrays):
        if other != number and x.shape == j.x.shape and j.whole:
            def at(t, other=other):
                moved = f.probe([a + t * v.reshape(a.shape) if k == other else a for k, a in enumerate(f.arrays)])
                return np.concatenate([y.ravel() for y in moved])[j.rows]

            along = slopes(at, float(np.mean(scale_of(x))), len(j.rows), 0.0)
            if (np.abs(j.analytic @ v[j.columns] - along) <= j.limit * np.abs(v).sum()).all():
                return f"the gradients of {f.names[number]} and {f.names[other]} are swapped"
    return ""


def reshaped(f, number, j, wrong):
    """The right numbers in another order: the elements were counted row by row where the axes are exchanged."""
    shape = j.x.shape
    if not j.whole:
        return ""
    for p, q in itertools.combinations(range(len(shape)), 2):
        order = np.arange(j.x.size).reshape(shape).swapaxes(p, q).ravel()
        for found in (j.numeric[:, order], j.numeric[:, np.argsort(order)]):
            if same(j, j.analytic, found):
                return f"the elements are in another order: a reshape where axes {p} and {q} must be exchanged (a transpose)?"
    return ""


def missing_sum(f, number, j, wrong):
    """Zero along an output axis where it should not be: only one of the repeated elements was counted."""
    if len(j.out_shapes) != 1 or len(j.rows) != int(np.prod(j.out_shapes[0])):
        return ""
    o = j.out_shapes[0]
    a, b, bad = (m.reshape(*o, -1) for m in (j.analytic, j.numeric, wrong))
    for k in range(len(o)):
        if o[k] == 1:
            continue
        others = tuple(i for i in range(len(o) + 1) if i != k)
        empty = ~(np.abs(a) > j.limit).any(axis=others)
        wanted = (np.abs(b) > j.limit).any(axis=others)
        fine = ~bad.any(axis=others)
        if (empty & wanted).any() and (fine & ~empty).any() and (fine | empty).all():
            shape, axis = j.x.shape, k - (len(o) - len(j.x.shape))
            if axis < 0 or shape[axis] == 1:
                return f"missing sum over the broadcast axis {k}: only index {int(np.flatnonzero(~empty)[0])} of it is counted"
    return ""


def uncalled_for(f, number, j, wrong):
    """Gradients where there should be none, and everything else right."""
    extra = (np.abs(j.numeric) <= j.limit) & (np.abs(j.analytic) > j.limit)
    return "a gradient where there should be none: a condition of the forward is missing in backward" if (extra == wrong).all() else ""


def assigned(f, number, j, wrong):
    """Elements that were used several times and have only some of their uses in the gradient."""
    lost = wrong & (np.abs(j.analytic) <= j.limit)
    kept = ~wrong & (np.abs(j.numeric) > j.limit)
    if (lost == wrong).all() and kept[:, wrong.any(axis=0)].any(axis=0).all():
        return f"elements of {f.names[number]} that were used several times keep the gradient of some uses: = for += ?"
    return ""


def shifted(f, number, j, wrong):
    """The numeric gradient moved by one, or reversed, along an axis of the input."""
    shape, name = j.x.shape, f.names[number]
    if len(j.columns) != j.x.size:
        return ""
    a, b = (m.reshape(-1, *shape) for m in (j.analytic, j.numeric))
    for k, size in enumerate(shape):
        inner = np.arange(size)
        for by in (1, -1) if size > 2 else ():
            moved = np.roll(b, by, axis=k + 1)
            keep = inner[1:] if by == 1 else inner[:-1]
            if same(j, np.take(a, keep, k + 1), np.take(moved, keep, k + 1)):
                return f"shifted by one along axis {k} of {name}"
        if same(j, a, np.flip(b, k + 1)):
            return f"flipped along axis {k} of {name}"
    return ""


def where_sign(f, number, j, wrong):
    """All wrong columns, and no right one, on one side of 0, or of another argument."""
    bad = wrong.any(axis=0)
    x = j.x.ravel()[j.columns]
    if bad.all():
        return ""
    for text, there in (("< 0", x < 0), ("> 0", x > 0), ("== 0", x == 0), ("<= 0", x <= 0), (">= 0", x >= 0)):
        if np.array_equal(bad, there):
            return f"wrong only where {f.names[number]} {text}"
    for other, y in enumerate(f.arrays):
        if other != number and y.shape == j.x.shape:
            y = y.ravel()[j.columns]
            for text, there in (("<", x < y), (">", x > y)):
                if np.array_equal(bad, there):
                    return f"wrong only where {f.names[number]} {text} {f.names[other]}"
    return ""


def at_the_end(f, number, j, wrong):
    """All wrong entries at the first or last index of one axis of the input or the output."""
    if wrong.all():
        return ""
    sides = [(f.names[number], j.x.shape, j.columns, wrong.any(axis=0))]
    if len(j.out_shapes) == 1:
        sides.append((f.output_names[0], j.out_shapes[0], j.rows, wrong.any(axis=1)))
    for name, shape, flat, bad in sides:
        index = np.unravel_index(flat, shape) if shape else ()
        for k, position in enumerate(index):
            for word, wanted in (("last", shape[k] - 1), ("first", 0)):
                if shape[k] > 1 and (position[bad] == wanted).all() and not bad.all():
                    return f"wrong only at the {word} index of axis {k} of {name}"
    return ""


def one_output(f, number, j, wrong):
    """Only one of several outputs is wrong."""
    if len(j.out_shapes) < 2:
        return ""
    owner = np.repeat(np.arange(len(j.out_shapes)), [int(np.prod(s)) for s in j.out_shapes])[j.rows]
    bad = np.unique(owner[wrong.any(axis=1)])
    return f"wrong only through output {f.output_names[bad[0]]}" if len(bad) == 1 else ""


def diagonal(f, number, j, wrong):
    """Zero off the diagonal, where elements influence each other."""
    if j.analytic.shape[0] != j.analytic.shape[1]:
        return ""
    off = ~np.eye(len(j.analytic), dtype=bool)
    if (np.abs(j.analytic[off]) <= j.limit).all() and (np.abs(j.numeric[off]) > j.limit).any():
        return "only the diagonal of the Jacobian is there: the influence of the elements on each other is missing"
    return ""


PATTERNS = (factor, swapped, transposed, reshaped, missing_sum,
            shifted, where_sign, uncalled_for, diagonal, assigned, at_the_end, one_output)


def narrow_ops(run):
    """Name the ops that turned float64 into a narrower float, if any can be seen."""
    seen = []

    def watch(call):
        came_in = [x for x in call.inputs if hasattr(x, "array")]
        narrow = [y for y in call.outputs if is_floating(y.dtype) and y.dtype.itemsize < 8]
        if narrow and any(x.dtype == np.float64 for x in came_in):
            seen.append(f"{call.op.name} returned {narrow[0].dtype}")

    observed(run, watch)
    if seen:
        return f"something inside computes in float32: {', '.join(dict.fromkeys(seen))}"
    return "something inside computes in float32, or large numbers cancel inside one op"


def largest_inside(run):
    """The largest number that any op returned."""
    sizes = [0.0]
    observed(run, lambda call: sizes.extend(float(np.max(np.abs(y.array), initial=0)) for y in call.outputs if is_floating(y.dtype)))
    return max(sizes)


def observed(run, watch):
    """Call run() while an observer watches its ops."""
    registry.OBSERVERS.append(watch)
    try:
        run()
    finally:
        registry.OBSERVERS.remove(watch)
