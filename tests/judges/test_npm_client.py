"""``message-bus-client`` from npm, unmodified, in Chromium against our servers; and our client in the same stories.

The npm client is used with jQuery, as its documentation has it. Ours is restricted to polls here.
"""

from __future__ import annotations

import pytest

from tests.chromium import PageErrors
from tests.clients import LongPolling, request
from tests.servers import SERVERS, Server

from ..proxies import CuttingProxy
from .conftest import NewListener
from .listener import APP, BROKEN, CLIENTS, MODES, Listener, new_channel, publish


def test_new_messages_arrive_in_order_and_are_asked_for_in_the_way_the_settings_say(
    server: Server, listener: Listener
) -> None:
    channel = new_channel()
    publish(server, channel, "old")
    listener.open(server.url).follow(channel)
    listener.wait_for_position(channel, 1)
    publish(server, channel, *range(20))
    publish(server, channel, {"text": "Grüße 🎉 \r\n|\r\n \r\n||\r\n", "none": None})
    listener.expect([*range(20), {"text": "Grüße 🎉 \r\n|\r\n \r\n||\r\n", "none": None}])
    messages = listener.messages()
    assert [message["messageId"] for message in messages] == list(range(2, 23))
    assert [message["globalId"] for message in messages] == sorted({message["globalId"] for message in messages})
    last = listener.polls[-1]
    assert last.url.endswith("?dlp=t") == (listener.mode == "polling")
    assert (last.headers.get("dont-chunk") == "true") == (listener.mode != "chunked")
    if listener.mode == "chunked":
        answer = last.response()
        assert answer is not None
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_the_backlog_comes_first_from_where_the_page_says(server: Server, listener: Listener) -> None:
    first_of = {0: 1, 3: 4, -2: 5, -10: 1}
    channels = {last_id: new_channel() for last_id in first_of}
    for channel in channels.values():
        publish(server, channel, *range(1, 6))
    listener.open(server.url).follow_all({channel: last_id for last_id, channel in channels.items()})
    expected = {channels[last_id]: list(range(first, 6)) for last_id, first in first_of.items()}
    listener.wait_until("count => received.length >= count", sum(map(len, expected.values())))
    assert listener.by_channel() == expected
    for channel in channels.values():
        publish(server, channel, 6, 7)
        expected[channel] += [6, 7]
    listener.wait_until("count => received.length >= count", sum(map(len, expected.values())))
    assert listener.by_channel() == expected


def test_a_status_moves_the_position_on_where_there_is_nothing_to_deliver(server: Server, listener: Listener) -> None:
    new, withheld, ahead = new_channel(), new_channel(), new_channel()
    publish(server, new, *range(5))
    publish(server, ahead, *range(3))
    publish(server, withheld, "for another", client_ids=["somebody-else"])
    # Together: once our client knows the store's epoch, a position ahead of the store means more to the server.
    listener.open(server.url).follow_all({new: None, withheld: 0, ahead: 99})
    listener.wait_for_position(new, 5)
    listener.wait_for_position(ahead, 3)
    listener.wait_for_position(withheld, 1)
    own_id = listener.call("MessageBus.clientId")
    publish(server, withheld, "for this page", client_ids=[own_id])
    publish(server, ahead, "new")
    listener.wait_until("() => received.length === 2")
    assert {(m["channel"], m["messageId"], m["data"]) for m in listener.messages()} == {
        (withheld, 2, "for this page"),
        (ahead, 4, "new"),
    }


def test_what_is_not_kept_moves_no_position_and_costs_nothing_that_is(server: Server, listener: Listener) -> None:
    channel = new_channel()
    publish(server, channel, "old")
    listener.open(server.url).follow(channel)
    listener.wait_for_position(channel, 1)
    for number in range(5):
        publish(server, channel, "typing", transient=True)
        publish(server, channel, number)
        listener.wait_for_position(channel, number + 2)
    kept = [message for message in listener.messages() if message["data"] != "typing"]
    assert [(message["messageId"], message["data"]) for message in kept] == [(n + 2, n) for n in range(5)]


def test_several_channels_come_and_go(server: Server, listener: Listener) -> None:
    room, other, late = new_channel(), new_channel(), new_channel()
    one, two = f"{room}/one", f"{room}/two"
    listener.open(server.url).follow_all({one: 0, two: 0, other: 0})
    for channel in (one, two, other):
        publish(server, channel, f"first on {channel}")
    listener.wait_until("() => received.length === 3")
    assert listener.call(f"leave({one!r})") is True
    assert listener.call(f"leave({one!r})") is False
    publish(server, one, "nobody follows it")
    publish(server, two, f"second on {two}")
    listener.wait_until("() => received.length === 4")
    assert listener.call(f"MessageBus.unsubscribe('{room}/*')") is True
    listener.follow(late, 0)
    publish(server, two, "nobody follows it")
    publish(server, other, f"second on {other}")
    publish(server, late, f"first on {late}")
    listener.wait_until("() => received.length === 6")
    assert listener.by_channel() == {
        one: [f"first on {one}"],
        two: [f"first on {two}", f"second on {two}"],
        other: [f"first on {other}", f"second on {other}"],
        late: [f"first on {late}"],
    }


