"""Positions, duplicates, gaps and epochs: what a batch does to a client's channels."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest

from messagebus.client.channels import Channels, Following, encode_query
from messagebus.client.types import ClientMessage, Gap, Refusal
from messagebus.errors import InvalidChannel, InvalidPosition


def note(message: ClientMessage) -> None:
    """A callback."""


def message(message_id: int, channel: str = "/chat", data: Any = None) -> dict[str, Any]:
    return {"global_id": message_id + 100, "message_id": message_id, "channel": channel, "data": data}


def status(**data: Any) -> dict[str, Any]:
    named = {name if name.startswith("__") else f"/{name}": value for name, value in data.items()}
    return {"global_id": -1, "message_id": -1, "channel": "/__status", "data": named}


def gap(channel: str, after: int | None, before: int) -> dict[str, Any]:
    data = {channel: {"after": after, "before": before}}
    return {"global_id": -1, "message_id": -1, "channel": "/__gap", "data": data}


class Reader:
    """Channels, and one connection that follows them."""

    def __init__(self, **positions: int | str) -> None:
        self.channels = Channels()
        for name, position in positions.items():
            self.channels.add(f"/{name}", note, position)
        self.asked: Following = self.channels.followed(0.0)

    def read(self, *batch: dict[str, Any]) -> list[ClientMessage | Gap | Refusal]:
        """What the program is told; it deals with each message at once."""
        told = []
        for item in batch:
            for channel, value in self.channels.accept(item, self.asked):
                told.append(value)
                if isinstance(value, ClientMessage):
                    self.channels.move(channel, channel.id_of(value))
        return told

    @property
    def positions(self) -> dict[str, int | str]:
        return self.channels.positions()


def test_a_message_moves_its_channel_on() -> None:
    reader = Reader(chat=5, other=0)
    assert reader.read(message(6, data={"a": 1})) == [ClientMessage("/chat", {"a": 1}, 6, 106)]
    assert reader.positions == {"/chat": 6, "/other": 0}


def test_what_was_seen_already_is_dropped() -> None:
    reader = Reader(chat=5)
    ids = [
        value.message_id for value in reader.read(*map(message, [4, 5, 6, 6, 7, 5])) if isinstance(value, ClientMessage)
    ]
    assert ids == [6, 7]


@pytest.mark.parametrize("position", [-1, -5, "@100", 0])
def test_a_position_without_an_id_takes_the_first_message_whatever_its_id(position: int | str) -> None:
    reader = Reader(chat=position)
    assert len(reader.read(message(1), message(1))) == 1


def test_a_status_moves_positions_in_either_direction_and_nobody_is_told() -> None:
    reader = Reader(chat=-1, other=9)
    assert reader.read(status(chat=5, other=3)) == []
    assert reader.positions == {"/chat": 5, "/other": 3}
    assert reader.channels.moves == 2
    reader.read(status(chat=5))
    assert reader.channels.moves == 2


def test_a_status_brings_the_epoch() -> None:
    reader = Reader(chat=1)
    reader.read(status(__epoch="e1"))
    assert (reader.channels.epoch, reader.positions) == ("e1", {"/chat": 1})


def test_a_server_without_epochs_may_take_the_key_for_a_channel() -> None:
    reader = Reader(chat=1)
    reader.read(status(__epoch=0))
    assert reader.channels.epoch is None


def test_a_gap_is_told_before_what_follows_it_and_not_again() -> None:
    reader = Reader(chat=5)
    assert reader.read(gap("/chat", 5, 42), message(42)) == [Gap("/chat", 5, 42), ClientMessage("/chat", None, 42, 142)]
    assert Reader(chat=5).read(gap("/chat", 5, 42))
    assert reader.positions == {"/chat": 42}


def test_after_a_gap_alone_the_client_stands_before_what_is_left() -> None:
    reader = Reader(chat=5)
    reader.read(gap("/chat", 5, 42))
    assert reader.positions == {"/chat": 41}


def test_a_reset_store_is_a_gap_and_its_lower_ids_are_no_duplicates() -> None:
    reader = Reader(chat=500)
    values = reader.read(gap("/chat", None, 1), message(1), message(2), status(chat=2, __epoch="e2"))
    assert values[0] == Gap("/chat", None, 1)
    assert [value.message_id for value in values[1:] if isinstance(value, ClientMessage)] == [1, 2]
    assert reader.positions == {"/chat": 2}


def test_what_comes_for_a_channel_that_was_left_reaches_nobody() -> None:
    reader = Reader(chat=5)
    assert reader.channels.remove("/chat", None) == (True, True)
    assert reader.read(message(6), gap("/chat", 5, 9), status(chat=7)) == []


def test_a_channel_that_is_left_and_followed_again_at_once_keeps_its_position() -> None:
    reader = Reader(chat=5)
    reader.channels.remove("/chat", note)
    assert reader.channels.add("/chat", note, -1)
    assert reader.positions == {"/chat": 5}
    assert reader.channels.compare(reader.asked, 0.0) == ([], [])


def test_a_channel_that_is_followed_again_later_takes_nothing_from_the_former_connection() -> None:
    reader = Reader(chat=5)
    reader.channels.remove("/chat", note)
    assert reader.channels.compare(reader.asked, 0.0) == ([], ["/chat"])
    reader.channels.add("/chat", note, -1)
    assert reader.read(message(6), status(chat=8)) == []
    assert reader.positions == {"/chat": -1}
    assert reader.channels.compare(reader.asked, 0.0) == (["/chat"], [])


def test_a_further_callback_joins_at_the_position() -> None:
    channels = Channels()
    assert channels.add("/chat", note, 5)
    assert not channels.add("/chat", print, -1)
    assert channels.positions() == {"/chat": 5}
    assert channels.remove("/chat", note) == (True, False)
    assert channels.remove("/chat", note) == (False, False)
    assert channels.remove("/chat", None) == (True, True)
    assert channels.followed(0.0) == {}


def test_a_further_callback_that_begins_earlier_has_the_server_asked_again_and_the_others_get_nothing_twice() -> None:
    channels = Channels()
    channels.add("/chat", note, 5)
    assert channels.add("/chat", print, 2)
    assert channels.positions() == {"/chat": 2}
    (channel,) = channels.followed(0.0).values()
    assert channel is not None
    assert [(follower.callback, follower.seen) for follower in channel.followers] == [(note, 5), (print, 2)]


def test_another_callback_waits_for_the_position_of_a_channel_that_began_with_new_messages() -> None:
    reader = Reader(chat=-1)
    assert not reader.channels.add("/chat", print, 2)
    reader.read(status(chat=7))
    assert reader.channels.join_waiting()
    assert reader.positions == {"/chat": 2}
    (channel,) = reader.channels.followed(0.0).values()
    assert channel is not None
    assert [(follower.callback, follower.seen) for follower in channel.followers] == [(note, 7), (print, 2)]


def test_a_channel_that_is_refused_is_told_and_not_asked_for_until_its_time_has_come() -> None:
    reader = Reader(chat=5, private=5, busy=5)
    refusals = {
        "/private": {"code": "forbidden", "message": "no", "retry": False},
        "/busy": {"code": "unavailable", "message": "later", "retry": True, "retry_after": 2},
    }
    told = [delivery.value for delivery in reader.channels.refuse(refusals, reader.asked, 100.0)]
    assert told == [
        Refusal("/private", "forbidden", "no", False),
        Refusal("/busy", "unavailable", "later", True, 2),
    ]
    assert set(reader.channels.followed(100.0)) == {"/chat"}
    assert reader.channels.next_ask(100.0) == 102.0
    assert set(reader.channels.followed(102.0)) == {"/chat", "/busy"}
    reader.channels.ask_again()
    assert set(reader.channels.followed(100.0)) == {"/chat", "/busy", "/private"}


@pytest.mark.parametrize(
    "wrong", [None, 5, {}, {"code": "forbidden"}, {"code": 1, "message": 2, "retry": True, "retry_after": "x"}]
)
def test_what_is_no_refusal_is_an_error(wrong: Any) -> None:
    reader = Reader(chat=5)
    with pytest.raises(ValueError):
        reader.channels.refuse({"/chat": wrong}, reader.asked, 0.0)


def test_a_star_removes_every_channel_that_begins_so() -> None:
    reader = Reader(room1=0, room2=0, other=0)
    assert reader.channels.remove("/room*", None) == (True, True)
    assert set(reader.positions) == {"/other"}
    assert reader.channels.compare(reader.asked, 0.0) == ([], ["/room1", "/room2"])


@pytest.mark.parametrize("name", ["chat", "", "/__status", "/a\n", 5])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(InvalidChannel):
        Channels().add(name, note, -1)


@pytest.mark.parametrize("position", [1.5, "5", "@", "@-1", None, True, 10**18, "@1\n"])
def test_a_position_that_is_none_is_refused(position: Any) -> None:
    with pytest.raises(InvalidPosition):
        Channels().add("/chat", note, position)


@pytest.mark.parametrize(
    "wrong",
    [
        5,
        None,
        {},
        {"channel": "/chat"},
        {"channel": "/chat", "data": 1, "message_id": None, "global_id": 1},
        {"channel": "/__status", "data": [1]},
        {"channel": "/__gap", "data": {"/chat": 5}},
        {"channel": "/__gap", "data": {"/chat": {"before": 5}}},
        {"channel": "/__status", "data": {"/chat": "x"}},
    ],
)
def test_what_is_no_message_is_an_error_and_moves_nothing(wrong: Any) -> None:
    reader = Reader(chat=5)
    with pytest.raises(ValueError):
        reader.read(wrong)
    assert reader.positions == {"/chat": 5}


def test_names_and_positions_survive_the_query() -> None:
    positions: dict[str, int | str] = {"/a b&c=d+é/%": -1, "/chat": "@5"}
    assert dict(parse_qsl(encode_query(positions, "e1", __seq=7), keep_blank_values=True)) == {
        "/a b&c=d+é/%": "-1",
        "/chat": "@5",
        "__epoch": "e1",
        "__seq": "7",
    }
    assert "__epoch" not in encode_query(positions, None)
    assert encode_query({}, "") == "__epoch="


def test_a_pattern_brings_the_messages_of_its_channels_and_stands_at_a_global_id() -> None:
    reader = Reader(**{"news/*": -1, "chat": 0})
    reader.read(status(**{"news/*": 100}))
    told = reader.read(message(3, "/news/a"), message(2, "/news/b"), message(5, "/newsletter"), message(4, "/news/a"))
    # The second one has a lower global id than the first: it was there before.
    assert told == [ClientMessage("/news/a", None, 3, 103), ClientMessage("/news/a", None, 4, 104)]
    assert reader.positions == {"/news/*": 104, "/chat": 0}
    assert [each.id_of("/news/*") for each in told if isinstance(each, ClientMessage)] == [103, 104]
    assert reader.read(gap("/news/*", 104, 200)) == [Gap("/news/*", 104, 200)]
    assert reader.positions["/news/*"] == 199


def test_a_channel_that_is_followed_by_its_name_is_not_a_patterns_matter() -> None:
    reader = Reader(**{"news/*": 0, "news/a": 0})
    assert reader.read(message(3, "/news/a")) == [ClientMessage("/news/a", None, 3, 103)]
    assert reader.positions == {"/news/*": 0, "/news/a": 3}
