"""`minidl kernels`: the CUDA sources on a machine without a GPU: list them, run them on the CPU, step through one in gdb, lint a file."""

import itertools
import re
import sys
from pathlib import Path

import click

from minidl.commands.output import say, talk, usage, visible

ORDERS = ("forward", "reverse", "random")
WIDEST = 140  # characters of an idea
LOOSE = {"tf32": 4e-3}  # 10 bits of mantissa


class Told(click.Group):
    """A group whose commands end with minidl's own message where something is missing, not with a traceback."""

    def invoke(self, ctx):
        from minidl.core.errors import MinidlError
        try:
            return super().invoke(ctx)
        except MinidlError as error:
            raise click.ClickException(visible(error)) from error


@click.group(cls=Told)
def command():
    """The CUDA kernels, without a GPU: what there is, does it compute the right numbers, does it break a rule?

    \b
    minidl kernels list                                every kernel, its idea, where it stands
    minidl kernels run conv2d_v2_shared_tile --check   on the CPU, every access looked at
    minidl kernels step norm_merge --block 1 --thread 3
                                                       gdb, at the kernel's first line
    minidl kernels lint my.cu                          registers, spills, instructions, sizes that tile badly

    run and step need g++ (step gdb too); lint needs NVIDIA's compiler as well: pip install -e '.[kernels]'.
    docs/kernels/README.md goes through the kernels rung by rung.
    """


@command.command("list")
@click.argument("words", nargs=-1, metavar="[WORD]...")
def list_kernels(words):
    """List the kernels whose name or file contains every WORD: the idea, and where it begins."""
    broken = []
    rows = [(name, f"kernels/{signature.file}:{signature.line}", idea) for name, signature, idea in described(broken)
            if all(word.lower() in f"{name} {signature.file}".lower() for word in words)]
    for problem in broken:
        say(problem)
    if not rows:
        raise usage(f"no kernel contains {' and '.join(words)}.\n    minidl kernels list, without words, shows all.")
    wide = [max(len(row[k]) for row in rows) for k in (0, 1)]
    for name, place, idea in rows:
        say(f"{name:<{wide[0]}}  {place:<{wide[1]}}  {idea}".rstrip())
    talk(f"{len(rows)} kernels. minidl kernels run NAME --check tries one.")
    sys.exit(1 if broken else 0)


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--check", is_flag=True, help="Look at every access: races, bounds, alignment, values nobody wrote.")
@click.option("--order", type=click.Choice(ORDERS), default="forward", help="In which order threads run where they may: forward.")
def run(names, check, order):
    """Run kernels on the CPU, on every call of minidl's that launches them, against the generic implementation. `all` names all.

    \b
    Every line: the call of the backend, what was launched, the largest error relative to the result.
    Exit status: 0 all is well; 1 a rule is broken, a number is wrong or a kernel did not run; 2 the command could not be understood.
    """
    from minidl.backend.cuda.on_cpu_build import compiler
    from minidl.commands import kernel_cases

    unread = []
    every = known_kernels(unread)
    unread = unread if names == ("all",) or not set(names) <= set(every) else []
    for problem in unread:
        say(problem)
    names = every if names == ("all",) else [checked_name(name, every) for name in names]
    compiler()  # says once what is missing
    cases, broken = kernel_cases.cases_of(set(names))
    failed = sum(tried_case(case, launches, "check" if check else "fast", order) for case, launches in cases)
    ran = {k.name for _, launches in cases for k, _, _ in launches}
    left = [name for name in names if name not in ran]
    for problem in broken if left else ():
        say(problem)
    if left:
        talk(f"NOT RUN: {', '.join(left)}: nothing launches that. Calls stand in minidl/backend/cuda/cases.py.")
    outcome = f"{failed} calls failed" if failed else f"{len(left)} did not" if left else "all is well"
    talk(f"{len(ran & set(names))} kernels ran in {len(cases)} calls, {outcome}.")
    sys.exit(1 if failed or left or unread else 0)


def tried_case(case, launches, mode, order):
    """Run one case and say what came of it; did it fail?"""
    from minidl.core.errors import MinidlError
    error, broken = None, ""
    try:
        error = case.run(mode, order)
    except MinidlError as problem:
        broken = str(problem)
    allowed = next((loose for word, loose in LOOSE.items() if f"_{word}" in case.implementation.name), 2e-4)
    wrong = broken or not (error is None or error <= allowed)
    say(f"{case}   {case.implementation.name}")
    for k, grid, block in launches:
        say(f"    {k.name}  grid {grid}, block {block}{''.join(f', {o}' for o in k.options)}")
    say(f"    {broken or ('not compared' if error is None else f'error {error:.1e}')}{'' if broken or not wrong else '   WRONG'}")
    return bool(wrong)


