"""`minidl summary MODEL`: a network layer by layer."""

import inspect
import json
import math
import sys

import click

from minidl.commands.output import usage

LARGEST = 2**31  # elements of the input: beyond that, zeros of it do not fit into memory


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--input", "shape", metavar="3,224,224", help="Shape of one image; the network's own if left out.")
@click.option("--batch", type=click.IntRange(1), help="Images at a time: 1, or 2 with --train, which batch norm needs.")
@click.option("--depth", type=click.IntRange(1), help="Show modules at this depth as one line each: 1 is the coarsest.")
@click.option("--train", is_flag=True, help="In training mode: auxiliary heads run too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def command(model, shape, batch, depth, train, as_json):
    """Show shapes, parameters, multiply-adds, memory and receptive fields of a network, layer by layer.

    \b
    minidl summary resnet50                       one of minidl's (`minidl models` lists them)
    minidl summary vgg16 --input 3,64,64 --depth 1
    minidl summary package.module:make_network --input 1,28,28
                                                  your own: a function without arguments, or a class

    Nothing is computed: the network runs on zeros, and each op only says what shape it gives. Blocks that do and cost
    the same are folded into one. If a shape does not fit, the table ends there and the arithmetic is shown.

    Columns: out, the bytes a layer's output takes; saved, the bytes it keeps for backward (inputs that another layer
    keeps already are not counted again); field, the pixels one output can see, how far apart the fields of neighbouring
    outputs are, and the first pixel of the first (below 0 is padding): 7/2/-3. For all outputs together: 619 all.

    Exit status: 0 it ran through, 1 a shape does not fit, 2 the command could not be understood.
    """
    from minidl.commands.own_function import guarded
    from minidl.nn import Module
    from minidl.summary import summarize
    from minidl.summary_table import render

    network, usual = network_named(model)
    input = parse_input(shape) if shape else usual
    if input is None:
        raise click.UsageError(f"say the shape of one image.\n    Example: minidl summary {model} --input 3,224,224")
    if usual and len(input) != len(usual):
        raise usage(f"--input {shape!r}: an image of {model} has {len(usual)} sizes: channels, height, width.\n"
                    f"    Example: minidl summary {model} --input {','.join(map(str, usual))}")
    batch = batch or (2 if train else 1)
    if math.prod(input) * batch > LARGEST:
        raise usage(f"--input {shape!r}: {math.prod(input) * batch:,} elements do not fit into memory; at most {LARGEST:,} are taken.")
    if type(network).forward is Module.forward:
        raise usage(f"{type(network).__name__} has no forward().\n    Write `def forward(self, x):` in the class.")
    summary = guarded(f"{model}: its forward failed", summarize, network, input, batch, train, model)
    click.echo(json.dumps(summary.as_dict(depth), indent=1) if as_json else render(summary, depth))
    sys.exit(1 if summary.error else 0)


def network_named(name):
    """(network, its usual input) of a name in the zoo, or of package.module:function."""
    from minidl.core.errors import ArgumentError
    from minidl.models import zoo
    from minidl.nn import Module, init

    if ":" in name:
        from minidl.commands.own_function import guarded, load

        make = load(name)
        if isinstance(make, Module):
            return make, None
        try:
            inspect.signature(make).bind()
        except TypeError as error:
            raise usage(f"{name} must be callable without arguments.\n    {error}\n"
                        f"    Write a function that calls it with the settings you mean, and name that.") from error
        except ValueError:
            pass  # no signature is known: calling it will tell
        with init.skipped():
            network = guarded(f"{name}() failed", make)
        if not isinstance(network, Module):
            raise usage(f"{name} must return an nn.Module.\n    it returned a {type(network).__name__}")
        return network, None
    try:
        model = zoo.find(name)
    except ArgumentError as error:
        raise click.UsageError(str(error)) from error
    return model.build(drawn=False), model.input


def parse_input(text):
    """3,224,224 as a tuple."""
    sizes = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in sizes):
        raise click.UsageError(f"--input {text!r}: the shape of one image, without the batch, as in --input 3,224,224")
    return tuple(map(int, sizes))
