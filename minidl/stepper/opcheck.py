"""ck: the finite-difference check of one recorded op, on its real inputs."""

from minidl.core.errors import MinidlError
from minidl.core.tensor import Tensor
from minidl.stepper.screen import labelled, wrapped
from minidl.stepper.text import cells, fit, number, pad, safe
from minidl.stepper.values import Value

SKIPPED = 3  # how many left-out elements are named


def check_op(forward):
    """minidl.check's report on a recorded op, in float64: its inputs as they were, its settings, order 1."""
    from minidl.core.gradcheck import check  # only who checks pays for loading it

    op, settings = forward.op, forward.settings
    inputs = [Tensor(x.array) if isinstance(x, Value) else x for x in forward.inputs]
    names = [op.input_name(k) for k in range(len(inputs))]

    def run(*tensors):
        return op.function(list(tensors), **settings) if op.takes_list else op.function(*tensors, **settings)

    return check(run, inputs, order=1, names=names)


def check_lines(forward, width):
    """The verdict on each gradient of an op, and what was left out and why."""
    if not forward.known:
        return [labelled("check", "this op ran before the recording began, so its inputs are not here")]
    if any(isinstance(x, Value) and x.made_by is not None and not x.made_by.known for x in forward.inputs):
        return [labelled("check", "one of this op's inputs was made before the recording began, so its values are not here")]
    try:
        report = check_op(forward)
    except MinidlError as error:
        return wrapped("check", safe(" ".join(str(error).split())), width)
    lines, size = [], max((cells(row.argument) for row in report.rows), default=0)
    for row in report.rows:
        allowed = row.tolerance / row.size if row.size else row.tolerance
        said = f"error {number(row.relative)} (allowed {number(allowed)}), {row.probes} probes" if row.probes else ""
        said = ": ".join(text for text in (said, safe(row.reason)) if text)
        line = labelled("" if lines else "check", pad(f"grad_{safe(row.argument)}", size + 5) + "  ")
        lines.append([*line, (pad("✓ ok" if row.ok else f"✗ {row.verdict}", 6), "green" if row.ok else "bold red"), (f"  {said}", "")])
        for text in [*row.details, *([f"guess: {row.guess}"] if row.guess else [])]:
            lines += [[("    ", ""), *line] for line in wrapped("", safe(text), width - 4)]
        if row.skipped:
            lines.append(labelled("", f"  {len(row.skipped)} left out: {safe('; '.join(row.skipped[:SKIPPED]))}", "dim"))
    return [fit(line, width) for line in lines]
