"""What followers are told of messages that are not theirs: seldom, once for all, and before it is too late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from messagebus.errors import SHUTDOWN
from messagebus.hub.dispatch import STATUSES_PER_SECOND
from messagebus.hub.ending import ENDS_PER_SECOND, SLICE_SECONDS
from messagebus.hub.hub import Hub
from messagebus.hub.permissions import Access
from messagebus.hub.subscriber import Identity, Subscriber
from messagebus.loop.reactor import Reactor
from messagebus.message import Message, id_key
from messagebus.options import Options
from messagebus.stores import StoreState
from messagebus.transports import LONG_POLLING_WSGI, STREAMING_WSGI, WEBSOCKET, Transport

from .recording_writer import RecordingWriter
from .test_guards import count_calls


class Finished(RecordingWriter):
    """Notes that it was finished."""

    def __init__(self) -> None:
        super().__init__()
        self.finished = False
        self.owner: Subscriber | None = None

    def finish(self) -> None:
        self.finished = True

    def on_deadline(self) -> None:
        if self.owner is not None and not self.finished:
            self.owner.on_deadline()


class World:
    """A hub whose clock and loop are the test's."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.reactor = Reactor(lambda: self.now)
        self.access = Access()
        self.hub = Hub(Options(**options), self.reactor, 1_000_000, self.access, lambda error, where: None)
        self.hub.start(StoreState(0, "epoch"))
        self.published = 0

    def follow(self, *names: str, transport: Transport = STREAMING_WSGI, user: int = 0) -> Finished:
        subscriber = Subscriber(self.hub, transport, Identity(f"c{user}", id_key(user)), b"", None)
        writer = subscriber.writer = Finished()
        writer.owner = subscriber
        self.hub.add(subscriber)
        self.hub.membership.join(subscriber, [self.hub.windows.enter(name).name for name in names])
        self.hub.hold_open(subscriber)
        return writer

    def publish(self, name: str, count: int = 1, **targets: Any) -> None:
        for _ in range(count):
            self.published += 1
            number = self.published
            self.hub.dispatch([Message(number, number, name, b"1", **targets)])

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.reactor.turn(0)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.abandon()


def batches(writer: Finished) -> list[list[dict[str, Any]]]:
    return [json.loads(part) for part in b"".join(writer.sent).split(b"\r\n|\r\n") if part]


def told(writer: Finished) -> list[dict[str, Any]]:
    return [message["data"] for batch in batches(writer) for message in batch if message["channel"] == "/__status"]


def test_followers_are_told_a_second_later_once_for_all_messages(world: World) -> None:
    ann, bob = world.follow("/n"), world.follow("/n", user=1)
    world.publish("/n", 20, user_ids=(1,))
    assert told(ann) == []
    world.turn(1.2)
    assert told(ann) == told(bob) == [{"/n": 20, "__epoch": "epoch"}]
    world.turn(5)
    assert len(told(ann)) == 1


