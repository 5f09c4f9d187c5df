"""`minidl explain conv2d --shape 8,64,56,56 --out 64 --kernel 3`: which implementation runs, why, and what each alternative costs here."""

import contextlib

import click

from minidl.commands.bench import CASES, given, of_a_case, progress
from minidl.commands.output import interrupted, say, talk, usage
from minidl.core.errors import MinidlError

ROUNDS = 3


@click.command()
@click.argument("what", metavar="OP", type=click.Choice(CASES))
@of_a_case
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where the arrays are.")
@click.option("--no-time", is_flag=True, help="Only the decision; nothing is measured.")
def command(what, device, no_time, **settings):
    """Print which implementation runs a call, forward and backward, why, and what each alternative costs on this machine."""
    settings = given(settings)
    try:
        lines, whole = decided(what, settings, device, not no_time)
        say("\n".join(lines))
    except MemoryError:
        raise usage("These arrays do not fit into memory. Give a smaller --shape, or --no-time.") from None
    except MinidlError as error:
        raise usage(str(error)) from None
    if not whole:
        interrupted()


def decided(what, settings, device="cpu", timed=True):
    """The decision for every call that the op and its backward make, with times beside it; and whether Ctrl-C left it whole."""
    from minidl.bench import cases

    if timed:
        return decisions(what, settings, device, timed)
    with cases.untouched():
        return decisions(what, settings, device, timed)


def decisions(what, settings, device, timed):
    """The lines, and whether they are all."""
    from minidl.backend.cuda import pretend
    from minidl.bench import cases, measure

    case = cases.make(what, call="explain", **settings)
    lines = [f"{what} {case.label}"]
    run = measure.Run(ROUNDS)
    if timed:
        talk("trying each implementation; --no-time leaves that out")
    with progress() as tell, pretend.a_gpu() if device == "cuda" else contextlib.nullcontext() as note:
        lines += [note] if note else []
        run.progress = tell
        for direction, op, arrays, how in case.requests():
            lines += ["", *decision(run, case, direction, op, arrays, how, device, timed)]
            if run.interrupted:
                break
    return lines, not run.interrupted


def decision(run, case, direction, op, arrays, how, device, timed):
    """One call: a line per implementation."""
    from minidl import backend
    from minidl.bench import on_device, table

    heading = f"{direction}: {op}"
    if device == "cuda":
        arrays, how = on_device.moved(arrays, how)
    rows = {}
    if timed and device == "cpu":
        rows = {row["implementation"]: row for row in run.request(case, direction, op, arrays, how, ROUNDS)}
    decided = backend.decide(op, arrays, how)
    chosen = next((i.name for i, _, taken in decided if taken), None)
    base = rows.get(chosen, {}).get("median")
    lines, declined = [f"{heading} runs on {chosen or 'nothing'}"], {}
    for implementation, refusal, _ in decided:
        declined.setdefault((implementation.backend, refusal), []).append(implementation.name)
    for implementation, refusal, taken in decided:
        group = declined[implementation.backend, refusal]
        if refusal and len(group) > 2:  # a machine without a GPU: one line for all its kernels
            if group[0] == implementation.name:
                lines.append(f"    {f'{implementation.backend}/… ({len(group)})':<24} {'':<18} {refusal}")
            continue
        row = rows.get(implementation.name, {})
        if row.get("median"):
            cost = table.duration(row["median"]) + ("" if taken or not base else f" ({row['median'] / base:.2g}×)")
        else:
            cost = "wrong" if row.get("status") == "wrong" else ""
        why = f"chosen: {implementation.why}" if taken else refusal or row.get("why") or "accepts this call too; comes later in the order"
        lines.append(f"    {implementation.name:<24} {cost:<18} {why}".rstrip())
    return lines
