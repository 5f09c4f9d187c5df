"""`python -m docs.planted` writes the table of planted bugs into docs/planted.md from the catalogue. A test compares."""

import sys
from pathlib import Path

from docs.transcripts import same
from minidl import planted
from minidl.planted.table import summary

PAGE = Path(__file__).with_name("planted.md")
HEADING = "\n## The catalogue\n"


def page(rows):
    """The page as it is, with the table as it must be now."""
    text = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
    note = "Written by `python -m docs.planted` from [minidl/planted/](../minidl/planted/__init__.py), seed 0."
    return f"{text}{HEADING}\n{summary(rows)}. {note}\n\n{planted.markdown(rows)}\n"


def is_current(rows):
    """Does the page say what these results say?"""
    return same(PAGE.read_text(encoding="utf-8"), page(rows))


if __name__ == "__main__":
    now = planted.results(progress=lambda name: print(name, file=sys.stderr))
    if not is_current(now):
        PAGE.write_text(page(now), encoding="utf-8")
        print(f"wrote {PAGE.name}")
