"""Each transport's bytes, read by somebody else's parser, are the batch again."""

from __future__ import annotations

import io
import json
import re
from http.client import HTTPResponse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from messagebus.errors import SLOW, Close
from messagebus.message import Message, encode_data, status_message
from messagebus.transports import (
    EVENT_SOURCE,
    LONG_POLLING,
    LONG_POLLING_WSGI,
    NAMED_EVENTS,
    STREAMING,
    STREAMING_WSGI,
    WEBSOCKET,
    batch_parts,
    join_batch,
)
from messagebus.transports.websocket import pong_frame, text_frame

texts = st.one_of(st.text(), st.sampled_from(["\r\n|\r\n", "\r\n||\r\n", "a\n\nb", "|", "\u2028", "data: "]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
batches = st.lists(st.lists(values, max_size=4), max_size=4)


def make(batch: list[Any], blanks: bool = False) -> bytes:
    """A batch of messages; with ``blanks``, their JSON as other programs may write it."""
    raws = [json.dumps(value, indent=1).encode() if blanks else encode_data(value, 1 << 20) for value in batch]
    return join_batch([Message(7, number, "/a", raw) for number, raw in enumerate(raws, 1)])


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def read_http(head: bytes, body: bytes) -> bytes:
    response = HTTPResponse(_Socket(b"HTTP/1.1 200 OK\r\n" + head + body))  # type: ignore[arg-type]
    response.begin()
    return response.read()


def data_of(batch: bytes) -> list[Any]:
    return [message["data"] for message in json.loads(batch)]


def read_frames(data: bytes) -> list[Frame]:
    client = ClientProtocol(parse_uri("ws://x/"), state=State.OPEN, max_size=None)
    client.receive_data(data)
    assert client.parser_exc is None
    return [event for event in client.events_received() if isinstance(event, Frame)]


@given(st.lists(st.tuples(values, st.booleans()), max_size=4), st.integers(1, 1 << 40))
def test_a_batch_in_pieces_is_the_same_on_the_wire(contents: list[tuple[Any, bool]], global_id: int) -> None:
    """Also of large messages, whose JSON is a piece of its own, and of what other programs have written."""
    batch = [
        Message(7, number, "/ä", json.dumps([value, "x" * (3000 * large)], indent=1 if large else None).encode())
        for number, (value, large) in enumerate(contents, 1)
    ]
    parts = batch_parts(batch)
    assert b"".join(parts) == join_batch(batch)
    assert {id(m.raw) for m in batch if len(m.raw) > 2048} <= {id(part) for part in parts}, "shared, not copied"
    for transport in (LONG_POLLING, LONG_POLLING_WSGI, STREAMING, STREAMING_WSGI, EVENT_SOURCE, WEBSOCKET):
        for given_id in (global_id, None):
            whole = transport.encode(join_batch(batch), given_id)
            assert b"".join(transport.encode_parts(parts, given_id)) == whole


@given(values, st.booleans())
def test_a_long_poll_is_a_response_of_one_batch(value: Any, blanks: bool) -> None:
    batch = make([value, value], blanks)
    data = LONG_POLLING.encode(batch, 7)
    assert data_of(read_http(LONG_POLLING.fields(len(data)) + b"\r\n", data)) == [value, value]
    assert LONG_POLLING_WSGI.encode(batch, 7) == batch


@given(batches, st.booleans())
def test_a_stream_is_batches_followed_by_separators(contents: list[list[Any]], blanks: bool) -> None:
    encoded = [make(content, blanks) for content in contents]
    chunked = b"".join(STREAMING.encode(batch, 7) for batch in encoded) + STREAMING.end(SLOW)
    plain = b"".join(STREAMING_WSGI.encode(batch, 7) for batch in encoded) + STREAMING_WSGI.end(SLOW)
    body = read_http(STREAMING.fields(0) + b"\r\n", chunked)
    assert body == plain
    *parts, rest = body.split(b"\r\n|\r\n")
    assert rest == b""
    assert [data_of(part) for part in parts] == [*contents, []]


@given(batches, st.booleans())
def test_events_are_read_as_a_browser_reads_them(contents: list[list[Any]], blanks: bool) -> None:
    stream = b"".join(EVENT_SOURCE.encode(make(content, blanks), number) for number, content in enumerate(contents))
    events = (stream + EVENT_SOURCE.heartbeat).decode().split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: []"
    for number, (event, content) in enumerate(zip(events, contents, strict=True)):
        # The specification ends a line at any of these.
        identifier, data = re.split("\r\n|\n|\r", event)
        assert identifier == f"id: {number}"
        assert data_of(data.removeprefix("data: ").encode()) == content


@given(batches)
def test_a_websocket_has_a_text_frame_for_each_batch(contents: list[list[Any]]) -> None:
    frames = read_frames(b"".join(WEBSOCKET.encode(make(content), 7) for content in contents) + WEBSOCKET.heartbeat)
    assert all(frame.opcode is Opcode.TEXT and frame.fin for frame in frames)
    assert [data_of(bytes(frame.data)) for frame in frames] == [*contents, []]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20])
