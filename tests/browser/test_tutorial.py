"""The tutorial's app: its own tests pass, and its bell rings in a browser, behind several workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.fixtures_servers import ServeApp

ROOT = Path(__file__).resolve().parent.parent.parent
BELL = ROOT / "examples" / "bell"

pytestmark = pytest.mark.browser


def test_the_tests_of_the_tutorials_app_pass() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    result = subprocess.run(command, cwd=BELL, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.redis
def test_the_bell_rings_for_what_another_process_announces(
    serve_app: ServeApp, page: Page, redis_url: str, tmp_path: Path
) -> None:
    settings = {"MESSAGEBUS_URL": redis_url, "FLASK_DATABASE": str(tmp_path / "bell.sqlite")}
    server = serve_app("serve", "wsgi:app", cwd=BELL, workers=2, env=settings, ready="/login")

    def flask(*arguments: str) -> None:
        command = [sys.executable, "-m", "flask", "--app", "bell", *arguments]
        subprocess.run(command, cwd=BELL, env=server.env, check=True, timeout=60)

    flask("init-db")
    page.goto(server.url)
    page.get_by_label("Name").fill("grace")
    page.get_by_label("Password").fill("grace")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#bell")).to_be_visible()
    page.wait_for_function("MessageBus.state === 'connected'")

    flask("notify", "grace", "The backup has finished")
    expect(page.locator("#unread")).to_have_text("1")
    expect(page.locator("#notifications li")).to_have_text(["The backup has finished"])

    page.locator("#bell").click()
    expect(page.locator("#unread")).to_have_text("")
