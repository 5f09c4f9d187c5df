"""A browser for the tests of the page: Debian's chromium through Playwright. Where there is none, they are skipped and say so."""

import os
import shutil
import time

import pytest

NAMES = ("chromium", "chromium-headless-shell", "google-chrome")
BROWSER = os.environ.get("MINIDL_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[browser]'")
    if BROWSER is None:
        pytest.skip("no chromium here: apt-get install chromium, or name one in MINIDL_CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """An open page, and everything it said or asked for that it should not have."""

    def __init__(self, browser, path, hash_="", **settings):
        self.context = browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | settings))
        self.page, self.said, self.asked = self.context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.address = f"file://{path}"
        self.page.goto(self.address + hash_)
        self.page.wait_for_selector("html[data-ready]")

    def press(self, *keys):
        """Keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def text(self, selector):
        """The text of the first element."""
        return self.page.locator(selector).first.text_content()

    def step(self):
        """The number of the step that is shown."""
        return int(self.page.get_attribute("#track", "aria-valuenow"))

    def close(self):
        """Close it; a console message or a request makes the test fail."""
        self.context.close()
        assert self.said == []
        others = [url for url in self.asked if url.partition("#")[0] != self.address and not url.startswith("data:")]
        assert others == []


@pytest.fixture
def until():
    """until(page, expression) waits until it is true there. (Playwright's own wait_for_function needs eval, which the page forbids.)"""
    def wait(page, expression, patience=30):
        end = time.monotonic() + patience
        while not page.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)
    return wait


@pytest.fixture
def opened(browser):
    """open(path, hash, **settings): every page that it opened is closed, and judged, at the end."""
    pages = []

    def open_(path, hash_="", **settings):
        pages.append(Opened(browser, path, hash_, **settings))
        return pages[-1]

    yield open_
    for page in pages:
        page.close()