def test_the_status_is_encoded_once_for_each_transport(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in range(200):
        world.follow("/n", user=user)
    world.publish("/n", user_ids=(1,))
    calls = count_calls(monkeypatch, type(STREAMING_WSGI), "encode")
    world.turn(1.2)
    assert len(calls) == 1


def test_followers_are_told_before_the_backlog_can_pass_them(world: World) -> None:
    ann = world.follow("/n")
    world.publish("/n", 1000, user_ids=(1,))
    positions = [status["/n"] for status in told(ann)]
    assert positions
    assert all(later - earlier <= 250 for earlier, later in zip([0, *positions], positions, strict=False))


def test_a_process_sends_a_thousand_of_these_a_second_at_most(world: World) -> None:
    writers = [world.follow("/n", user=user) for user in range(2500)]
    sent = 0
    for _ in range(20):
        world.publish("/n", 300, user_ids=(-1,))
        world.turn(1.0)
        sent = sum(len(writer.sent) for writer in writers)
    assert 0 < sent <= 20 * STATUSES_PER_SECOND + 2500


def test_filtered_messages_count_and_visible_ones_need_no_status(world: World) -> None:
    world.access.add_filter("/n", lambda message: message.message_id % 2 == 0)
    ann = world.follow("/n")
    world.publish("/n", 3)
    world.turn(1.2)
    assert told(ann) == [{"/n": 3, "__epoch": "epoch"}]
    bob = world.follow("/other")
    world.publish("/other", 3)
    world.turn(1.2)
    assert told(bob) == []


def test_a_poll_is_told_with_its_batch_of_its_other_channels_and_when_its_time_is_over(world: World) -> None:
    ends, over = (world.follow("/n", "/m", transport=LONG_POLLING_WSGI, user=user) for user in (1, 2))
    world.publish("/n", 5, user_ids=(3,))
    world.turn(1.2)
    assert ends.sent == over.sent == [], "that would be its answer"
    world.publish("/m", user_ids=(1,))
    [message, status] = json.loads(b"".join(ends.sent))
    assert message["channel"] == "/m"
    assert status["data"]["/n"] == 5
    for _ in range(30):
        world.turn(1.0)
    [status] = json.loads(b"".join(over.sent))
    assert (status["data"]["/n"], status["data"]["/m"]) == (5, 6)
    assert over.finished


def test_a_connection_that_ends_early_is_told_where_it_stands_and_when_to_come_back(world: World) -> None:
    ann = world.follow("/n")
    world.publish("/n", 5, user_ids=(1,))
    world.hub.end_all(SHUTDOWN)
    [status] = told(ann)
    assert status["/n"] == 5
    assert status["__reconnect"] >= 0
    assert ann.finished


def test_many_that_are_ended_at_once_are_told_to_come_back_at_different_times(world: World) -> None:
    writers = [world.follow("/n", user=user) for user in range(4000)]
    world.hub.end_all(SHUTDOWN)
    waits = [told(writer)[0]["__reconnect"] for writer in writers]
    longest = 1000 * 4000 / ENDS_PER_SECOND
    assert longest * 0.9 < max(waits) <= longest
    for start in range(0, int(longest), int(longest) // 4):
        some = [wait for wait in waits if start <= wait < start + longest / 4]
        assert 800 < len(some) < 1200


def test_after_a_lost_feed_connections_end_no_faster_than_they_can_come_back(world: World) -> None:
    writers = [world.follow("/n", transport=WEBSOCKET, user=user) for user in range(2000)]
    world.hub.resync(StoreState(0, "another"))
    a_slice = int(ENDS_PER_SECOND * SLICE_SECONDS)
    for number in range(1, 11):
        assert sum(writer.finished for writer in writers) == number * a_slice
        world.publish("/n")
        world.turn(SLICE_SECONDS + 0.1)
    assert all(len(writer.sent) <= 2 for writer in writers), "what came meanwhile is of another life"
    assert not any(b"another" in part for writer in writers for part in writer.sent), "so is the epoch"


def test_those_that_wait_for_their_end_are_ended_when_the_server_shuts_down(world: World) -> None:
    writers = [world.follow("/n", user=user) for user in range(1000)]
    world.hub.resync(StoreState(0, "another"))
    world.hub.end_all(SHUTDOWN)
    assert all(writer.finished for writer in writers)


def test_a_message_for_everybody_but_some_is_encoded_once_for_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = [world.follow("/n", user=user) for user in range(5)]
    calls = count_calls(monkeypatch, type(STREAMING_WSGI), "encode")
    world.publish("/n", exclude_client_ids=("c1", "c3"))
    assert [bool(writer.sent) for writer in writers] == [True, False, True, False, True]
    assert len(calls) == 1


def test_a_channel_whose_ids_begin_again_gives_nobody_anything_before_the_store_has_another_epoch(world: World) -> None:
    reported: list[tuple[str, int | None]] = []
    world.hub.dispatcher.went_back = lambda name, last_id: reported.append((name, last_id))
    ann = world.follow("/n")
    world.publish("/n", 3)
    for message_id in range(1, 6):
        world.published += 1
        world.hub.dispatch([Message(world.published, message_id, "/n", b'"again"')])
    world.turn()
    assert [message["message_id"] for batch in batches(ann) for message in batch if message["global_id"] > 0] == [
        1,
        2,
        3,
    ]
    assert reported == [("/n", None)] * 5
    world.hub.resync(StoreState(world.published, "another"))
    bob = world.follow("/n", user=1)
    world.publish("/n")
    world.turn()
    assert [message["data"] for batch in batches(bob) for message in batch if message["global_id"] > 0] == [1]
