"""diff: every op once more on another backend, side by side with the recording, and both judged against float64.

Isolated: the op gets the recorded inputs, so a difference is its own. Cascaded: it gets what the other backend made so
far, so differences add up as they do in use.
"""

import difflib

import numpy as np

from minidl.core.config import no_grad, use_backend
from minidl.core.device import CPU, move, why_no_cuda
from minidl.core.errors import ArgumentError, DeviceError, MinidlError, explained
from minidl.core.tensor import Tensor
from minidl.stepper.text import fit, number, safe, table
from minidl.stepper.values import Value
from minidl.stepper.worked import available

LARGE = 50_000   # elements of inputs and outputs up to which the plain loops of `reference` are run
WORST = 20


def run(forward, inputs, backend):
    """The outputs of a recorded op on other inputs, on a backend; a text where that cannot be done."""
    settings, op = forward.settings, forward.op
    try:
        with use_backend(backend), no_grad(), np.errstate(all="ignore"):
            inputs = [Tensor(move(x.array, place_of(backend))) if isinstance(x, Tensor) else x for x in inputs]
            y = op.function(list(inputs), **settings) if op.takes_list else op.function(*inputs, **settings)
    except MinidlError as error:
        return " ".join(str(error).split())[:80]
    return [move(t.array, CPU) for t in (y if isinstance(y, tuple) else (y,))]


def place_of(backend):
    """Where an implementation runs."""
    return "cuda" if backend and backend.partition("/")[0] == "cuda" else CPU


def tensors(forward, convert):
    """The inputs of an op, each Value's array through `convert`."""
    return [Tensor(convert(x)) if isinstance(x, Value) else x for x in forward.inputs]


def double(array):
    """Floats as float64, everything else as it is."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def relative(a, b, scale):
    """The largest |a − b|, as a part of the largest |b|."""
    if a.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        worst = float(np.abs(a.astype(np.float64) - b).max())
    return worst / scale if scale else worst


def size_of(forward):
    """Elements of an op's inputs and outputs."""
    return sum(int(np.prod(v.shape)) for v in [*forward.inputs, *forward.outputs] if isinstance(v, Value))


def why_not(forward, backend):
    """"" if an op can be compared with a backend, else the reason."""
    from minidl import backend as backends

    listed = {part for op in (forward.op.name, *(run.op for run in forward.runs)) for name in backends.names(op)
              for part in (name, name.partition("/")[0])}
    if backend not in listed:
        return "has no other implementation"
    if size_of(forward) > LARGE and backend == "reference":
        return f"too large for plain loops ({size_of(forward)} elements)"
    return available(forward)


def isolated(forward, backend):
    """[{"output", "apart", "ours", "theirs"}]: relative differences, of both backends, and of each from float64."""
    if why_not(forward, backend):
        return []
    theirs = run(forward, tensors(forward, lambda x: x.array), backend)
    truth = run(forward, tensors(forward, lambda x: double(x.array)), None)
    return [] if isinstance(theirs, str) or isinstance(truth, str) else compared(forward, theirs, truth)


def compared(forward, theirs, truth):
    """The differences of one op's outputs."""
    rows = []
    for k, (value, other, exact) in enumerate(zip(forward.outputs, theirs, truth, strict=True)):
        if value.dtype.kind != "f":
            continue
        scale = float(np.abs(exact).max()) if exact.size and np.isfinite(exact).all() else 0.0
        rows.append({"output": k, "apart": relative(value.array, other.astype(np.float64), scale),
                     "ours": relative(value.array, exact, scale), "theirs": relative(other, exact, scale)})
    return rows


