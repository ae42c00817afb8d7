"""Stores. A backend's module, and what it needs, is imported only when its URL asks for it."""

from __future__ import annotations

from importlib import import_module

from ..errors import InvalidOption
from ..options import SCHEMES, Options
from .base import Backend, Backlog, Feed, Listener, Publication, State

__all__ = ["Backend", "Backlog", "Feed", "Listener", "Publication", "State", "open_backend"]


def open_backend(options: Options) -> Backend:
    """The backend that ``options.url`` names. Connects to nothing yet.

    Raises:
        InvalidOption: No backend goes by that scheme, or the URL is malformed.
    """
    scheme = options.url.partition("://")[0]
    if scheme == "memory":
        from .memory import MemoryBackend

        return MemoryBackend(options)
    if scheme in ("redis", "rediss", "unix"):
        from .redis import RedisBackend

        return RedisBackend(options)
    if scheme in ("postgresql", "postgres"):
        try:
            import_module("psycopg")
        except ImportError as error:
            advice = f"{scheme}:// needs psycopg: pip install 'messagebus[postgresql]' ({error})"
            raise InvalidOption("url", advice) from error
        from .postgres import PostgresBackend

        return PostgresBackend(options)
    raise InvalidOption("url", f"no store for the scheme {scheme!r}; use one of {', '.join(SCHEMES)}")
