"""The tour: fifteen places in recorded training steps where a common confusion clears up. tour.json holds them.

Each has a page in docs/confusions/, the verbs that lead there at the prompt, and the address that opens it in the page.
"""

import json
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import unquote


class Stop(NamedTuple):
    """One place: which step of which trace, and what is to be seen there."""

    page: str      # docs/confusions/PAGE.md
    title: str
    text: str      # what is to be seen
    script: str    # the file whose code the page shows and `minidl step` records; "" for the shipped network
    commands: str  # for `minidl step -c`: they end at the step
    step: dict     # its kind, op and module path
    hash: str      # #step=50&tab=maths&tensor=...&at=...: the address in the page

    def find(self, trace):
        """The step of a trace that is meant: the only one of this kind and op in this module."""
        wanted = self.step["kind"], self.step["op"], self.step["path"]
        found = [item for item in trace.steps if (item.kind, item.op.name, item.path) == wanted]
        return found[0] if len(found) == 1 else None

    @property
    def view(self):
        """The address taken apart: step, tab, tensor and at (an index), where it names them."""
        parts = dict(part.split("=", 1) for part in self.hash.removeprefix("#").split("&"))
        found = {"step": int(parts["step"]), "tab": parts["tab"]}
        if "tensor" in parts:
            found["tensor"] = unquote(parts["tensor"])
        if "at" in parts:
            found["at"] = tuple(int(k) for k in parts["at"].split(","))
        return found


def stops():
    """Every Stop, in the order of the tour."""
    text = (files("minidl.stepper") / "tour.json").read_text(encoding="utf-8")
    return [Stop(**found) for found in json.loads(text)["stops"]]
