"""Keys that programs show over HTTP: bearer tokens (RFC 6750), compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from werkzeug.wrappers import Request

from ..option_kinds import Key, matches


def find_key(request: Request, keys: Sequence[Key]) -> Key | None:
    """The key that a request shows in its ``Authorization`` header, if it is one of these.

    All keys are compared, whichever fits, so that the time says nothing about them."""
    shown = bearer_token(request)
    if shown is None:
        return None
    token = shown.encode(errors="replace")
    found = None
    for key in keys:
        if hmac.compare_digest(key.key.encode(), token):
            found = key
    return found


def bearer_token(request: Request) -> str | None:
    """The token of ``Authorization: Bearer TOKEN``; ``None`` where there is none."""
    scheme, _, token = str(request.environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def opens(key: Key, channel: str) -> bool:
    """Whether a key is for a channel."""
    return any(matches(pattern, channel) for pattern in key.channels)
