"""Stores. A backend's module, and what it needs, is imported only when its URL asks for it."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..errors import InvalidOption
from ..options import Options
from .base import Backend, Backlog, Feed, Listener, State

__all__ = ["Backend", "Backlog", "Feed", "Listener", "State", "open_backend"]


def open_backend(options: Options) -> Backend:
    """The backend that ``options.url`` names. Connects to nothing yet.

    Raises:
        InvalidOption: No backend goes by that scheme, or the URL is malformed.
    """
    scheme = urlsplit(options.url).scheme
    if scheme == "memory":
        from .memory import MemoryBackend

        return MemoryBackend(options)
    if scheme in ("redis", "rediss", "unix"):
        from .redis import RedisBackend

        return RedisBackend(options)
    raise InvalidOption("url", f"no store for the scheme {scheme!r}; use memory://, redis://, rediss:// or unix://")
