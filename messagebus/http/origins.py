"""Which pages may connect: compares the ``Origin`` header (RFC 6454) with the server's own origin and the allowed
ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def is_same(origin: str, host: str) -> bool:
    """Whether a page of ``origin`` was served under ``host`` (the ``Host`` header). The scheme does not count: behind a
    proxy that ends TLS the server does not know it."""
    try:
        parts = urlsplit(origin)
        port = _PORTS.get(parts.scheme)
        own = urlsplit(f"//{host}")
        return bool(parts.hostname) and (parts.hostname, parts.port or port) == (own.hostname, own.port or port)
    except ValueError:
        return False


def is_allowed(origin: str, allowed: Sequence[str | re.Pattern[str]]) -> bool:
    """Whether one of the entries matches: an origin, one with a wildcard subdomain (``https://*.example.com``), a
    regular expression for the whole origin, or ``*``."""
    return any(_fits(origin, entry) for entry in allowed)


def _fits(origin: str, entry: str | re.Pattern[str]) -> bool:
    if isinstance(entry, re.Pattern):
        return entry.fullmatch(origin) is not None
    if entry in ("*", origin):
        return True
    scheme, wildcard, domain = entry.partition("://*.")
    return bool(wildcard) and origin.startswith(f"{scheme}://") and origin.endswith(f".{domain}")