def test_what_comes_during_a_pause_is_delivered_after_it(server: Server, listener: Listener) -> None:
    channel = new_channel()
    listener.open(server.url).follow(channel, 0)
    publish(server, channel, 1)
    listener.expect([1])
    listener.call("MessageBus.pause()")
    assert listener.call("MessageBus.status()") == "paused"
    with LongPolling.connect(server.url, {channel: 1}) as other:
        publish(server, channel, 2, 3)
        # When it has reached somebody else it is on its way to the page, if it has not arrived.
        assert other.data(1) == [2]
    assert listener.data() == [1]
    listener.call("MessageBus.resume()")
    assert listener.call("MessageBus.status()") == "started"
    publish(server, channel, 4)
    if listener.client == "ours":
        listener.expect([1, 2, 3, 4])
    else:
        # A poll that it makes during a pause asks from where it was before, and brings the same once more.
        listener.wait_until("() => received.some(({ data }) => data === 4)")
        assert list(dict.fromkeys(listener.data())) == [1, 2, 3, 4]
    listener.call("MessageBus.stop()")
    assert listener.call("MessageBus.status()") == "stopped"
    publish(server, channel, 5)
    listener.call("MessageBus.start()")
    listener.wait_until("() => received.some(({ data }) => data === 5)")
    assert list(dict.fromkeys(listener.data())) == [1, 2, 3, 4, 5]
    assert listener.client == "npm" or len(listener.data()) == 5


def test_a_thousand_messages_arrive_once_and_in_order_while_the_connection_is_cut_at_random(
    server: Server, listener: Listener, page_errors: PageErrors
) -> None:
    page_errors.expect(BROKEN)
    channel = new_channel()
    with CuttingProxy(server.port, seed=7, least=200, most=20_000) as proxy:
        listener.open(proxy.url).follow(channel, 0)
        publish(server, channel, 0)
        listener.expect([0])
        proxy.cutting = True
        for start in range(1, 1000, 37):
            publish(server, channel, *range(start, min(start + 37, 1000)))
            listener.wait_until("count => received.length >= count", max(1, start - 60))
        listener.wait_until("() => received.length >= 1000")
        proxy.cutting = False
        assert proxy.cuts >= 3
        publish(server, channel, 1000)
        listener.expect(range(1001))
    listener.page.close()


@pytest.mark.parametrize("mode", ["chunked", "long-polling"])
def test_a_client_whose_poll_ends_before_its_time_asks_again_at_once(
    server: Server, new_listener: NewListener, client: str, mode: str
) -> None:
    listener = new_listener(client, mode)
    channel = new_channel()
    # What is to it a poll that has brought nothing would have it wait for a minute. A stream counts as one for the npm
    # client, whatever it has brought: that asks again when so much time has passed since the stream began.
    interval = 1000 if (client, mode) == ("npm", "chunked") else 60_000
    listener.open(server.url, callbackInterval=interval, backgroundCallbackInterval=interval).follow(channel)
    listener.wait_for_position(channel, 0)
    for number in range(3):
        publish(server, channel, number)  # it comes by the poll that is there to be ended
        listener.expect(range(number + 1))
        listener.page.wait_for_timeout(1000)
        before = len(listener.polls)
        with request(server.url, "POST", "/turn-away") as response:
            assert response.status == 200
        for _ in range(200):
            listener.page.wait_for_timeout(100)
            if len(listener.polls) > before:
                break
        assert len(listener.polls) > before, "it has not come back"


@pytest.mark.parametrize("kind", [kind for kind in SERVERS if kind not in ("flask", "serve")])
def test_every_client_in_every_mode_gets_the_backlog_and_what_follows_on_each_server(
    kind: str, new_listener: NewListener
) -> None:
    with Server(kind, APP) as server:
        channel, new = new_channel(), new_channel()
        publish(server, channel, *range(10))
        publish(server, new, "old")
        listeners = [new_listener(client, mode) for client in CLIENTS for mode in MODES]
        for listener in listeners:
            listener.open(server.url).follow_all({channel: -6, new: None})
        for listener in listeners:
            listener.expect(list(range(5, 10)))
            listener.wait_for_position(new, 1)
        publish(server, channel, *range(10, 15))
        for listener in listeners:
            listener.expect(list(range(5, 15)))
        for listener in listeners:
            listener.page.close()
        assert "Traceback" not in server.output(), server.output()[-5000:]
