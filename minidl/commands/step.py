"""`minidl step`: walk through the shipped tiny network, or through a script of your own."""

import sys

import click


@click.command()
@click.argument("script", required=False, type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1)
@click.option("-c", "commands", metavar="COMMANDS", help='Run these instead of asking: "c back; n; ck; q".')
@click.option("--seed", default=0, show_default=True, help="Of the shipped network's weights and points.")
def command(script, arguments, commands, seed):
    """Walk through the forward and the backward of a network, op by op.

    Without SCRIPT: a tiny network that comes with minidl. With it: everything that the script runs.
    """
    from minidl.stepper.terminal import explore

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows ? instead of failing
    trace, title, cursor = record_script(script, arguments) if script else record_tiny(seed)
    explore(trace, commands, title, cursor)
    if trace.error:
        sys.exit(1)


def record_tiny(seed):
    """One forward and backward of the shipped network."""
    from minidl.models.tiny import TinyNet, points
    from minidl.stepper import step

    net, (x, labels) = TinyNet(seed), points(8, seed)
    with step(net) as trace:
        loss = net.loss(x, labels)
        loss.backward()
    title = [f"TinyNet: two hidden layers and a skip, 8 points of 3 classes. Weights are random (seed {seed}): loss {loss.item():.2f}.",
             f"{len(trace.forwards)} ops forward, {len(trace.backwards)} steps back.   n next   c back to the backward   h help   q quit"]
    return trace, title, 0


def record_script(script, arguments):
    """Everything that a script runs, as far as it gets; if it fails, its last step comes first."""
    import os
    import runpy
    import traceback

    from minidl.stepper import step
    from minidl.stepper.text import safe

    before = sys.argv, sys.path[0]
    sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(os.path.abspath(script))
    trace = None
    try:
        with step() as trace:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        if not stop.code:
            trace.error = ""
    except Exception:  # the user's own: trace.error names it, and the steps before it are what they want to see
        traceback.print_exc()
    finally:
        sys.argv, sys.path[0] = before
    title = [f"{safe(script)}: {len(trace.forwards)} ops forward, {len(trace.backwards)} steps back. h help, q quit."]
    if not trace.error:
        return trace, title, 0
    title.append(f"It stopped. {safe(trace.error.splitlines()[0])} The last step before that:")
    return trace, title, max(0, len(trace.steps) - 1)
