"""Messages that are told and not kept: what is refused, whom they reach, and what becomes of them for slow readers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagebus import Bus, InvalidOption, MessageTooLarge
from messagebus.client.channels import Channels
from messagebus.client.connector import Counters
from messagebus.client.delivery import Deliverer, Hooks
from messagebus.client.types import ClientMessage
from messagebus.client.waiting import run_blocking
from messagebus.hub.subscriber import Subscriber
from messagebus.hub.transients import MAX_KEYS
from messagebus.message import encode_envelope
from messagebus.publishing.arguments import MAX_TRANSIENT
from messagebus.publishing.transient import tellings
from messagebus.stores.base import MAX_ANNOUNCEMENT
from messagebus.stores.parts import Joining
from messagebus.transports import EVENT_SOURCE, LONG_POLLING_WSGI, plain_transport

from .test_dispatch import Finished, World, batches


class Reader(Finished):
    """May be behind."""

    def __init__(self) -> None:
        super().__init__()
        self.is_behind = False
        self.tells = False

    def tell_when_sent(self) -> None:
        self.tells = True


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    world.hub.windows.enter("/n")  # so that it is known where the channel stands
    yield world
    world.reactor.abandon()


def tell(world: World, name: str, data: Any, key: str | None = None, **targets: Any) -> None:
    joining = Joining()
    envelope = encode_envelope(json.dumps(data).encode(), **targets)
    found = [told for text in tellings(name, envelope, key) if (told := joining.add(text))]
    [told] = found
    world.hub.transients.hear(told["value"])


def heard(writer: Finished) -> list[Any]:
    return [m["data"] for batch in batches(writer) for m in batch if m.get("transient")]


def behind(world: World, *names: str) -> tuple[Subscriber, Reader]:
    writer = world.follow(*names)
    assert writer.owner is not None
    reader = writer.owner.writer = Reader()
    reader.is_behind = True
    return writer.owner, reader


# --- what is published ---


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"transient": 1}, "transient"),
        ({"key": "k"}, "key"),
        ({"transient": True, "key": ""}, "key"),
        ({"transient": True, "key": 7}, "key"),
        ({"transient": True, "idempotency_key": "k"}, "idempotency_key"),
        ({"transient": True, "max_backlog_size": 5}, "max_backlog_size"),
        ({"transient": True, "max_backlog_age": 5}, "max_backlog_age"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        Bus(url="memory://").publish("/chat", 1, **options)
    assert refused.value.option == field


def test_it_has_a_size_of_its_own() -> None:
    bus = Bus(url="memory://")
    assert bus.publish("/chat", "x" * (MAX_TRANSIENT - 2), transient=True) is None
    with pytest.raises(MessageTooLarge, match="a transient message has up to 16384"):
        bus.publish("/chat", "x" * (MAX_TRANSIENT - 1), transient=True)
    with pytest.raises(MessageTooLarge, match="a transient message has up to 65536"):
        bus.publish("/chat", 1, transient=True, user_ids=["u" * 100] * 1000)
    bus.close()


def test_it_is_not_kept_and_takes_no_id() -> None:
    bus = Bus(url="memory://")
    assert bus.publish("/chat", "kept") == 1
    assert bus.publish_many([("/chat", "a"), ("/chat", "b")], transient=True) == [None, None]
    assert bus.publish("/chat", "kept too") == 2
    assert [message.data for message in bus.backlog("/chat")] == ["kept", "kept too"]
    bus.close()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.none() | st.text(max_size=20))
def test_what_is_told_comes_out_as_it_went_in_to_the_byte(data: Any, key: str | None) -> None:
    envelope = encode_envelope(json.dumps(data, ensure_ascii=False).encode(errors="replace"))
    texts, joining = tellings("/ü", envelope, key), Joining()
    assert all(len(text) <= MAX_ANNOUNCEMENT and text.isascii() for text in texts)
    [told] = [told for text in texts if (told := joining.add(text))]
    assert told == {"tell": "transient", "value": {"name": "/ü", "envelope": envelope.decode(), "key": key}}


def test_the_largest_is_told_whatever_is_in_it() -> None:
    envelope = encode_envelope(json.dumps('\u4e16"\\' * 3000, ensure_ascii=False).encode(), ["\u4e16" * 5000])
    joining = Joining()
    [told] = [told for text in tellings("/chat", envelope, "k") if (told := joining.add(text))]
    assert told["value"]["envelope"].encode() == envelope


# --- whom it reaches ---


def test_it_reaches_those_who_are_there_with_the_ids_of_the_last_message(world: World) -> None:
    world.publish("/n")
    ann, other = world.follow("/n"), world.follow("/m", user=1)
    world.publish("/n", 2)
    tell(world, "/n", {"typing": "Bob"})
    [message] = [m for batch in batches(ann) for m in batch if m.get("transient")]
    assert message == {
        "global_id": 3,
        "message_id": 3,
        "channel": "/n",
        "data": {"typing": "Bob"},
        "transient": True,
    }
    assert heard(other) == []


def test_targets_exclusions_and_filters_hold(world: World) -> None:
    world.publish("/n")
    ann, bob = world.follow("/n", user=1), world.follow("/n", user=2)
    tell(world, "/n", "for ann", user_ids=[1])
    tell(world, "/n", "not for ann", exclude_client_ids=["c1"])
    tell(world, "/n", "for both", client_ids=["c1", "c2"])
    tell(world, "/n", "for nobody", user_ids=[3])
    world.access.add_filter("/n", lambda message: message.data != "secret")
    tell(world, "/n", "secret")
    assert heard(ann) == ["for ann", "for both"]
    assert heard(bob) == ["not for ann", "for both"]


def test_those_who_follow_a_pattern_get_it_as_well(world: World) -> None:
    ann = world.follow("*/rooms/*")
    tell(world, "/rooms/7", "typing")
    tell(world, "/other", "typing")
    assert heard(ann) == ["typing"]


def test_a_held_poll_is_answered_by_it(world: World) -> None:
    world.publish("/n")
    writer = world.follow("/n", transport=LONG_POLLING_WSGI)
    tell(world, "/n", "typing")
    assert writer.finished
    assert json.loads(writer.sent[0])[0]["data"] == "typing"


@pytest.mark.parametrize("format", ["raw", "json"])
def test_a_subscriber_without_our_clients_gets_its_data(world: World, format: str) -> None:
    world.publish("/n")
    writer = world.follow("/n", transport=plain_transport("stream", format, {}))
    tell(world, "/n", "typing")
    [line] = writer.sent
    assert (line == b"typing\n") if format == "raw" else (json.loads(line)["data"] == "typing")


def test_an_event_of_it_moves_no_position(world: World) -> None:
    world.publish("/n")
    writer = world.follow("/n", transport=EVENT_SOURCE)
    tell(world, "/n", "typing")
    assert b"id:" not in writer.sent[0]


@pytest.mark.parametrize(
    "told", [None, {}, {"name": "/n"}, {"name": "/n", "envelope": "{"}, {"name": 7, "envelope": ""}]
)
def test_what_cannot_be_read_is_logged_and_reaches_nobody(
    world: World, caplog: pytest.LogCaptureFixture, told: Any
) -> None:
    ann = world.follow("/n")
    world.hub.transients.hear(told)
    assert ann.sent == []
    assert "cannot be read" in caplog.text


# --- readers that are behind ---


def test_a_reader_that_is_behind_is_given_the_newest_of_each_key_when_it_has_caught_up(world: World) -> None:
    world.publish("/n")
    subscriber, reader = behind(world, "/n")
    for number in range(5):
        tell(world, "/n", f"a{number}", "a")
        tell(world, "/n", f"b{number}", "b")
        tell(world, "/n", "dropped")
    assert reader.sent == []
    assert reader.tells
    world.publish("/n", 3)  # what waits has the position of when it is sent
    reader.is_behind = False
    subscriber.on_drained()
    told = [m for batch in batches(reader) for m in batch if m.get("transient")]
    assert [(m["data"], m["message_id"]) for m in told] == [("a4", 4), ("b4", 4)]
    subscriber.on_drained()
    assert heard(reader) == ["a4", "b4"]


def test_so_many_keys_wait_and_of_more_the_newest(world: World) -> None:
    world.publish("/n")
    subscriber, reader = behind(world, "/n")
    for number in range(MAX_KEYS + 10):
        tell(world, "/n", number, f"key {number}")
    reader.is_behind = False
    subscriber.on_drained()
    assert heard(reader) == [*range(10, MAX_KEYS + 10)]


def test_where_the_backlog_was_deleted_it_has_the_ids_of_the_last_message_that_there_was(world: World) -> None:
    world.publish("/n")
    world.publish("/n")
    reader = world.follow("/n")
    for _ in range(2):
        world.hub.windows.forget("/n")
        tell(world, "/n", "typing")
    assert heard(reader) == ["typing", "typing"]
    [ids] = {(m["global_id"], m["message_id"]) for batch in batches(reader) for m in batch if m.get("transient")}
    assert ids == (2, 2)
    world.publish("/n")
    tell(world, "/n", "again")
    assert [m["message_id"] for batch in batches(reader) for m in batch][-2:] == [3, 3]


def test_a_filter_sees_that_a_message_is_not_kept(world: World) -> None:
    world.access.add_filter("/", lambda message: not message.transient)
    reader = world.follow("/n")
    tell(world, "/n", "typing")
    world.publish("/n", 1)
    assert heard(reader) == []
    assert [m["message_id"] for batch in batches(reader) for m in batch] == [1]


def test_of_channels_that_it_has_left_nothing_comes_and_one_that_has_gone_is_forgotten(world: World) -> None:
    world.publish("/n")
    subscriber, reader = behind(world, "/n", "/m")
    gone, _ = behind(world, "/n")
    tell(world, "/n", 1, "key")
    world.hub.drop(subscriber, "/n")
    gone.on_closed()
    reader.is_behind = False
    subscriber.on_drained()
    assert heard(reader) == []
    assert world.hub.transients._waiting == {}


# --- the Python client ---


def test_the_client_delivers_each_and_stays_where_it_was() -> None:
    got: list[ClientMessage] = []
    channels = Channels()
    channels.add("/chat", got.append, 5)
    asked = channels.followed(0.0)

    async def call(function: Any, value: Any) -> None:
        function(value)

    deliverer = Deliverer(channels, Counters(), Hooks(lambda: None, lambda: None, call))
    kept = {"global_id": 9, "message_id": 6, "channel": "/chat", "data": "kept"}
    for message in (
        {**kept, "message_id": 5, "data": "t1", "transient": True},
        {**kept, "message_id": 5, "data": "t2", "transient": True},
        kept,
        {**kept, "message_id": 3, "data": "t3", "transient": True},
        kept,
    ):
        run_blocking(deliverer.deliver(channels.accept(message, asked)))
    assert [(message.data, message.transient) for message in got] == [
        ("t1", True),
        ("t2", True),
        ("kept", False),
        ("t3", True),
    ]
    assert channels.positions() == {"/chat": 6}
    assert [message.id_of("/chat") for message in got] == [None, None, 6, None]
