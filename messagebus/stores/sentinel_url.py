"""``redis+sentinel://`` URLs, taken apart into URLs of the servers. Pure; what it returns holds passwords."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ..errors import InvalidOption

EXPECTED = "redis+sentinel://[[user]:password@]host[:26379][,host2[:26379]]/name[/database]"
PORT = 26379
PREFIX = "sentinel_"
"""Parameters that begin so are for the connections to the sentinels."""
_PLACE = re.compile(r"(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d+))?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class SentinelUrl(NamedTuple):
    """Where to ask, what for, and how to connect to the server that is named then."""

    name: str
    """Of the primary, as the sentinels know it."""
    sentinels: tuple[str, ...]
    """``redis://`` or ``rediss://`` URLs, in the order to ask."""
    primary: str
    """Such a URL without a host."""
    places: tuple[str, ...]
    """The sentinels as logs may show them: ``host:port``."""


def read_sentinel_url(url: str) -> SentinelUrl:
    """
    Raises:
        InvalidOption: The URL is malformed. The text shows none of it.
    """
    parts = urlsplit(url)
    who, _, hosts = parts.netloc.rpartition("@")
    scheme = parts.scheme.partition("+")[0]
    places = tuple(_place(each) for each in hosts.split(","))
    name, _, database = parts.path.strip("/").partition("/")
    if not _NAME.fullmatch(unquote(name)):
        raise InvalidOption("url", f"the name of the primary is missing or malformed; expected {EXPECTED}")
    own, shared, theirs = [], [], []
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key.startswith(PREFIX):
            theirs.append((key.removeprefix(PREFIX), value))
            continue
        own.append((key, value))
        if key.startswith("ssl_"):
            shared.append((key, value))
    asked = dict([*shared, *theirs])
    tls = asked.pop("ssl", "true" if scheme == "rediss" else "false").lower()
    if tls not in ("true", "false"):
        raise InvalidOption("url", f"{PREFIX}ssl: expected true or false")
    if tls == "false":
        asked = {key: value for key, value in asked.items() if not key.startswith("ssl_")}
    way = "rediss" if tls == "true" else "redis"
    query = f"?{urlencode(asked)}" if asked else ""
    userinfo = f"{who}@" if who else ""
    own_query = f"?{urlencode(own)}" if own else ""
    return SentinelUrl(
        unquote(name),
        tuple(f"{way}://{place}{query}" for place in places),
        f"{scheme}://{userinfo}/{database}{own_query}",
        places,
    )


def _place(text: str) -> str:
    found = _PLACE.fullmatch(text)
    port = int(found["port"] or PORT) if found else 0
    if found is None or not 0 < port < 65536:
        raise InvalidOption("url", f"the host or port of a sentinel is malformed; expected {EXPECTED}")
    return f"{found['host']}:{port}"
