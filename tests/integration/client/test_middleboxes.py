"""The Python client behind boxes that let connections open and then misbehave."""

from __future__ import annotations

import pytest

from messagebus import Client
from messagebus.client import ClientMessage
from tests.eventually import eventually
from tests.middlebox import Middlebox
from tests.servers import Server

from .conftest import QUICK, follows, publish


def test_a_websocket_that_opens_and_stays_mute_is_left_for_eventsource(
    server: Server, channel: str, got: list[ClientMessage]
) -> None:
    states: list[str | None] = []
    with Middlebox(server.port) as box:
        box.mute = True
        client = Client(
            box.url,
            first_chunk_timeout=2.0,
            on_state_change=lambda state, info: states.append(info.transport),
            **QUICK,
        )
        with client:
            client.subscribe(channel, got.append, 0)
            publish(server, channel, *range(3))
            eventually(lambda: len(got) == 3)
            eventually(lambda: client.stats.transport == "eventsource")
            assert "websocket" not in states, "it never was connected over it"
            assert box.websockets == 1


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "quiet"])
def test_a_websocket_that_dies_moments_after_it_has_opened_is_left_after_a_few(
    busy: bool, server: Server, channel: str, got: list[ClientMessage]
) -> None:
    with Middlebox(server.port) as box, Client(box.url, **QUICK) as client:
        box.resets_after = 0.1
        client.subscribe(channel, got.append)
        eventually(follows(client, channel))
        sent = 0

        def is_left() -> bool:
            nonlocal sent
            if busy:
                publish(server, channel, sent)
                sent += 1
            return client.stats.transport == "eventsource"

        eventually(is_left, interval=0.03)
        assert box.websockets <= 4
        publish(server, channel, sent)
        eventually(lambda: len(got) == sent + 1)
    assert [one.data for one in got] == list(range(sent + 1))


def test_where_every_answer_is_late_the_best_transport_is_used_all_the_same(
    server: Server, channel: str, got: list[ClientMessage]
) -> None:
    with Middlebox(server.port) as box, Client(box.url, first_chunk_timeout=0.3, **QUICK) as client:
        box.delay = 0.6
        client.subscribe(channel, got.append, 0)
        publish(server, channel, 1)
        eventually(lambda: client.stats.transport == "websocket")
        eventually(lambda: got)


def test_a_better_transport_is_tried_beside_the_one_in_use_which_loses_nothing(
    server: Server, channel: str, got: list[ClientMessage]
) -> None:
    with Middlebox(server.port) as box, Client(box.url, first_chunk_timeout=0.3, **QUICK) as client:
        box.mute = True
        client.subscribe(channel, got.append, 0)
        eventually(lambda: client.stats.transport == "eventsource")
        reconnects, handshakes = client.stats.reconnects, box.websockets
        client._selector._upgrade_at = 0.0  # five minutes have passed
        client.retry()
        eventually(lambda: box.websockets > handshakes)
        publish(server, channel, "while it is tried")
        eventually(lambda: len(got) == 1)
        assert (client.stats.transport, client.stats.reconnects) == ("eventsource", reconnects)
        box.mute = False

        def takes_over() -> bool:
            client._selector._upgrade_at = 0.0
            client.retry()
            return client.stats.transport == "websocket"

        eventually(takes_over, interval=0.5)  # a busy machine may not answer within the short timeout at once
        publish(server, channel, "after it")
        eventually(lambda: len(got) == 2)
        assert client.stats.reconnects == reconnects
