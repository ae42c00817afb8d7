"""Stores. A store's module, and what it needs, is imported only when its URL asks for it."""

from __future__ import annotations

from importlib import import_module

from ..errors import InvalidOption
from ..options import SCHEMES, Options
from .base import (
    Backlog,
    BacklogPage,
    BacklogQuery,
    Feed,
    Listener,
    Publication,
    PublicationId,
    Store,
    StoreState,
    Trace,
)
from .interest import Interest

__all__ = [
    "Backlog",
    "BacklogPage",
    "BacklogQuery",
    "Feed",
    "Interest",
    "Listener",
    "Publication",
    "PublicationId",
    "Store",
    "StoreState",
    "Trace",
    "open_store",
]


def open_store(options: Options) -> Store:
    """Make the store that ``options.url`` names. Connects to nothing yet.

    Raises:
        InvalidOption: No store has that scheme, or the URL is malformed.
    """
    scheme = options.url.partition("://")[0]
    if scheme == "memory":
        from .memory import MemoryStore

        return MemoryStore(options)
    if scheme == "sqlite":
        from .sqlite import SqliteStore

        return SqliteStore(options)
    if scheme in ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"):
        from .redis import RedisStore

        return RedisStore(options)
    if scheme in ("redis+cluster", "rediss+cluster"):
        from .redis_cluster import RedisClusterStore

        return RedisClusterStore(options)
    if scheme in ("postgresql", "postgres"):
        try:
            import_module("psycopg")
        except ImportError as error:
            advice = f"{scheme}:// needs psycopg: pip install 'flask-messagebus[postgresql]' ({error})"
            raise InvalidOption("url", advice) from error
        from .postgres import PostgresStore

        return PostgresStore(options)
    raise InvalidOption("url", f"no store for the scheme {scheme!r}; use one of {', '.join(SCHEMES)}")
