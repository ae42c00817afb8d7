"""The Python client in bad times: servers die, networks break, stores lose what they held."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

from messagebus import Bus, Client
from messagebus.client import ClientMessage, Gap
from messagebus.client.types import Transport
from tests.bad_network import BadNetwork
from tests.eventually import eventually
from tests.fixtures_servers import ServeApp
from tests.servers import Server

from .conftest import APP, QUICK, TRANSPORTS, publish, reset

# --- outages ---


@pytest.mark.redis
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_that_is_killed_and_started_again_loses_nothing(
    transport: Transport, serve_app: ServeApp, redis_url: str, channel: str, got: list[ClientMessage]
) -> None:
    server = serve_app("serve", APP, env={"MESSAGEBUS_URL": redis_url})
    gaps: list[Gap] = []
    with (
        contextlib.closing(Bus(url=redis_url)) as bus,
        Client(server.url, transports=(transport, "polling"), on_gap=gaps.append, **QUICK) as client,
    ):
        client.subscribe(channel, got.append, 0)
        bus.publish(channel, 0)
        eventually(lambda: len(got) == 1)
        server.kill()
        for number in range(1, 20):
            bus.publish(channel, number)
        eventually(lambda: client.stats.state == "reconnecting")
        server.start()
        eventually(lambda: len(got) == 20)
        bus.publish(channel, 20)
        eventually(lambda: len(got) == 21)
        assert client.stats.transport == transport
        assert client.stats.reconnects >= 1
        assert client.stats.last_error
    assert [one.message_id for one in got] == list(range(1, 22))
    assert not gaps


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_thousand_messages_arrive_once_and_in_order_over_a_network_that_is_cut_at_random(
    transport: Transport, server: Server, channel: str, got: list[ClientMessage]
) -> None:
    dice = random.Random(5)
    with (
        BadNetwork(server.port, seed=5) as network,
        Client(network.url, transports=(transport,), min_poll_interval=0.01, **QUICK) as client,
    ):
        client.subscribe(channel, got.append, 0)
        network.cut_after(20_000.0)
        for begin in range(0, 1000, 20):
            # A backlog that no connection lives long enough for would never come.
            eventually(lambda begin=begin: len(got) >= begin - 60)  # type: ignore[misc]
            publish(server, channel, *range(begin, begin + 20))
            if dice.random() < 0.2:
                network.cut()
        eventually(lambda: len(got) >= 1000)
        assert network.cuts
    assert [one.data for one in got] == list(range(1000))


# --- losses ---


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_the_backlog_no_longer_holds_is_told_before_what_it_does(
    transport: Transport, server: Server, channel: str
) -> None:
    publish(server, channel, *range(1, 11), max_backlog_size=3)
    got: list[Any] = []
    with Client(server.url, transports=(transport,), on_gap=got.append, **QUICK) as client:
        client.subscribe(channel, got.append, 2)
        eventually(lambda: len(got) == 4)
    assert got[0] == Gap(channel, 2, 8)
    assert [one.message_id for one in got[1:]] == [8, 9, 10]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_reset_store_is_reported_and_followed_from_its_beginning(
    transport: Transport, serve_app: ServeApp, channel: str
) -> None:
    server = serve_app("flask", APP)
    got: list[Any] = []
    publish(server, channel, *range(5))
    with Client(server.url, transports=(transport,), on_gap=got.append, **QUICK) as client:
        client.subscribe(channel, got.append, 0)
        eventually(lambda: len(got) == 5)
        epoch = eventually(lambda: client.epoch)
        got.clear()
        reset(server)
        publish(server, channel, "a", "b")
        eventually(lambda: len(got) >= 3)
        eventually(lambda: client.epoch not in (None, epoch))
        assert got[0] == Gap(channel, None, 1)
        assert [one.data for one in got[1:]] == ["a", "b"]


def test_positions_of_another_store_are_noticed_by_their_epoch(server: Server, channel: str) -> None:
    publish(server, channel, *range(3))
    got: list[Any] = []
    with Client(server.url, epoch="another", on_gap=got.append) as client:
        client.subscribe(channel, got.append, 2)
        eventually(lambda: len(got) == 4)
        assert got[0] == Gap(channel, None, 1)
        assert client.epoch != "another"
