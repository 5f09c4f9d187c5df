"""`minidl step`: walk through the network that comes with minidl, a network of minidl.models, a script, or a saved trace."""

import os
import sys

import click

from minidl.core.errors import MinidlError
from minidl.core.show import safe


def size(context, parameter, value):
    """A number of bytes: 4MB, 500kB, 1000000."""
    text, scale = value.strip().lower().removesuffix("b"), 1
    for unit, factor in (("k", 10**3), ("m", 10**6), ("g", 10**9)):
        if text.endswith(unit):
            text, scale = text[:-1], factor
    try:
        found = int(float(text) * scale)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is no size; write it as 4MB or 500kB.") from None
    if found < 10_000:
        raise click.BadParameter("a trace needs 10kB at least.")
    return found


def last_steps(context, parameter, value):
    """The N of last:N."""
    if value is None:
        return None
    word, _, number = value.partition(":")
    if word != "last" or not number.isdecimal() or not 1 <= int(number) <= 1000:
        raise click.BadParameter(f"{value!r} is not last:N, as in last:3.")
    return int(number)


@click.command()
@click.argument("what", required=False, metavar="[MODEL|SCRIPT.py|TRACE.zip]")
@click.argument("arguments", nargs=-1)
@click.option("-c", "commands", metavar="COMMANDS", help='Run these instead of asking: "b nan; c; why".')
@click.option("--image", type=click.Path(exists=True, dir_okay=False), help="A picture of your own: PNG or JPEG (with Pillow), or .npy.")
@click.option("--batch", type=click.IntRange(1, 64), help="How many pictures. [default: 2, or 1 for large ones]")
@click.option("--seed", default=0, show_default=True, help="Of random weights and of the drawn pictures.")
@click.option("--save", "save_to", metavar="FILE", type=click.Path(dir_okay=False),
              help="Write the trace; `minidl step FILE` opens it again.")
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write the trace as one offline page.")
@click.option("--check", type=click.Choice(["off", "fast", "full"]), default="off", show_default=True,
              help="For --save and --html: check every op's gradients too, on a corner of large inputs or on all.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where a network is recorded.")
@click.option("--steps", type=click.IntRange(1, 20), default=1, show_default=True, help="How many training steps, one after the other.")
@click.option("--record", "last", metavar="last:N", callback=last_steps,
              help="Of a script keep only the last N training steps, so that a long training may be recorded.")
@click.option("--compare", metavar="TRACE.zip", multiple=True, type=click.Path(exists=True, dir_okay=False),
              help="Put the tensors of a saved trace beside these: another device, backend or seed.")
@click.option("--diff", metavar="BACKEND", multiple=True,
              help="Run every op on another backend too, at the prompt, or into --save and --html: --diff reference, --diff cpu/winograd.")
@click.option("--budget", default="4MB", show_default=True, callback=size, help="How large the file may be; pictures shrink to fit.")
def command(what, arguments, commands, image, batch, seed, save_to, html, check, device, steps, last, compare, diff, budget):
    """Walk through the forward and the backward of a network, op by op.

    Without an argument: a small residual network that comes with minidl, trained on drawn shapes. `tiny` is a perceptron
    of ten ops; other names are networks of minidl.models, with random weights. SCRIPT.py: everything that it runs.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows ? instead of failing
    refuse_unused(what)
    from minidl.stepper.diff import refuse_unknown

    try:
        trace = recorded(what, arguments, {"image": image, "batch": batch, "seed": seed, "steps": steps, "device": device}, last)
        trace.others += others(compare)
        for backend in diff:
            refuse_unknown(backend)
        written = write(trace, save_to, html, budget, {"off": False, "fast": True, "full": "full"}[check], diff)
    except MinidlError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    if not written or commands:
        explore(trace, commands, () if written else [f"diff {backend}" for backend in diff])
    if trace.error and not is_trace(what):
        sys.exit(1)


USED = {"a script": {"last"}, "a saved trace": set(), "tiny": {"seed"}, "a network": {"image", "batch", "seed", "steps", "device"}}
FLAGS = {"image": "--image", "batch": "--batch", "seed": "--seed", "steps": "--steps", "device": "--device", "last": "--record"}


def refuse_unused(what):
    """An error where an option was given that means nothing for what is recorded, instead of leaving it unread."""
    kind = "tiny" if what == "tiny" else "a network"
    if what is not None and os.path.isfile(what):
        kind = "a saved trace" if is_trace(what) else "a script"
    context = click.get_current_context()
    given = [name for name in FLAGS if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    for name in given:
        if name not in USED[kind]:
            hint = f" If the script takes it: minidl step {safe(what)} -- {FLAGS[name]} ..." if kind == "a script" else ""
            raise click.UsageError(f"{FLAGS[name]} is not for {kind}, but for {' and '.join(k for k in USED if name in USED[k])}.{hint}")


def others(paths):
    """[(name, Trace)] of the traces to compare with."""
    if not paths:
        return []
    from minidl.stepper.container import load

    return [(os.path.basename(path), load(path)) for path in paths]


def recorded(what, arguments, how, last=None):
    """The trace that the arguments ask for."""
    from minidl.stepper import subjects

    if what is not None and os.path.isfile(what):
        if is_trace(what):
            from minidl.stepper.container import load

            return load(what)
        return subjects.record_script(what, arguments, last)
    if what is not None and what.endswith((".py", ".zip")):
        raise click.UsageError(f"there is no file {what}.")
    if arguments:
        raise click.UsageError("only a script takes arguments.")
    if what == "tiny":
        return subjects.record_tiny(how["seed"])
    progress = subjects.Progress(f"recording {what or 'ShapeNet'}:")
    try:
        if what in (None, "shapes"):
            return subjects.record_shapes(**{**how, "batch": how["batch"] or 2}, progress=progress)
        return subjects.record_model(what, **how, progress=progress)
    finally:
        progress.done()


def is_trace(path):
    """Is this a saved trace, not a script? By its first bytes."""
    if path is None or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06") or path.endswith(".zip")


def write(trace, save_to, html, budget, check=False, diff=()):
    """Write the files that were asked for, and say so on stderr; were any?"""
    from minidl.stepper.subjects import Progress
    from minidl.stepper.text import byte_size

    for path, what in ((save_to, "trace"), (html, "page")):
        if path is None:
            continue
        progress = Progress("describing:")
        if what == "trace":
            trace.shrunk = trace.save(path, budget=budget, check=check, progress=progress, diff=diff)
        else:
            from minidl.stepper.page import write as write_page

            write_page(trace, path, budget=budget, check=check, progress=progress, diff=diff)
        progress.done()
        click.echo(f"{what}: {safe(path)}, {byte_size(os.path.getsize(path))}", err=True)
    for line in trace.shrunk if save_to or html else ():
        click.echo(f"    {line}", err=True)
    return bool(save_to or html)


def explore(trace, commands, first=()):
    """At the prompt, from the first step on, or from the last one of a script that failed."""
    from minidl.stepper.terminal import explore

    explore(trace, commands, trace.title, max(0, len(trace.steps) - 1) if trace.error else 0, first)
