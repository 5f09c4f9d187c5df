"""The stops of the tour in a real browser: each address opens its step, its tab, and the element it names."""

import re
from pathlib import Path

import pytest

from minidl.stepper import page, subjects, tour

ROOT = Path(__file__).resolve().parents[2]
STOPS = {stop.page: stop for stop in tour.stops()}


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """stop -> the file of its page; the shipped network's is written once, with checks."""
    folder, known = tmp_path_factory.mktemp("tour"), {}

    def find(stop):
        if stop.script not in known:
            if stop.script:
                text = (ROOT / "docs" / "confusions" / f"{stop.page}.md").read_text(encoding="utf-8")
                (folder / stop.script).write_text(re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1], encoding="utf-8")
            trace = subjects.record_script(str(folder / stop.script)) if stop.script else subjects.record_shapes()
            known[stop.script] = folder / f"{len(known)}.html"
            page.write(trace, known[stop.script], check=not stop.script)
        return known[stop.script]
    return find


@pytest.mark.parametrize("name", STOPS)
def test_address_opens_the_stop(opened, file_of, name):
    stop = STOPS[name]
    shown = opened(file_of(stop), stop.hash)
    assert shown.step() == stop.view["step"]
    assert shown.page.get_attribute(f"#tab-{stop.view['tab']}", "aria-selected") == "true"
    shown.page.wait_for_timeout(200)  # the page writes its address a moment later
    assert shown.page.evaluate("location.hash") == stop.hash  # nothing of it was left out, nothing added
