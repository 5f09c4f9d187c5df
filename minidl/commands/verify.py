"""`minidl verify MODEL`: is a network what it is published to be?"""

import sys

import click


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
def command(models):
    """Build each MODEL (all, if none is named) and compare it with the manifest: the names and shapes of its state dict and
    their order, the numbers of parameters and buffer elements, and the multiply-adds of one image.

    Exit status: 0 all agree, 1 some do not, 2 there is no such model.
    """
    from minidl.core.errors import ArgumentError
    from minidl.models import manifest, zoo

    written, bad = manifest.read(), 0
    for name in models:
        try:
            zoo.find(name)
        except ArgumentError as error:
            raise click.UsageError(str(error)) from error
    for name in models or zoo.listed():
        faults = manifest.faults(name, written)
        bad += bool(faults)
        entry = written.get(name)
        click.echo(f"{name}: " + ("differs from the manifest" if faults else
                                  f"{len(entry['state_dict'])} names and shapes, {entry['parameters']:,} parameters, "
                                  f"{entry['multiply_adds']:,} multiply-adds: as in the manifest"))
        for line in faults:
            click.echo(f"    {line}")
    sys.exit(1 if bad else 0)
