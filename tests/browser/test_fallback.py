"""What a browser does where a transport does not get through: every message arrives all the same."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.chromium import PageErrors
from tests.fixtures_servers import Proxy
from tests.servers import Server

from .conftest import NewTab
from .tab import BROKEN, HELD, Tab, new_channel, publish

pytestmark = pytest.mark.browser

SILENT_WEBSOCKET = """
    window.WebSocket = class { constructor() { this.readyState = 0; } send() {} close() {} };
"""
SILENT_EVENTSOURCE = """
    window.EventSource = class { constructor() { this.readyState = 0; } close() {} };
"""
NO_WEBSOCKET = "delete window.WebSocket;"
NO_EVENTSOURCE = "delete window.EventSource;"


def tell(server: Server, tab: Tab, expected: str, channel: str) -> None:
    """What is published while the client still looks for a way arrives, and so does what comes later."""
    publish(server, channel, range(10))
    tab.wait_for_state("connected")
    publish(server, channel, range(10, 20))
    tab.wait_until("name => MessageBus.transport === name", expected)
    publish(server, channel, range(20, 30))
    tab.expect(range(30))
    assert tab.transport == expected
    assert tab.gaps() == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(NO_WEBSOCKET, "eventsource", id="no-websocket"),
        pytest.param(SILENT_WEBSOCKET, "eventsource", id="websocket-never-opens"),
        pytest.param(NO_EVENTSOURCE, "websocket", id="no-eventsource"),
        pytest.param(NO_WEBSOCKET + NO_EVENTSOURCE, "streaming", id="neither"),
        pytest.param(SILENT_WEBSOCKET + SILENT_EVENTSOURCE, "streaming", id="neither-opens"),
    ],
)
def test_what_the_browser_lacks_is_passed_over(
    redis_backed_server: Server, new_tab: NewTab, script: str, expected: str
) -> None:
    channel = new_channel()
    tab = new_tab(redis_backed_server.url, channel)
    tab.page.add_init_script(script)
    tab.open(settings={}, connected=False)
    tell(redis_backed_server, tab, expected, channel)


def block(page: Page, *paths: str) -> None:
    """Let no request to these ends of the bus through."""
    for path in paths:
        if path == "ws":
            # As some filters do: it opens, and is closed at once.
            page.route_web_socket("**/ws?*", lambda socket: socket.close(code=4000))
        else:
            page.route(f"**/message-bus/*/{path}?*", lambda route: route.abort())


@pytest.mark.parametrize(
    ("blocked", "expected"),
    [(["ws"], "eventsource"), (["sse"], "websocket"), (["ws", "sse"], "streaming")],
    ids=lambda value: "+".join(value) if isinstance(value, list) else value,
)
def test_what_is_blocked_on_the_way_is_passed_over(
    redis_backed_server: Server, new_tab: NewTab, page_errors: PageErrors, blocked: list[str], expected: str
) -> None:
    page_errors.expect(BROKEN)
    channel = new_channel()
    tab = new_tab(redis_backed_server.url, channel)
    block(tab.page, *blocked)
    tab.open(settings={}, connected=False)
    tell(redis_backed_server, tab, expected, channel)


PROXIES: dict[str, tuple[dict[str, Any], str]] = {
    "passes-all-on": ({}, "websocket"),
    "no-upgrade": ({"websocket": False}, "eventsource"),
    # Its answers to the browser end with the upstream's connection, so it holds back whatever is still coming.
    "buffers": (
        {"websocket": False, "buffering": True, "honour_accel": False, "http_version": "1.0"},
        "long-polling",
    ),
    "buffers-but-for-accel": ({"websocket": False, "buffering": True, "http_version": "1.1"}, "eventsource"),
    # Compression waits for more before it writes anything.
    "compresses": ({"websocket": False, "buffering": True, "honour_accel": False, "gzip": True}, "long-polling"),
}


@pytest.mark.parametrize("name", PROXIES)
def test_a_real_proxy(
    redis_backed_server: Server, new_tab: NewTab, nginx: Proxy, page_errors: PageErrors, name: str
) -> None:
    page_errors.expect(BROKEN)
    options, expected = PROXIES[name]
    proxy = nginx(redis_backed_server.address, **options)
    channel = new_channel()
    tab = new_tab(proxy.url, channel).open(settings={}, connected=False)
    tell(redis_backed_server, tab, expected, channel)


@pytest.mark.parametrize("transport", HELD[1:])
def test_each_transport_through_a_proxy_that_buffers_streams(
    flask_server: Server, new_tab: NewTab, nginx: Proxy, page_errors: PageErrors, transport: str
) -> None:
    """Those that cannot get through alone are at least told apart from those that can: plain polls carry on."""
    page_errors.expect(BROKEN)
    proxy = nginx(flask_server.address, buffering=True, honour_accel=False, http_version="1.0", websocket=False)
    channel = new_channel()
    tab = new_tab(proxy.url, channel).open(transport, "polling", connected=False)
    tell(flask_server, tab, "long-polling" if transport == "long-polling" else "polling", channel)


@pytest.mark.parametrize("transport", HELD)
def test_a_proxy_that_cuts_what_is_silent(
    flask_server: Server, new_tab: NewTab, nginx: Proxy, page_errors: PageErrors, transport: str
) -> None:
    page_errors.expect(BROKEN)
    proxy = nginx(flask_server.address, extra="proxy_read_timeout 500ms;")
    channel = new_channel()
    tab = new_tab(proxy.url, channel).open(transport)
    publish(flask_server, channel, range(5))
    for count, cuts in ((5, 1), (10, 2)):
        tab.wait_until("cuts => states.filter(({ state }) => state === 'reconnecting').length >= cuts", cuts)
        publish(flask_server, channel, range(count, count + 5))
    tab.expect(range(15))
    assert tab.gaps() == []


def test_what_worked_is_remembered_on_the_next_page(
    redis_backed_server: Server, new_tab: NewTab, page_errors: PageErrors, nginx: Proxy
) -> None:
    page_errors.expect(BROKEN)
    proxy = nginx(redis_backed_server.address, websocket=False)
    channel = new_channel()
    tab = new_tab(proxy.url, channel).open(settings={})
    tab.wait_until("() => MessageBus.transport === 'eventsource'")
    sockets: list[str] = []
    tab.page.on("websocket", lambda socket: sockets.append(socket.url))
    tab.open(settings={})
    tab.wait_until("() => MessageBus.transport === 'eventsource'")
    assert sockets == []
