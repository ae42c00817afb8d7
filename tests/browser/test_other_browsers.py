"""The stories of transports and of outages in Firefox and in WebKit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from messagebus import Bus
from tests.fixtures_servers import ServeApp
from tests.middlebox import Middlebox
from tests.redis_server import RedisServer
from tests.servers import Server

from .other_browsers import BROWSERS, RemotePage, missing
from .tab import APP, TRANSPORTS, Tab, new_channel, publish

pytestmark = pytest.mark.browser


@pytest.fixture(params=BROWSERS, scope="module")
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemotePage]:
    """A page in each of the browsers in turn."""
    if (package := missing(request.param)) is not None:
        pytest.fail(f"{request.param} cannot be tried: {package} is not installed")
    with BROWSERS[request.param](tmp_path_factory.mktemp(request.param)) as page:
        yield page


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_arrive_once_and_in_order(redis_backed_server: Server, page: RemotePage, transport: str) -> None:
    channel = new_channel()
    tab = Tab(page, redis_backed_server.url, channel).open(transport)
    publish(redis_backed_server, channel, ["Grüße", "\r\n|\r\n", "👋", *range(50)])
    tab.expect(["Grüße", "\r\n|\r\n", "👋", *range(50)])
    assert tab.transport == transport
    assert tab.gaps() == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_killed_server_loses_nothing_that_the_store_keeps(
    serve_app: ServeApp, browsers_redis: RedisServer, page: RemotePage, transport: str
) -> None:
    server = serve_app("serve", APP, env={"MESSAGEBUS_URL": browsers_redis.url})
    channel = new_channel()
    with contextlib.closing(Bus(url=browsers_redis.url)) as elsewhere:
        tab = Tab(page, server.url, channel).open(transport)
        publish(server, channel, range(10))
        tab.wait_for_count(10)
        server.kill()
        tab.wait_for_state("reconnecting")
        for number in range(10, 30):
            elsewhere.publish(channel, number)
        server.start()
        tab.wait_for_count(30)
        publish(server, channel, range(30, 40))
        tab.expect(range(40))
    assert tab.gaps() == []
    assert tab.transport == transport


def test_the_page_reports_a_store_that_was_reset(serve_app: ServeApp, page: RemotePage) -> None:
    server = serve_app("serve", APP)
    channel = new_channel()
    tab = Tab(page, server.url, channel).open("websocket")
    publish(server, channel, range(5))
    tab.wait_for_count(5)
    server.kill()
    tab.wait_for_state("reconnecting")
    server.start()
    tab.wait_for_state("connected")
    publish(server, channel, ["new"])
    tab.expect([*range(5), "new"])
    assert [gap["gap"]["after"] if "gap" in gap else gap["after"] for gap in tab.gaps()] == [None]


def test_a_websocket_that_stays_mute_is_left_for_eventsource(redis_backed_server: Server, page: RemotePage) -> None:
    channel = new_channel()
    with Middlebox(redis_backed_server.port) as box:
        box.mute = True
        tab = Tab(page, box.url, channel).open(*TRANSPORTS)
        publish(redis_backed_server, channel, range(10))
        tab.expect(range(10))
        assert tab.transport == "eventsource"
