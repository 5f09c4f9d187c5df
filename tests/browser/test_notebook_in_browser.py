"""trace.show() in a real browser: the page works inside a notebook's sandboxed frame, and says nothing on the console."""

import sys
import types

import minidl
from minidl.stepper import step


def test_the_page_steps_inside_a_notebooks_frame(browser, tmp_path, monkeypatch, until):
    display = types.ModuleType("IPython.display")
    display.HTML = str
    notebook = types.ModuleType("IPython")
    notebook.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    x = minidl.randn(4, 4, requires_grad=True)
    with step() as trace:
        (x @ x).tanh().sum().backward()
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><body>{x._repr_html_()}{trace.show(height=700)}", encoding="utf-8")
    said, page = [], browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"file://{path}")
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready]").wait_for()
    frame.locator("h1, h2").first.click()
    page.keyboard.press("j")
    page.keyboard.press("j")
    frame.locator("#track[aria-valuenow='3']").wait_for()
    until(page.frames[1], "location.hash.startsWith('#step=3')")  # the address is written a moment later
    assert said == []
    page.close()
