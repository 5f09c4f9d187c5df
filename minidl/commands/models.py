"""`minidl models`: every network, with its size, its work, and what its paper says."""

import json
import shutil

import click


@click.command()
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--variants", is_flag=True, help="List the named variants too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
def command(words, variants, as_json):
    """List the networks, or those whose name or source contains every WORD: minidl models resnet, minidl models Szegedy.

    Multiply-adds are those of one image of the size shown; auxiliary heads are counted where a network has them. Errors
    are published ones, top-1 / top-5 in % on ImageNet's validation images unless the line says otherwise.
    """
    from minidl.models import manifest, zoo

    known = manifest.read()
    rows = [row(model, known[model.name]) for model in zoo.listed().values() if variants or not model.base]
    rows = [r for r in rows if all(word.lower() in (r["name"] + " " + r["source"]).lower() for word in words)]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    width = shutil.get_terminal_size((120, 24)).columns
    for line in table(rows, width):
        click.echo(line)
    click.echo(f"{len(rows)} networks. minidl summary NAME shows one layer by layer.", err=True)


def row(model, entry):
    """One network as plain data."""
    return {"name": model.name, "variant_of": model.base, "input": list(model.input), "parameters": entry["parameters"],
            "multiply_adds": entry["multiply_adds"], "errors": model.errors, "source": model.source}


def table(rows, width):
    """Lines that fit: the source is cut where the terminal ends."""
    from minidl.summary_table import count_text

    cells = [("name", "input", "parameters", "mult-adds", "error %", "source")]
    cells += [(("  " if r["variant_of"] else "") + r["name"], "×".join(map(str, r["input"])), f"{r['parameters']:,}",
               count_text(r["multiply_adds"]), r["errors"], r["source"]) for r in rows]
    sizes = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    for row in cells:
        parts = [text.rjust(size) if k in (1, 2, 3) else text.ljust(size) for k, (text, size) in enumerate(zip(row, sizes, strict=True))]
        line = "  ".join(parts).rstrip()
        yield line if len(line) <= width else line[:width - 1] + "…"
