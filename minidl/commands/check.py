"""`minidl check`: gradients against finite differences, for every registered op or for a function of your own."""

import json
import sys
import time

import click

from minidl.commands.output import say, talk, usage, visible
from minidl.commands.own_function import check_function


@click.command()
@click.argument("function", required=False, metavar="[MODULE:FUNCTION]")
@click.option("--shape", "shapes", multiple=True, metavar="2,3,8,8",
              help="Shape of one tensor argument, which is drawn from N(0, 1); repeat it, in order. '()' is a single number.")
@click.option("--scale", default=1.0, show_default=True, metavar="3", help="Multiply the numbers drawn for --shape.")
@click.option("--op", "only", multiple=True, metavar="NAME", help="Check only this op of minidl; may be repeated.")
@click.option("--order", default=2, show_default=True, type=click.IntRange(1, 4), help="Check derivatives up to this order.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the inputs, the directions and the cotangents.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.option("--planted", is_flag=True, help="Plant classic mistakes in minidl's ops, one at a time, and show what notices them.")
@click.option("--exercise", "count", metavar="N", type=click.IntRange(1), help="Plant N mistakes at random: which one is it?")
@click.option("--answer", is_flag=True, help="With --exercise: print the answers and ask nothing.")
@click.pass_context
def command(context, function, shapes, scale, only, order, seed, as_json, planted, count, answer):
    """Compare gradients with finite differences.

    \b
    minidl check                                          every op of minidl
    minidl check --op softmax --order 3                   one of them
    minidl check package.module:my_op --shape 2,3 --shape 3,4
                                                          your own function of two tensors
    minidl check my_file.py:my_op --shape 2,3 --scale 3   the same, in a file, for larger numbers
    minidl check --planted                                would it notice? classic mistakes, and weaker checks beside it
    minidl check --exercise 3                             three of them at random: read the report, name the mistake

    MODULE:FUNCTION is found from the current directory. It gets one float64 tensor of N(0, 1) numbers per --shape, and
    returns a tensor or a tuple of them. A random direction and a random cotangent per probe; the tolerance follows
    from the step. Points where the function is not smooth are left out and listed. On failure the full Jacobian names
    the worst entry and a guess at the cause.

    --planted puts each mistake of minidl.planted.CATALOGUE into its op, checks it, and takes it out again. Beside it
    stand three checks that are often used, each with one weakness: seeded with ones, one random element per argument,
    the first argument alone. --exercise without a terminal prints each answer below a line of dashes; --seed repeats
    the same exercises.

    Exit status: 0 every gradient is right (with --planted: every mistake was caught), 1 some are not, 2 the command could
    not be understood.
    """
    if planted or count:
        if function or shapes or only:
            raise usage("--planted and --exercise choose their ops themselves: leave out the function, --shape and --op.")
        given = context.get_parameter_source("seed").name == "COMMANDLINE"
        ok = check_planted(seed, as_json) if planted else run_exercises(count, seed if given else time.time_ns() % 100_000, answer)
    elif function:
        if only:
            raise usage("--op checks minidl's own ops; leave it out when you name a function.")
        ok = check_function(function, shapes, order, seed, scale, as_json)
    else:
        if shapes:
            raise usage("--shape belongs to a function of yours: minidl check module:function --shape 2,3")
        ok = check_registry(only, order, seed, as_json)
    sys.exit(0 if ok else 1)


# --- the registry -----------------------------------------------------------------------------------------------------

def check_registry(only, order, seed, as_json):
    """Check the registered ops and print one line per op, order and dtype."""
    import minidl.ops  # noqa: F401 - fills the registry
    from minidl.core.device import why_no_cuda
    from minidl.core.op import OPS

    unknown = [name for name in only if name not in OPS]
    if unknown:
        import difflib

        near = difflib.get_close_matches(unknown[0], OPS, 3)
        raise usage(f"there is no op {unknown[0]!r}." + (f"\n    Did you mean {' or '.join(near)}?" if near else ""))
    names = sorted(only or OPS)
    talk(f"checking {len(names)} op{'s' if len(names) != 1 else ''}, orders 1 to {order}, seed {seed}")
    devices = ["cpu"] if why_no_cuda() else ["cpu", "cuda"]
    lines, failures = [], []
    progress = Progress(len(names))
    for number, name in enumerate(names):
        progress.at(number, name)
        for device in devices:
            lines += op_lines(OPS[name], order, seed, device, failures)
    progress.done()
    if why_no_cuda():
        lines.append({"op": "every op", "order": None, "dtype": "", "device": "cuda", "worst": None, "seconds": None,
                      "verdict": "not run", "reason": why_no_cuda()})
    if as_json:
        say(json.dumps({"ok": not failures, "seed": seed, "lines": lines}, indent=1))
    else:
        print_table(lines)
        for text in failures:
            say("\n" + text)
        failed = f"{len(failures)} check{'s' if len(failures) != 1 else ''} failed"
        verdict = failed if failures else "every gradient agrees with finite differences"
        talk(f"{len(names)} op{'s' if len(names) != 1 else ''}: {verdict}")
    return not failures


class Progress:
    """The op that is being checked, on one line of a terminal that is overwritten."""

    def __init__(self, total):
        self.total, self.shown = total, bool(sys.stderr) and sys.stderr.isatty()

    def at(self, number, name):
        """Say which op is next."""
        if self.shown:
            click.echo(f"\r\x1b[K{number + 1}/{self.total} {name}", nl=False, err=True)

    def done(self):
        """Clear the line."""
        if self.shown:
            click.echo("\r\x1b[K", nl=False, err=True)


def op_lines(op, order, seed, device, failures):
    """The table's lines for one op on one device: float64 per order, then float32 against float64."""
    from minidl.core.gradcheck import check_op

    start, rows = time.perf_counter(), []
    for number, example in enumerate(op.examples):
        try:
            report = check_op(op, example, order, seed, probes=2, device=device)
        except Exception as error:  # one broken op must not hide the others
            failures.append(f"{op.name}({example}): {type(error).__name__}: {error}")
            rows.append((None, None, "failed", str(error)))
            continue
        rows += [(row.order, row.relative if row.probes else None, row.verdict, row.reason) for row in report.rows]
        if not report.ok:
            failures.append(f"{op.name}({example}), example {number}\n{report}")
    seconds = time.perf_counter() - start
    lines = []
    for level in sorted({row[0] or 1 for row in rows}):
        mine = [row for row in rows if (row[0] or 1) == level]
        bad = next((row for row in mine if row[2] != "ok"), None)
        numbers = [row[1] for row in mine if row[1] is not None]
        reason = bad[3] if bad else "" if numbers else mine[0][3]
        lines.append({"op": op.name, "order": level, "dtype": "float64", "device": device, "worst": max(numbers, default=None),
                      "seconds": seconds if level == 1 else None, "verdict": bad[2] if bad else "ok",
                      "reason": reason.splitlines()[0] if reason else ""})
    if any(row[1] is not None for row in rows):
        lines.append(float32_line(op, seed, device, failures))
    return lines


def float32_line(op, seed, device, failures):
    """The float32 gradient against the float64 one, in units of float32's eps."""
    from minidl.core.rounding import float32_error

    start, worst, allowed, reason = time.perf_counter(), 0.0, 0.0, ""
    for example in op.examples:
        error, limit, problem = float32_error(op, example, seed, device)
        if not error <= limit or problem:
            reason = problem or f"{error:.1f} eps, {limit:.1f} expected from rounding"
            failures.append(f"{op.name}({example}) in float32: {reason}")
        worst, allowed = max(worst, error), max(allowed, limit)
    return {"op": op.name, "order": 1, "dtype": "float32", "device": device, "worst": worst, "unit": "eps",
            "seconds": time.perf_counter() - start, "verdict": "wrong" if reason else "ok", "reason": reason}


# --- planted bugs -----------------------------------------------------------------------------------------------------

def check_planted(seed, as_json):
    """Every planted bug, checked by minidl and by three weaker checks; True if ours caught all."""
    from minidl import planted
    from minidl.planted.table import summary

    talk(f"planting {len(planted.CATALOGUE)} mistakes, one at a time; orders 1 and 2, seed {seed}")
    progress, numbers = Progress(len(planted.CATALOGUE)), iter(range(len(planted.CATALOGUE)))
    rows = planted.results(seed=seed, progress=lambda name: progress.at(next(numbers), name))
    progress.done()
    ok = all(row["caught"] for row in rows)
    say(json.dumps({"ok": ok, "seed": seed, "bugs": rows}, indent=1) if as_json else "\n".join(planted.lines(rows)))
    talk(summary(rows))
    return ok


def on_a_terminal():
    """Is there somebody to answer?"""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def run_exercises(count, seed, answer):
    """Show a report, ask which mistake it is, tell."""
    from minidl import planted

    asks = on_a_terminal() and not answer
    count = min(count, len(planted.CATALOGUE))
    talk(f"{count} exercise{'s' if count > 1 else ''}; the same ones again: --exercise {count} --seed {seed}")
    right = 0
    for number, exercise in enumerate(planted.exercises(count, seed), 1):
        say(f"{'' if number == 1 else chr(10)}Exercise {number}\n\n{exercise.question}\n")
        if asks:
            choice = click.prompt("your answer", type=click.IntRange(1, len(exercise.choices)))
            right += choice == exercise.right
            say("Right.\n" if choice == exercise.right else f"No, it is {exercise.right}.\n")
        else:
            say("-" * 80)
        say(exercise.answer)
    if asks:
        talk(f"{right} of {number} right")
    return True


COLUMNS = ("op", "order", "dtype", "device", "worst error", "time", "verdict")


def cells(line):
    """One line of the table as texts."""
    worst = line["worst"]
    error = "" if worst is None else f"{worst:.1f} eps" if line.get("unit") == "eps" else f"{worst:.1e}"
    seconds = "" if line["seconds"] is None else f"{line['seconds'] * 1000:.0f} ms"
    verdict = line["verdict"] + (f": {line['reason']}" if line["reason"] else "")
    return [line["op"], str(line["order"] or ""), line["dtype"], line["device"], error, seconds, verdict]


def print_table(lines):
    """In colour on a terminal, plain text into a pipe."""
    if sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in COLUMNS:
            table.add_column(column, justify="right" if column in ("order", "worst error", "time") else "left", overflow="fold")
        for line in lines:
            style = {"ok": None, "not run": "dim"}.get(line["verdict"], "bold red")
            table.add_row(*map(visible, cells(line)), style=style)
        Console(markup=False).print(table)
        return
    rows, lines = [COLUMNS, *map(cells, lines)], []
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    for row in rows:
        padded = [text.rjust(w) if k in (1, 4, 5) else text.ljust(w) for k, (text, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(padded).rstrip())
    say("\n".join(lines))
