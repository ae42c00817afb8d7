"""Pages that follow all channels which begin alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.servers import Server

from .tab import APP, TRANSPORTS, Tab, new_channel, publish

pytestmark = pytest.mark.browser

FOLLOW = """() => { window.news = []
    MessageBus.subscribe("/news/*", (data, globalId, messageId, channel) => news.push([channel, data])) }"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("flask", APP, env={"MESSAGEBUS_WILDCARD_SUBSCRIPTIONS": "/news/*"}) as server:
        yield server


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_pattern_brings_the_messages_of_its_channels_on_every_transport(
    server: Server, page: Page, transport: str
) -> None:
    tab = Tab(page, server.url, new_channel()).open(transport)
    tab.evaluate(FOLLOW)
    tab.wait_until("() => MessageBus.diagnostics().channels['/news/*'] >= 0")
    publish(server, "/news/a", ["one"])
    publish(server, "/newsletter", ["for others"])
    publish(server, "/news/b", ["two"])
    tab.wait_until("() => news.length >= 2")
    assert tab.evaluate("news") == [["/news/a", "one"], ["/news/b", "two"]]
    assert tab.gaps() == []
