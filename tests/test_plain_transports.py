"""The bytes that subscribers without our clients are sent."""

from __future__ import annotations

import json

import pytest

from messagebus.message import Message, status_message
from messagebus.transports import IFRAME, join_batch, plain_transport

STATUS = status_message({"/chat": 5}, "epoch")
GAP = Message(-1, -1, "/__gap", b'{"channel":"/chat"}')
NO_TEMPLATES: dict[str, str] = {}


def message(data: object) -> Message:
    return Message(345, 6, "/chat", json.dumps(data, separators=(",", ":")).encode())


@pytest.mark.parametrize(("kind", "nothing"), [("ws", b"\x89\x00"), ("stream", b"\n")])
def test_what_is_no_message_is_a_heartbeat_to_a_plain_subscriber(kind: str, nothing: bytes) -> None:
    transport = plain_transport(kind, "raw", NO_TEMPLATES)
    assert transport.heartbeat == nothing
    assert transport.encode(join_batch([STATUS, GAP]), 9) == nothing
    assert transport.encode(b"[]", 9) == nothing


def test_a_plain_websocket_has_a_frame_for_each_message() -> None:
    batch = join_batch([message("a"), STATUS, message({"b": 1})])
    assert plain_transport("ws", "raw", NO_TEMPLATES).encode(batch, 9) == b'\x81\x01a\x81\x07{"b":1}'


def test_a_plain_stream_has_a_line_for_each_message() -> None:
    batch = join_batch([message("a"), message("two\r\nlines"), message(""), message([1])])
    assert plain_transport("stream", "raw", NO_TEMPLATES).encode(batch, 9) == b'a\ntwo\\r\\nlines\n""\n[1]\n'
    [line] = plain_transport("stream", "json", NO_TEMPLATES).encode(join_batch([message("a\nb")]), 9).splitlines()
    assert json.loads(line) == {"global_id": 345, "message_id": 6, "channel": "/chat", "data": "a\nb"}


def test_line_breaks_between_the_tokens_of_foreign_json_do_not_end_a_line() -> None:
    batch = join_batch([Message(345, 6, "/chat", b'{"a":\n1}')])
    assert plain_transport("stream", "raw", NO_TEMPLATES).encode(batch, 9) == b'{"a": 1}\n'


def test_plain_events_have_ids_in_every_format() -> None:
    templates = {"short": '{"id":~id~,"text":"~text~"}'}
    batch = join_batch([message('say "hi"'), GAP])
    assert plain_transport("sse", "raw", templates).encode(batch, 346) == b'id: 345\ndata: say "hi"\n\nid: 346\n\n'
    assert plain_transport("events", "short", templates).encode(join_batch([message('"')]), 346) == (
        b'event: /chat\nid: 345\ndata: {"id":6,"text":"\\""}\n\nid: 346\n\n'
    )
    assert plain_transport("events", "raw", templates).encode(join_batch([GAP]), None).startswith(b"event: /__gap\n")


def test_who_is_there_is_a_message_to_whoever_asked_for_it() -> None:
    batch = join_batch([Message(-1, 7, "/__presence/rooms/1", b'{"count":1}'), STATUS])
    assert plain_transport("stream", "raw", NO_TEMPLATES).encode(batch, None) == b'{"count":1}\n'
    assert plain_transport("sse", "raw", NO_TEMPLATES).encode(batch, None) == b'data: {"count":1}\n\n'


def test_an_event_that_there_is_not_is_a_comment() -> None:
    transport = plain_transport("sse", "raw", NO_TEMPLATES)
    assert transport.encode(join_batch([GAP]), None) == transport.heartbeat == b":\n\n"


def test_half_of_a_character_costs_only_itself() -> None:
    batch = join_batch([Message(345, 6, "/chat", b'"a\\ud800b"')])
    assert plain_transport("ws", "raw", NO_TEMPLATES).encode(batch, 9) == b"\x81\x03a?b"


def test_there_is_one_instance_of_each_format_so_that_it_is_encoded_once() -> None:
    assert plain_transport("ws", "data", NO_TEMPLATES) is plain_transport("ws", "raw", {"a": "~id~"})
    assert plain_transport("ws", "a", {"a": "~id~"}) is plain_transport("ws", "a", {"a": "~id~", "b": ""})
    assert plain_transport("ws", "a", {"a": "~id~"}) is not plain_transport("ws", "a", {"a": "~text~"})


def test_nothing_in_a_message_ends_the_script_of_an_iframe() -> None:
    written = IFRAME.encode(join_batch([message("</script><!--&\u2028")]), 9)
    assert written.count(b"<") == 2
    assert b"&" not in written
    assert "\u2028".encode() not in written
    [sent] = json.loads(written.removeprefix(b"<script>p(").removesuffix(b")</script>\n"))
    assert sent["data"] == "</script><!--&\u2028"
