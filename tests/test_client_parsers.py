"""Streams in any pieces come out as the same batches."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagebus.client.parsers import EventParser, StreamParser

STREAM = '[{"data":"ä|\u2028"}]\r\n|\r\n[]\r\n|\r\n["\r\n||\r\n"]\r\n|\r\n'.encode()
BATCHES = ['[{"data":"ä|\u2028"}]'.encode(), b"[]", b'["\r\n|\r\n"]']

EVENTS = (
    "\ufeff: hello\r\nid: 5\r\ndata: [1]\r\n\r\n"
    "data:é\ndata\ndata: b\n\nevent: x\n\n"
    "retry: 5\rdata:  c\r\rdata:d\r\n\r\n"
)
DATA = [b"[1]", "é\n\nb".encode(), b" c", b"d"]


def pieces(data: bytes, *cuts: int) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_may_be_cut_anywhere(cut: int) -> None:
    parser = StreamParser()
    assert [batch for piece in pieces(STREAM, cut) for batch in parser.feed(piece)] == BATCHES
    assert parser.finish() == []


@pytest.mark.parametrize("cut", range(len(EVENTS.encode()) + 1))
def test_events_may_be_cut_anywhere(cut: int) -> None:
    parser = EventParser()
    assert [data for piece in pieces(EVENTS.encode(), cut) for data in parser.feed(piece)] == DATA


def test_both_may_come_byte_by_byte() -> None:
    stream, events = StreamParser(), EventParser()
    assert [batch for byte in STREAM for batch in stream.feed(bytes([byte]))] == BATCHES
    assert [data for byte in EVENTS.encode() for data in events.feed(bytes([byte]))] == DATA


@given(st.lists(st.text()), st.data())
def test_whatever_json_says_gets_through_a_stream_in_any_pieces(texts: list[str], draw: st.DataObject) -> None:
    batches = [json.dumps([text], ensure_ascii=False).encode() for text in texts if text.isprintable()]
    sent = b"".join(batch + b"\r\n|\r\n" for batch in batches)
    cuts = draw.draw(st.lists(st.integers(0, len(sent)), max_size=8))
    parser = StreamParser()
    assert [batch for piece in pieces(sent, *cuts) for batch in parser.feed(piece)] == batches


def test_a_batch_is_there_as_soon_as_its_separator_is() -> None:
    parser = StreamParser()
    assert parser.feed(b"[1]\r\n|\r") == []
    assert parser.feed(b"\n[2]") == [b"[1]"]


def test_an_answer_without_a_separator_is_one_batch() -> None:
    parser = StreamParser()
    assert parser.feed(b"[1,") == []
    assert parser.feed(b"2]") == []
    assert parser.finish() == [b"[1,2]"]


def test_an_event_is_there_as_soon_as_its_line_ends() -> None:
    parser = EventParser()
    assert parser.feed(b"data: [1]\r\n") == []
    assert parser.feed(b"\r") == [b"[1]"]
    assert parser.feed(b"\ndata: [2]\n\n") == [b"[2]"]


def test_an_event_that_is_cut_off_is_none() -> None:
    assert EventParser().feed(b"data: [1]\n") == []


def test_a_large_batch_in_small_pieces_is_searched_once() -> None:
    parser, events = StreamParser(), EventParser()
    piece = b"x" * 4096
    for _ in range(2000):  # 8 MB: searched again with each piece it would take a minute
        parser.feed(piece)
        events.feed(b"data:" + piece if not events._buffer else piece)
    assert len(parser.feed(b"\r\n|\r\n")[0]) == len(events.feed(b"\n\n")[0]) == 2000 * 4096
