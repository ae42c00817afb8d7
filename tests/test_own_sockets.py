"""A socket of an application's own as its code has it, and what ``Bus.websocket`` refuses."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from messagebus import Bus, ConnectionClosed, InvalidOption, WebSocket
from messagebus.errors import Close
from messagebus.hub.talks import Talks
from messagebus.loop.reactor import Reactor
from messagebus.sockets.websocket import MAX_INBOX
from messagebus.transports.websocket import binary_frame, text_frame


class Recorded:
    """The connection's end, which only notes what it is told."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.ends: list[Close] = []
        self.slow = self.pauses = 0

    def put_message(self, frame: bytes) -> None:
        self.frames.append(frame)

    def end(self, close: Close) -> None:
        self.ends.append(close)

    def on_slow(self) -> None:
        self.slow += 1

    def pause(self) -> None:
        self.pauses += 1


class World:
    def __init__(self) -> None:
        self.reactor = Reactor()
        self.peer = Recorded()

    def socket(self, waits: bool = True) -> WebSocket:
        return WebSocket(self.peer, self.reactor, 100, 1000, waits=waits, subprotocol=None)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.reactor.abandon()


def test_text_and_bytes_are_sent_as_what_they_are(world: World) -> None:
    ws = world.socket()
    for data in ("ü", b"\xff", bytearray(b"a"), memoryview(b"b")):
        ws.send(data)  # type: ignore[arg-type]
    world.reactor.turn(0)
    frames = [text_frame("ü".encode()), binary_frame(b"\xff"), binary_frame(b"a"), binary_frame(b"b")]
    assert world.peer.frames == frames
    with pytest.raises(TypeError, match="json"):
        ws.send({"a": 1})  # type: ignore[arg-type]


def test_what_has_arrived_is_received_and_then_the_end(world: World) -> None:
    ws = world.socket()
    assert ws.receive(timeout=0) is None
    ws._arrived("a")
    ws._arrived("b")
    ws._has_ended(Close(4000, "gone"))
    ws._has_ended(Close(1006, ""))
    assert [*ws] == ["a", "b"]
    with pytest.raises(ConnectionClosed) as ended:
        ws.receive()
    assert (ended.value.code, ended.value.reason) == (ws.close_code, ws.close_reason) == (4000, "gone")
    with pytest.raises(ConnectionClosed):
        ws.send("x")


def test_close_is_told_once_and_what_has_not_been_received_is_dropped(world: World) -> None:
    ws = world.socket()
    ws._arrived("a")
    ws.close(4001, "over")
    ws.close(1000)
    world.reactor.turn(0)
    assert world.peer.ends == [Close(4001, "over")]
    assert ws.closed
    with pytest.raises(ConnectionClosed):
        ws.receive()


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 5000])
def test_a_code_that_may_not_be_sent_is_refused_and_so_is_a_long_reason(world: World, code: int) -> None:
    ws = world.socket()
    with pytest.raises(ValueError, match="code"):
        ws.close(code)
    with pytest.raises(ValueError, match="123"):
        ws.close(1000, "ü" * 62)
    assert not ws.closed


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_send_waits_for_room_and_goes_on_when_there_is_some(world: World) -> None:
    ws = world.socket()
    ws.send(b"x" * 90)
    sending = in_thread(lambda: ws.send(b"y" * 90))
    ws._left(92)
    sending.join(30)
    world.reactor.turn(0)
    assert world.peer.frames == [binary_frame(b"x" * 90), binary_frame(b"y" * 90)]


def test_who_waits_for_room_or_for_a_message_hears_of_the_end(world: World) -> None:
    ws = world.socket()
    ws.send(b"x" * 500)  # more than the room is, but nothing waits
    errors: list[BaseException] = []

    def caught(call: Callable[[], object]) -> None:
        try:
            call()
        except ConnectionClosed as error:
            errors.append(error)

    threads = [in_thread(lambda: caught(lambda: ws.send(b"y"))), in_thread(lambda: caught(ws.receive))]
    ws._has_ended(Close(1006, ""))
    for thread in threads:
        thread.join(30)
    assert len(errors) == 2


def test_without_a_thread_nobody_waits_and_the_connection_is_cut(world: World) -> None:
    ws = world.socket(waits=False)
    ws.send(b"x" * 90)
    with pytest.raises(ConnectionClosed) as cut:
        ws.send(b"y" * 90)
    world.reactor.turn(0)
    assert (cut.value.code, world.peer.slow, len(world.peer.frames)) == (1013, 1, 1)


@pytest.mark.parametrize(("message", "number"), [("x", MAX_INBOX), (b"x" * 250, 4)])
def test_reading_stops_where_too_much_waits_and_goes_on_at_the_half(
    world: World, message: str | bytes, number: int
) -> None:
    ws = world.socket()
    for _ in range(number):
        assert not ws._is_paused
        ws._arrived(message)
    for _ in range(number // 2):
        assert ws._is_paused
        assert ws.receive() == message
    world.reactor.turn(0)
    assert not ws._is_paused
    assert world.peer.pauses == 2


def test_talks_are_bounded_and_waited_for() -> None:
    talks = Talks(1)
    assert talks.begin(True)
    assert not talks.begin(True)
    assert talks.begin(False)
    assert talks.wait(0) == 2
    talks.end(True)
    waiting = in_thread(lambda: talks.wait(30))
    talks.end(False)
    waiting.join(30)
    assert not waiting.is_alive()
    assert talks.begin(True)


async def asynchronous(ws: WebSocket) -> None: ...


def function(*arguments: Any) -> None: ...


@pytest.mark.parametrize(
    ("given", "error", "named"),
    [
        ({}, TypeError, "talk, or on_message"),
        ({"talk": function, "on_message": function}, TypeError, "not both"),
        ({"talk": function, "on_close": function}, TypeError, "on_close"),
        ({"talk": 5}, TypeError, "talk"),
        ({"on_message": asynchronous}, TypeError, "plain function"),
        ({"talk": function, "subprotocols": "a"}, TypeError, "subprotocols"),
        ({"talk": function, "allowed_origins": "*"}, InvalidOption, "allowed_origins"),
        ({"talk": function, "allowed_origins": ["elsewhere"]}, InvalidOption, "allowed_origins"),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], error: type[Exception], named: str) -> None:
    app, bus = Flask(__name__), Bus(url="memory://")
    with app.test_request_context("/"), pytest.raises(error, match=named):
        bus.websocket(**given)


def test_a_view_is_refused_where_the_bus_is_closed_or_the_server_unknown() -> None:
    app, bus = Flask(__name__), Bus(url="memory://")
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="

    def status(**changed: str) -> tuple[int, str]:
        with app.test_request_context("/", headers={**headers, **changed}):
            response = bus.websocket(function, allowed_origins=[re.compile("https://x")])
            return response.status_code, response.get_json()["error"]["code"]

    assert status() == (501, "no_websocket")
    assert status(Upgrade="h2c") == (426, "upgrade_required")
    assert status(Origin="https://elsewhere.example") == (403, "forbidden_origin")
    assert status(Origin="https://x") == (501, "no_websocket")
    bus.close()
    assert status() == (503, "unavailable")
