"""The hooks in pages as people build them: the demo's, with the frameworks of npm in place of the CDN's."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.chromium import PageErrors
from tests.fixtures_servers import ServeApp
from tests.servers import Server

from .tab import new_channel, publish

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "node_modules"
FILES = {
    "https://unpkg.com/vue@3/dist/vue.esm-browser.prod.js": MODULES / "vue/dist/vue.esm-browser.prod.js",
    "https://unpkg.com/alpinejs@3/dist/cdn.min.js": MODULES / "alpinejs/dist/cdn.min.js",
    "https://unpkg.com/htmx.org@2/dist/htmx.min.js": MODULES / "htmx.org/dist/htmx.min.js",
}
FRAMEWORKS = ("react", "vue", "alpine", "htmx")
BROKEN = r"ERR_|WebSocket connection"


@pytest.fixture(scope="module")
def react(tmp_path_factory: pytest.TempPathFactory) -> str:
    """React and its DOM part as one ES module: in development, so that StrictMode does what it does there."""
    folder = tmp_path_factory.mktemp("react")
    (folder / "all.js").write_text('export * as React from "react"; export * as Client from "react-dom/client";')
    esbuild = [MODULES / ".bin/esbuild", folder / "all.js", "--bundle", "--format=esm", f"--outfile={folder}/out.js"]
    define = "--define:process.env.NODE_ENV='development'"
    subprocess.run([*map(str, esbuild), define], check=True, capture_output=True, env={"NODE_PATH": str(MODULES)})
    return (folder / "out.js").read_text()


@pytest.fixture
def frameworks(page: Page, react: str) -> Page:
    """A page to which the CDN is the clone's node_modules."""
    names = "StrictMode, createElement, useEffect, useRef, useState, useSyncExternalStore"
    ours = {
        "https://esm.sh/all.js": react,
        "https://esm.sh/react@19": f'import {{ React }} from "/all.js"; export const {{ {names} }} = React;',
        "https://esm.sh/react-dom@19/client?external=react": (
            'import { Client } from "/all.js"; export const { createRoot } = Client;'
        ),
    }

    def answer(route: Route) -> None:
        url = route.request.url
        body = ours.get(url) or FILES[url].read_text()
        route.fulfill(body=body, content_type="text/javascript", headers={"Access-Control-Allow-Origin": "*"})

    page.route(re.compile(r"^https://(esm\.sh|unpkg\.com)/"), answer)
    return page


@pytest.fixture
def notes(serve_app: ServeApp) -> Server:
    return serve_app("serve", "demo.frameworks:app", ready="/message-bus/static/messagebus.js")


def add(server: Server, *texts: str) -> None:
    for text in texts:
        body = urllib.parse.urlencode({"text": text}).encode()
        with urllib.request.urlopen(f"{server.url}/notes", body, timeout=30) as response:
            assert response.status == 204


def shown(page: Page) -> list[str]:
    return page.locator("#notes li").all_inner_texts()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_message_is_shown_once_and_in_order(notes: Server, frameworks: Page, name: str) -> None:
    frameworks.goto(f"{notes.url}/{name}")
    expect(frameworks.locator("messagebus-status")).to_have_attribute("state", "connected")
    add(notes, *(f"note {number}" for number in range(30)))
    expect(frameworks.locator("#notes li")).to_have_count(30)
    assert shown(frameworks) == [f"note {number}" for number in range(30)]
    assert frameworks.evaluate("MessageBus.diagnostics().attempts") == 1


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_what_is_published_between_page_and_script_is_not_missed(notes: Server, frameworks: Page, name: str) -> None:
    held: list[Route] = []
    hold = re.compile(r"/static/messagebus-(react|vue)\.mjs$|/static/messagebus-(alpine|htmx)\.js$")
    frameworks.route(hold, lambda route: held.append(route))
    frameworks.goto(f"{notes.url}/{name}", wait_until="commit")
    while not held:  # it ends: by the limit that each test has
        frameworks.wait_for_timeout(25)
    add(notes, "between")
    held[0].continue_()
    expect(frameworks.locator("#notes li")).to_have_text(["between"])


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_markup_in_a_note_is_text(notes: Server, frameworks: Page, name: str) -> None:
    frameworks.goto(f"{notes.url}/{name}")
    expect(frameworks.locator("messagebus-status")).to_have_attribute("state", "connected")
    add(notes, "<img src=x onerror=alert(1)>")
    expect(frameworks.locator("#notes li")).to_have_text(["<img src=x onerror=alert(1)>"])


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_channel_is_left_with_the_element(notes: Server, frameworks: Page, name: str) -> None:
    frameworks.goto(f"{notes.url}/{name}")
    expect(frameworks.locator("messagebus-status")).to_have_attribute("state", "connected")
    leave = {
        "react": "",
        "vue": "document.getElementById('root').__vue_app__.unmount()",
        "alpine": "document.getElementById('notes').remove()",
        "htmx": "htmx.swap(document.getElementById('notes'), '<p></p>', { swapStyle: 'outerHTML' })",
    }[name]
    if name == "react":
        # The page has one root; another of ours on the same channel is put in and taken out again.
        frameworks.evaluate("""async () => {
            const { createElement } = await import("react");
            const { createRoot } = await import("react-dom/client");
            const { useChannel } = await import("/message-bus/static/messagebus-react.mjs");
            const place = document.body.appendChild(document.createElement("div"));
            const Other = () => (useChannel("/other", () => {}), null);
            const root = createRoot(place);
            root.render(createElement(Other));
            await new Promise((done) => setTimeout(done, 300));
            window.followed = Object.keys(MessageBus.diagnostics().channels);
            root.unmount();
        }""")
        assert frameworks.evaluate("window.followed") == ["/notes", "/other"]
        frameworks.wait_for_function("() => !('/other' in MessageBus.diagnostics().channels)")
        return
    frameworks.evaluate(leave)
    frameworks.wait_for_function("() => !('/notes' in MessageBus.diagnostics().channels)")
    expect(frameworks.locator("messagebus-status")).to_have_attribute("state", "idle")