@command.command()
@click.argument("name")
@click.option("--block", "block_at", default="0", metavar="X,Y,Z", help="Stop in this block: 0,0,0.")
@click.option("--thread", "thread_at", default="0", metavar="X,Y,Z", help="Stop in this thread: 0,0,0.")
@click.option("--case", "number", type=click.IntRange(0), metavar="N",
              help="Which of the calls that `minidl kernels run NAME` lists, from 0: the first that has this block and thread.")
@click.option("-c", "commands", metavar="COMMANDS", help="gdb commands, separated by ;, instead of a prompt: 'next; print acc'.")
def step(name, block_at, thread_at, number, commands):
    """Walk through a kernel in gdb: stop at its first line, in the block and thread of your choice.

    In gdb: next, step, print tile[2], print threadIdx, continue, quit. threadIdx, blockIdx, blockDim and gridDim are plain
    variables; `info locals` shows the others. At the first stop nothing has been computed, nor have the parameters arrived: next.
    """
    from minidl.backend.cuda import on_cpu_step
    from minidl.backend.cuda.on_cpu_build import compiler

    checked_name(name, known_kernels())
    places = [position(option, text) for option, text in (("--block", block_at), ("--thread", thread_at))]
    compiler()  # says what is missing before anything is looked for
    program = ["-m", "minidl.commands.kernel_cases", name, case_with(name, number, *places)]
    orders = [part.strip() for part in commands.split(";") if part.strip()] if commands else None
    result = on_cpu_step.step(program, name, *places, orders)
    if orders is not None:
        say(result.expandtabs())
    else:
        sys.exit(result)


def case_with(name, number, block, thread):
    """The number of the first case that has this block and this thread, or `number` if that one has."""
    from minidl.commands import kernel_cases

    cases, broken = kernel_cases.cases_of({name})
    shapes = [[(grid, size) for k, grid, size in launches if k.name == name] for _, launches in cases]
    if not shapes:
        raise usage(f"{name}: no call launches it.\n    " + "\n    ".join(broken or ["Calls stand in minidl/backend/cuda/cases.py."]))
    if number is not None and number >= len(shapes):
        raise usage(f"--case {number}: {name} has {len(shapes)} calls, 0 to {len(shapes) - 1}.")
    wanted = range(len(shapes)) if number is None else [number]
    for k in wanted:
        if any(inside(block, grid) and inside(thread, size) for grid, size in shapes[k]):
            return k
    there = sorted({f"grid {grid}, block {size}" for k in wanted for grid, size in shapes[k]})
    raise usage(f"no call of {name} has block {block} with thread {thread}.\n    it is launched with: " + "; ".join(there[:8]))


def inside(place, sizes):
    """Is this index within these sizes, missing ones being 0 and 1?"""
    return all(at < size for at, size in zip((*place, 0, 0)[:3], (*sizes, 1, 1)[:3], strict=True))


@command.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("-D", "defines", multiple=True, metavar="NAME=N", help="As in -D BM=64; may be repeated.")
@click.option("--arch", "architectures", multiple=True, metavar="sm_90", help="Instead of sm_80 and sm_90; may be repeated.")
@click.option("--no-run", is_flag=True, help="Compile only.")
def lint(file, defines, architectures, no_run):
    """Compile FILE.cu with the options CuPy uses, show what each kernel takes, then run its launch lines in check mode.

    \b
    A launch line is a comment in the file:
    // launch axpy: n = 1 31 32 33 1000; grid = (n + 255) / 256; block = 256; x[n] y[n]; a = 2

    Sizes take each of their values; / rounds down; x[n] is an array of n random numbers.
    Exit status: 0 clean, 1 it does not compile, spills, or breaks a rule, 2 the command could not be understood.
    """
    from minidl.backend.cuda import lint as linter

    file, wanted = Path(file).resolve(), {}
    for define in defines:
        name, _, value = define.partition("=")
        if not name.isidentifier() or not re.fullmatch(r"\w+", value):
            raise usage(f"-D {define!r}: a name and its value, as in -D BM=64.")
        wanted[name] = value
    kernels, lost = linter.kernels_of(file)
    for name, (where, line) in lost.items():
        say(f'{where}:{line}: {name} needs extern "C" right before its __global__, else nothing finds it by that name')
    if not kernels:
        raise click.ClickException(f"there is no kernel in {visible(file.name)}: nothing that begins with extern \"C\" __global__ void.")
    bad = len(lost) + compiled_for(linter, file, wanted, architectures)
    if not no_run:
        bad += tried(linter, file, wanted)
    sys.exit(1 if bad else 0)


