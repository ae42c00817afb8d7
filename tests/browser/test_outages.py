"""The server and the store die and come back while a page listens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from messagebus import Bus
from tests.bad_network import BadNetwork
from tests.chromium import PageErrors
from tests.eventually import eventually
from tests.fixtures_servers import ServeApp
from tests.redis_server import RedisServer

from .conftest import NewTab
from .tab import APP, BROKEN, HELD, TRANSPORTS, new_channel, publish

pytestmark = pytest.mark.browser


@pytest.fixture
def elsewhere(browsers_redis: RedisServer) -> Iterator[Bus]:
    """Another process's bus on the same Redis."""
    bus = Bus(url=browsers_redis.url)
    yield bus
    bus.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_killed_server_loses_nothing_that_the_store_keeps(
    serve_app: ServeApp,
    browsers_redis: RedisServer,
    elsewhere: Bus,
    new_tab: NewTab,
    page_errors: PageErrors,
    transport: str,
) -> None:
    page_errors.expect(BROKEN)
    server = serve_app("serve", APP, env={"MESSAGEBUS_URL": browsers_redis.url})
    channel = new_channel()
    tab = new_tab(server.url, channel).open(transport)
    publish(server, channel, range(10))
    tab.wait_for_count(10)
    server.kill()
    tab.wait_for_state("reconnecting")
    for number in range(10, 60):
        elsewhere.publish(channel, number)
    server.start()
    tab.wait_for_count(60)
    publish(server, channel, range(60, 70))
    tab.expect(range(70))
    assert tab.gaps() == []
    assert tab.states() == ["connecting", "connected", "reconnecting", "connected"]
    assert tab.transport == transport


@pytest.mark.parametrize("transport", HELD)
def test_a_killed_server_takes_the_memory_store_with_it_and_the_page_is_told(
    serve_app: ServeApp, new_tab: NewTab, page_errors: PageErrors, transport: str
) -> None:
    page_errors.expect(BROKEN)
    server = serve_app("flask", APP)
    channel = new_channel()
    tab = new_tab(server.url, channel).open(transport)
    publish(server, channel, range(10))
    tab.wait_for_count(10)
    server.kill()
    tab.wait_for_state("reconnecting")
    server.start()
    tab.wait_for_state("connected")
    publish(server, channel, ["new", "and new"])
    tab.expect([*range(10), "new", "and new"])
    assert [message["messageId"] for message in tab.messages()[10:]] == [1, 2]
    assert tab.gaps() == [{"channel": channel, "after": None, "before": 1, "messagesBefore": 10}]


@pytest.mark.parametrize("transport", HELD)
def test_what_the_new_store_has_when_the_page_is_back_arrives_after_the_gap(
    serve_app: ServeApp, new_tab: NewTab, page_errors: PageErrors, transport: str
) -> None:
    page_errors.expect(BROKEN)
    server = serve_app("flask", APP)
    channel = new_channel()
    with BadNetwork(server.port) as network:
        tab = new_tab(network.url, channel).open(transport)
        publish(server, channel, range(3))
        tab.wait_for_count(3)
        network.refuse()
        server.kill()
        server.start()
        # More than the page had seen of the old store: its position would fit.
        publish(server, channel, range(100, 120))
        network.refuse(False)
        tab.expect([*range(3), *range(100, 120)])
        assert tab.gaps() == [{"channel": channel, "after": None, "before": 1, "messagesBefore": 3}]


def test_a_page_with_the_defaults_survives_a_restart(
    serve_app: ServeApp, new_tab: NewTab, page_errors: PageErrors
) -> None:
    page_errors.expect(BROKEN)
    server = serve_app("serve", APP)
    channel = new_channel()
    tab = new_tab(server.url, channel).open()
    publish(server, channel, [1])
    tab.wait_for_count(1)
    server.restart()
    eventually(lambda: tab.states()[-2:] == ["reconnecting", "connected"])
    publish(server, channel, [2])
    tab.expect([1, 2])
    assert tab.transport == "websocket"


@pytest.fixture
def durable_redis() -> Iterator[RedisServer]:
    """A Redis that keeps its data over kill -9."""
    redis = RedisServer(aof=True)
    try:
        yield redis.start()
    finally:
        redis.stop()


@pytest.mark.parametrize("transport", HELD)
def test_a_killed_redis_that_kept_its_data_loses_nothing(
    serve_app: ServeApp, durable_redis: RedisServer, new_tab: NewTab, page_errors: PageErrors, transport: str
) -> None:
    page_errors.expect(BROKEN)
    server = serve_app("serve", APP, env={"MESSAGEBUS_URL": durable_redis.url})
    channel = new_channel()
    tab = new_tab(server.url, channel).open(transport)
    assert publish(server, channel, range(10)) == list(range(1, 11))
    tab.wait_for_count(10)
    durable_redis.kill()
    assert publish(server, channel, range(10, 20)) == [None] * 10  # kept until Redis is back
    durable_redis.start()
    tab.wait_for_count(20)
    publish(server, channel, range(20, 30))
    tab.expect(range(30))
    assert [message["messageId"] for message in tab.messages()] == list(range(1, 31))
    assert tab.gaps() == []


def test_a_page_loaded_while_redis_is_gone_gets_what_comes_when_it_is_back(
    serve_app: ServeApp, durable_redis: RedisServer, new_tab: NewTab, page_errors: PageErrors
) -> None:
    page_errors.expect(BROKEN)
    server = serve_app("serve", APP, env={"MESSAGEBUS_URL": durable_redis.url, "MESSAGEBUS_STORE_TIMEOUT": "0.5"})
    channel = new_channel()
    durable_redis.kill()
    tab = new_tab(server.url, channel).open(settings={}, connected=False)
    tab.wait_until("() => states.some(({ status }) => status === 503)")
    durable_redis.start()
    tab.wait_for_state("connected")
    publish(server, channel, range(5))
    tab.expect(range(5))
