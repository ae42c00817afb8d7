"""Pages that show who is there, on servers with two workers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.clients import request
from tests.redis_server import RedisServer
from tests.servers import Server

from .tab import QUICK, TRANSPORTS

pytestmark = pytest.mark.browser

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def rooms(browsers_redis: RedisServer) -> Iterator[Server]:
    env = {
        "MESSAGEBUS_URL": browsers_redis.url,
        "MESSAGEBUS_PRESENCE_GRACE": "2",
        "MESSAGEBUS_PRESENCE_MAX_MEMBERS": "4",
        "POLL_SECONDS": "2",
    }
    with Server("serve", "tests.apps.presence:app", env=env, workers=2) as server:
        yield server


def shows(page: Page, text: str) -> None:
    expect(page.locator("p")).to_have_text(text)


def events(page: Page) -> list[str]:
    found: list[str] = page.evaluate("events")
    return found


def test_pages_on_any_transport_show_who_comes_and_goes(rooms: Server, context: BrowserContext) -> None:
    browser = context.browser
    assert browser is not None
    with contextlib.ExitStack() as stack:

        def enter(name: str, transport: str) -> Page:
            person = browser.new_context()
            stack.callback(person.close)
            person.add_cookies([{"name": "user", "value": name, "url": rooms.url}])
            page = person.new_page()
            settings = quote(json.dumps({**QUICK, "transports": [transport]}))
            page.goto(f"{rooms.url}/?settings={settings}")
            return page

        pages = {transport: enter("ann", transport) for transport in TRANSPORTS}
        for page in pages.values():
            shows(page, "1 here: Ann")
        bob = enter("bob", "websocket")
        for page in [*pages.values(), bob]:
            shows(page, "2 here: Ann, Bob")
        bob.reload()
        shows(bob, "2 here: Ann, Bob")
        bob.close()
        for page in pages.values():
            shows(page, "1 here: Ann")
            assert events(page)[-2:] == ["bob joined", "bob left"]
        for number in range(4):
            with request(rooms.url, "POST", "/join", json.dumps({"channel": "/rooms/7", "id": number}).encode(), JSON):
                pass
        for page in pages.values():
            shows(page, "5 here: many")
