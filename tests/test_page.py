"""The stepper's page as a file: one document, nothing fetched, a policy whose hashes fit, strangers' words as data, a budget.

What it does in a browser is in tests/browser/.
"""

import base64
import hashlib
import json
import os
import re
import zlib

import numpy as np
import pytest

import minidl
from minidl.core.errors import ArgumentError
from minidl.models.tiny import TinyNet, points
from minidl.stepper import formulas, layout, page, step
from minidl.stepper.rules import shape_rule

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\u202eevil"


@pytest.fixture(scope="module")
def trace():
    """One forward and backward of TinyNet."""
    net, (x, labels) = TinyNet(0), points(8, 0)
    with step(net) as trace:
        net.loss(x, labels).backward()
    return trace


@pytest.fixture(scope="module")
def text(trace):
    return page.html(trace.describe())


def unpacked(text):
    """The data of a page."""
    packed = re.search(r'<script type="application/octet-stream" id="trace">(.*?)</script>', text, re.DOTALL)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_one_file_that_asks_for_nothing(text):
    markup = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=\"(?!data:,|#)", markup)
    code = page.inlined("main") + page.asset("page.css")
    forbidden = "fetch( XMLHttpRequest WebSocket import( @import url( innerHTML insertAdjacentHTML document.write eval( Function("
    for word in forbidden.split():
        assert word not in code, word
    assert not [address for address in re.findall(r"https?://[^\s\"']+", text) if address != "http://www.w3.org/2000/svg"]


