"""The pages tell the truth: generated ones are current, transcripts are what the code prints, paths and links exist."""

import re
from pathlib import Path

import pytest

from docs import build, transcripts
from minidl.core.op import OPS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path for top in ("", "docs", "minidl", "kernels", "benchmarks") for path in (ROOT / top).glob("**/*.md" if top else "*.md"))
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#([\w-]+))?\)")


def test_pages_are_current():
    assert build.stale() == [], "run `make docs`"


def test_every_op_has_a_page():
    assert set(build.our_ops()) == {path.stem for path in (ROOT / "docs/ops").glob("*.md")} - {"README"}, "run `make docs`"


@pytest.mark.parametrize("name", transcripts.DOCUMENTS)
def test_transcript_is_current(name):
    """The README's perceptron and backward step, and CONTRIBUTING's first op, print what the page shows."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert transcripts.refreshed(text) == text, "run `make docs`, then look at what changed"


def test_contributing_catches_its_bug():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    right, wrong = re.findall(r"^\$ minidl check my_\w+\.py:cube --shape 2,5\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert "off by the factor" in wrong and "off by the factor" not in right


def broken_links(text, folder):
    """Links to files that do not exist, or to headings that a page does not have."""
    wrong = []
    for target, heading in LINK.findall(text):
        path = folder / target
        if not path.exists():
            wrong.append(target)
        elif heading and heading not in headings(path.read_text(encoding="utf-8")):
            wrong.append(f"{target}#{heading}")
    return wrong


def headings(text):
    """The anchors that a page's headings have."""
    return {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links(path):
    assert broken_links(path.read_text(encoding="utf-8"), path.parent) == []


def test_the_map_names_every_file():
    text = (ROOT / "docs/map.md").read_text(encoding="utf-8")
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "minidl").rglob("*.py")]
    assert [] == [file for file in files if f"(../{file})" not in text], "run `make docs`"


def test_nothing_says_pip_install_minidl():
    """The name is not published: whoever published it first could serve anything."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*PAGES, *(ROOT / "minidl").rglob("*.py")])
    assert re.findall(r"pip install (?:-\S+ )*minidl\b", text) == []


# --- the checks above notice --------------------------------------------------------------------------------------

def test_a_changed_op_makes_its_page_stale(monkeypatch):
    before = set(build.stale())
    monkeypatch.setattr(OPS["mul"], "doc", "Multiply.")
    assert set(build.stale()) - before == {"docs/ops/README.md", "docs/ops/mul.md"} - before


def test_a_wrong_gradient_shows_on_its_page(monkeypatch):
    forward = OPS["tanh"].forward
    page = build.page(OPS["tanh"])

    def wrong(x):
        y, backward = forward(x)
        return y, lambda grad_y, y: backward(grad_y, y) * 1.01

    monkeypatch.setattr(OPS["tanh"], "function", lambda x: OPS["tanh"].outputs(*wrong(x), [x], None))
    assert build.page(OPS["tanh"]) != page


def test_a_missing_page_and_an_orphan_are_noticed(monkeypatch):
    monkeypatch.delitem(OPS, "tanh")
    assert "docs/ops/tanh.md" in build.stale()


def test_a_broken_link_is_noticed():
    page = "[a](map.md) [b](nope.md) [c](../CONTRIBUTING.md#my-first-op) [d](map.md#no-such)"
    assert broken_links(page, ROOT / "docs") == ["nope.md", "map.md#no-such"]


def test_a_changed_output_is_noticed():
    page = "```python\nprint(1 + 1)\n```\n```text\n3\n```\n\n```console\n$ echo hello\nbye\n```\n"
    assert transcripts.refreshed(page) == page.replace("3\n", "2\n").replace("bye", "hello")


def test_times_and_rounding_errors_do_not_make_a_transcript_stale():
    old = "took 79 µs  error 9.48e-15, ran in 1.2 s   mean 1.4e-10 0.094"
    assert transcripts.same(old, "took 8.25 ms  error 1.2e-16, ran in 13 s  mean -3e-09 0.094")
    assert not transcripts.same(old, old.replace("0.094", "0.095"))
    assert not transcripts.same(old, old.replace("9.48e-15", "9.48e-3"))
