"""What a client of ``/cable`` may send: its JSON, read and checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from ..errors import InvalidChannel, InvalidPosition
from ..http.commands import CommandError
from ..names import check_channel
from ..wire import parse_position

MAX_IDENTIFIER = 2048
"""Bytes of an identifier."""


class Said(msgspec.Struct):
    """A command, as both protocols have it."""

    command: str
    identifier: str = ""
    data: Any = None
    history: Any = None
    presence: Any = None


class History(NamedTuple):
    """Where a client of AnyCable's protocol stands."""

    since: float | None
    """Seconds since 1970; for streams without a position."""
    positions: Mapping[str, tuple[str, int]]
    """Stream -> epoch, and the last message's id."""


_decode = msgspec.json.Decoder(Said).decode


class Malformed(Exception):
    """The frame is no JSON at all."""


def read_command(text: bytes) -> Said:
    """
    Raises:
        Malformed: It is no JSON.
        CommandError: It is no command.
    """
    try:
        return _decode(text)
    except msgspec.ValidationError as error:
        raise CommandError("bad_request", f"expected an object of command, identifier and data: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed from None


def read_identifier(identifier: str) -> tuple[str, dict[str, Any]]:
    """The name of the class that an identifier has, and the parameters.

    Raises:
        CommandError: It is too long, or no JSON object with a ``channel``.
    """
    size = len(identifier.encode())
    if size > MAX_IDENTIFIER:
        reason = f"identifier: {MAX_IDENTIFIER} bytes are the most, not {size}"
        raise CommandError("identifier_too_long", reason, field="identifier")
    try:
        found = msgspec.json.decode(identifier)
    except (msgspec.DecodeError, RecursionError):
        raise CommandError("bad_request", "identifier: expected JSON", field="identifier") from None
    if not isinstance(found, dict) or not isinstance(found.get("channel"), str):
        reason = 'identifier: expected an object with the name of a class: {"channel": "RoomChannel"}'
        raise CommandError("bad_request", reason, field="identifier")
    return found.pop("channel"), found


def read_data(data: Any) -> tuple[Any, Any]:
    """The action that ``data`` names, and the rest.

    Raises:
        CommandError: It is not the JSON of an object.
    """
    try:
        found = msgspec.json.decode(data) if isinstance(data, str) else None
    except (msgspec.DecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CommandError("bad_request", "data: expected an object as JSON in a string", field="data")
    return found.pop("action", "receive"), found


def read_history(history: Any, most: int) -> History:
    """
    Raises:
        CommandError: It is malformed, or has more than ``most`` streams.
    """
    reason = f"history: expected since and streams (up to {most}), each with epoch and offset"
    wrong = CommandError("bad_request", reason, field="history")
    if not isinstance(history, dict):
        raise wrong
    since, streams = history.get("since"), history.get("streams", {})
    is_moment = since is None or (isinstance(since, (int, float)) and not isinstance(since, bool))
    if not is_moment or not isinstance(streams, dict) or len(streams) > most:
        raise wrong
    positions = {}
    for stream, position in streams.items():
        if not isinstance(position, dict) or not isinstance(position.get("epoch"), str):
            raise wrong
        try:
            message_id = parse_position(check_channel(stream), position.get("offset")).message_id
        except (InvalidChannel, InvalidPosition):
            raise wrong from None
        if message_id < 0:
            raise wrong
        positions[stream] = (position["epoch"], message_id)
    return History(since, positions)
