"""write(trace, path): the trace as one offline HTML page. Modules, style and data are put into one file; nothing is fetched.

The page's own code lies in assets/ as ES modules. What it shows is trace.describe(), packed, with what is easier to
compute here: the outline and the graphs (layout.py), formulas as outlines (formulas.py), shape rules with their numbers.
"""

import base64
import hashlib
import json
import re
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np

from minidl.core.errors import ArgumentError, explained
from minidl.core.files import write_complete
from minidl.stepper import layout
from minidl.stepper.formulas import Formulas, typesetter
from minidl.stepper.rules import shape_rule

ASSETS = files("minidl.stepper") / "assets"
BUDGET = 4_000_000  # bytes of a page
LEAST = 7           # pixels: below that, pictures get fewer instead of smaller
IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?(?:function|const|class) (\w+))", re.MULTILINE)


def write(trace, path, budget=BUDGET, **settings):
    """Write the page of a trace to a file, whole or not at all; pictures shrink until it fits into `budget` bytes.

    `settings` go to trace.describe(): check=True checks every op too.
    """
    page = fitting(trace.describe(**settings), budget)
    write_complete(Path(path), lambda file: file.write(page))
    return len(page)


def fitting(description, budget):
    """The page (UTF-8) with the largest pictures that the budget allows: first they are halved, then their number is."""
    before = description["shrunk"]
    while len(page := html(description).encode()) > budget:
        side = max((max(t["height"], t["width"]) for t in thumbnails(description)), default=0)
        count = max((len(t["data"]) for t in thumbnails(description)), default=0)
        if not count:
            raise explained(ArgumentError, "page", "the trace does not fit into the page.",
                            [f"page = {len(page)} bytes without any picture", f"budget = {budget} bytes"],
                            f"Record less, or allow a budget of {len(page) // 10**6 + 1} MB.")
        for tensor in description["tensors"]:
            if tensor["thumbnails"]:
                tensor["thumbnails"] = halved(tensor["thumbnails"]) if side > LEAST else fewer(tensor["thumbnails"], count // 2)
        side, count = (side // 2, count) if side > LEAST else (side, count // 2)
        description["shrunk"] = [*before, f"pictures are at most {side}×{side}, {count} of a tensor, to keep the page small" if count
                                 else "there are no pictures, to keep the page small"]
    return page


def thumbnails(description):
    """Those that there are."""
    return [tensor["thumbnails"] for tensor in description["tensors"] if tensor["thumbnails"]]


def halved(pictures):
    """The pictures at half their height and width: means of 2×2 blocks; a block with a number that is not finite is not finite."""
    height, width = pictures["height"], pictures["width"]
    data = []
    for text in pictures["data"]:
        levels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, -1)
        blocks = np.pad(levels, ((0, height % 2), (0, width % 2), (0, 0)), "edge").astype(np.int64)
        blocks = blocks.reshape(-(-height // 2), 2, -(-width // 2), 2, levels.shape[2])
        means = np.where((blocks == 0).any((1, 3)) & (pictures["kind"] != "rgb"), 0, blocks.mean((1, 3)))
        data.append(base64.b64encode(np.round(means).astype(np.uint8).tobytes()).decode())
    return {**pictures, "height": -(-height // 2), "width": -(-width // 2), "data": data}


def fewer(pictures, count):
    """The first `count` pictures, or None."""
    return {**pictures, "shown": pictures["shown"][:count], "data": pictures["data"][:count]} if count else None


def html(description):
    """The page of a described trace, as text."""
    data = json.dumps({**description, "page": prepared(description)}, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    style, script = asset("page.css"), inlined("main")
    packed = base64.b64encode(zlib.compress(data.encode(), 9)).decode()  # base64: nothing in it can end a script element
    parts = {"POLICY": policy(style, script), "STYLE": style, "SCRIPT": script, "TRACE": packed}
    return re.sub("@(POLICY|STYLE|SCRIPT|TRACE)@", lambda match: parts[match[1]], asset("page.html"))


def asset(name):
    """The text of a file in assets/."""
    return (ASSETS / name).read_text(encoding="utf-8")


def policy(style, script):
    """What the browser may load and run: exactly this style and this script, and nothing from anywhere."""
    def digest(text):
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (f"default-src 'none'; script-src {digest(script)}; style-src {digest(style)}; img-src data:; "
            "base-uri 'none'; form-action 'none'")


def inlined(name):
    """An ES module and those that it imports as one script: each becomes a function that runs once and returns its exports."""
    done = {}

    def visit(module):
        if module not in done:
            done[module] = ""  # a circle of imports would stop here, and fail the first time the page opens
            text = asset(f"{module}.js")
            for _, needed in IMPORT.findall(text):
                visit(needed)
            del done[module]
            exports = ", ".join(word for _, word in EXPORT.findall(text))
            text = EXPORT.sub(r"\1", IMPORT.sub(r"const \1 = from_\2;", text))
            done[module] = f"const from_{module} = (() => {{\n{text}\nreturn {{ {exports} }};\n}})();\n"

    visit(name)
    return "".join(done.values())


def prepared(description):
    """What the page needs besides the trace itself."""
    steps = {step["id"]: step for step in description["steps"]}
    forwards = [step for step in description["steps"] if step["kind"] == "forward"]
    ops = layout.flow(as_ops(description))
    graphs, graph_of = layout.graphs(ops) if ops else ([], [])
    formulas = Formulas()
    tex = {name: formulas.number(op["tex"]) for name, op in description["ops"].items()}
    title = description["title"][0] if description["title"] else f"{len(forwards)} ops forward, {len(steps) - len(forwards)} steps back"
    rules = {step["id"]: rule for step in forwards if (rule := shape_rule(step, description["tensors"]))}
    return {"title": title, "forward": [step["id"] for step in forwards], "outline": layout.outline(ops) if ops else [], "graphs": graphs,
            "graph_of": graph_of, "tex": tex, "formulas": {"outlines": formulas.outlines, "drawn": formulas.drawn}, "rules": rules,
            "typeset": typesetter() is not None}


def as_ops(description):
    """The forward steps as layout.py sees them: a training step ends with an update."""
    tensors, turn = description["tensors"], 1
    for step in description["steps"]:
        if step["kind"] == "forward":
            reads, makes = ([tensors[x["tensor"]] for x in step[side] if x["tensor"] is not None] for side in ("inputs", "outputs"))
            reads, makes = ([(t["id"], t["shape"], t["made_by"] is not None) for t in found] for found in (reads, makes))
            yield step["op"], step["path"] or "", step["settings"], reads, makes, turn
        turn += step["kind"] == "update"