def test_frames_of_every_length_form_are_read(size: int) -> None:
    [frame] = read_frames(text_frame(b"x" * size))
    assert (frame.opcode, len(frame.data)) == (Opcode.TEXT, size)


def test_a_pong_returns_the_payload() -> None:
    [frame] = read_frames(pong_frame(b"hello"))
    assert (frame.opcode, frame.data) == (Opcode.PONG, b"hello")


@given(st.text(max_size=200))
def test_a_reason_is_cut_to_what_a_close_frame_holds_and_never_within_a_character(reason: str) -> None:
    [frame] = read_frames(WEBSOCKET.end(Close(1008, reason)))
    assert len(frame.data) <= 125
    said = CloseFrame.parse(frame.data).reason
    assert reason.startswith(said)
    assert len(reason[: len(said) + 1].encode()) > 123 or said == reason


def test_a_websocket_ends_with_a_code_and_a_reason() -> None:
    [frame] = read_frames(WEBSOCKET.end(SLOW))
    assert frame.opcode is Opcode.CLOSE
    close = CloseFrame.parse(frame.data)
    assert (close.code, close.reason) == (SLOW.code, SLOW.reason)


def test_a_long_poll_that_ends_without_news_is_an_empty_batch() -> None:
    assert read_http(LONG_POLLING.fields(2) + b"\r\n", LONG_POLLING.end(SLOW)) == b"[]"
    assert LONG_POLLING_WSGI.end(SLOW) == b"[]"


def test_an_event_source_ends_without_last_bytes() -> None:
    assert EVENT_SOURCE.end(SLOW) == b""


# --- named events ---


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("<li>hello</li>", ["<li>hello</li>"]),
        ("two\nlines\r\nand\ra third", ["two", "lines", "and", "a third"]),
        ("", [""]),
        ({"a": [1, None]}, ['{"a":[1,null]}']),
        (7, ["7"]),
        ("data: x\n\nevent: /evil", ["data: x", "", "event: /evil"]),
    ],
)
def test_a_named_event_has_the_bare_data_line_by_line(data: object, lines: list[str]) -> None:
    message = Message(345, 6, "/chat", json.dumps(data, separators=(",", ":")).encode())
    written = NAMED_EVENTS.encode(join_batch([message]), 345).decode()
    event = "".join(["event: /chat\n", "id: 345\n", *(f"data: {line}\n" for line in lines), "\n"])
    assert written == f"{event}id: 345\n\n"


def test_a_status_is_no_named_event_and_an_early_end_says_when_to_come_back() -> None:
    status = status_message({"/chat": 5}, "epoch")
    assert NAMED_EVENTS.encode(join_batch([status]), 9) == b"id: 9\n\n"
    ending = Message(-1, -1, "/__status", b'{"__reconnect":1500}')
    assert NAMED_EVENTS.encode(join_batch([ending]), None) == b"retry: 1500\n\n"
    assert NAMED_EVENTS.encode(b"[]", 9) == b"id: 9\n\n"
