"""What is told of a connection when it has ended: how much it was given, for how long, and why it has ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from messagebus.errors import SHUTDOWN, Close
from messagebus.hub.ended import CLOSED_BY_CLIENT, GONE, Ended
from messagebus.transports import LONG_POLLING_WSGI, WEBSOCKET

from .test_dispatch import Finished, World


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.abandon()


@pytest.fixture
def ended(world: World) -> list[Ended]:
    told: list[Ended] = []
    world.hub.on_ended = told.append
    return told


def leave(writer: Finished) -> None:
    assert writer.owner is not None
    writer.owner.on_closed()


def test_messages_are_those_of_its_channels_while_it_followed_them(world: World, ended: list[Ended]) -> None:
    world.follow("/a", user=1)
    world.publish("/a", 5)
    writer = world.follow("/a", "/b", user=2)
    world.publish("/a", 3)
    world.publish("/b", 4)
    world.publish("/c", 6)
    assert writer.owner is not None
    world.hub.drop(writer.owner, "/a")
    world.publish("/a", 7)
    world.publish("/b")
    leave(writer)
    assert [one.messages for one in ended] == [8]


def test_messages_for_others_do_not_count_and_those_for_it_alone_do(world: World, ended: list[Ended]) -> None:
    one, other = world.follow("/a", user=1), world.follow("/a", user=2)
    world.publish("/a", 5, user_ids=(1,))
    world.publish("/a", 2, exclude_client_ids=("c1",))
    world.publish("/a")
    leave(one)
    leave(other)
    assert [told.messages for told in ended] == [6, 3]
    assert [told.bytes for told in ended] == [sum(map(len, writer.sent)) for writer in (one, other)]


def test_a_channel_that_everybody_has_left_is_counted_from_the_beginning_again(
    world: World, ended: list[Ended]
) -> None:
    for messages in (2, 3):
        writer = world.follow("/a")
        world.publish("/a", messages)
        leave(writer)
    assert [told.messages for told in ended] == [2, 3]
    assert world.hub.membership.given == {}


def test_its_time_is_from_when_it_was_taken_in(world: World, ended: list[Ended]) -> None:
    writer = world.follow("/a")
    world.turn(7.0)
    leave(writer)
    assert ended[0].seconds == 7.0


def test_the_reason_is_the_servers_or_that_the_client_has_gone(world: World, ended: list[Ended]) -> None:
    for close in (SHUTDOWN, Close(1000, ""), None):
        writer = world.follow("/a", transport=WEBSOCKET)
        assert writer.owner is not None
        if close is not None:
            writer.owner.end(close)
        leave(writer)
    assert [(told.code, told.reason) for told in ended] == [
        (1001, "server shutdown"),
        (1000, CLOSED_BY_CLIENT),
        (None, GONE),
    ]
    assert ended[0].transport == "websocket"
    assert ended[0].client_id == "c0"


def test_a_poll_that_was_answered_is_no_connection_to_tell_of(world: World, ended: list[Ended]) -> None:
    writer = world.follow("/a", transport=LONG_POLLING_WSGI)
    world.publish("/a")
    leave(writer)
    assert ended == []


def test_the_last_word_of_many_that_are_ended_at_once_is_told_of_each(world: World, ended: list[Ended]) -> None:
    writers = [world.follow("/a", user=user) for user in range(10)]
    world.hub.end_all(SHUTDOWN)
    for writer in writers:
        leave(writer)
    assert {told.client_id for told in ended} == {f"c{user}" for user in range(10)}
