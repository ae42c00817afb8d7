"""Nonsense from a store and from a server, given to what reads it: ``FUZZ_SECONDS`` of each kind."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

import pytest

from messagebus.client.channels import Channels
from messagebus.client.parsers import EventParser, StreamParser
from messagebus.hub.subscriber import Identity
from messagebus.message import Ids, Message, encode_envelope, encode_stored, id_key
from messagebus.stores.sequencer import Unreadable, decode_entry

from .mutation import Mutation
from .test_fuzz import SECONDS, SEED

STORED = [
    encode_stored(Ids(7, 3), channel, encode_envelope(data, **targets))
    for channel in ("/chat", "/chat$|$site")
    for data in (b'"hello"', b'{"text":"\xc3\xbc\\u2028","list":[1,2.5,null,true]}', b"[[[]]]")
    for targets in ({}, {"user_ids": [1, "a"]}, {"group_ids": ["x"], "client_ids": ["c1", "c2"]})
]
BATCH = json.dumps(
    [
        {"global_id": -1, "message_id": -1, "channel": "/__gap", "data": {"/chat": {"after": 1, "before": 5}}},
        {"global_id": 9, "message_id": 5, "channel": "/chat", "data": {"text": "hello"}},
        {"global_id": -1, "message_id": -1, "channel": "/__status", "data": {"/chat": 5, "__epoch": "e"}},
        {
            "global_id": -1,
            "message_id": -1,
            "channel": "/__refused",
            "data": {"/chat": {"code": "forbidden", "message": "no", "retry": True, "retry_after": 2}},
        },
    ]
).encode()
STREAMS = [BATCH + b"\r\n|\r\n[]\r\n|\r\n", b"[1]\r\n||\r\n2]\r\n|\r\n", b"\r\n|\r\n|\r\n"]
EVENTS = [
    b"id: 7\ndata: " + BATCH + b"\n\n",
    b"data: []\n\n: comment\n\ndata: a\ndata: b\r\n\r\n",
    b"\xef\xbb\xbfretry: 5\r\r",
]

READER = Identity("c1", id_key("a"), frozenset([id_key("x")]))


def read_stored(mutation: Mutation) -> None:
    """What is read is a message that everybody can be given, or said to be unreadable."""
    entry = decode_entry(mutation.of(STORED), None)
    if not isinstance(entry, Message):
        assert entry is None or isinstance(entry, Unreadable)
        return
    told = json.loads(entry.json, parse_int=str)  # Python reads no number of 5000 digits, JavaScript does
    assert set(told) == {"global_id", "message_id", "channel", "data"}
    READER.may_see(entry)


def read_stream(mutation: Mutation) -> None:
    """The batches are the same however the bytes are cut."""
    for kind, seeds in ((StreamParser, STREAMS), (EventParser, EVENTS)):
        data = mutation.of(seeds) + mutation.of(seeds)
        whole = kind().feed(data)
        parser = kind()
        pieces: list[bytes] = []
        begin = 0
        while begin < len(data):
            end = begin + mutation.random.choice((1, 2, 3, 50))
            pieces += parser.feed(data[begin:end])
            begin = end
        assert pieces == whole


def accept_batches(mutation: Mutation) -> None:
    """A batch is taken in, or is a ValueError."""
    channels = Channels()
    channels.add("/chat", lambda message: None, 0)
    try:
        batch = json.loads(mutation.of([BATCH]))
    except (ValueError, RecursionError):
        return
    for message in batch if isinstance(batch, list) else [batch]:
        if isinstance(message, dict):
            try:
                channels.accept(message, channels.followed(0.0))
            except ValueError:
                pass


@pytest.mark.parametrize("read", [read_stored, read_stream, accept_batches])
def test_nonsense_is_read_as_such(read: Callable[[Mutation], None]) -> None:
    print(f"FUZZ_SEED={SEED}")
    logging.getLogger("messagebus").setLevel(logging.CRITICAL)
    mutation = Mutation(SEED)
    until = time.monotonic() + SECONDS / 3
    try:
        while time.monotonic() < until:
            read(mutation)
    finally:
        logging.getLogger("messagebus").setLevel(logging.NOTSET)
