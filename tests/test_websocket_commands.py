"""Commands of an open WebSocket that have to wait: for the feed, or for what is read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from messagebus.http.frame_reader import FrameReader
from messagebus.http.websocket_session import WebSocketSubscriber
from messagebus.hub.history import Cursor
from messagebus.hub.joining import join_when_ready
from messagebus.hub.subscriber import Phase
from messagebus.transports import WEBSOCKET

from .late_feed import NAME, LateFeed, RecordingClient, late_feed


class Frames(RecordingClient):
    """A connection that writes down batches and answers."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[dict[str, Any]] = []
        self.codes: list[int] = []

    def put(self, data: bytes) -> None:
        reader = FrameReader(None, mask=False)
        reader.feed(data)
        frame = reader.take()
        assert frame is not None
        if frame.opcode is Opcode.CLOSE:
            self.codes.append(int.from_bytes(frame.data[:2], "big"))
            return
        said = json.loads(bytes(frame.data))
        (self.batches if isinstance(said, list) else self.answers).append(said)


class Talk:
    """An open WebSocket on one channel, and what its client says."""

    def __init__(self, feed: LateFeed, *wants: Cursor) -> None:
        self.feed = feed
        self.frames = Frames()
        plan = feed.plan(*wants)
        self.subscriber = WebSocketSubscriber(feed.node, WEBSOCKET, plan.request, b"", None)
        self.subscriber.writer = self.frames
        self.frames.on_drained = lambda: feed.node.reactor.call_soon(self.subscriber.on_drained)
        join_when_ready(feed.node, self.subscriber, plan)

    def say(self, **command: Any) -> None:
        frame = Frame(Opcode.TEXT, json.dumps(command).encode())
        self.subscriber.on_data(frame.serialize(mask=True))


@pytest.fixture
def talk() -> Iterator[Talk]:
    with late_feed(kept=1000, window=4) as feed:
        yield Talk(feed)


def test_a_command_after_a_subscribe_that_waits_for_the_feed_keeps_its_turn(talk: Talk) -> None:
    talk.feed.do("pp")
    talk.say(id=1, subscribe={NAME: 2})  # it has seen what this process has not
    talk.say(id=2, unsubscribe=[NAME])
    talk.say(id=3, ping=1)
    talk.feed.settle()
    assert talk.frames.answers == []
    talk.feed.do("dd")
    talk.feed.settle()
    assert [answer["id"] for answer in talk.frames.answers] == [1, 2, 3]
    assert not talk.subscriber.channels
    talk.feed.do("pd")
    assert talk.frames.ids == []


def test_a_subscribe_whose_window_has_moved_on_meanwhile_is_read_again(talk: Talk) -> None:
    talk.feed.do("ppppdddd")
    talk.feed.subscribe(Cursor(NAME, NAME, 0), "")
    talk.feed.do("ppppo")
    # It has seen the message on the other channel, so that it waits for it, while what it is due leaves the window.
    talk.say(id=1, subscribe={NAME: 1, "/other": 1})
    talk.feed.do("ddddd")
    talk.feed.settle()
    assert talk.frames.answers == [{"id": 1, "ok": {}}]
    assert talk.frames.ids == [2, 3, 4, 5, 6, 7, 8]
    assert talk.frames.codes == []


def test_a_command_that_comes_before_the_connections_own_channels_are_joined_waits_for_that(talk: Talk) -> None:
    talk.feed.do("pp")
    early = Talk(talk.feed, Cursor(NAME, NAME, 2))
    early.say(id=1, unsubscribe=[NAME])
    assert early.frames.answers == []
    talk.feed.do("dd")
    talk.feed.settle()
    assert early.frames.answers == [{"id": 1, "ok": {}}]
    assert not early.subscriber.channels


def test_many_commands_that_wait_are_carried_out_in_order(talk: Talk) -> None:
    talk.feed.do("pp")
    talk.say(id=0, subscribe={NAME: 2})
    for number in range(1, 40):
        talk.say(id=number, subscribe={f"/{number}": 0})
    talk.feed.do("dd")
    talk.feed.settle()
    assert [answer["id"] for answer in talk.frames.answers] == list(range(40))
    assert len(talk.subscriber.channels) == 40


@pytest.mark.parametrize(
    ("limit", "frames", "code"),
    [
        ("max_frame_size", [Frame(Opcode.TEXT, b" " * (256 * 1024 + 1))], 1009),
        ("max_frame_size", [Frame(Opcode.TEXT, b"[", fin=False), Frame(Opcode.CONT, b" " * 256 * 1024)], 1009),
        ("max_commands", [Frame(Opcode.PONG, b"")] * 10_000, 1008),
    ],
)
def test_what_ends_a_connection_at_a_limit_is_counted(talk: Talk, limit: str, frames: list[Frame], code: int) -> None:
    talk.subscriber.on_data(b"".join(frame.serialize(mask=True) for frame in frames))
    assert talk.frames.codes == [code]
    assert talk.feed.node.hub.refused.as_dict() == {limit: 1}


def test_a_reader_that_is_too_slow_is_counted(talk: Talk) -> None:
    talk.subscriber.on_slow()
    assert talk.subscriber.state is Phase.CLOSING
    assert talk.feed.node.hub.refused.as_dict() == {"max_outbox": 1}


def test_channels_beyond_those_of_one_client_are_counted(talk: Talk) -> None:
    talk.say(id=1, subscribe={f"/{number}": 0 for number in range(201)})
    assert talk.frames.answers[0]["error"]["code"] == "too_many_channels"
    assert talk.feed.node.hub.refused.as_dict() == {"max_channels": 1}
