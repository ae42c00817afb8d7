"""The how-to page for Turbo, as written, with Turbo and Stimulus from npm."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.fixtures_servers import ServeApp
from tests.servers import Server

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "node_modules"
MAIN = """
import "@hotwired/turbo";
import { Application } from "@hotwired/stimulus";
import Controller from "./controller.js";
Application.start().register("bus", Controller);
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Turbo, Stimulus and the page's controller in one file."""
    blocks = re.findall(r"```js\n(.*?)```", (ROOT / "docs/how-to/turbo.md").read_text(), re.DOTALL)
    (controller,) = [block for block in blocks if "extends Controller" in block]
    folder = tmp_path_factory.mktemp("turbo")
    (folder / "controller.js").write_text(controller)
    (folder / "main.js").write_text(MAIN)
    esbuild = [MODULES / ".bin/esbuild", folder / "main.js", "--bundle", "--format=esm", f"--outfile={folder}/out.js"]
    subprocess.run([*map(str, esbuild)], check=True, capture_output=True, env={"NODE_PATH": str(MODULES)})
    return (folder / "out.js").read_text()


@pytest.fixture
def shop(serve_app: ServeApp, page: Page, script: str) -> Server:
    page.route("**/bus.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    return serve_app("serve", "tests.apps.turbo:app")


def order(shop: Server, number: int) -> None:
    with urllib.request.urlopen(f"{shop.url}/orders", str(number).encode(), timeout=30) as response:
        assert response.status == 200


def test_streams_are_rendered_once_on_every_page_over_one_connection(shop: Server, page: Page) -> None:
    page.goto(shop.url)
    shown = page.locator("#orders li")
    page.wait_for_function("MessageBus.state === 'connected'")
    page.evaluate("window.stays = true")
    order(shop, 1)
    expect(shown).to_have_text(["order 1"])
    page.get_by_role("link", name="Archive").click()
    expect(page.get_by_role("heading", name="Archive")).to_be_visible()
    expect(shown).to_have_text(["order 1"])
    order(shop, 2)
    expect(shown).to_have_text(["order 1", "order 2"])
    page.go_back()  # first from Turbo's cache, with the order and the position of that time
    expect(page.get_by_role("heading", name="Orders")).to_be_visible()
    order(shop, 3)
    expect(shown).to_have_text(["order 1", "order 2", "order 3"])
    assert page.evaluate("stays"), "it is still the first page's script"
    assert page.evaluate("MessageBus.diagnostics().attempts") == 1
