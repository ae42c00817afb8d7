"""Pages in Chromium: the time to the first message, and the time back after the server was away."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Callable

from playwright.sync_api import Browser, Page, sync_playwright

from .. import machine
from ..context import Context
from ..processes import Process, free_port
from ..results import Bound, Row, Section

PAGES = 10
OUTAGES = (1, 10, 30)
"""Seconds that the server is away."""
MOST = 1.5
"""Seconds, as the median, for a page of ours to be back."""
GIVE_UP = 60.0
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]

Start = Callable[[], Process]


def run(context: Context) -> Section:
    pages = context.some(PAGES) // (2 if context.quick else 1)
    outages = OUTAGES[:1] if context.quick else OUTAGES
    ours, theirs = free_port(), free_port()
    serve = [sys.executable, "-m", "messagebus", "serve", "bench.servers.pages:app", "--bind", f"127.0.0.1:{ours}"]
    node = shutil.which("node")
    assert node, "node is missing; make bench installs it"

    def start_ours() -> Process:
        return _started([*serve, "--url", context.redis.url()], ours)

    def start_theirs() -> Process:
        return _started([node, "bench/servers/socketio_page.js", str(theirs)], theirs)

    contenders: dict[str, tuple[Start, str]] = {
        "messagebus": (start_ours, f"http://127.0.0.1:{ours}/?client=messagebus"),
        "message-bus-client (npm), same server": (start_ours, f"http://127.0.0.1:{ours}/?client=message-bus-client"),
        "socket.io-client": (start_theirs, f"http://127.0.0.1:{theirs}/"),
    }
    rows = []
    machine.pin(None)  # the browser is a contender here, and takes its turn on both cores
    with sync_playwright() as playwright:
        program = next(path for name in CHROMIUM if (path := shutil.which(name)))
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        for name, (start, url) in contenders.items():
            row = Row(name)
            row.add(**_measure(browser, start, url, pages, outages))
            context.say(f"{name}: {', '.join(f'{key} {values[0]:.3g}' for key, values in row.runs.items())}")
            rows.append(row)
        browser.close()
    machine.pin(machine.LOAD_CORE)
    machine.give_way()
    figures = {"first": "ms from the page's request to the first message"}
    figures |= {f"after_{seconds}": f"s to be back after {seconds} s away" for seconds in outages}
    section = Section(f"{pages} pages in Chromium, medians", figures, rows, reference="socket.io-client")
    section.bounds = [
        Bound(f"back after {seconds} s away", section.median("messagebus", f"after_{seconds}"), most=MOST)
        for seconds in outages
    ]
    return section


def _started(command: list[str], port: int) -> Process:
    process = Process(command, None)
    process.wait_for(port)
    return process


def _measure(browser: Browser, start: Start, url: str, count: int, outages: tuple[int, ...]) -> dict[str, float]:
    process = start()
    pages = [browser.new_context().new_page() for _ in range(count)]
    try:
        firsts = [_first_message(page, url) for page in pages]
        figures = {"first": statistics.median(firsts)}
        for seconds in outages:
            time.sleep(11.0)  # long enough for each connection to count as a good one
            process.kill()
            time.sleep(seconds)
            process = start()
            up = time.time() * 1000
            figures[f"after_{seconds}"] = statistics.median([_back(page, up) for page in pages])
        return figures
    finally:
        for page in pages:
            page.context.close()
        process.stop()


def _first_message(page: Page, url: str) -> float:
    page.goto(url)
    page.wait_for_function("arrivals.length > 0", timeout=GIVE_UP * 1000)
    first: float = page.evaluate("arrivals[0] - performance.timeOrigin")
    return first


def _back(page: Page, up: float) -> float:
    page.wait_for_function("up => arrivals.at(-1) > up", arg=up, timeout=GIVE_UP * 1000, polling=20)
    arrived: float = page.evaluate("up => arrivals.find((at) => at > up)", up)
    return (arrived - up) / 1000
