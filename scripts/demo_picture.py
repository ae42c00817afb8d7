"""Takes the README's pictures of the demo, in the light and in the dark: ``python -m scripts.demo_picture``.

Needs the package's test extra and Chromium. Two people talk in a room; one of them comes back from a broken connection.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "images"
PORT = 8765
URL = f"http://127.0.0.1:{PORT}/r/kitchen"

BEFORE = [
    ("Ada", "Morning! The kettle is back from the repair."),
    ("Grace", "Finally. Did anybody order the oat milk?"),
    ("Ada", "Two cartons, they come at noon."),
]
MEANWHILE = [
    ("Grace", "The milk is here, four cartons."),
    ("Grace", "And somebody sent a cake!"),
]


def take(browser: Browser, scheme: Literal["light", "dark"]) -> None:
    reader = browser.new_context(
        color_scheme=scheme, viewport={"width": 1200, "height": 780}, device_scale_factor=1.5, locale="en-GB"
    )
    reader.add_init_script("localStorage.setItem('chat:name', 'Ada')")
    page = reader.new_page()
    page.goto(URL)
    page.get_by_text("Connected").first.wait_for()
    for name, text in BEFORE:
        _say(browser, page, name, text)
    reader.set_offline(True)
    page.evaluate("MessageBus.stop()")
    for name, text in MEANWHILE:
        _say(browser, page, name, text, shown=False)
    reader.set_offline(False)
    page.evaluate("MessageBus.start()")
    page.get_by_text(MEANWHILE[-1][1]).wait_for()
    _say(browser, page, "Ada", "I was in the lift, without a signal. Leave me a piece!")
    page.get_by_text("Connected").first.wait_for()
    time.sleep(1)  # the marks fade in
    page.screenshot(path=PICTURES / f"demo-{scheme}.png")
    reader.close()


def _say(browser: Browser, page: Page, name: str, text: str, shown: bool = True) -> None:
    if name == "Ada":
        box = page.locator("#text")
        box.fill(text)
        box.press("Enter")
    else:
        data = f'{{"name": "{name}", "text": "{text}", "author": "0123456789abcdef"}}'.encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{URL}/messages", data, headers), timeout=5).close()
    if shown:
        page.get_by_text(text).wait_for()


def main() -> None:
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        command = [sys.executable, "-m", "messagebus", "serve", "demo.app:app", "--bind", f"127.0.0.1:{PORT}"]
        server = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "MESSAGEBUS_URL": "memory://"})
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(URL, timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            with sync_playwright() as playwright:
                executable = shutil.which("chromium")
                browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
                take(browser, scheme)
                browser.close()
        finally:
            server.terminate()
            server.wait(10)


if __name__ == "__main__":
    main()
