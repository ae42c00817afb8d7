"""Subscribers as members of rooms, and as their watchers: in one hub, without a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from messagebus import Member
from messagebus.hub.subscriber import Identity, Subscriber
from messagebus.message import id_key
from messagebus.presence.member import room_name
from messagebus.presence.room import Room
from messagebus.presence.telling import Entry, Group, Told
from messagebus.transports import LONG_POLLING_WSGI, STREAMING_WSGI, Transport

from .test_dispatch import Finished, World, batches
from .test_revoking import unsubscribe

ROOM, WATCH = "/rooms/7", "/__presence/rooms/7"
ANN, BOB = Member("ann", {"name": "Ann"}), Member("bob")


@pytest.fixture
def world() -> Iterator[World]:
    world = World(presence_max_members=3)
    yield world
    world.reactor.abandon()


def connect(
    world: World,
    members: dict[str, Member] | None = None,
    watches: dict[str, int] | None = None,
    transport: Transport = STREAMING_WSGI,
    site: str | None = None,
) -> tuple[Subscriber, Finished]:
    """A subscriber that asks for its members' channels and for rooms, as a request has it join."""
    subscriber = Subscriber(world.hub, transport, Identity("c", id_key(5)), b"", None, "", site, True)
    writer = subscriber.writer = Finished()
    writer.owner = subscriber
    world.hub.add(subscriber)
    world.hub.due.catch_up_on(subscriber, [], {})
    world.hub.attend(subscriber, watches or {}, members or {})
    world.hub.pacer.proceed(subscriber)
    if not writer.finished:
        world.hub.hold_open(subscriber)
    return subscriber, writer


def hear(world: World, number: int, *ids: Any, left: tuple[Any, ...] = ()) -> None:
    view = world.hub.attendance.view
    view.hear(
        Told("w", number, number, [Group(WATCH, [Entry(each, None, number, number) for each in ids], list(left))])
    )
    view.rooms[WATCH].measure(world.hub.attendance.most_told)


def know(world: World, version: int = 1) -> None:
    room = world.hub.attendance.watch(WATCH)
    room.complete, room.version = True, version


def said(writer: Finished) -> list[tuple[int, dict[str, Any]]]:
    messages = [message for batch in batches(writer) for message in batch]
    return [(message["message_id"], message["data"]) for message in messages if message["channel"] == WATCH]


def test_a_subscriber_is_a_member_while_it_is_connected_and_for_the_grace(world: World) -> None:
    own = world.hub.attendance.own
    subscriber, _ = connect(world, {ROOM: ANN})
    world.hub.attend(subscriber, {}, {ROOM: ANN})  # it asks for the channel again, from elsewhere
    assert own.by_key(WATCH) == {id_key("ann"): ANN}
    world.hub.closed(subscriber)
    world.hub.closed(subscriber)
    world.now += 4.9
    own.sweep()
    assert len(own) == 1
    world.now += 0.2
    own.sweep()
    assert len(own) == 0


def test_who_leaves_one_channel_stays_in_the_other(world: World) -> None:
    own = world.hub.attendance.own
    subscriber, _ = connect(world, {ROOM: ANN, "/global/hall": BOB}, site="one")
    room, hall = room_name(ROOM, "one"), room_name("/global/hall", "one")
    for name, left, stays in (("/rooms/7$|$one", room, hall), ("/global/hall", hall, None)):
        world.hub.drop(subscriber, name)
        world.now += 6
        own.sweep()
        assert not own.by_key(left)
        assert stays is None or own.by_key(stays)


def test_a_member_that_is_another_takes_the_place_of_the_first(world: World) -> None:
    subscriber, _ = connect(world, {ROOM: ANN})
    world.hub.attend(subscriber, {}, {ROOM: BOB})
    world.now += 6
    world.hub.attendance.own.sweep()
    assert world.hub.attendance.own.by_key(WATCH) == {id_key("bob"): BOB}


def test_a_watcher_is_told_all_where_it_knows_less_and_nothing_where_it_does_not(world: World) -> None:
    know(world)
    hear(world, 20, "ann")
    _, new = connect(world, watches={WATCH: -1})
    _, old = connect(world, watches={WATCH: 1})
    _, knows = connect(world, watches={WATCH: 20})
    _, ahead = connect(world, watches={WATCH: 30})
    everything = [(20, {"members": [{"id": "ann", "info": None}], "count": 1})]
    assert (said(new), said(old), said(knows), said(ahead)) == (everything, everything, [], [])


def test_a_poll_that_knows_less_is_answered_and_another_one_is_held(world: World) -> None:
    know(world)
    hear(world, 20, "ann")
    _, answered = connect(world, watches={WATCH: 7}, transport=LONG_POLLING_WSGI)
    _, held = connect(world, watches={WATCH: 20}, transport=LONG_POLLING_WSGI)
    assert (answered.finished, held.finished) == (True, False)
    world.hub.dispatcher.tell(WATCH, world.hub.attendance.due(WATCH, 0))  # type: ignore[arg-type]
    assert held.finished


def test_watchers_of_a_room_that_is_not_known_yet_are_told_later(world: World) -> None:
    wanted: list[str] = []
    watch = world.hub.attendance.watch

    def want(name: str) -> Room:
        wanted.append(name)
        return watch(name)

    world.hub.attendance.watch = want
    _, writer = connect(world, watches={WATCH: -1})
    assert (said(writer), wanted) == ([], [WATCH])
    assert world.hub.membership.is_followed(WATCH)


def test_of_a_room_above_the_bound_only_the_count_is_told(world: World) -> None:
    know(world)
    hear(world, 20, *"abcd")
    _, writer = connect(world, watches={WATCH: -1})
    assert said(writer) == [(20, {"count": 4})]
    hear(world, 21, left=("a", "b"))
    _, writer = connect(world, watches={WATCH: -1})
    assert said(writer)[0][1]["count"] == 2
    assert len(said(writer)[0][1]["members"]) == 2


def test_who_may_no_longer_follow_a_channel_may_not_watch_it_either(world: World) -> None:
    know(world)
    subscriber, writer = connect(world, {ROOM: ANN}, {WATCH: -1})
    unsubscribe(world, ROOM, user_ids=[5])
    [refused] = [m["data"] for batch in batches(writer) for m in batch if m["channel"] == "/__refused"]
    assert set(refused) == {WATCH}
    assert subscriber.followed == set()
    assert world.hub.windows.find(WATCH) is None


def test_who_is_in_no_room_is_in_no_table(world: World) -> None:
    world.hub.attendance.wake = lambda: pytest.fail("nobody came or went")
    subscriber, _ = connect(world)
    world.hub.drop(subscriber, "/x")
    world.hub.closed(subscriber)
