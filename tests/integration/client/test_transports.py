"""The Python client on each transport: positions, channels, callbacks, and falling back."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from messagebus import Bus, Client
from messagebus.client import ClientMessage, StateInfo, Stats
from messagebus.client.types import ConnectionState, Position, Transport
from tests.eventually import eventually
from tests.fixtures_servers import Proxy, ServeApp
from tests.servers import Server

from .conftest import APP, QUICK, SECRET, TRANSPORTS, follows, publish

# --- each transport ---


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_grants_open_protected_channels(transport: Transport, server: Server, channel: str) -> None:
    protected = channel.replace("/", "/protected-")
    later = protected + "-later"
    publish(server, protected, 1)
    publish(server, later, 2)
    bus = Bus(url="memory://", secret_key=SECRET)
    got: list[object] = []
    refused: list[int | None] = []
    with Client(
        server.url,
        transports=(transport,),
        grants=[bus.grant(protected)],
        on_state_change=lambda state, info: refused.append(info.status),
        **QUICK,
    ) as client:
        client.subscribe(protected, lambda message: got.append(message.data), 0)
        eventually(lambda: got == [1])
        client.grants = (*client.grants, bus.grant(later))
        client.subscribe(later, lambda message: got.append(message.data), 0)
        eventually(lambda: got == [1, 2])
    assert 403 not in refused


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_transport_brings_the_backlog_and_then_what_comes(
    transport: Transport, server: Server, channel: str, got: list[ClientMessage]
) -> None:
    publish(server, channel, 1, "zwei ä\u2028", {"three": [3]})
    with Client(server.url, transports=(transport,), **QUICK) as client:
        client.subscribe(channel, got.append, 0)
        eventually(lambda: len(got) == 3)
        publish(server, channel, None, "x" * 200_000)
        eventually(lambda: len(got) == 5)
        assert client.stats.transport == transport
        assert client.stats.messages == 5
        assert client.stats.bytes > 200_000
    assert [one.data for one in got] == [1, "zwei ä\u2028", {"three": [3]}, None, "x" * 200_000]
    assert [one.message_id for one in got] == [1, 2, 3, 4, 5]
    assert [one.global_id for one in got] == sorted({one.global_id for one in got})
    assert {one.channel for one in got} == {channel}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_transport_takes_every_kind_of_position(
    transport: Transport, server: Server, channel: str, got: list[ClientMessage]
) -> None:
    publish(server, channel, *range(1, 6))
    third: list[ClientMessage] = []
    with Client(server.url, transports=(transport,), **QUICK) as client:
        client.subscribe(channel, third.append, 2)
        eventually(lambda: len(third) == 3)
    after_third = f"@{third[0].global_id}"
    cases: list[tuple[Position, list[int]]] = [(-1, []), (-3, [4, 5]), (3, [4, 5]), (after_third, [4, 5]), (99, [])]
    for position, expected in cases:
        got.clear()
        with Client(server.url, transports=(transport,), **QUICK) as client:
            client.subscribe(channel, got.append, position)
            eventually(lambda client=client: client.positions[channel] == 5)  # type: ignore[misc]
            eventually(lambda expected=expected: len(got) == len(expected))  # type: ignore[misc]
        assert [one.data for one in got] == expected


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_channels_come_and_go_while_it_runs(
    transport: Transport, server: Server, channel: str, got: list[ClientMessage]
) -> None:
    other: list[ClientMessage] = []
    with Client(server.url, transports=(transport,), **QUICK) as client:
        client.subscribe(channel, got.append, 0)
        publish(server, channel, 1)
        eventually(lambda: len(got) == 1)
        publish(server, f"{channel}/b", 1)
        client.subscribe(f"{channel}/b", other.append, 0)
        eventually(lambda: len(other) == 1)
        assert client.unsubscribe(channel, got.append)
        assert not client.unsubscribe(channel, got.append)
        publish(server, channel, 2)
        publish(server, f"{channel}/b", 2)
        eventually(lambda: len(other) == 2)
        client.subscribe(channel, got.append, -2)  # again, from the message it has missed
        eventually(lambda: len(got) == 2)
    assert [one.message_id for one in got] == [1, 2]


def test_more_channels_than_a_request_line_holds_are_followed(server: Server, channel: str) -> None:
    names = [f"{channel}/{'ä' * 40}/{number}" for number in range(60)]
    got: list[str] = []
    with Client(server.url) as client:
        for name in names:
            client.subscribe(name, lambda message: got.append(message.channel), 0)
        for name in names:
            publish(server, name, 1)
        eventually(lambda: len(got) == 60)
        assert sorted(got) == sorted(names)
        assert client.stats.transport == "websocket"


def test_many_subscribes_in_a_row_make_few_requests(server: Server, channel: str) -> None:
    with Client(server.url, transports=("streaming",)) as client:
        client.subscribe(channel, print, 0)
        eventually(lambda: client.stats.state == "connected")
        for number in range(100):
            client.subscribe(f"{channel}/{number}", print, 0)
        got: list[ClientMessage] = []
        client.subscribe(f"{channel}/last", got.append, 0)
        publish(server, f"{channel}/last", 1)
        eventually(lambda: got)
        assert client.stats.requests < 10


def test_headers_say_who_it_is(server: Server, channel: str) -> None:
    for transport in TRANSPORTS:
        got: list[Any] = []
        with Client(server.url, transports=(transport,), headers={"X-User": "ann"}, **QUICK) as client:
            client.subscribe(channel, got.append, 0)
            name = f"for ann over {transport}"
            publish(server, channel, "for bob", user_ids=["bob"])
            publish(server, channel, name, user_ids=["ann"])
            publish(server, channel, "for this client", client_ids=[client.client_id])
            eventually(lambda: [one.data for one in got][-2:] == [name, "for this client"])  # noqa: B023
            assert "for bob" not in [one.data for one in got]


# --- callbacks ---


def test_callbacks_are_called_in_order_in_one_thread_and_may_raise(
    server: Server, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[tuple[str, int, threading.Thread]] = []
    with Client(server.url) as client:

        @client.subscribe(channel, last_id=0)
        def first(message: ClientMessage) -> None:
            calls.append(("first", message.message_id, threading.current_thread()))
            raise RuntimeError("on purpose")

        client.subscribe(
            channel, lambda message: calls.append(("second", message.message_id, threading.current_thread()))
        )
        publish(server, channel, 1, 2)
        eventually(lambda: len(calls) == 4)
        assert client.stats.requests == 1
    assert [call[:2] for call in calls] == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]
    assert len({call[2] for call in calls}) == 1
    assert sum("on purpose" in (record.exc_text or "") for record in caplog.records) == 2


def test_a_callback_may_subscribe_unsubscribe_and_stop(server: Server, channel: str) -> None:
    got: list[str] = []
    client = Client(server.url)

    def last(message: ClientMessage) -> None:
        got.append("last")
        client.stop()

    def first(message: ClientMessage) -> None:
        got.append("first")
        client.unsubscribe(channel, first)
        client.unsubscribe(channel, never)
        client.subscribe(f"{channel}/b", last, 0)

    def never(message: ClientMessage) -> None:
        got.append("never")

    publish(server, channel, 1, 2)
    publish(server, f"{channel}/b", 1, 2)
    client.subscribe(channel, first, 0)
    client.subscribe(channel, never)
    client.start()
    eventually(lambda: client.stats.state == "stopped" and got)
    assert got == ["first", "last"]
    client.start()  # what a stop left unread comes with the next start
    eventually(lambda: got == ["first", "last", "last"] and client.stats.state == "stopped")
    assert client.positions == {f"{channel}/b": 2}


def test_stop_and_start_go_on_where_they_were(server: Server, channel: str, got: list[ClientMessage]) -> None:
    client = Client(server.url, transports=("long-polling",))
    client.subscribe(channel, got.append, 0)
    for number in range(5):
        client.start()
        client.start()
        eventually(lambda number=number: len(got) == number)  # type: ignore[misc]
        publish(server, channel, number)
        eventually(lambda number=number: len(got) == number + 1)  # type: ignore[misc]
        client.stop()
        client.stop()
    assert [one.data for one in got] == list(range(5))


def test_states_are_told(server: Server, channel: str) -> None:
    told: list[tuple[ConnectionState, StateInfo]] = []
    client = Client(server.url, on_state_change=lambda state, info: told.append((state, info)))
    client.subscribe(channel, print)
    assert client.stats == Stats("stopped", None, 0, 0, 0, 0, None)
    with client:
        eventually(follows(client, channel))
    assert told == [("connecting", StateInfo()), ("connected", StateInfo("websocket")), ("stopped", StateInfo())]


# --- falling back ---


def test_a_proxy_without_upgrade_leaves_eventsource(
    server: Server, nginx: Proxy, channel: str, got: list[ClientMessage]
) -> None:
    proxy = nginx(server.address, websocket=False)
    with Client(proxy.url) as client:
        client.subscribe(channel, got.append, 0)
        publish(server, channel, 1)
        eventually(lambda: len(got) == 1)
        eventually(lambda: client.stats.transport == "eventsource")
        publish(server, channel, 2)
        eventually(lambda: len(got) == 2)
        client.stop()
        requests = client.stats.requests
        client.start()
        publish(server, channel, 3)
        eventually(lambda: len(got) == 3)
        assert (client.stats.transport, client.stats.requests) == ("eventsource", requests + 1)  # remembered


def test_a_proxy_that_buffers_leaves_long_polling(
    server: Server, nginx: Proxy, channel: str, got: list[ClientMessage]
) -> None:
    proxy = nginx(server.address, websocket=False, buffering=True, honour_accel=False, http_version="1.0")
    with Client(proxy.url, first_chunk_timeout=0.5) as client:
        client.subscribe(channel, got.append, 0)
        eventually(lambda: client.stats.transport == "long-polling")
        publish(server, channel, 1)
        eventually(lambda: len(got) == 1)


def test_a_server_that_keeps_its_sockets_is_followed_without_websocket(
    serve_app: ServeApp, channel: str, got: list[ClientMessage]
) -> None:
    server = serve_app("waitress", APP)
    with Client(server.url) as client:
        client.subscribe(channel, got.append, 0)
        eventually(lambda: client.stats.transport == "eventsource")
        publish(server, channel, 1)
        eventually(lambda: len(got) == 1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_pattern_is_followed_through_a_break_on_every_transport(
    transport: Transport, server: Server, got: list[ClientMessage]
) -> None:
    below = f"/below-{transport}/"
    publish(server, f"{below}a", "before")
    with Client(server.url, transports=(transport,), **QUICK) as client:
        client.subscribe(f"{below}*", got.append)
        eventually(lambda: client.positions[f"{below}*"] != -1)
        publish(server, f"{below}a", 1)
        publish(server, f"{below}b", 2)
        eventually(lambda: len(got) == 2)
        positions = client.positions
        epoch = client.epoch
    publish(server, f"{below}b", 3)
    with Client(server.url, transports=(transport,), epoch=epoch, **QUICK) as client:
        client.subscribe(f"{below}*", got.append, positions[f"{below}*"])
        eventually(lambda: len(got) == 3)
        publish(server, f"{below}c", 4)
        eventually(lambda: len(got) == 4)
    assert [(message.channel[len(below) :], message.data) for message in got] == [
        ("a", 1),
        ("b", 2),
        ("b", 3),
        ("c", 4),
    ]
