"""The bench's page in a real browser: every chart there, nothing fetched, hostile text shown as text, both themes, small screens."""

import json

import pytest

from minidl.bench import page

EVIL = "<img src=x onerror=alert(1)></script><script>document.title='hit'</script>"


def row(**own):
    return {"case": "conv2d", "label": "8×64×56×56 → 64, 3×3", "direction": "forward", "op": "conv2d", "inputs": "",
            "implementation": "cpu/winograd", "chosen": True, "device": "cpu", "status": "ok", "why": "", "error": 1e-5,
            "allowed": 1e-4,
            "against": "float64", "operations": 2e9, "bytes": 13e6, "median": 5e-3, "p20": 4.9e-3, "p80": 5.4e-3, "n": 7, "noisy": False,
            "gflop_s": 400.0, "gb_s": 2.6, "share": 1.3} | own


@pytest.fixture
def result():
    missing = {"status": "missing", "median": None, "error": None, "allowed": None, "chosen": False}
    rows = [row(), row(implementation="generic/im2col", chosen=False, median=2e-2, p20=1.9e-2, p80=2.2e-2, gflop_s=100.0, noisy=True),
            row(implementation="cuda/v2_shared_tile", why="no GPU here: " + EVIL, **missing),
            row(implementation=EVIL, status="wrong", why="off by 3", median=None, error=3.0, chosen=False)]
    summary = {"median": 0.1, "p20": 0.09, "p80": 0.12, "n": 5}
    parts = dict.fromkeys(("forward", "backward", "optimizer", "step"), summary)
    split = {"seconds": 0.3, "by_op": {"conv2d": 0.2, "other array expressions and Python": 0.1},
             "by_kind": {"products": 0.15, "gathers": 0.05, "element-wise": 0.05, "Python": 0.04, "idle": 0.01}, "looks": 300}
    step = {"name": "resnet18", "label": "resnet18, batch 8, 224×224", "status": "ok", "why": "", "losses": {}, "breakdown": split,
            "contenders": {"torch NHWC": parts, "minidl": parts}}
    sweep = {"case": "conv2d", "grows": "layers", "rows": [row(place=k, label=f"8×{2**k}×9×9 → 4, 3×3") for k in range(4)]}
    return {"minidl_bench": 1, "rows": rows, "sweeps": [sweep], "steps": [step, {**step, "status": "wrong", "why": EVIL}], "notes": [EVIL],
            "machine": {"copy_gb_s": 20.0, "gemm_gflop_s": 300.0, "copy_bytes": 1, "gemm_size": 1536},
            "environment": {"processor": EVIL, "cores": 2, "system": "Linux", "threads": 2, "python": "3", "numpy": "2", "blas": "openblas",
                            "torch": None, "minidl": "0", "commit": "abc", "date": "today", "load": 0.1}}


@pytest.fixture
def path(result, tmp_path):
    path = tmp_path / "bench.html"
    path.write_text(page.html(result), encoding="utf-8")
    return path


def test_everything_is_drawn(opened, path):
    there = opened(path)
    headings = there.page.locator(".card h2").all_text_contents()
    assert {"conv2d, forward", "conv2d over sizes, forward", "Roofline", "Training step, resnet18, batch 8, 224×224"} <= set(headings)
    assert there.page.locator(".card svg[role=img]").count() == 4
    assert there.page.locator("tr.wrong").count() == 2 and there.page.locator("tr.missing").count() == 1
    assert "✗ wrong, so no speed" in there.text(".card svg text.bad")


def test_hostile_text_is_text(opened, path):
    there = opened(path)
    assert there.page.title() == "minidl bench"
    assert there.page.locator("img").count() == 0
    assert EVIL in there.text(".facts")
    assert EVIL in there.page.locator(".absent").first.text_content()


def test_marks_explain_themselves_to_pointer_and_keyboard(opened, path):
    there = opened(path)
    there.page.locator(".card rect.mark").first.hover()
    assert there.page.locator("#tip").is_visible()
    there.page.locator(".card circle.mark").first.focus()
    assert "GFLOP/s" in there.text("#tip") and "allowed" in there.text("#tip")
    assert there.page.locator(".mark:not([aria-label])").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_and_the_switch(opened, path, scheme):
    there = opened(path, color_scheme=scheme)
    background = "getComputedStyle(document.documentElement).backgroundColor"
    before = there.page.evaluate(background)
    there.page.click("#theme")
    assert there.page.evaluate(background) != before


@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_sticks_out(opened, path, width):
    there = opened(path, viewport={"width": width, "height": 800})
    assert there.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_foreign_script_does_not_run(opened, path, tmp_path):
    """The policy names the page's own script only: one that slips in is refused, and the browser says so."""
    other = tmp_path / "other.html"
    text = path.read_text(encoding="utf-8").replace("</body>", "<script>document.title = 'hit'</script></body>")
    other.write_text(text, encoding="utf-8")
    there = opened(other)
    assert there.page.title() == "minidl bench"
    assert any("Content Security Policy" in text for text in there.said)
    there.said.clear()


def test_an_empty_result_is_a_page(opened, result, tmp_path):
    path = tmp_path / "empty.html"
    path.write_text(page.html({**result, "rows": [], "sweeps": [], "steps": [], "machine": {}}), encoding="utf-8")
    assert "nothing was measured" in opened(path).text("h1")


def test_without_a_script_the_tables_are_there(browser, path):
    context = browser.new_context(java_script_enabled=False)
    there = context.new_page()
    there.goto(f"file://{path}")
    assert "cpu/winograd" in there.locator("table").first.text_content()
    context.close()


def test_the_data_is_the_result(path, result):
    import base64

    packed = path.read_text(encoding="utf-8").partition('id="data">')[2].partition("<")[0]
    assert json.loads(base64.b64decode(packed)) == json.loads(json.dumps(result))


def colours(there):
    """[(what a mark or a key stands for, its colour)] of everything on the page that is told by its colour."""
    return there.page.evaluate("""() => [
        ...[...document.querySelectorAll('.keys li svg')].map((key) => [key.parentNode.childNodes[1].textContent, key.firstChild]),
        ...[...document.querySelectorAll('rect.mark')].map((bar) => [bar.getAttribute('aria-label').split('\\n')[0], bar]),
        ...[...document.querySelectorAll('circle.mark')].map((dot) => [dot.getAttribute('aria-label').split('\\n')[1], dot]),
      ].map(([name, node]) => [name.replace('  ← what minidl takes', '').replace(/^.*: /, ''), getComputedStyle(node).fill])""")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_colour_means_one_thing_on_the_whole_page(opened, result, tmp_path, scheme):
    """Implementations, kinds of work and the parts of a step, in every chart. Ops go by their names alone."""
    result["rows"] += [row(implementation=f"cpu/number {k}", chosen=False, case=f"case {k}", op=f"case {k}") for k in range(12)]
    path = tmp_path / "many.html"
    path.write_text(page.html(result), encoding="utf-8")
    found = [pair for pair in colours(opened(path, color_scheme=scheme)) if pair[0] not in result["steps"][0]["breakdown"]["by_op"]]
    names, shown = {name for name, _ in found}, {colour for _, colour in found}
    assert {"cpu/winograd", "cpu/number 11", "products", "idle", "forward", "optimizer"} <= names
    assert len({tuple(pair) for pair in found}) == len(names) == len(shown)
