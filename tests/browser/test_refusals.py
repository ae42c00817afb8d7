"""Channels that are refused by themselves, and one identity on every transport: the client and the server together."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext

from tests.chromium import PageErrors
from tests.fixtures_servers import ServeApp
from tests.servers import Server

from .conftest import NewTab
from .tab import APP, BROKEN, HELD, TRANSPORTS, new_channel, publish

pytestmark = pytest.mark.browser

LISTEN = "void MessageBus.on('refused', (one) => (window.refused ??= []).push(one))"


@pytest.mark.parametrize("transport", [*TRANSPORTS, None])
def test_a_channel_that_is_refused_takes_no_other_along(
    redis_backed_server: Server, new_tab: NewTab, transport: str | None
) -> None:
    allowed, secret = new_channel(), f"/secret{new_channel()}"
    tab = new_tab(redis_backed_server.url, allowed, secret)
    tab.open(*([transport] if transport else []), stopped="yes", connected=False)
    tab.evaluate(LISTEN)
    tab.evaluate("MessageBus.start()")
    tab.wait_for_state("connected")
    tab.wait_until("() => window.refused?.length === 1")
    told = tab.evaluate("window.refused[0]")
    assert (told["channel"], told["code"], told["retry"]) == (secret, "forbidden", False)
    publish(redis_backed_server, secret, ["for friends"])
    publish(redis_backed_server, allowed, range(20))
    tab.expect(range(20))
    # It is still so on the connections that follow.
    tab.evaluate("MessageBus.stop(); MessageBus.start()")
    publish(redis_backed_server, allowed, range(20, 40))
    tab.expect(range(40))


@pytest.mark.parametrize("transport", [*TRANSPORTS, None])
def test_a_channel_that_is_subscribed_to_later_is_refused_by_itself_as_well(
    redis_backed_server: Server, new_tab: NewTab, transport: str | None
) -> None:
    first, later, secret = new_channel(), new_channel(), f"/secret{new_channel()}"
    tab = new_tab(redis_backed_server.url, first).open(*([transport] if transport else []))
    tab.evaluate(LISTEN)
    follow = "channel => void MessageBus.subscribe(channel, (data) => received.push({ channel, data }), 0)"
    for channel in (later, secret):
        tab.evaluate(follow, channel)
    tab.wait_until("() => window.refused?.length === 1")
    publish(redis_backed_server, later, ["later"])
    tab.wait_for_count(1)
    publish(redis_backed_server, first, ["first"])
    tab.expect(["later", "first"])


def test_after_a_login_retry_brings_what_was_refused(
    redis_backed_server: Server, new_tab: NewTab, context: BrowserContext
) -> None:
    secret = f"/secret{new_channel()}"
    tab = new_tab(redis_backed_server.url, new_channel(), secret).open()
    tab.evaluate(LISTEN)
    publish(redis_backed_server, secret, range(5))
    context.add_cookies([{"name": "friend", "value": "yes", "url": redis_backed_server.url}])
    # A WebSocket has the cookies that it was opened with.
    tab.evaluate("MessageBus.stop(); MessageBus.start()")
    tab.wait_until("() => MessageBus.state === 'connected' && !MessageBus.diagnostics().refused.length")
    publish(redis_backed_server, secret, range(5, 10))
    tab.wait_for_count(5)


@pytest.mark.parametrize("transport", HELD)
def test_many_channels_with_long_names_are_all_followed(
    redis_backed_server: Server, new_tab: NewTab, transport: str
) -> None:
    channels = [f"{new_channel()}/{'x' * 100}/{number}" for number in range(150)]
    tab = new_tab(redis_backed_server.url).open(stopped="yes", connected=False)
    tab.evaluate(
        """([channels, transport]) => {
            for (const channel of channels)
                MessageBus.subscribe(channel, (data) => received.push({ channel, data }), 0);
            MessageBus.start({ transports: [transport, "streaming"] });
        }""",
        [channels, transport],
    )
    for channel in channels:
        publish(redis_backed_server, channel, [channel])
    tab.wait_for_count(150)
    assert sorted(tab.data()) == sorted(channels)
    # EventSource has no body, and does not fit into an address.
    assert tab.transport == ("streaming" if transport == "eventsource" else transport)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_bus_of_another_origin_knows_who_one_is_on_every_transport(
    serve_app: ServeApp, new_tab: NewTab, context: BrowserContext, page_errors: PageErrors, transport: str
) -> None:
    page_errors.expect(BROKEN)
    app = serve_app("flask", APP)
    origin = re.sub("127.0.0.1", "localhost", app.url)
    bus = serve_app("serve", APP, env={"MESSAGEBUS_ALLOWED_ORIGINS": origin})
    address = f"http://localhost:{urlsplit(bus.url).port}/"
    context.add_cookies([{"name": "friend", "value": "yes", "url": origin}])
    secret = f"/secret{new_channel()}"
    tab = new_tab(origin).open(stopped="yes", connected=False)
    tab.evaluate(
        """([baseUrl, channel, transport]) => {
            window.other = MessageBus.createMessageBus({ baseUrl, transports: [transport], callbackInterval: 200 });
            other.on("refused", (one) => console.error("refused", JSON.stringify(one)));
            other.subscribe(channel, (data) => received.push({ channel, data }), 0);
            other.start();
        }""",
        [address, secret, transport],
    )
    tab.wait_until("() => other.state === 'connected'")
    publish(bus, secret, ["for friends"])
    tab.expect(["for friends"])