def test_the_policy_names_exactly_this_script_and_this_style(text):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy
    for kind, pattern in (("script", r'<script type="module">(.*?)</script>'), ("style", r"<style>(.*?)</style>")):
        digest = base64.b64encode(hashlib.sha256(re.search(pattern, text, re.DOTALL)[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"\son\w+=|\sstyle=", re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL))


def test_the_trace_comes_through_whole(trace, text):
    data = unpacked(text)
    assert data["steps"] == json.loads(json.dumps(trace.describe()["steps"]))
    assert data["page"]["forward"] == [item.step for item in trace.forwards]


def test_words_of_strangers_never_become_markup(trace):
    description = trace.describe()
    description["title"], description["error"] = [HOSTILE, HOSTILE], HOSTILE
    for number, found in enumerate(description["steps"]):
        found["path"], found["settings"] = f"{HOSTILE}.{number}", {HOSTILE: HOSTILE}
    for tensor in description["tensors"]:
        tensor["name"] = HOSTILE
    text = page.html(description)
    assert "onerror=" not in text and text.count("</script>") == 2
    assert unpacked(text)["tensors"][0]["name"] == HOSTILE


def test_written_whole_or_not_at_all(trace, tmp_path, monkeypatch):
    path = tmp_path / "out.html"
    assert page.write(trace, path) == path.stat().st_size
    before = path.read_bytes()

    def refuse(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        page.write(trace, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["out.html"]


def test_pictures_shrink_and_statistics_stay():
    noise = np.random.default_rng(0).standard_normal
    x = minidl.tensor(noise((2, 16, 40, 40)).astype("float32"))
    w = minidl.tensor(noise((16, 16, 3, 3)).astype("float32"), requires_grad=True)
    with step() as trace:
        minidl.nn.functional.conv2d(x, w, padding=1).sum().backward()
    whole = trace.describe()
    large = len(page.html(whole).encode())
    bare = len(page.html({**whole, "tensors": [{**t, "thumbnails": None} for t in whole["tensors"]]}).encode())
    small = unpacked(page.fitting(trace.describe(), bare + (large - bare) // 3).decode())
    assert "pictures are at most 14×14" in small["shrunk"][-1]
    assert [t["facts"] for t in small["tensors"]] == [t["facts"] for t in json.loads(json.dumps(whole))["tensors"]]
    assert max(t["thumbnails"]["height"] for t in small["tensors"] if t["thumbnails"]) == 14
    with pytest.raises(ArgumentError, match="does not fit"):
        page.fitting(trace.describe(), 1000)


def test_halved_pictures_are_means_and_keep_what_is_not_finite():
    levels = np.array([[10, 20, 200], [30, 40, 0], [100, 100, 60]], np.uint8)
    pictures = {"kind": "matrix", "height": 3, "width": 3, "data": [base64.b64encode(levels.tobytes()).decode()]}
    half = page.halved(pictures)
    assert (half["height"], half["width"]) == (2, 2)
    assert list(base64.b64decode(half["data"][0])) == [25, 0, 100, 60]


# --- layout --------------------------------------------------------------------------------------------------------------
def ops(*rows):
    """Ops from (path, reads, makes); tensors are letters."""
    return [{"name": "op", "path": path, "reads": list(reads), "makes": list(makes), "kind": path.split(".")[-1]}
            for path, reads, makes in rows]


def test_a_skip_runs_beside_and_joins():
    rows = layout.outline(ops(("", "", "h"), ("", "h", "a"), ("", "a", "b"), ("", "bh", "s"), ("", "s", "y")))
    assert [row["lane"] for row in rows] == [0, 0, 0, 0, 0]
    assert [row["past"] for row in rows] == [[], [[0, 1]], [[1, 1]], [], []]
    assert rows[3]["in"] == [0, 1] and rows[3]["out"] == [0]


def test_lanes_never_carry_two_tensors_at_once():
    rng = np.random.default_rng(0)
    for _ in range(200):
        made = [["", [], [0]]]
        for number in range(1, 14):
            made.append(["", [int(k) for k in rng.choice(number, min(number, int(rng.integers(1, 4))), replace=False)], [number]])
        for before, after, _ in layout.occupied([{"path": p, "reads": r, "makes": m} for p, r, m in made]):
            for lanes in (before, after):
                assert len(set(lanes.values())) == len(lanes)


def test_identical_blocks_fold():
    block = [(f"layer.{k}.{name}", "x", "x") for k in range(4) for name in (("down", "conv") if k == 0 else ("conv", "bn"))]
    rows = layout.outline(ops(("stem", "", "x"), *block, ("head", "x", "y")))
    assert [(row["level"], row["name"], row["copies"]) for row in rows if row["op"] < 0] == [
        (1, "layer", 1), (2, "0", 1), (2, "1–3", 3), (3, "1", 1), (3, "2", 1), (3, "3", 1)]


def test_the_graph_is_the_nearest_module_that_branches():
    block = [("b.conv", "x", "c"), ("b.bn", "c", "n"), ("b", "nx", "s")]
    drawn, which = layout.graphs(ops(("stem", "", "x"), *block, ("head", "s", "y")))
    graph = drawn[which[1]]
    assert graph["path"] == "b" and [node["name"] for node in graph["nodes"]] == ["", "conv", "bn", "op"]
    assert sorted((a, b) for a, b, _ in graph["edges"]) == [(0, 1), (0, 3), (1, 2), (2, 3)]
    assert [node["column"] for node in graph["nodes"]] == [0, 1, 2, 3]


def test_long_chains_are_cut_around_the_op():
    chain = [("", chr(97 + k), chr(98 + k)) for k in range(24)]
    drawn, which = layout.graphs(ops(*chain))
    for op, number in enumerate(which):
        nodes = [node for node in drawn[number]["nodes"] if node["first"] >= 0]
        assert len(nodes) <= layout.MOST and any(node["first"] == op for node in nodes)


# --- formulas and rules --------------------------------------------------------------------------------------------------
def test_every_formula_of_the_registry_can_be_drawn():
    pytest.importorskip("ziamath", reason="ziamath is not installed: formulas are shown as text")
    for name in ("conv2d", "cross_entropy", "batch_norm_train", "softmax"):
        found = formulas.typeset(minidl.core.op.OPS[name].tex)
        assert found["glyphs"] and found["box"][2] > 20, name
        assert all(formulas.OUTLINE.fullmatch(found["outlines"][key]) for key, *_ in found["glyphs"])


def test_without_the_typesetter_the_formula_is_text(trace, monkeypatch):
    monkeypatch.setattr(formulas, "typesetter", lambda: None)
    formulas.typeset.cache_clear()
    data = unpacked(page.html(trace.describe()))
    formulas.typeset.cache_clear()
    assert set(data["page"]["tex"].values()) == {-1} and data["ops"]["matmul"]["formula"]


def test_shape_rules_show_their_numbers():
    x, w = minidl.tensor(np.zeros((2, 3, 14, 15), "float32")), minidl.tensor(np.zeros((8, 3, 3, 3), "float32"))
    with step() as trace:
        y = minidl.nn.functional.conv2d(x, w, stride=2, padding=1)
        minidl.nn.functional.max_pool2d(y, 2).flatten(1)
    found = trace.describe()
    rules = [shape_rule(item, found["tensors"]) for item in found["steps"]]
    assert rules[0][:2] == ["OH = (14 + 2·1 − 3) // 2 + 1 = 7", "OW = (15 + 2·1 − 3) // 2 + 1 = 8"]
    assert rules[-1] == ["8·3·4 = 96 numbers of each sample, in one row"]
    for line in (line for rule in rules for line in rule if line.startswith("O")):
        formula, _, result = line.rpartition(" = ")
        formula = formula.split(" = ")[-1].replace("·", "*").replace("−", "-")
        assert eval(formula) == int(result), line
