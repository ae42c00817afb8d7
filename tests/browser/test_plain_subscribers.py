"""Pages without our client: what the browser itself brings along."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.servers import Server

from .tab import new_channel, publish

pytestmark = pytest.mark.browser

SUBSCRIBE = {
    "websocket": """([channel]) => { window.got = []
        const url = `ws://${location.host}/message-bus/any/ws?${channel}=0&format=raw`
        new WebSocket(url).onmessage = ({ data }) => got.push(data) }""",
    "eventsource": """([channel]) => { window.got = []
        new EventSource(`/message-bus/any/sse?${channel}=0&format=raw`).onmessage = ({ data }) => got.push(data) }""",
    "named events": """([channel]) => { window.got = []
        const source = new EventSource(`/message-bus/any/sse?${channel}=0&events=channel&format=raw`)
        source.addEventListener(channel, ({ data }) => got.push(data)) }""",
    "iframe": """([channel]) => { window.got = []
        addEventListener("message", ({ data, origin }) => {
            if (origin === location.origin) got.push(...data.filter((m) => m.channel === channel).map((m) => m.data)) })
        const frame = document.createElement("iframe")
        frame.src = `/message-bus/any/iframe?${channel}=0`
        document.body.append(frame) }""",
}


@pytest.mark.parametrize("by", SUBSCRIBE)
def test_a_page_subscribes_by_what_the_browser_has(server: Server, page: Page, by: str) -> None:
    channel = new_channel()
    publish(server, channel, ["kept </script>"])
    page.goto(f"{server.url}/hello")
    page.evaluate(SUBSCRIBE[by], [channel])
    page.wait_for_function("got.length === 1", timeout=60_000)
    publish(server, channel, ["<b>live</b>"])
    page.wait_for_function("got.length === 2", timeout=60_000)
    assert page.evaluate("got") == ["kept </script>", "<b>live</b>"]
