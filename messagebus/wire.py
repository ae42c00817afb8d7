"""What both ends of the wire share: paths, client ids, positions, the separator of streamed batches. Pure; see
docs/protocol.md."""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import InvalidPosition

ROOT = "/message-bus/"
"""The first segment of a bus's paths, after its mount point."""
CLIENT_ID = re.compile(r"[A-Za-z0-9_.~-]{1,128}", re.ASCII)
SEPARATOR = b"\r\n|\r\n"
"""Follows each batch of a streamed poll."""
ESCAPED_SEPARATOR = b"\r\n||\r\n"
"""The separator, escaped inside a batch."""
RECONNECT_KEY = "__reconnect"
"""In a status: the connection ends early; reconnect after this many milliseconds."""
MOVING_KEY = "__moving"
"""In a status: the connection will end soon; open the next one at a random time within this many milliseconds, and
close this one when that has spoken."""
NEW_ONLY = -1
"""The position of a client that wants new messages only."""

# 18 digits hold every id a store can give, and no more than a machine word.
_MESSAGE_ID = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_GLOBAL_ID = re.compile(r"@([0-9]{1,18})", re.ASCII)


class Position(NamedTuple):
    """A client's position on a channel, as the client states it."""

    message_id: int = NEW_ONLY
    """``n >= 0``: after message n. ``-1``: new messages only. ``-k``: the last k-1 messages, then new ones."""
    global_id: int | None = None
    """Also, or with a negative message id only: after this global id."""

    def resumed_at(self, global_id: int) -> Position:
        """The later of this position and of a global id up to which the client has seen everything
        (``Last-Event-ID``)."""
        return Position(max(self.message_id, NEW_ONLY), max(global_id, self.global_id or 0))


def parse_position(channel: str, value: object) -> Position:
    """Parse a position: ``"12"``, ``12``, ``""`` (as -1), ``"@345"``.

    Raises:
        InvalidPosition: The value is none of these.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return Position(value)
    if value == "":
        return Position()
    if isinstance(value, str):
        if _MESSAGE_ID.fullmatch(value):
            return Position(int(value))
        if by_global_id := _GLOBAL_ID.fullmatch(value):
            return Position(NEW_ONLY, int(by_global_id[1]))
    raise InvalidPosition(channel, value)
