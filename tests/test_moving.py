"""A process that is about to end tells its clients to move, serves them meanwhile, and ends those that have not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from messagebus.errors import SHUTDOWN
from messagebus.hub.ending import SLICE_SECONDS
from messagebus.hub.moving import END_SHARE, MOVE_SHARE
from messagebus.transports import LONG_POLLING_WSGI, STREAMING_WSGI, WEBSOCKET, plain_transport

from .test_dispatch import Finished, World, batches, told
from .test_guards import count_calls

MOVING = {"__moving": round(20_000 * MOVE_SHARE)}


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.abandon()


def drain(world: World, seconds: float = 20.0) -> list[bool]:
    done: list[bool] = []
    world.hub.shut_down(SHUTDOWN, lambda: done.append(True), seconds)
    return done


def leave(writer: Finished) -> None:
    """The client closes its connection."""
    assert writer.owner is not None
    writer.owner.on_closed()


def data_of(writer: Finished) -> list[Any]:
    return [message["data"] for batch in batches(writer) for message in batch]


def test_everybody_is_told_at_once_how_long_they_have_and_is_served_on(world: World) -> None:
    writers = [world.follow("/n", user=user) for user in range(3)]
    drain(world)
    world.publish("/n")
    assert [data_of(writer) for writer in writers] == [[MOVING, 1]] * 3
    assert not any(writer.finished for writer in writers)


def test_the_word_is_encoded_once_for_each_transport(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in range(200):
        world.follow("/n", user=user)
    calls = count_calls(monkeypatch, type(STREAMING_WSGI), "encode")
    drain(world)
    assert len(calls) == 1


def test_it_is_over_when_the_last_one_has_left(world: World) -> None:
    writers = [world.follow("/n", user=user) for user in range(3)]
    done = drain(world)
    for writer in writers:
        assert not done
        leave(writer)
    assert done


def test_those_that_do_not_move_are_ended_one_after_the_other_in_the_last_part_of_the_time(world: World) -> None:
    writers = [world.follow("/n", transport=WEBSOCKET, user=user) for user in range(1000)]
    drain(world)
    world.turn(20 * (1 - END_SHARE) - 0.2)
    assert not any(writer.finished for writer in writers), "whoever has moved late has time to connect"
    gone = []
    for _ in range(int(20 * END_SHARE / SLICE_SECONDS / 2) + 1):
        world.turn(SLICE_SECONDS * 2)
        gone.append(sum(writer.finished for writer in writers))
    assert max(after - before for before, after in pairwise(gone)) < 100
    assert gone[-1] == 1000
    last = b"".join(writers[0].sent)
    assert b'{"__reconnect":0}' in last
    assert b"\x03\xe9" in last, "1001"


def test_held_polls_are_answered_one_after_the_other_while_the_others_move(world: World) -> None:
    polls = [world.follow("/n", transport=LONG_POLLING_WSGI, user=user) for user in range(100)]
    drain(world)
    assert sum(poll.finished for poll in polls) < 10
    for _ in range(int(20 * MOVE_SHARE / SLICE_SECONDS / 2) + 1):
        world.turn(SLICE_SECONDS * 2)
    assert all(poll.finished for poll in polls)
    assert told(polls[0]) == [{"__reconnect": 0}]


def test_one_whose_request_was_on_its_way_is_taken_in_and_told_what_is_left_of_the_time(world: World) -> None:
    drain(world)
    world.turn(4.0)
    assert told(world.follow("/n")) == [{"__moving": MOVING["__moving"] - 4000}]
    world.turn(10.0)
    assert told(world.follow("/n", user=1)) == [{"__moving": 0}]
    poll = world.follow("/n", transport=LONG_POLLING_WSGI, user=2)
    assert told(poll) == [{"__reconnect": 0}]
    assert poll.finished


def test_a_plain_subscriber_sees_nothing_of_it(world: World) -> None:
    plain = plain_transport("stream", "json", {})
    writer = world.follow("/n", transport=plain)
    drain(world)
    assert b"".join(writer.sent).strip() == b""


def test_a_process_that_is_about_to_end_says_so(world: World) -> None:
    assert not world.hub.is_ending
    drain(world)
    assert world.hub.is_ending
    assert not world.hub.is_shutting_down, "it still takes in who comes"


def test_a_second_word_to_shut_down_ends_all_at_once(world: World) -> None:
    writers = [world.follow("/n", user=user) for user in range(100)]
    drain(world, 60.0)
    assert not any(writer.finished for writer in writers)
    world.hub.shut_down(SHUTDOWN, lambda: None)
    assert all(writer.finished for writer in writers)


def test_who_takes_nothing_is_ended_during_a_drain_as_well(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in range(3):
        world.follow("/n", user=user)
    swept: list[float] = []
    monkeypatch.setattr(world.hub.outboxes, "end_stalled", swept.append)
    world.turn()
    swept.clear()
    drain(world, 60)
    world.hub.on_deadline()
    assert swept == [world.hub.options.write_timeout]


def test_a_client_that_knows_nothing_of_it_finds_no_channel_of_its_own_in_the_word(world: World) -> None:
    writer = world.follow("/n")
    drain(world)
    [[message]] = batches(writer)
    assert message["channel"] == "/__status"
    assert list(message["data"]) == ["__moving"]
