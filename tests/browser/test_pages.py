"""What a page is promised around its messages: continuity from the server's rendering, states, a clean end, CSP,
modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from messagebus import Bus
from tests.chromium import PageErrors, launch
from tests.eventually import eventually
from tests.fixtures_servers import ServeApp
from tests.redis_server import RedisServer
from tests.servers import Server

from .conftest import NewTab
from .tab import APP, BROKEN, HELD, TRANSPORTS, Tab, new_channel, publish

pytestmark = pytest.mark.browser

# Flask's development server ends every connection after its answer: what else is open is held by the bus.
IDLE = 1
"""Sockets of a server that serves nobody: the one that it listens on."""
STRICT = "default-src 'self'"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_is_published_while_the_page_is_made_arrives(server: Server, new_tab: NewTab, transport: str) -> None:
    channel = new_channel()
    tab = new_tab(server.url, channel)
    published: list[str] = []
    for turn in range(2):
        published += [f"before {turn}", f"meanwhile {turn}", f"after {turn}"]
        publish(server, channel, [f"before {turn}"])
        tab.open(transport, publish=f"meanwhile {turn}")
        tab.wait_for_count(1)
        publish(server, channel, [f"after {turn}"])
        tab.wait_until("text => received.some(({ data }) => data === text)", f"after {turn}")
        data = tab.data()
        assert data == published[-len(data) :]
        if server.workers == 1:
            assert len(data) == 2
        else:  # this worker may not yet have heard what was published through the other one
            assert len(data) >= 2
        assert tab.gaps() == []


def test_what_is_published_between_rendering_and_the_script_arrives(
    redis_backed_server: Server, browsers_redis: RedisServer, new_tab: NewTab
) -> None:
    channel = new_channel()
    bus = Bus(url=browsers_redis.url)
    tab = new_tab(redis_backed_server.url, channel)
    # The page is there, its script is still on the way.
    tab.page.route("**/browser.js", lambda route: (bus.publish(channel, "meanwhile"), route.continue_())[1])
    for turn in range(1, 5):
        tab.open()
        tab.wait_for_count(1)
        bus.publish(channel, f"after {turn}")
        tab.wait_for_count(2)
        assert tab.data()[-2:] == ["meanwhile", f"after {turn}"]
    bus.close()


def test_pages_of_two_workers_hear_a_process_elsewhere(
    redis_backed_server: Server, browsers_redis: RedisServer, new_tab: NewTab
) -> None:
    channel = new_channel()
    tabs = [new_tab(redis_backed_server.url, channel).open() for _ in range(4)]
    bus = Bus(url=browsers_redis.url)
    for number in range(100):
        bus.publish(channel, number)
    bus.close()
    for tab in tabs:
        tab.expect(range(100))


def test_states_are_told_in_order(serve_app: ServeApp, new_tab: NewTab, page_errors: PageErrors) -> None:
    page_errors.expect(BROKEN)
    server = serve_app("flask", APP)
    tab = new_tab(server.url, new_channel()).open(stopped="yes", connected=False)
    assert (tab.states(), tab.transport) == ([], None)
    server.kill()
    tab.evaluate("MessageBus.start({ maxPollInterval: 300 })")
    tab.wait_until("() => states.length > 2")
    assert tab.states() == ["connecting"]
    server.start()
    tab.wait_for_state("connected")
    tab.page.context.set_offline(True)
    tab.wait_for_state("offline")
    tab.page.context.set_offline(False)
    tab.wait_for_state("connected")
    server.kill()
    tab.wait_for_state("reconnecting")
    tab.evaluate("MessageBus.stop()")
    assert tab.states() == [
        "connecting",
        "connected",
        "offline",
        "reconnecting",
        "connected",
        "reconnecting",
        "stopped",
    ]
    assert tab.evaluate("states.at(-1).transport") is None
    assert tab.transport is None


@pytest.mark.parametrize("transport", HELD)
def test_stop_ends_the_connection_and_start_goes_on_from_there(
    serve_app: ServeApp, new_tab: NewTab, transport: str
) -> None:
    server = serve_app("flask", APP)
    channel = new_channel()
    publish(server, channel, [0])
    tab = new_tab(server.url, channel).open(transport)
    publish(server, channel, [1])
    tab.expect([1])
    eventually(lambda: server.open_sockets() == IDLE + 1, message="one connection held")
    tab.evaluate("MessageBus.stop()")
    eventually(lambda: server.open_sockets() == IDLE, message="none left")
    publish(server, channel, [2, 3])
    tab.evaluate("MessageBus.start()")
    tab.expect([1, 2, 3])
    eventually(lambda: server.open_sockets() == IDLE + 1)
    tab.page.close()
    eventually(lambda: server.open_sockets() == IDLE, message="a closed page left its connection")


def test_twenty_pages_one_after_the_other_leave_nothing(serve_app: ServeApp, new_tab: NewTab) -> None:
    server = serve_app("flask", APP)
    channel = new_channel()
    publish(server, channel, [0])
    tab = new_tab(server.url, channel)
    for turn in range(20):
        tab.open(HELD[turn % len(HELD)])
    eventually(lambda: server.open_sockets() == IDLE + 1)
    publish(server, channel, ["last"])
    tab.expect(["last"])
    tab.page.goto("about:blank")
    eventually(lambda: server.open_sockets() == IDLE)


@pytest.fixture
def browser_that_keeps_pages(browser: Browser, tmp_path: Path) -> Iterator[Browser]:
    """With a back/forward cache, as every browser of people has; Playwright's own has none."""
    with launch(browser.browser_type, tmp_path, ignore_default_args=["--disable-back-forward-cache"]) as chromium:
        yield chromium


