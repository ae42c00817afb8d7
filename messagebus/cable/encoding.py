"""How a subscription's messages become bytes on ``/cable``: a frame for each, which names the subscription.

The bytes depend on the identifier alone, so that all clients with the same one share them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from ..errors import DISCONNECTED, RESYNC, SHUTDOWN, TOO_BIG, TOO_MANY_COMMANDS, Close
from ..message import GAP_CHANNEL, encode_json
from ..names import is_presence, store_name
from ..transports import WEBSOCKET, Transport
from ..transports.event_ids import EventId
from ..transports.plain import OWN, Part, split
from ..transports.websocket import text_frame

JSON = "actioncable-v1-json"
EXTENDED = "actioncable-v1-ext-json"
SUBPROTOCOLS = (JSON, EXTENDED)

Epoch = Callable[[str], "str | None"]
"""What a client is told of the epoch of a channel, by its stored name, as far as the process knows."""

_REMEMBERED = 65_536
"""Bytes of the largest batch that is remembered."""
# The clients of one channel may have thousands of identifiers, and each is a transport that is given the same batch.
_split_again = lru_cache(maxsize=1)(split)


def _split(batch: bytes) -> list[tuple[Part, bytes]]:
    return _split_again(batch) if len(batch) <= _REMEMBERED else split(batch)


class CableConnection(Transport):
    """A socket on ``/cable``, which gets no messages itself. The bus has nothing to say there but how it ends."""

    name = "cable"

    def fields(self, size: int) -> bytes:
        return b""

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        return b""

    def end(self, close: Close, last: bytes = b"") -> bytes:
        if close.code == 1000:  # the client's own
            return WEBSOCKET.end(close)
        told = {"type": "disconnect", "reason": _reason(close), "reconnect": close.code not in _FOR_GOOD}
        return text_frame(encode_json(told)) + WEBSOCKET.end(close)


_FOR_GOOD = (DISCONNECTED, 1002, 1003, 1007)
"""The close codes of clients that would do no better if they came back."""


def _reason(close: Close) -> str:
    """One of ActionCable's where there is one; else the limit or the fault."""
    if close in (SHUTDOWN, RESYNC):
        return "server_restart"
    if close.code == DISCONNECTED:
        return "remote"
    return {TOO_BIG: "max_frame_size", TOO_MANY_COMMANDS: "max_commands"}.get(close, close.reason)


CABLE = CableConnection()


class Stream(Transport):
    """The messages of one subscription, as ActionCable has them."""

    name = "cable-subscription"
    is_part = True

    def __init__(self, identifier: str) -> None:
        self._head = b'{"identifier":%b,"message":' % encode_json(identifier)

    def fields(self, size: int) -> bytes:
        return b""

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        head = self._head
        return b"".join(
            [text_frame(b"%b%b}" % (head, part.data)) for part, _ in _split(batch) if not part.channel.startswith(OWN)]
        )


class ExtendedStream(Transport):
    """The same as AnyCable has them: each message with its position."""

    name = "cable-subscription"
    is_part = True

    def __init__(self, identifier: str, site_id: str | None, epoch: Epoch) -> None:
        name = encode_json(identifier)
        self._head = b'{"identifier":%b,"message":' % name
        self._presence = b'{"type":"presence","identifier":%b,"message":%%b}' % name.replace(b"%", b"%%")
        self._gap = text_frame(b'{"type":"reject_history","identifier":%b}' % name)
        self._site_id = site_id
        self._epoch = epoch

    def fields(self, size: int) -> bytes:
        return b""

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        frames = []
        epochs: dict[str, bytes] = {}
        for part, _ in _split(batch):
            if part.channel == GAP_CHANNEL:
                frames.append(self._gap)
            elif is_presence(part.channel):
                frames += [text_frame(self._presence % encode_json(told)) for told in _who(bytes(part.data))]
            elif not part.channel.startswith(OWN):
                epoch = epochs.get(part.channel)
                if epoch is None:
                    name = store_name(part.channel, self._site_id)
                    epoch = epochs[part.channel] = encode_json(self._epoch(name) or "")
                position = encode_json(part.channel), epoch, part.message_id
                frames.append(
                    text_frame(
                        b'%b%b,"stream_id":%b,"epoch":%b,"offset":%d}' % (self._head, bytes(part.data), *position)
                    )
                )
        return b"".join(frames)


def _who(data: bytes) -> list[dict[str, Any]]:
    """What AnyCable's clients are told of a room: all of it, or who has come and gone. In place of the members of a
    large room there is none; ``total`` is their number."""
    told = msgspec.json.decode(data)
    if "joined" in told:
        found = [{"type": "join", **member} for member in told["joined"]]
        return found + [{"type": "leave", "id": member} for member in told["left"]]
    return [{"type": "info", "records": told.get("members", []), "total": told["count"]}]


class Streams:
    """The transports of a process: one for each identifier and site, as long as somebody has it. In the loop only."""

    def __init__(self, epoch: Epoch) -> None:
        self._epoch = epoch
        self._known: WeakValueDictionary[tuple[str, bool, str | None], Transport] = WeakValueDictionary()

    def of(self, identifier: str, extended: bool, site_id: str | None) -> Transport:
        key = identifier, extended, site_id if extended else None
        found = self._known.get(key)
        if found is None:
            found = ExtendedStream(identifier, site_id, self._epoch) if extended else Stream(identifier)
            self._known[key] = found
        return found
