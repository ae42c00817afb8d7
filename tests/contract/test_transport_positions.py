"""Messages that are not a subscriber's move its position all the same, and are no gap, on any transport."""

from __future__ import annotations

import threading
import time

import pytest

from ..clients import Client, LongPolling
from ..eventually import eventually
from .conftest import World

BOB = {"user_ids": ["bob"]}


def follow(world: World, transport: type[Client], *channels: str) -> Client:
    """Ann, who stands where the channels do."""
    client = transport.connect(world.url, dict.fromkeys(channels, -1), headers={"X-User": "ann"}, epoch="")
    client.status()
    return client


def come_back(client: Client) -> None:
    """Cut off and back, with the positions and the epoch that it knows."""
    client.cut()
    client.reconnect()


def assert_nothing_is_missed(world: World, client: Client, channel: str) -> None:
    world.publish(channel, "for all", max_backlog_size=10)
    assert client.data(1) == ["for all"]
    assert client.gaps == []
    assert [message["data"] for message in client.received if message["channel"] == channel][-1] == "for all"


@pytest.mark.parametrize("size", [10, 1000])
def test_a_client_that_returns_after_a_thousand_messages_for_others_gets_no_gap(
    world: World, transport: type[Client], size: int
) -> None:
    channel = world.channel()
    with follow(world, transport, channel) as ann:
        world.publish(channel, "hers", user_ids=["ann"])
        assert ann.data(1) == ["hers"]
        for _ in range(2):
            world.publish(channel, *range(600), max_backlog_size=size, **BOB)
        come_back(ann)
        assert_nothing_is_missed(world, ann, channel)


def test_a_live_connection_is_told_how_far_it_has_come(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    with follow(world, transport, channel) as ann:
        world.publish(channel, *range(5), **BOB)
        if transport is LongPolling:
            return  # it is told when it ends, see below
        deadline = time.monotonic() + 30
        while ann.positions[channel] != 5:
            assert time.monotonic() < deadline
            ann.next_batch()
        assert ann.received == []


def test_filtered_messages_move_positions_as_well(world: World, transport: type[Client]) -> None:
    channel = "/filtered" + world.channel()
    with follow(world, transport, channel) as ann:
        for _ in range(2):
            world.publish(channel, *[{"hidden": number} for number in range(600)], max_backlog_size=10)
        come_back(ann)
        assert_nothing_is_missed(world, ann, channel)


def test_messages_for_others_that_have_expired_are_no_gap(world: World, transport: type[Client]) -> None:
    channel = world.channel()
    with follow(world, transport, channel) as ann:
        world.publish(channel, "hers", max_backlog_age=1)
        assert ann.data(1) == ["hers"]
        world.publish(channel, *range(20), max_backlog_age=1, **BOB)
        time.sleep(2.5)  # the store's clock cannot be moved from here
        come_back(ann)
        assert_nothing_is_missed(world, ann, channel)


def test_a_poll_that_ends_for_one_channel_moves_its_position_on_the_others(world: World) -> None:
    busy, quiet = world.channel(), world.channel()
    with follow(world, LongPolling, busy, quiet) as ann:
        asking = threading.Thread(target=lambda: ann.messages(1))
        asking.start()
        eventually(lambda: world.server.get("/subscribers")[1] == b"1")
        world.publish(busy, *range(30), max_backlog_size=2, **BOB)
        world.publish(quiet, "hello")
        asking.join(30)
        assert [message["data"] for message in ann.received] == ["hello"]
        assert ann.positions[busy] == 30


def test_a_gap_in_messages_that_were_for_all_is_told_among_those_that_were_not(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    with follow(world, transport, channel) as ann:
        ann.cut()
        world.publish(channel, *range(20), max_backlog_size=5, **BOB)
        world.publish(channel, "for all", max_backlog_size=5)
        for _ in range(3):
            world.publish(channel, *range(600), max_backlog_size=5, **BOB)
        world.publish(channel, "the last")
        ann.positions[channel] = 0
        ann.reconnect()
        assert ann.data(1) == ["the last"]
        [gap] = ann.gaps
        assert gap[channel]["after"] == 0
        assert gap[channel]["before"] > 21


def test_a_new_client_gets_nothing_that_has_expired_though_others_have_followed_all_the_time(
    world: World, transport: type[Client]
) -> None:
    channel = world.channel()
    with transport.connect(world.url, {channel: 0}) as follower:
        world.publish(channel, *range(5), max_backlog_age=1)
        assert follower.data(5) == [0, 1, 2, 3, 4]
        time.sleep(2.5)  # the store's clock cannot be moved from here
        world.publish(channel, "a", "b", "c", max_backlog_age=100)
        with transport.connect(world.url, {channel: 0}) as late:
            assert late.data(3) == ["a", "b", "c"]
        time.sleep(1.2)
        with transport.connect(world.url, {channel: 0}) as later:
            assert later.data(3) == ["a", "b", "c"]
        assert follower.data(3) == ["a", "b", "c"]