def test_the_back_button_brings_a_page_back_with_all_that_it_missed(
    redis_backed_server: Server, browser_that_keeps_pages: Browser
) -> None:
    for transport in HELD:
        channel = new_channel()
        tab = Tab(browser_that_keeps_pages.new_page(), redis_backed_server.url, channel).open(transport)
        publish(redis_backed_server, channel, [1, 2])
        tab.expect([1, 2])
        tab.evaluate("window.addEventListener('pageshow', event => { window.kept = event.persisted; })")
        tab.page.goto(f"{redis_backed_server.url}/hello")
        publish(redis_backed_server, channel, [3, 4])
        tab.page.evaluate("history.back()")  # Playwright's go_back waits for a page that loads; this one does not
        tab.wait_until("() => window.kept")
        publish(redis_backed_server, channel, [5])
        tab.expect([1, 2, 3, 4, 5])


@pytest.mark.parametrize("transport", ["websocket", "eventsource", "long-polling"])
def test_a_strict_content_security_policy_is_enough(
    redis_backed_server: Server, new_tab: NewTab, transport: str
) -> None:
    channel = new_channel()
    tab = new_tab(redis_backed_server.url, channel).open(transport, csp=STRICT)
    publish(redis_backed_server, channel, [1])
    tab.expect([1])
    assert tab.transport == transport


def test_the_client_as_a_module(redis_backed_server: Server, new_tab: NewTab) -> None:
    channel = new_channel()
    tab = new_tab(redis_backed_server.url, channel).open(settings={}, path="/module")
    publish(redis_backed_server, channel, [1])
    tab.expect([1])
    assert tab.evaluate("imported.MessageBus === MessageBus")
    assert tab.evaluate("imported.createMessageBus().clientId !== MessageBus.clientId")


def test_two_buses_on_one_page_stay_apart(redis_backed_server: Server, new_tab: NewTab) -> None:
    channel, other = new_channel(), new_channel()
    tab = new_tab(redis_backed_server.url, channel).open()
    tab.evaluate(
        """channel => {
            window.second = MessageBus.createMessageBus({ transports: ["eventsource"] });
            window.heard = [];
            second.subscribe(channel, (data) => heard.push(data), 0);
            second.start();
        }""",
        other,
    )
    publish(redis_backed_server, channel, ["first"])
    publish(redis_backed_server, other, ["second"])
    tab.wait_until("() => heard.length === 1")
    tab.expect(["first"])
    assert tab.evaluate("heard") == ["second"]
    assert tab.evaluate("[MessageBus.transport, second.transport]") == ["websocket", "eventsource"]
