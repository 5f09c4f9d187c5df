"""What a notebook shows: tensors, modules and traces as HTML without scripts, small, and with every text escaped."""

import base64
import re
import sys
import types
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.core.show import tiles_html
from minidl.stepper import step

HOSTILE = "</summary><script>alert(1)</script>\"'&\u202e\x1b[2J"
TAGS = {"div", "b", "br", "i", "svg", "rect", "table", "tr", "td", "pre", "img", "details", "summary"}
LIMIT = 40_000


class Strict(HTMLParser):
    """Collects tags and text, and fails where tags are not closed in order, are not among ours, or could run something."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""

    def handle_starttag(self, tag, attributes):
        assert tag in TAGS and not any(name.startswith("on") for name, _ in attributes)
        self.tags.append((tag, dict(attributes)))
        if tag not in ("br", "img", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def shown(thing):
    """The checked HTML of a tensor or module."""
    html = thing._repr_html_()
    assert len(html.encode()) <= LIMIT
    page = Strict()
    page.feed(html)
    page.close()
    assert page.open == [] and "\u202e" not in html and "\x1b" not in html
    return page


def random(*shape, dtype="float32"):
    return minidl.tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype))


@pytest.mark.parametrize("x, words", [
    (minidl.tensor(1.5), ["tensor ()", "float32", "cpu", "1.5"]),
    (minidl.zeros(0, 3), ["tensor 0×3"]),
    (minidl.zeros(2, 0, 4, 4), ["tensor 2×0×4×4"]),
    (minidl.tensor([[1, 2], [3, 4]]), ["tensor 2×2", "int64", "4"]),
    (minidl.tensor([True, False]), ["bool", "True"]),
    (minidl.tensor([float("nan"), float("inf"), -1e300], dtype="float64"), ["nan", "inf", "-1e+300"]),
    (minidl.ones(2, 2, 2), ["tensor 2×2×2", "[1., 1.]"]),
    (random(3, 50, 60), ["min=", "[0, :8, :8]"]),
    (random(1000), ["[:8]", "…"]),
    (random(300, 2), ["[:8, :2]", "⋮"]),
    (minidl.ones(100), ["min=1, max=1"]),
    (minidl.full((100,), float("nan")), ["nothing finite, nan=100"]),
    (minidl.full((2, 3, 50, 50), float("nan")), ["nothing finite"]),
    (minidl.tensor([1.7e308, -1.7e308] * 50, dtype="float64"), ["max=1.7e+308"]),
    (minidl.tensor(np.full((1, 1, 20, 20), -1.7e308)), ["1 channel of the first image"]),
    (minidl.zeros(8, 8, 9, 9, dtype="bool"), ["False"]),
    (random(2, 3, 4, 2, 5), ["[0, 0, 0, :2, :5]"]),
], ids=repr)
def test_a_tensor(x, words):
    text = shown(x).text
    for word in words:
        assert word in text


def test_a_tensor_says_where_it_is_from():
    x = minidl.ones(3, requires_grad=True)
    assert "requires_grad" in shown(x).text and "made by mul" in shown(x * 2).text


@pytest.mark.parametrize("shape, count", [((1, 3, 64, 64), 3), ((4, 500, 7, 9), 8), ((1, 1, 300, 2), 1), ((1, 64, 999, 1001), 8)])
def test_images_are_tiles(shape, count):
    page = shown(random(*shape))
    tiles = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [tile["title"] for tile in tiles] == [f"channel {c}" for c in range(count)]
    assert all(tile["src"].startswith("data:image/png;base64,") for tile in tiles)
    assert "more" in page.text or shape[1] <= 8


def test_a_tile_has_the_values_of_its_channel_and_red_where_there_is_none():
    x = np.zeros((1, 1, 9, 9))
    x[0, 0, 0, :3] = 1, 0.5, np.nan
    data = base64.b64decode(re.search("base64,([^']*)", tiles_html(x))[1])
    begin = data.index(b"IDAT")
    pixels = zlib.decompress(data[begin + 4:begin + 4 + int.from_bytes(data[begin - 4:begin], "big")])
    assert len(pixels) == 9 * (1 + 9 * 3)
    assert [tuple(pixels[1 + 3 * k:4 + 3 * k]) for k in range(4)] == [(255,) * 3, (128,) * 3, (204, 51, 17), (0,) * 3]


def test_the_histogram_counts():
    page = shown(minidl.tensor([0.0] * 90 + [1.0] * 10))
    bars = [int(attributes["height"]) for tag, attributes in page.tags if tag == "rect"]
    assert bars == [28, 4]


def test_a_module_unfolds():
    page = shown(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4)))
    assert [tag for tag, _ in page.tags].count("details") == 3  # nothing is inside a ReLU
    for words in ("Sequential() 24 parameters", "(0) Linear(in_features=3, out_features=4", "weight 4×3 · bias 4", "(1) ReLU() 0 param",
                  "running_mean 4", "num_batches_tracked ()"):
        assert words in page.text


def test_a_large_network_is_counted_where_it_does_not_fit():
    page = shown(nn.Sequential(*[nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()) for _ in range(300)]))
    assert re.search(r"and \d+ more", page.text)
    from minidl.models import lenet5
    assert "more" not in shown(lenet5()).text


def test_hostile_names_are_text():
    net = nn.Module()
    for k in range(200):
        net.add_module(f"{k}{HOSTILE}".replace(".", ""), type(HOSTILE, (nn.Module,), {"extra_repr": lambda self: HOSTILE * 1000})())
        net.register_parameter(f"p{k}{HOSTILE}", nn.Parameter(minidl.ones(1)))
    page = shown(net)
    assert "<script>alert(1)</script>" in page.text and "\\x1b" in page.text and "\\u202e" in page.text


def small_trace():
    x = minidl.ones(2, 2, requires_grad=True)
    with step() as trace:
        (x * 3).sum().backward()
    return trace


def test_show_writes_a_page_where_there_is_no_notebook(tmp_path, capsys):
    path = tmp_path / "page.html"
    assert small_trace().show(path) is None
    assert "page.html" in capsys.readouterr().out
    assert path.read_text().startswith("<!doctype html>")


def test_show_embeds_the_page_in_a_notebook(monkeypatch):
    display = types.ModuleType("IPython.display")
    display.HTML = lambda text: ("HTML", text)
    notebook = types.ModuleType("IPython")
    notebook.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    kind, html = small_trace().show(height=500)
    frames = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attributes: frames.append((tag, dict(attributes)))
    reader.feed(html)
    [(tag, attributes)] = frames  # one element: the page is in its attribute, and nothing of it outside
    assert kind == "HTML" and tag == "iframe" and attributes["sandbox"] == "allow-scripts" and attributes["height"] == "500"
    assert attributes["srcdoc"].startswith("<!doctype html>") and attributes["srcdoc"].rstrip().endswith("</html>")


def test_show_in_ipython_without_pictures_writes_a_file(monkeypatch, tmp_path, capsys):
    notebook = types.ModuleType("IPython")
    notebook.get_ipython = lambda: types.SimpleNamespace()  # IPython's terminal has no kernel
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    small_trace().show(tmp_path / "page.html")
    assert "page.html" in capsys.readouterr().out