def test_a_fragment_that_htmx_swaps_for_another_misses_nothing(notes: Server, frameworks: Page) -> None:
    frameworks.goto(f"{notes.url}/htmx")
    expect(frameworks.locator("messagebus-status")).to_have_attribute("state", "connected")
    fragment = '<ul id="notes" hx-ext="messagebus" mb-subscribe="/notes" mb-swap="beforeend"></ul>'
    for round_ in range(5):
        add(notes, f"before {round_}")
        expect(frameworks.locator("#notes li")).to_have_text([f"before {round_}"])
        swap = "htmx.swap(document.getElementById('notes'), fragment, { swapStyle: 'outerHTML' })"
        frameworks.evaluate(f"(fragment) => {swap}", fragment)
        add(notes, f"after {round_}")
        expect(frameworks.locator("#notes li")).to_have_text([f"after {round_}"])
        frameworks.evaluate(f"(fragment) => {swap}", fragment)
    assert frameworks.evaluate("MessageBus.diagnostics().attempts") == 1


def test_a_message_can_be_kept_from_being_swapped(notes: Server, frameworks: Page) -> None:
    frameworks.goto(f"{notes.url}/htmx")
    expect(frameworks.locator("messagebus-status")).to_have_attribute("state", "connected")
    frameworks.evaluate("""() => document.body.addEventListener("mb:message", (event) => {
        if (event.detail.data.text === "secret") event.preventDefault();
    })""")
    add(notes, "one", "secret", "two")
    expect(frameworks.locator("#notes li")).to_have_text(["one", "two"])


def test_the_status_says_how_it_goes_and_offers_to_try_again(
    notes: Server, frameworks: Page, page_errors: PageErrors
) -> None:
    page_errors.expect(BROKEN)
    frameworks.goto(f"{notes.url}/htmx")
    status = frameworks.locator("messagebus-status")
    expect(status.get_by_role("status")).to_have_text("connected")
    expect(status.get_by_role("button")).to_be_hidden()
    frameworks.evaluate("MessageBus.minPollInterval = 30000")
    notes.kill()
    expect(status.get_by_role("status")).to_have_text(re.compile(r"^reconnecting in \d+ s$"))
    expect(status.get_by_role("button", name="retry")).to_be_visible()
    notes.start()
    frameworks.evaluate("MessageBus.minPollInterval = 100")
    status.get_by_role("button", name="retry").click()
    expect(status.get_by_role("status")).to_have_text("connected")
    frameworks.evaluate("document.querySelector('messagebus-status').removeAttribute('always'); MessageBus.retry()")
    assert json.loads(frameworks.evaluate("JSON.stringify(MessageBus.state)")) == "connected"


def test_the_sse_extension_of_htmx_swaps_named_events(redis_backed_server: Server, page: Page) -> None:
    channel = new_channel()
    htmx = (MODULES / "htmx.org/dist/htmx.min.js").read_text()
    extension = (MODULES / "htmx-ext-sse/dist/sse.min.js").read_text()
    query = urllib.parse.urlencode({channel: 0, "events": "channel", "format": "data"})
    html = (
        f"<!doctype html><body><script>{htmx}</script><script>{extension}</script>"
        f'<div hx-ext="sse" sse-connect="/message-bus/htmx/sse?{query.replace("&", "&amp;")}">'
        f'<ul sse-swap="{channel}" hx-swap="beforeend"></ul></div>'
    )
    page.route("**/with-sse", lambda route: route.fulfill(body=html, content_type="text/html"))
    publish(redis_backed_server, channel, ["<li>kept</li>"])
    page.goto(f"{redis_backed_server.url}/with-sse")
    expect(page.locator("li")).to_have_text(["kept"])
    publish(redis_backed_server, channel, ["<li>live</li>"])
    expect(page.locator("li")).to_have_text(["kept", "live"])
