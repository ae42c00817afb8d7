"""What stands between a page and the bus, and lets a WebSocket through by halves."""

from __future__ import annotations

import threading

import pytest

from tests.chromium import PageErrors
from tests.middlebox import Middlebox
from tests.servers import Server

from .conftest import NewTab
from .tab import BROKEN, TRANSPORTS, new_channel, publish

pytestmark = pytest.mark.browser


def test_a_websocket_that_opens_and_stays_mute_is_left_and_the_next_page_does_without(
    redis_backed_server: Server, new_tab: NewTab, page_errors: PageErrors
) -> None:
    page_errors.expect(BROKEN)
    channel = new_channel()
    with Middlebox(redis_backed_server.port) as box:
        box.mute = True
        tab = new_tab(box.url, channel).open(settings={}, connected=False)
        publish(redis_backed_server, channel, range(5))
        tab.wait_for_count(5)
        tab.wait_for_state("connected")
        assert tab.transport == "eventsource"
        assert "websocket" not in tab.evaluate("states.map(({ transport }) => transport)")
        tab.page.reload()
        tab.wait_for_state("connected")
        assert (tab.transport, box.websockets) == ("eventsource", 1)


def test_a_websocket_that_dies_moments_after_it_has_opened_is_left_however_busy_the_channel(
    redis_backed_server: Server, new_tab: NewTab, page_errors: PageErrors
) -> None:
    page_errors.expect(BROKEN)
    channel = new_channel()
    stop = threading.Event()
    published: list[int] = []

    def publish_all_the_time() -> None:
        while not stop.wait(0.1):
            publish(redis_backed_server, channel, [len(published)])
            published.append(len(published))

    with Middlebox(redis_backed_server.port) as box:
        box.resets_after = 0.3
        thread = threading.Thread(target=publish_all_the_time)
        tab = new_tab(box.url, channel).open()
        thread.start()
        try:
            tab.wait_until("() => MessageBus.transport === 'eventsource' && MessageBus.state === 'connected'")
        finally:
            stop.set()
            thread.join()
        tab.expect(range(len(published)))
        assert box.websockets < 6
    assert tab.gaps() == []


def test_a_better_transport_takes_over_and_nothing_is_late_lost_or_doubled(
    redis_backed_server: Server, new_tab: NewTab, page_errors: PageErrors
) -> None:
    page_errors.expect(BROKEN)
    channel = new_channel()
    with Middlebox(redis_backed_server.port) as box:
        box.resets_after = 0.0
        tab = new_tab(box.url, channel).open(*TRANSPORTS)
        assert tab.transport == "eventsource"
        handshakes = box.websockets
        box.resets_after = None
        told = len(tab.evaluate("states"))
        # As if the five minutes were over.
        tab.evaluate(
            "localStorage['messagebus:/'] = JSON.stringify({ websocket: { left: Date.now() - 2000, gap: 1000 } })"
        )
        count = 0
        while tab.transport != "websocket" and count < 1000:
            publish(redis_backed_server, channel, [count])
            tab.wait_for_count(count + 1)
            count += 1
        publish(redis_backed_server, channel, [count])
        tab.expect(range(count + 1))
        assert tab.transport == "websocket"
        assert box.websockets == handshakes + 1
        assert [state["state"] for state in tab.evaluate("states")[told:]] == ["connected"]


def test_a_line_that_is_slow_for_every_connection_is_no_blocked_one(
    redis_backed_server: Server, new_tab: NewTab, page_errors: PageErrors
) -> None:
    page_errors.expect(BROKEN)
    channel = new_channel()
    with Middlebox(redis_backed_server.port) as box:
        box.delay = 4.0
        tab = new_tab(box.url, channel).open(settings={}, connected=False)
        tab.wait_for_state("connected")
        publish(redis_backed_server, channel, range(10))
        tab.expect(
            range(10),
        )
        publish(redis_backed_server, channel, range(10, 20))
        tab.expect(range(20))
        assert tab.transport in ("websocket", "eventsource")
