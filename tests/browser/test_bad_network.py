"""A network that comes and goes, and a computer that sleeps."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests import processes
from tests.bad_network import BadNetwork
from tests.chromium import PageErrors
from tests.eventually import eventually
from tests.servers import Server

from .conftest import NewTab
from .tab import BROKEN, HELD, TRANSPORTS, new_channel, publish

pytestmark = pytest.mark.browser

COUNT = 1000


@pytest.fixture
def network(redis_backed_server: Server) -> Iterator[BadNetwork]:
    with BadNetwork(redis_backed_server.port) as network:
        yield network


@pytest.mark.parametrize("transports", [*((transport,) for transport in TRANSPORTS), TRANSPORTS], ids="+".join)
def test_a_thousand_messages_through_a_connection_that_is_cut_at_random(
    redis_backed_server: Server, network: BadNetwork, new_tab: NewTab, page_errors: PageErrors, transports: list[str]
) -> None:
    page_errors.expect(BROKEN)
    channel = new_channel()
    tab = new_tab(network.url, channel).open(*transports, settings={"maxPollInterval": 100})
    network.cut_after(10_000)
    network.cut()
    for first in range(0, COUNT, 50):
        publish(redis_backed_server, channel, [f"{number}: {'x' * 50}" for number in range(first, first + 50)])
        # As fast as it gets there, so that there are many connections to be cut, and none holds everything.
        tab.wait_for_count(first - 50)
    tab.expect([f"{number}: {'x' * 50}" for number in range(COUNT)], timeout=30)
    assert [message["messageId"] for message in tab.messages()] == list(range(1, COUNT + 1))
    assert tab.gaps() == []
    assert network.cuts > 5


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_offline_and_online(
    redis_backed_server: Server, context: BrowserContext, new_tab: NewTab, page_errors: PageErrors, transport: str
) -> None:
    page_errors.expect(BROKEN)
    channel = new_channel()
    tab = new_tab(redis_backed_server.url, channel).open(transport, settings={"backgroundCallbackInterval": 60_000})
    publish(redis_backed_server, channel, range(10))
    tab.wait_for_count(10)
    context.set_offline(True)
    tab.wait_for_state("offline")
    publish(redis_backed_server, channel, range(10, 40))
    context.set_offline(False)  # it comes back at once, not after the minute that an offline page waits
    tab.wait_for_count(40)
    publish(redis_backed_server, channel, range(40, 50))
    tab.expect(range(50))
    assert tab.states() == ["connecting", "connected", "offline", "reconnecting", "connected"]


@contextlib.contextmanager
def stopped(browser: Browser) -> Iterator[None]:
    """Every process of the browser stands still meanwhile, as by the lid of a laptop: no timer, no script, no network.

    Real processes and the real clock. What else Chromium offers does not freeze: a page without a window always counts
    as visible, and a visible page runs on when its life cycle is set to ``frozen``; a virtual time that pauses pauses
    for the page's clock as well, so that there is nothing to notice.
    """
    session = browser.new_browser_cdp_session()
    info = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    (root,) = (int(process["id"]) for process in info if process["type"] == "browser")
    family = [root]
    for pid in family:
        family += processes.children(pid)
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(family):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("transport", HELD)
def test_a_laptop_that_sleeps_while_its_connections_are_cut(
    redis_backed_server: Server,
    network: BadNetwork,
    browser: Browser,
    new_tab: NewTab,
    page_errors: PageErrors,
    transport: str,
) -> None:
    page_errors.expect(BROKEN)
    channel = new_channel()
    tab = new_tab(network.url, channel).open(transport)
    publish(redis_backed_server, channel, range(10))
    tab.wait_for_count(10)
    with stopped(browser):
        publish(redis_backed_server, channel, range(10, 200))
        network.cut()
        publish(redis_backed_server, channel, range(200, 400))
    tab.wait_for_count(400)
    publish(redis_backed_server, channel, range(400, 410))
    tab.expect(range(410))
    assert tab.gaps() == []
    assert tab.transport == transport


@pytest.fixture
def network_without_keep_alive(flask_server: Server) -> Iterator[BadNetwork]:
    """Flask's development server ends each connection after its answer: what is connected is the bus's alone.

    Otherwise the browser would try idle connections first, which are as dead as the one in use."""
    with BadNetwork(flask_server.port) as network:
        yield network


@pytest.mark.parametrize("transport", HELD)
def test_a_laptop_sleeps_while_its_connections_silently_vanish(
    flask_server: Server, network_without_keep_alive: BadNetwork, new_tab: NewTab, transport: str
) -> None:
    """Nothing tells the page but its clock, which has jumped; it does not wait for a heartbeat that cannot come.

    The clock is Playwright's, whose jump is that of a laptop that is opened: each timer is late, and comes once."""
    channel = new_channel()
    tab = new_tab(network_without_keep_alive.url, channel)
    tab.page.clock.install()
    tab.open(transport)
    publish(flask_server, channel, range(10))
    tab.wait_for_count(10)
    if transport == "long-polling":
        eventually(network_without_keep_alive.is_waiting)  # each batch ends a poll, and the next one comes after it
    network_without_keep_alive.vanish()
    publish(flask_server, channel, range(10, 300))
    network_without_keep_alive.come_back()
    assert len(tab.data()) == 10
    tab.page.clock.fast_forward(20_000)  # too short for any timeout of the client's
    tab.wait_for_count(300)
    publish(flask_server, channel, range(300, 310))
    tab.expect(range(310))
    assert tab.transport == transport
    assert tab.states()[:2] == ["connecting", "connected"]


@pytest.mark.parametrize("transport", HELD)
def test_a_connection_that_falls_silent_is_given_up(
    flask_server: Server, network_without_keep_alive: BadNetwork, new_tab: NewTab, transport: str
) -> None:
    """The clock goes on as ever, and says nothing: the heartbeats are missing."""
    channel = new_channel()
    tab = new_tab(network_without_keep_alive.url, channel)
    tab.page.clock.install()
    tab.open(transport)
    publish(flask_server, channel, range(10))
    tab.wait_for_count(10)
    if transport == "long-polling":
        eventually(network_without_keep_alive.is_waiting)  # each batch ends a poll, and the next one comes after it
    network_without_keep_alive.vanish()
    publish(flask_server, channel, range(10, 20))
    network_without_keep_alive.come_back()
    assert len(tab.data()) == 10
    tab.page.clock.run_for(75_000)  # heartbeatTimeout, and the next look at the clock
    tab.wait_for_count(20)
    publish(flask_server, channel, range(20, 30))
    tab.expect(range(30))


def test_a_page_that_was_away_longer_than_the_backlog_reaches_is_told(
    flask_server: Server, new_tab: NewTab, page_errors: PageErrors, context: BrowserContext
) -> None:
    page_errors.expect(BROKEN)
    channel = new_channel()
    tab = new_tab(flask_server.url, channel).open("websocket")
    publish(flask_server, channel, range(1, 11))
    tab.wait_for_count(10)
    context.set_offline(True)
    tab.wait_for_state("offline")
    publish(flask_server, channel, range(11, 1531))
    context.set_offline(False)
    tab.wait_until("() => received.at(-1)?.messageId === 1530")
    ids = [message["messageId"] for message in tab.messages()]
    first = ids[10]
    assert 1530 - 1250 < first <= 531, "what the process still has beyond the backlog is given as well"
    assert ids == [*range(1, 11), *range(first, 1531)]
    assert tab.gaps() == [{"channel": channel, "after": 10, "before": first, "messagesBefore": 10}]