def compiled_for(linter, file, defines, architectures):
    """Show what NVIDIA's compiler makes of a file; how many things are bad."""
    from minidl.backend.cuda import nvrtc

    missing, options, bad, warned = nvrtc.why_no_compiler(), tuple(f"-D{name}={value}" for name, value in defines.items()), 0, {}
    if missing:
        talk(f"NOT COMPILED for a GPU: {missing}. Install the extra `kernels`.")
        return 1
    no_mix = nvrtc.why_no_disassembler()
    for arch, (found, warnings) in linter.compiled(file, options, architectures or nvrtc.ARCHITECTURES, not no_mix).items():
        warned.update(dict.fromkeys(warnings))
        for used in found.values():
            bad += bool(used.spills)
            mix = ", ".join(f"{n} {group}" for group, n in nvrtc.grouped(used.mix).items())
            say(f"{arch}  {used.name}: {used.registers} registers, {used.shared:,} bytes shared"
                f"{f', {used.spills} BYTES SPILLED' if used.spills else ''}{f', {used.stack} bytes stack' if used.stack else ''}")
            if mix:
                say(f"       {mix}")
    for line in warned:
        say(line)
    if no_mix:
        talk(f"no instruction mix: {no_mix}")
    return bad


def tried(linter, file, defines):
    """Run the launch lines in check mode; how many launches failed."""
    results, warned = linter.checked(file, defines)
    alike = {}  # the same rule broken at the same place: said once
    for name, sizes, error in results:
        if error is not None:
            alike.setdefault((name, error.kind, error.file, error.line), []).append((sizes, error))
    for line in warned:
        say(f"g++    {line}")
    for (name, *_), found in list(alike.items())[:10]:
        sizes, error = found[0]
        given = ", ".join(f"{key} = {value}" for key, value in sizes.items())
        more = f", and with {len(found) - 1} more sizes" if len(found) > 1 else ""
        say(f"check  {name} with {given}{more}:\n    " + str(error).replace("\n", "\n    "))
    failed = sum(map(len, alike.values()))
    if results:
        say(f"check  {len(results)} launches, {failed} broke a rule")
        talk("What was computed is not looked at: compare it with results that you know.")
    else:
        talk("Nothing was run: the file has no `// launch` line. `minidl kernels lint --help` shows one.")
    return failed


# --- what the commands share ----------------------------------------------------------------------------------------------

def described(broken=None):
    """(name, Signature, idea) of every kernel in kernels/. Files that cannot be read go into `broken`, with the reason."""
    from minidl.backend.cuda.signature import signatures
    from minidl.backend.cuda.source import text_of
    from minidl.core.errors import MinidlError
    from minidl.core.folders import kernels_folder

    for path in sorted(kernels_folder().glob("*.cu")):
        try:
            found = signatures(text_of(path.name))
        except MinidlError as problem:
            if broken is not None:
                broken.append(f"{path.name}: {problem}")
            continue
        for name, signature in found.items():
            yield name, signature, idea_of(kernels_folder() / signature.file, signature.line)


def idea_of(path, line):
    """The first sentence of the idea in the comment right above a line, else of the last `// Idea` before it, else of the opening."""
    lines = path.read_text(encoding="utf-8").splitlines()
    top = line - 1
    while top and re.match(r"\s*(//|template|#)", lines[top - 1]):
        top -= 1
    block = [text for text in lines[top:line - 1] if text.lstrip().startswith("//")]
    if not block:
        at = next((k for k in range(line - 1, -1, -1) if re.match(r"// Idea\b", lines[k])), 0)
        block = list(itertools.takewhile(lambda text: text.startswith("//"), lines[at:at + 12]))
    text = " ".join(piece.strip().lstrip("/").strip() for piece in block)
    text = re.sub(r"^(.*?\b[Tt]he idea: *|.*?\bIdea:? +|\w+\.cu: *)", "", text)
    first = re.split(r"(?<=[.;])\s", text, maxsplit=1)[0].rstrip(".;:,")
    return first if len(first) <= WIDEST else first[:WIDEST].rpartition(" ")[0].rstrip(",;:") + " …"


def known_kernels(broken=None):
    """The names of all kernels."""
    return [name for name, _, _ in described(broken)]


def checked_name(name, known):
    """The name, if there is such a kernel."""
    import difflib
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise usage(f"no kernel {name!r}.\n    {'Did you mean ' + ' or '.join(near) + '?' if near else 'minidl kernels list shows all.'}")
    return name


def position(option, text):
    """1,0 as (1, 0)."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 3 or not all(part.isdigit() for part in parts):
        raise usage(f"{option} {text!r}: one to three whole numbers, as in {option} 1,0.")
    return tuple(map(int, parts))
