"""What clients say of channels and positions, and what it means. Text in, :class:`Cursor` out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import InvalidPosition
from ..hub.recovery import NEW_ONLY, Cursor
from ..message import check_channel, store_name

# 18 digits hold every id a store can give, and no more than a machine word.
_POSITION = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_GLOBAL_POSITION = re.compile(r"@([0-9]{1,18})", re.ASCII)


def parse_position(channel: str, value: object) -> tuple[int, int | None]:
    """A position by message id, and one by global id where that was given: ``"12"``, ``12``, ``""`` (as -1),
    ``"@345"``.

    Raises:
        InvalidPosition: It is none of these.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return value, None
    if value == "":
        return NEW_ONLY, None
    if isinstance(value, str):
        if _POSITION.fullmatch(value):
            return int(value), None
        if by_global_id := _GLOBAL_POSITION.fullmatch(value):
            return NEW_ONLY, int(by_global_id[1])
    raise InvalidPosition(channel, value)


def parse_wants(
    positions: Mapping[str, object],
    *,
    site_id: str | None = None,
    after: int | None = None,
    client_epoch: str | None = None,
    store_epoch: str | None = None,
) -> list[Cursor]:
    """What a subscriber asks for: channel -> position, as it came.

    ``after``: a global id from which every channel continues, or from its own position where that is later
    (``Last-Event-ID``). ``client_epoch``: the epoch the client says its positions are of.

    Raises:
        InvalidChannel, InvalidPosition: One of them is malformed.
    """
    stale = bool(client_epoch and store_epoch and client_epoch != store_epoch)
    strict = bool(client_epoch) and not stale
    wants = []
    for channel, value in positions.items():
        position, by_global_id = parse_position(check_channel(channel), value)
        since = max((g for g in (by_global_id, after) if g is not None), default=None)
        if since is not None and position < 0:
            position = NEW_ONLY
        knows_something = position >= 0 or since is not None
        wants.append(Cursor(channel, store_name(channel, site_id), position, since, stale and knows_something, strict))
    return wants
