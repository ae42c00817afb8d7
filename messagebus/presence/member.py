"""A member of a room, as the server names it, and the names of rooms."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec

from ..errors import InvalidMember, InvalidTargets
from ..message import check_id, id_key
from ..names import PRESENCE, SITE_SEPARATOR, check_channel, check_site

MAX_ID = 255
"""Bytes of a member's id as JSON."""
MAX_INFO = 1000
"""Bytes of a member's info as JSON."""

Key = bytes
"""Two keys are equal exactly if the ids are, see ``id_key``."""


class Member(NamedTuple):
    """Somebody who is in a room. Whoever may follow the room's channel may see both."""

    id: Any
    """A string or a number. Connections with the same id are one member."""
    info: Any = None
    """What others may know: any JSON value, up to 1,000 bytes of it."""


def check_member(value: object, where: str = "member") -> Member:
    """The member that a program names: a :class:`Member`, a pair of id and info, or an id alone.

    Raises:
        InvalidMember: It is none of these, or too long.
    """
    member = Member(*value) if isinstance(value, tuple) and 1 <= len(value) <= 2 else Member(value)
    try:
        checked = check_id(where, member.id)
    except InvalidTargets:
        raise InvalidMember(
            f"{where}: expected a Member, a pair of id and info, or an id (a string or a number), not {value!r:.80}"
        ) from None
    try:
        text = json.dumps(member.info, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:  # lone surrogates are a ValueError, too
        raise InvalidMember(f"{where}: info is no JSON value: {error}") from None
    if size > MAX_INFO:
        raise InvalidMember(f"{where}: info has {size} bytes of JSON; {MAX_INFO} are allowed")
    try:
        size = len(id_key(checked))
    except ValueError as error:
        raise InvalidMember(f"{where}: the id is no text: {error}") from None
    if size > MAX_ID:
        raise InvalidMember(f"{where}: the id has {size} bytes of JSON; {MAX_ID} are allowed")
    # Parsed again: nobody can change it from outside, and every worker has the same.
    return Member(checked, None if member.info is None else msgspec.json.decode(text))


def room_name(channel: str, site_id: str | None) -> str:
    """The name of a channel's room, which is also the name of a subscription to its presence. Each site has its own,
    also of channels that all sites share.

    Raises:
        InvalidChannel, InvalidSite: It is not the name of one.
    """
    name = PRESENCE + check_channel(channel)
    return name if site_id is None else f"{name}{SITE_SEPARATOR}{check_site(site_id)}"
