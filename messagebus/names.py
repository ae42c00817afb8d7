"""The names of channels, patterns and sites: what they may be, and what a store calls them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from .errors import InvalidChannel, InvalidSite

if TYPE_CHECKING:
    from typing import TypeGuard

PRESENCE = "/__presence"
"""Before a channel's name: what one subscribes to, to know who is there."""
SITE_SEPARATOR = "$|$"
PIPE_ESCAPE = "$$123$$"
PATTERN_MARK = "*"
"""Before the name of a pattern; channels begin with ``/``."""
MAX_CHANNEL_LENGTH = 255
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and lone surrogates."""


def check_channel(channel: object) -> str:
    """Check a channel's name, and return it: ``/``, then up to 254 characters, no control characters.

    Raises:
        InvalidChannel: The name breaks the rules.
    """
    if not isinstance(channel, str):
        raise InvalidChannel(channel, f"expected a string, not {type(channel).__name__}")
    if not channel.startswith("/"):
        raise InvalidChannel(channel, "a channel starts with '/'")
    if len(channel) > MAX_CHANNEL_LENGTH:
        raise InvalidChannel(channel, f"longer than {MAX_CHANNEL_LENGTH} characters")
    if channel.startswith("/__"):
        raise InvalidChannel(channel, "channels that start with '/__' are the bus's own")
    # More than the site separator and the escape of the pipe themselves: what only ends in a part of one would become
    # the whole with what follows it in a store's name.
    if "$|" in channel or "$$123" in channel:
        raise InvalidChannel(channel, "'$|' and '$$123' are reserved")
    if _CONTROL.search(channel):
        raise InvalidChannel(channel, "control characters and lone surrogates are not allowed")
    return channel


def check_subscription(channel: object) -> str:
    """Check the name of what a client subscribes to, and return it: a channel, a pattern, or a channel's presence.

    Raises:
        InvalidChannel: It is none of these.
    """
    if not is_presence(channel):
        return check_channel(channel)
    watched = check_channel(channel[len(PRESENCE) :])
    if watched.endswith("*"):
        raise InvalidChannel(channel, "there is no presence of a pattern")
    return channel


def is_presence(name: object) -> TypeGuard[str]:
    """Whether a name is that of a channel's presence, of a site or not."""
    return isinstance(name, str) and name.startswith("/__presence/")


def of_channel(name: str) -> str:
    """The channel that a subscription is about: its own, or the one whose presence it is."""
    return name[len(PRESENCE) :] if name.startswith("/__presence/") else name


def check_site(site_id: object) -> str:
    """Check a site's id, and return it: 1 to 255 characters, no control characters.

    Raises:
        InvalidSite: The id breaks the rules; one site's messages could reach another.
    """
    if not isinstance(site_id, str):
        raise InvalidSite(site_id, f"expected a string, not {type(site_id).__name__}")
    if not 0 < len(site_id) <= MAX_CHANNEL_LENGTH or _CONTROL.search(site_id):
        raise InvalidSite(site_id, f"expected 1 to {MAX_CHANNEL_LENGTH} characters, no control characters")
    if "$$123" in site_id:
        raise InvalidSite(site_id, "'$$123' is reserved")
    return site_id


def store_name(channel: str, site_id: str | None) -> str:
    """The name a store keeps a channel under: the same channel on two sites is two, ``/global/…`` is one for all.

    Raises:
        InvalidSite: It is not a site's id.
    """
    if site_id is None or channel.startswith("/global/"):
        return channel
    return f"{channel}{SITE_SEPARATOR}{check_site(site_id)}"


def subscription_name(channel: str, site_id: str | None) -> str:
    """The name of what a client subscribes to: a channel's, as the store keeps it, or with a ``*`` at the end that of a
    pattern, which is no channel's."""
    name = store_name(channel, site_id)
    return PATTERN_MARK + name if channel.endswith("*") else name


@lru_cache(maxsize=4096)
def split_name(name: str) -> tuple[str, str | None]:
    """The channel, or the pattern, and the site of a name."""
    channel, separator, site_id = name.removeprefix(PATTERN_MARK).partition(SITE_SEPARATOR)
    return channel, site_id if separator else None
