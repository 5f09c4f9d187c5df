"""One number of a step worked out: its largest terms, the rest of them, their sum, and what the step really stored.

No op is explained by hand here; the engine itself says it. The gradient x̄[k] is linear in ȳ, so one more backward gives
J[p] = ∂x̄[k]/∂ȳ[p], and the terms are ȳ[p]·J[p]. Forward, y[k] is a sum of terms x[p]·∂y[k]/∂x[p] wherever it grows in step
with some of its inputs (conv, matmul, sums, relu, max pool); else its inputs are listed with their slopes.
"""

import itertools

import numpy as np

from minidl.core.config import enable_grad
from minidl.core.derivative import grad
from minidl.core.device import CPU, move
from minidl.core.dtypes import is_floating
from minidl.core.errors import MinidlError
from minidl.core.tensor import Tensor
from minidl.stepper.text import number, safe
from minidl.stepper.values import Value, pieces, plain

TERMS = 8            # kept of each number
LARGE = 2_000_000    # elements of an op's inputs from which on it is repeated as it ran, not in float64
LIMIT = 20_000_000   # elements from which on it is not repeated at all, unless asked for


class Again:
    """A recorded op, run once more on its recorded inputs, so that it can be differentiated in any direction."""

    def __init__(self, forward):
        self.forward = forward
        self.size = sum(x.array.size for x in [*forward.inputs, *forward.outputs] if isinstance(x, Value) and x.array is not None)
        self.dtype = np.float64 if self.size < LARGE else None
        fixed = [name in forward.op.constant for name in forward.op.tensors]
        self.leaves = [self.leaf(x, not forward.op.takes_list and fixed[k]) for k, x in enumerate(forward.inputs)]
        self.gradients = {}  # id(Backward) -> (ȳ leaves, {input number: gradient with a graph}, or the reason why there are none)
        with enable_grad(), np.errstate(all="ignore"):
            ys = forward.op.function(list(self.leaves), **forward.settings) if forward.op.takes_list \
                else forward.op.function(*self.leaves, **forward.settings)
        self.ys = ys if isinstance(ys, tuple) else (ys,)

    def leaf(self, x, fixed=False):
        """An input of the op as a leaf of a new graph; class weights and the like stay constants."""
        if not isinstance(x, Value):
            return x
        if not is_floating(x.dtype):
            return Tensor(x.array)
        return Tensor(x.array if self.dtype is None else x.array.astype(self.dtype), not fixed)

    def name(self, k):
        """What the op calls input k."""
        return self.forward.op.input_name(k)

    # --- forward --------------------------------------------------------------------------------------------------
    @np.errstate(all="ignore")  # the numbers may well be infinite
    def output(self, which=0, index=None):
        """y[index] of output `which`, as a dict as describe.py says; the element with the largest |value| if no index is given."""
        value, y = self.forward.outputs[which], self.ys[which]
        index = peak(value.array) if index is None else index
        if index is None or len(self.ys) > 1 and which in self.forward.op.non_differentiable:
            return None  # empty, or an extra like the batch's mean beside batch norm's y
        slopes = self.slopes(y, index)
        pieces = {k: self.leaves[k].array * slopes[k].array for k in slopes}
        total = float(y.array[index])
        reach = sum(float(np.abs(p).sum()) for p in pieces.values())
        count = sum(int(np.count_nonzero(p)) for p in pieces.values())
        stored = float(value.array[index])
        allowed = tolerance(value.dtype, count, reach + abs(total))
        chosen = min((chosen for chosen in subsets(pieces) if abs(sum(float(pieces[k].sum()) for k in chosen) - total) <= allowed),
                     key=lambda chosen: sum(int(np.count_nonzero(pieces[k])) for k in chosen), default=None)
        found = {"of": "y" if len(self.ys) == 1 else f"y[{which}]", "index": list(index), "stored": stored,
                 "kind": "formula" if chosen is None or not reach else "sum"}
        if found["kind"] == "sum":
            terms = self.terms({k: (self.leaves[k].array, slopes[k].array) for k in chosen}, self.name)
            return finish(found, *terms, sum(float(pieces[k].sum()) for k in chosen), allowed)
        if slopes:
            terms = self.terms({k: (self.leaves[k].array, slopes[k].array) for k in slopes}, self.name, by_factor=True)
            return finish(found, *terms, total, allowed)
        return finish(found, self.operands(index, value.shape), 0, 0.0, total, allowed)

    def slopes(self, y, index):
        """{input number: ∂y[index]/∂input} of the floating inputs that y depends on."""
        if not y.requires_grad:
            return {}
        numbers = [k for k, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
        found = quiet(grad, [y], [self.leaves[k] for k in numbers], [one_at(y, index)], retain_graph=True, allow_unused=True)
        return {k: g for k, g in zip(numbers, found, strict=True) if g is not None and np.any(g.array)}

    def operands(self, index, shape):
        """The inputs' elements at this place, for ops without slopes (comparisons, rounding, arg max)."""
        rows = []
        for k, leaf in enumerate(self.leaves):
            if isinstance(leaf, Tensor) and fits(leaf.array.shape, shape):
                at = tuple(i if n > 1 else 0 for i, n in zip(index[len(index) - leaf.array.ndim:], leaf.array.shape, strict=True))
                rows.append({"text": element(self.name(k), at), "value": plain(leaf.array[at]), "factor": 0.0, "product": 0.0})
        return rows

    # --- backward -------------------------------------------------------------------------------------------------
    @np.errstate(all="ignore")
    def gradient(self, back, which, index=None):
        """One element of what a backward step made for input `which`: grad_x[index] = Σ ȳ[p] · J[p]."""
        part = back.contributions[which]
        index = peak(part.grad.array) if index is None else index
        if index is None:
            return None
        stored = float(part.grad.array[index])
        found = {"of": f"grad_{part.argument}", "index": list(index), "stored": stored, "kind": "sum"}
        inputs, made = self.run_back(back)
        gradient = made.get(self.number_of(part))
        if gradient is None:  # this op cannot be differentiated twice, or not at all here
            return None
        total = float(gradient.array[index])
        weights = quiet(grad, [gradient], [u for _, u in inputs], [one_at(gradient, index)], retain_graph=True, allow_unused=True) \
            if gradient.requires_grad else [None] * len(inputs)
        several = len(self.ys) > 1
        pairs = {k: (u.array, j.array) for (k, u), j in zip(inputs, weights, strict=True) if j is not None}
        terms, more, rest, count, reach = self.terms(pairs, lambda k: f"grad_y[{k}]" if several else "grad_y", bare=True)
        total = sum(float((u * j).sum()) for u, j in pairs.values()) if pairs else total
        return finish(found, terms, more, rest, total, self.allowed(part.grad.dtype, count, reach, stored))

    def allowed(self, dtype, count, reach, stored):
        """How far the sum may be from what was stored: rounding in the dtype of the recording."""
        steps = sum(x.size for x in (v.array for v in self.forward.inputs if isinstance(v, Value)))
        return tolerance(dtype, max(count, min(steps, 10_000)), reach + abs(stored))

    def number_of(self, part):
        """Which input a contribution belongs to."""
        return next(k for k in range(len(self.leaves)) if self.name(k) == part.argument)

    def run_back(self, back):
        """([(output number, ȳ as a leaf)], {input number: its gradient, with a graph})."""
        if id(back) not in self.gradients:
            inputs = [(value.number, self.leaf(g)) for value, g in back.grads_in]
            numbers = sorted({self.number_of(part) for part in back.contributions})
            try:
                made = quiet(grad, [self.ys[k] for k, _ in inputs], [self.leaves[k] for k in numbers], [u for _, u in inputs],
                             retain_graph=True, create_graph=True, allow_unused=True)
            except MinidlError:
                made = [None] * len(numbers)
            self.gradients[id(back)] = inputs, dict(zip(numbers, made, strict=True))
        return self.gradients[id(back)]

    def terms(self, pairs, name, by_factor=False, bare=False):
        """The largest terms of {number: (values, factors)}, how many others there are, and their sum."""
        rows, total, count, reach = [], 0.0, 0, 0.0
        for k, (values, factors) in pairs.items():
            values, factors = move(values, CPU), move(factors, CPU)
            products = values * factors
            size = np.abs(factors if by_factor else products).ravel()
            some = np.flatnonzero(size)  # few, mostly: an output depends on a window
            some = some[np.argpartition(size[some], -TERMS)[-TERMS:]] if some.size > TERMS else some
            for flat in some:
                at = tuple(int(i) for i in np.unravel_index(flat, products.shape))
                rows.append((size[flat], {"text": element(name(k), at), "value": plain(values[at]), "factor": plain(factors[at]),
                                          "product": plain(products[at])}, float(products[at])))
            total += float(products.sum())
            count += int(np.count_nonzero(size))
            reach += float(np.abs(products).sum())
        rows.sort(key=lambda row: -row[0])
        shown = rows[:TERMS]
        found = [row for _, row, _ in shown], count - len(shown), total - sum(p for *_, p in shown) if count > len(shown) else 0.0
        return (*found, count, reach) if bare else found


def available(forward):
    """"" if a recorded op can be run again, else the reason."""
    if forward.kind == "update":
        return "an optimiser's step is no op: w shows the element that moved most"
    if forward.stored:
        return "the trace came from a file: its ops cannot be run again"
    if not forward.known or any(isinstance(x, Value) and not x.recorded for x in forward.inputs):
        return "it, or one of its inputs, is from before the recording"
    return ""


def again(forward):
    """The op, ready to be worked out; None where it cannot be run again."""
    if available(forward):
        return None
    try:
        return quiet(Again, forward)
    except (MinidlError, MemoryError):  # as in the recording, if it raised there
        return None


def worked_out(forward, limit=LIMIT):
    """{id of the step: its worked numbers}: for a forward op each output, for the steps back through it each gradient."""
    stored = [item for item in (forward, *forward.backwards) if "worked" in item.stored]
    if stored:
        return {item.step: item.stored["worked"] for item in stored}
    if sum(int(np.prod(x.shape)) for x in forward.inputs if isinstance(x, Value)) > limit:
        return {}
    op = again(forward)
    if op is None:
        return {}
    found = {forward.step: [op.output(k) for k in range(len(forward.outputs))]}
    for back in forward.backwards:
        found[back.step] = [op.gradient(back, k) for k in range(len(back.contributions))]
    return {step: [row for row in rows if row] for step, rows in found.items()}


@np.errstate(all="ignore")
def updated(item):
    """An optimiser's step at the element that moved most: before, gradient, after."""
    if "worked" in item.stored:
        return item.stored["worked"]
    rows = [row for row in item.rows if row.after.array is not None and row.after.array.size]
    if not rows:
        return []
    row = max(rows, key=lambda row: largest_move(row))
    moved = row.after.array.astype(np.float64) - row.before.array
    index = peak(moved)
    before, slope, after, move_by = (float(a[index]) for a in (row.before.array, row.grad.array, row.after.array, moved))
    ratio = move_by / slope if slope else 0.0
    found = {"of": row.before.name, "index": list(index), "name": element(row.before.name, index), "kind": "sum", "more": 0, "rest": 0.0,
             "terms": [{"text": "before", "value": plain(before), "factor": 1.0, "product": plain(before)},
                       {"text": "gradient", "value": plain(slope), "factor": plain(ratio), "product": plain(move_by)}],
             "total": plain(before + move_by), "stored": plain(after), "agree": True}
    return [found | {"text": f"{safe(found['name'])}: {said(before)} + {said(slope)}·{bracketed(ratio)} = {said(before + move_by)}  "
                             f"✓ stored {said(after)}  (gradient · step)"}]


def largest_move(row):
    """How far any element of a parameter moved."""
    found = max(float(np.abs(after.astype(np.float64) - before).max())
                for after, before in zip(pieces(row.after.array), pieces(row.before.array), strict=True))
    return found if np.isfinite(found) else 0.0


def quiet(function, *arguments, **settings):
    """Call without NumPy's warnings: the numbers may well be infinite."""
    with np.errstate(all="ignore"):
        return function(*arguments, **settings)


def one_at(tensor, index):
    """A tensor of zeros with a single 1."""
    array = np.zeros_like(tensor.array)
    array[index] = 1
    return Tensor(array)


def peak(array):
    """Where the largest finite |value| stands; None in an empty tensor."""
    if not array.size:
        return None
    size = np.abs(array.astype(np.float64)) if array.dtype.kind in "fiu" else array.astype(np.float64)
    flat = int(np.where(np.isfinite(size), size, -1).argmax())
    return tuple(int(i) for i in np.unravel_index(flat, array.shape))


def subsets(pieces):
    """Which inputs' terms might make up y: one of them, or several."""
    return (chosen for count in range(1, len(pieces) + 1) for chosen in itertools.combinations(pieces, count))


def tolerance(dtype, count, reach):
    """What rounding may cost a sum of `count` terms whose sizes add up to `reach`."""
    eps = np.finfo(dtype).eps if np.dtype(dtype).kind == "f" else 0.0
    return 16 * np.sqrt(max(count, 1)) * eps * reach + 1e-300 if np.isfinite(reach) else np.inf


def fits(shape, wanted):
    """Does a shape broadcast to another one?"""
    return len(shape) <= len(wanted) and all(n in (1, m) for n, m in zip(shape[::-1], wanted[::-1], strict=False))


def element(name, index):
    """x[0, 3, 1]; a scalar is x."""
    return f"{name}[{','.join(map(str, index))}]" if index else name


def finish(found, terms, more, rest, total, allowed):
    """The whole dict, with the verdict and its text."""
    stored = found["stored"]
    agree = abs(total - stored) <= allowed or total == stored or (total != total and stored != stored)
    found = {**found, "name": element(found["of"], found["index"]), "terms": terms, "more": more, "rest": plain(rest),
             "total": plain(total), "stored": plain(stored), "agree": bool(agree)}
    return found | {"text": text(found)}


def text(found, shown=3):
    """All of it in one line: grad_w[0,0,1,1] = 0.003·0.42 + … (3 of 392 terms ≠ 0) = 2.1e-4 ✓ stored 2.1e-4."""
    verdict = f"{'✓' if found['agree'] else '✗'} stored {said(found['stored'])}"
    terms, count = found["terms"][:shown], len(found["terms"]) + found["more"]
    if found["kind"] == "formula":
        inputs = [f"{safe(t['text'])} = {said(t['value'])}" + (f" (slope {said(t['factor'])})" if t["factor"] else "") for t in terms]
        more = f" and {count - len(terms)} more" if count > len(terms) else ""
        return f"{found['name']} = {said(found['total'])}{' from ' + ', '.join(inputs) + more if inputs else ''}  {verdict}"
    if not count:
        return f"{found['name']} = 0: every term is 0  {verdict}"
    parts = [f"{said(t['value'])}·{bracketed(t['factor'])}" for t in terms]
    more = f" + … ({len(terms)} of {count} terms ≠ 0)" if count > len(terms) else ""
    return f"{found['name']} = {' + '.join(parts)}{more} = {said(found['total'])}  {verdict}"


def bracketed(value):
    """A factor: a negative one in brackets."""
    text = said(value)
    return f"({text})" if text.startswith("-") else text


def said(value):
    """A number, or the word for one that is not finite."""
    return value if isinstance(value, str) else number(value)
