"""Each transport, forced, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext

from tests.fixtures_servers import ServeApp
from tests.servers import Server

from .conftest import NewTab
from .tab import APP, TRANSPORTS, Tab, new_channel, publish

pytestmark = pytest.mark.browser

TEXTS = ["Grüße", "\r\n|\r\n", "a|b", "\u2028", "👋" * 50, {"nested": [None, True, 1.5]}, "x" * 1_000_000]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_arrive_in_order_with_their_ids(server: Server, new_tab: NewTab, transport: str) -> None:
    channel, other = new_channel(), new_channel()
    tab = new_tab(server.url, channel, other).open(transport)
    publish(server, channel, range(50))
    tab.wait_for_count(50)
    publish(server, other, ["elsewhere"])
    tab.expect([*range(50), "elsewhere"])
    assert tab.transport == transport
    assert tab.states() == ["connecting", "connected"]
    messages = tab.messages()
    assert [message["messageId"] for message in messages] == [*range(1, 51), 1]
    assert [message["channel"] for message in messages] == [channel] * 50 + [other]
    first = messages[0]["globalId"]
    assert [message["globalId"] for message in messages] == list(range(first, first + 51))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_any_text_arrives_as_it_was(redis_backed_server: Server, new_tab: NewTab, transport: str) -> None:
    channel = new_channel()
    tab = new_tab(redis_backed_server.url, channel).open(transport)
    for count, text in enumerate(TEXTS, 1):
        publish(redis_backed_server, channel, [text])
        tab.wait_for_count(count)
    tab.expect(TEXTS)
    assert tab.states() == ["connecting", "connected"]  # each at the first attempt


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_channels_come_and_go_while_it_is_connected(
    redis_backed_server: Server, new_tab: NewTab, transport: str
) -> None:
    first, second = new_channel(), new_channel()
    publish(redis_backed_server, second, ["one", "two"])
    tab = new_tab(redis_backed_server.url, first).open(transport)
    tab.evaluate(
        """channel => window.leave = MessageBus.subscribe(
            channel, (data, globalId, messageId) => received.push({ channel, data, globalId, messageId }), 1
        )""",
        second,
    )
    tab.expect(["two"])
    publish(redis_backed_server, first, ["on the first"])
    publish(redis_backed_server, second, ["three"])
    tab.wait_for_count(3)
    assert (tab.data(first), tab.data(second)) == (["on the first"], ["two", "three"])
    assert tab.evaluate("leave()") is True
    publish(redis_backed_server, second, ["after it left"])
    publish(redis_backed_server, first, ["the end"])
    tab.wait_for_count(4)
    assert (tab.data(first), tab.data(second)) == (["on the first", "the end"], ["two", "three"])


def test_two_tabs_get_everything(server: Server, new_tab: NewTab) -> None:
    channel = new_channel()
    tabs = [new_tab(server.url, channel).open(transport) for transport in ("websocket", "eventsource")]
    publish(server, channel, range(20))
    for tab in tabs:
        tab.expect(range(20))
    assert tabs[0].client_id != tabs[1].client_id


def test_two_profiles_get_everything(server: Server, new_tab: NewTab, context: BrowserContext) -> None:
    channel = new_channel()
    browser = context.browser
    assert browser is not None
    with browser.new_context() as other:
        tabs = [new_tab(server.url, channel).open(), Tab(other.new_page(), server.url, channel).open()]
        publish(server, channel, range(20))
        for tab in tabs:
            tab.expect(range(20))
        assert tabs[0].client_id != tabs[1].client_id


def test_a_page_publishes_on_every_transport_where_the_bus_lets_it(serve_app: ServeApp, new_tab: NewTab) -> None:
    server = serve_app("flask", APP, env={"MESSAGEBUS_CLIENT_PUBLISH": "/chat*"})
    for transport in TRANSPORTS:
        channel = new_channel()
        tab = new_tab(server.url, channel).open(transport)
        code = "channel => Promise.all([1, 2, 3].map((data) => MessageBus.publish(channel, data)))"
        given = tab.evaluate(code, channel)
        assert given == [{"message_id": number} for number in (1, 2, 3)], (transport, given, tab.data(channel))
        tab.expect([1, 2, 3])
        code = "channel => MessageBus.publish(channel, 1).then(() => 'ok', error => error.code)"
        if transport == "websocket":  # of a request that is refused every browser tells its console
            assert tab.evaluate(code, "/other") == "forbidden"
