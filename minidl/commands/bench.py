"""`minidl bench`: every implementation of a call side by side: is it right, how fast is it, how far from this machine's limits?"""

import contextlib
import json
import os
import re
import sys

import click

from minidl.commands.output import interrupted, say, talk, usage, visible
from minidl.core.errors import MinidlError
from minidl.core.show import safe

CASES = ("conv2d", "matmul", "pool", "batch_norm", "softmax")


def numbers(text, option):
    """"8,64,56,56" -> (8, 64, 56, 56)."""
    parts = [part.strip(" ") for part in re.split("[,x×]", text)]
    if not all(re.fullmatch("[0-9]{1,18}", part) for part in parts):  # int() takes more: 1_0, +1, other scripts' digits
        raise usage(f"{option} takes whole numbers with commas, like 8,64,56,56, and got {text!r}.")
    return tuple(map(int, parts))


def share(text):
    """"10%" or "0.1" -> 0.1."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not text.isascii() or "_" in text or not 0 <= value < 100:
        raise usage(f"--fail-over takes a share like 10%, and got {text!r}.")
    return value


def parsed(words):
    """CASE ... [step MODEL ...] as (cases, models)."""
    found, models, rest = [], [], list(words or CASES)
    while rest:
        word = rest.pop(0)
        if word == "step":
            taken = []
            while rest and rest[0] not in (*CASES, "step"):
                taken.append(rest.pop(0))
            if not taken:
                raise usage("`step` needs a model: minidl bench step resnet18. `minidl models` lists them.")
            models += taken
        elif word in CASES:
            found.append(word)
        else:
            raise usage(f"no case {word!r}. There are: {', '.join(CASES)}, step MODEL.")
    return found, models


CASE_OPTIONS = [
    click.option("--shape", help="The input's sizes: 8,64,56,56; N,K,M for matmul; N,K for softmax."),
    click.option("--out", type=click.IntRange(1), help="conv2d: output channels."),
    click.option("--kernel", type=click.IntRange(1), help="conv2d, pool: the window's height and width."),
    click.option("--stride", type=click.IntRange(1), help="conv2d, pool."),
    click.option("--padding", type=click.IntRange(0), help="conv2d, pool; by default an odd conv2d kernel keeps the size."),
    click.option("--groups", type=click.IntRange(1), help="conv2d."),
    click.option("--add", is_flag=True, default=None, help="batch_norm: with an addition, as at the end of a residual block."),
]


def of_a_case(command):
    """The options that describe one call, for `bench` and `explain`."""
    for option in reversed(CASE_OPTIONS):
        command = option(command)
    return command


def given(settings):
    """The options of a case that were given, the shape as numbers."""
    settings = {key: value for key, value in settings.items() if value is not None}
    if "shape" in settings:
        settings["shape"] = numbers(settings["shape"], "--shape")
    return settings


@click.command()
@click.argument("what", nargs=-1, metavar="[CASE]... [step MODEL...]")
@of_a_case
@click.option("--batch", type=click.IntRange(1), help="step: the batch; by default 8, and 128 for CIFAR networks.")
@click.option("--size", type=click.IntRange(8), help="step: the pictures' height and width.")
@click.option("--vs", type=click.Choice(["torch"]), help="Measure PyTorch too, in both of its storage orders.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=7, show_default=True, help="Interleaved rounds to take medians over.")
@click.option("--threads", type=click.IntRange(1), help="Threads for minidl, BLAS and PyTorch; by default the cores this process may use.")
@click.option("--sweep", is_flag=True, help="Also the forward at several sizes; with --html always.")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON; - is stdout.")
@click.option("--markdown", "markdown_path", metavar="FILE", help="Write it as Markdown; - is stdout.")
@click.option("--html", "html_path", metavar="FILE", help="Write it as one offline page: sweep, roofline, where a step goes.")
@click.option("--compare", "compare_path", metavar="OLD.json", help="Compare with an earlier result, row by row.")
@click.option("--fail-over", metavar="SHARE", show_default="10%",
              help="With --compare: exit 1 if what minidl takes grew by more than this, out of the noise.")
@click.option("--force", is_flag=True, help="With --compare: also across different machines, versions or threads.")
def command(what, vs, rounds, threads, sweep, json_path, markdown_path, html_path, compare_path, fail_over, force, batch, size, **settings):
    """Compare implementations and devices: correctness first, then median, spread, GFLOP/s and GB/s against this machine's ceilings.

    CASE is conv2d, matmul, pool, batch_norm or softmax (all of them by default); `step MODEL` is a whole training step.
    """
    found, models = parsed(what)
    settings = given(settings)
    if settings and len(found) != 1:
        raise usage(f"--{next(iter(settings))} describes one case: name it, as in minidl bench conv2d --shape 8,64,56,56.")
    if (batch or size) and not models:
        raise usage(f"--{'batch' if batch else 'size'} describes a step: minidl bench step resnet18 --batch 4.")
    allowed = share("10%" if fail_over is None else fail_over)
    if not compare_path and (force or fail_over is not None):
        raise usage(f"--{'force' if force else 'fail-over'} needs --compare: minidl bench --compare OLD.json --fail-over 5%.")
    cores = os.cpu_count() or 1
    if threads and threads > 4 * cores:
        raise usage(f"--threads {threads} is more than four times the {cores} cores here.")
    talk(f"bench: {', '.join([*found, *(f'step {m}' for m in models)])}, {rounds} interleaved rounds, a pause before each timing")
    try:
        from minidl.bench import compare

        compare.check([path for path in (json_path, markdown_path, html_path) if path])
        old = compare.read(compare_path) if compare_path else None
        run = measured(found, models, settings, {"batch": batch, "size": size}, vs, rounds, threads, sweep or bool(html_path), old, force)
        result = run.finish()
        outputs = [path for path in (json_path, markdown_path, html_path) if path]
        taken = any(compare.target(path) is None for path in outputs)  # stdout belongs to a file's text: the tables go to stderr
        talk(table_text(result)) if taken else show(result)
        save(result, json_path, markdown_path, html_path)
    except MinidlError as error:
        raise usage(str(error)) from None
    except MemoryError:
        raise usage("These arrays do not fit into memory. Give a smaller --shape or --batch.") from None
    wrong = [row for row in (*result["rows"], *result["steps"]) if row["status"] == "wrong"]
    slower = compared(old, result, allowed, talk if taken else say) if old else []
    if run.interrupted:
        interrupted()
    sys.exit(1 if wrong or slower else 0)


def measured(found, models, settings, step_settings, vs, rounds, threads, sweep, old, force):
    """The Run, as far as it came before Ctrl-C."""
    from minidl.bench import cases, compare, measure, steps, training

    run = None
    try:
        training.set_threads(threads or training.threads.get_num_threads())
        ready = [cases.make(name, **settings) for name in found]  # a wrong setting is told before anything is measured
        for name in models:
            training.models.zoo.find(name)
        with progress() as tell:
            run = measure.Run(rounds, vs == "torch", sweep, tell)
            differ = compare.differences(old, run.result) if old else []
            if differ and not force:
                raise usage("The earlier result comes from another environment; times would compare machines, not code. --force does it "
                            "all the same.\n    " + "\n    ".join(differ))
            run.prepare()
            for case in ready:
                run.case(case)
                if sweep and not run.interrupted:
                    run.sweep_of(case.name)
            for name in models:
                if not run.interrupted:
                    steps.measure(run, name, **step_settings)
    except KeyboardInterrupt:
        run = run or measure.Run(rounds)
        run.interrupted = True
    return run


@contextlib.contextmanager
def progress():
    """A function (text, done, total) that shows what is being measured, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda text, done, total: None
        return

    def tell(text, done, total):
        with contextlib.suppress(OSError):
            sys.stderr.write(f"\r\033[2K{visible(text)[:100]}  {done}/{total}")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.write("\r\033[2K")
            sys.stderr.flush()


