"""Runs the code and the commands in the DOCUMENTS below and writes what they print into the page.

A ```python block is run, and the ```text block right after it holds its output; one that opens with a comment like
`# my_op.py` is saved under that name instead. In a ```console block every `$ command` line is run and the lines below
it are its output. ```sh blocks are for commands that are not run here. A test compares, `make docs` rewrites.
Two outputs are the same if they differ only in durations and in numbers below 1e-5: those are rounding errors.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/debugging.md", "docs/stepper.md",
             *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/confusions/*.md")))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
TIME = re.compile(r"\b[\d.]+ ?(?:s|ms|µs)\b")
ROUNDING = re.compile(r" *-?\b[\d.]+e-(?:0[5-9]|[5-9]|[1-9]\d)\b")
FILE_NAME = re.compile(r"# (\w+\.py)\b")


def same(old, new):
    """Do two outputs say the same, but for times and rounding errors?"""
    def plain(text):
        return re.sub(" +", " ", ROUNDING.sub(" 0", TIME.sub("0 s", text)))  # columns are as wide as their numbers
    return plain(old) == plain(new)


def refreshed(text):
    """The page with the outputs that its code and commands have now; what is the same stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        parts, end, printed = [], 0, None
        for block in BLOCK.finditer(text):
            between = text[end:block.start()]
            language, body = block.groups()
            if language == "text" and printed is not None and not between.strip():
                body = body if same(body, printed) else printed
            printed = None
            if language == "python" and FILE_NAME.match(body):
                Path(folder, FILE_NAME.match(body)[1]).write_text(body, encoding="utf-8")
            elif language == "python":
                Path(folder, "block.py").write_text(body, encoding="utf-8")
                printed = run([sys.executable, "-W", "error", "block.py"], folder)
            elif language == "console":
                new = "".join(f"{line}\n{run_command(line[2:], folder)}" for line in body.splitlines() if line.startswith("$ "))
                body = body if same(body, new) else new
            parts += [between, f"```{language}\n{body}```\n"]
            end = block.end()
        return "".join(parts) + text[end:]


def run_command(command, folder):
    """What a shell command prints; `minidl` is this checkout's."""
    return run(["bash", "-c", f'minidl() {{ "{sys.executable}" -m minidl "$@"; }}\n{command}'], folder)


def run(command, folder):
    """stdout and stderr of a process in `folder`, as a page shows them."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([folder, str(ROOT)]), "COLUMNS": "110", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8",
                        "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder, env=env, stdin=subprocess.DEVNULL)
    lines = [line.rstrip() for line in done.stdout.decode().replace(f"{folder}{os.sep}", "").splitlines()]
    return "".join(f"{line}\n" for line in lines)


def stale():
    """The documents whose outputs are not what their code prints now."""
    return [name for name in DOCUMENTS if refreshed((ROOT / name).read_text(encoding="utf-8")) != (ROOT / name).read_text(encoding="utf-8")]


def write():
    """Bring the outputs in every document up to date; the names of those that changed."""
    changed = []
    for path in (ROOT / name for name in DOCUMENTS):
        before = path.read_text(encoding="utf-8")
        after = refreshed(before)
        if "Traceback (most recent call last)" in after:
            sys.exit(f"{path.name}: a block fails, so the page stays as it is.\n{after[after.index('Traceback'):][:3000]}")
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path.name)
    return changed
