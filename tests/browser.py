"""A real Chromium for tests of pages: what the console says and what asks elsewhere fails the test.

The fixtures are known to every test (conftest.py imports them): ask for `visit` and call `page = visit(address)`.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

HOW = "no Chromium for the browser tests: install one (Debian: apt install chromium) or name it in SCALESEG_CHROMIUM"

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)

PATIENCE = 20_000
"""Milliseconds that a page may take for anything: two cores may be busy with other tests."""


@dataclass
class Seen:
    """What pages did that they must not do."""

    allowed: list[str] = field(default_factory=list)
    """Parts of messages that this test provokes, such as the status of a request that is to fail."""
    complaints: list[str] = field(default_factory=list)

    def console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.note(f"console {message.type}: {message.text}")

    def note(self, complaint: str) -> None:
        if not any(part in complaint for part in self.allowed):
            self.complaints.append(complaint)


def executable() -> str | None:
    """The Chromium on this machine."""
    named = os.environ.get("SCALESEG_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for one test file: longer, its event loop would stand in the way of other files' `asyncio.run`."""
    path = executable()
    if path is None:
        pytest.skip(HOW)
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install pytest-playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def seen() -> Seen:
    """What this test's pages did; `seen.allowed.append("400")` for what it provokes."""
    return Seen()


@pytest.fixture
def visit(chromium: Any, seen: Seen) -> Iterator[Callable[..., Any]]:
    """`visit(address, **options)` opens a page in a context of its own (viewport, color_scheme, offline, ...).

    At the end of the test no page may have written an error or a warning to its console, thrown anything, or asked for
    anything outside its own origin.
    """
    contexts = []

    def open_page(address: str, **options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", seen.console)
        page.on("pageerror", lambda error: seen.note(f"thrown: {error}"))
        page.on("request", lambda request: _same_origin(request.url, address) or seen.note(f"asked {request.url}"))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    if seen.complaints:
        pytest.fail("the page did what no page may: " + "; ".join(seen.complaints), pytrace=False)


def _same_origin(url: str, address: str) -> bool:
    """A `data:` or `blob:` address is the page's own; so is a page from the disk itself, but nothing beside it."""
    asked, own = urlsplit(url), urlsplit(address)
    if asked.scheme in ("data", "blob"):
        return True
    if own.scheme == "file":
        return url.split("#")[0] == address.split("#")[0]
    return (asked.scheme, asked.netloc) == (own.scheme, own.netloc)