def show(result):
    """The tables on stdout."""
    from minidl.bench import table

    if sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console

        console = Console(markup=False, highlight=False)
        for section in table.rich_tables(result):
            console.print(section)
            console.print()
        say("\n".join(table.facts(result)))
    else:
        say(table.text(result))


def table_text(result):
    """The tables as plain text."""
    from minidl.bench import table

    return table.text(result)


def save(result, json_path, markdown_path, html_path):
    """Write the files that were asked for."""
    from minidl.bench import compare, table

    if json_path:
        compare.write(json.dumps(result, indent=1, allow_nan=False) + "\n", json_path)
    if markdown_path:
        compare.write(table.markdown(result), markdown_path)
    if html_path:
        from minidl.bench import page

        compare.write(page.html(result), html_path)
    for path in filter(None, (json_path, markdown_path, html_path)):
        talk(f"wrote {safe(path)}")


def compared(old, result, allowed, say):
    """Print the comparison; what became slower."""
    from minidl.bench import compare

    lines, failed = compare.compare(old, result, allowed)
    when, commit = (safe(str(old["environment"].get(key))) for key in ("date", "commit"))
    say("\n".join([f"against the result of {when}, commit {commit}:", *lines]))
    if failed:
        talk(f"{len(failed)} failed: slower by more than {allowed:.0%} and out of the noise, or gone:")
        talk("\n".join(f"    {safe(what)}" for what in failed))
    return failed
