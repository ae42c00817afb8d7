"""A real browser: Chromium through Playwright, the one that the system has. Nothing is downloaded.

While the browser is up, the main thread counts as running an asyncio loop (Playwright's own): ``asyncio.run`` does not
work in a test of the same run, except in a thread.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    BrowserType,
    ConsoleMessage,
    Page,
    WebError,
    expect,
    sync_playwright,
)

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",  # its sandbox does not work for root, nor in most containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000
"""For anything to come about on a page. A busy machine is no fault."""


class PageErrors:
    """What went wrong in the pages of a test: uncaught exceptions, and errors on the console."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        # Chromium asks for it by itself.
        self._expected: list[re.Pattern[str]] = [re.compile(r"/favicon\.ico\)$")]

    def expect(self, pattern: str) -> None:
        """Errors that match the regular expression, anywhere in them, do not fail the test; none has to come."""
        self._expected.append(re.compile(pattern))

    def unexpected(self) -> list[str]:
        return [error for error in self.seen if not any(pattern.search(error) for pattern in self._expected)]

    def watch(self, context: BrowserContext) -> None:
        context.on("weberror", self._uncaught)
        context.on("console", self._console)

    def _uncaught(self, error: WebError) -> None:
        self.seen.append(f"uncaught: {error.error}")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.seen.append(f"console: {message.text} ({message.location.get('url', '')})")


def launch(chromium: BrowserType, home: Path, **options: Any) -> Browser:
    """Chromium, without a window. ``options`` are those of Playwright's ``launch``."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.fail(f"no Chromium: none of {', '.join(PROGRAMS)} is on the PATH")
    # Whatever it keeps beside its profile (crash reports, fonts) stays out of the home directory.
    environment: dict[str, str | float | bool] = {
        **os.environ,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "XDG_CACHE_HOME": str(home),
    }
    return chromium.launch(executable_path=program, args=ARGUMENTS, env=environment, **options)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser, one for all tests."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright, launch(playwright.chromium, tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture
def page_errors() -> PageErrors:
    """What the test's pages complained about; ``page_errors.expect(...)`` allows some of it."""
    return PageErrors()


@pytest.fixture
def context(browser: Browser, page_errors: PageErrors) -> Iterator[BrowserContext]:
    """A fresh profile, for several pages of one test; fails the test at its end where one had an unexpected error."""
    fresh = browser.new_context()
    fresh.set_default_timeout(PATIENCE_MS)
    page_errors.watch(fresh)
    yield fresh
    fresh.close()
    assert not page_errors.unexpected(), "the page had errors that the test does not expect"


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """One page in a fresh profile."""
    return context.new_page()