def cascaded(trace, backend, steps, progress=None):
    """{step: relative difference} where every op that can run on the other backend gets what that one made before."""
    made, found = {}, {}
    for k, forward in enumerate(trace.forwards):
        if progress:
            progress(k, 2 * len(trace.forwards))
        if forward.step > steps[-1] or available(forward):
            continue
        inputs = tensors(forward, lambda x: made.get(id(x), x.array))
        outputs = run(forward, inputs, None if why_not(forward, backend) else backend)
        if isinstance(outputs, str):
            continue
        made.update((id(y), array) for y, array in zip(forward.outputs, outputs, strict=True))
        y = forward.outputs[0]
        if forward.step in steps and y.dtype.kind == "f":
            exact = y.array.astype(np.float64)
            scale = float(np.abs(exact).max()) if exact.size and np.isfinite(exact).all() else 0.0
            found[forward.step] = relative(outputs[0], exact, scale)
    return found


def refuse_unknown(backend):
    """An error where no op has an implementation of this name."""
    from minidl import backend as backends

    known = {part for op in backends.IMPLEMENTATIONS for name in backends.names(op) for part in (name, name.partition("/")[0])}
    if backend not in known:
        near = difflib.get_close_matches(backend, known, 2, 0.4)
        whole = sorted(name for name in known if "/" not in name)
        raise explained(ArgumentError, f"diff {safe(backend)}", "there is no such backend.",
                        [f"backends: {', '.join(whole)}",
                         "or one implementation, as in diff cpu/winograd: `minidl explain conv2d ...` lists them"],
                        f"Did you mean {' or '.join(near)}?" if near else "diff reference compares with the plain loops.")


def differences(trace, backend, progress=None):
    """{"backend", "rows": [{"step", "alone", "added", "ours", "theirs"}], "left": [{"why", "ops"}]}: every op on another backend."""
    known = next((diff for diff in trace.diffs if diff["backend"] == backend), None)
    if known is not None:
        return known
    refuse_unknown(backend)
    if place_of(backend) != CPU and (reason := why_no_cuda()):
        raise explained(DeviceError, f"diff {safe(backend)}", "this backend runs on a GPU.", [reason],
                        "Record on the GPU machine with --save, and compare here: minidl step --compare FILE.")
    compared_ops, left = [], {}
    for forward in trace.forwards:
        why = why_not(forward, backend)
        if why:
            left.setdefault(why.partition(" (")[0], []).append(forward.op.name)
        else:
            compared_ops.append(forward)
    chain, rows = cascaded(trace, backend, [forward.step for forward in compared_ops], progress) if compared_ops else {}, []
    for forward in compared_ops:
        if progress:
            progress(len(trace.forwards) + forward.number, 2 * len(trace.forwards))
        rows += [{"step": forward.step, "alone": row["apart"], "added": chain.get(forward.step, 0.0), "ours": row["ours"],
                  "theirs": row["theirs"]} for row in isolated(forward, backend) if not row["output"]]
    return {"backend": backend, "rows": rows, "left": [{"why": why, "ops": list(dict.fromkeys(ops))} for why, ops in left.items()]}


def diff_lines(trace, backend, width, progress=None):
    """The table: per op the difference alone and added up, and who is nearer to float64."""
    found = differences(trace, backend, progress)
    worst, lines, shown = sorted(found["rows"], key=lambda row: -row["alone"])[:WORST], [], []
    for row in sorted(worst, key=lambda row: row["step"]):
        forward = trace.steps[row["step"] - 1]
        nearer = "" if row["ours"] == row["theirs"] else "ours" if row["ours"] < row["theirs"] else safe(backend)
        shown.append({"step": str(row["step"]), "op": safe(forward.op.name), "module": safe(forward.path or ""),
                      "alone": number(row["alone"]), "added up": number(row["added"]), "ours-f64": number(row["ours"]),
                      "its-f64": number(row["theirs"]), "nearer": nearer})
    if shown:
        lines += table(("step", "op", "module", "alone", "added up", "ours-f64", "its-f64", "nearer"), shown, width)
        lines.append([(f"  max |difference| / max |y|: of the recording and {safe(backend)}, and of each from float64", "dim")])
    else:
        lines.append([(f"  No op of this trace can be compared with {safe(backend)}.", "")])
    for row in found["left"]:
        lines.append([(f"  not compared, {row['why']}: {', '.join(map(safe, row['ops']))}", "dim")])
    return [fit(line, width) for line in lines]
