"""A store's way to Redis: its connections, its scripts, and what an error of theirs means."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
from redis.exceptions import NoScriptError

from ..errors import BackendUnavailable, BusClosed, InvalidOption
from ..options import Options
from .advice import ANNOUNCEMENTS, OWN_CHANNEL
from .redis_connection import Connections, Exchange, Meaning, connection_arguments, describe, explain
from .redis_history import RedisHistory
from .redis_keys import RedisKeys
from .redis_scripts import PUBLISH, RENEW_EPOCH, RENEW_HISTORY, Script
from .sentinel import Primary
from .sentinel_url import EXPECTED

SENTINEL_SCHEMES = ("redis+sentinel:", "rediss+sentinel:")

Call = Callable[[tuple[Any, ...], Exchange | None], Any]

_MADE_ANEW = ("gone", "read-only")
"""Reasons for which connections are replaced."""


class RedisAccess:
    """What the parts of the store share. Connections are made on first use."""

    publish_script = PUBLISH
    renew_epoch_script = RENEW_EPOCH
    renew_history_script = RENEW_HISTORY

    def __init__(self, options: Options, primary: Primary | None = None, prefix: bytes = b"") -> None:
        """``primary``: of the store whose feed this one is for, which closes it. ``prefix``: what the names of all keys
        and of the messages' pub/sub channels begin with."""
        self._options = options
        self._primary, self._owns_primary = primary, False
        self._find_server()
        self.keys = RedisKeys(prefix)
        common = (options.redis_pubsub_channel or f"_message_bus_{self._connection[1]['db']}").encode()
        self._pubsub_channel = prefix + common
        self._announcements = common + ANNOUNCEMENTS.encode()
        self.own_prefix = self._pubsub_channel + OWN_CHANNEL.encode()
        channels = self._pubsub_channel, self.own_prefix + b"/__epoch"
        self._history = RedisHistory(self.renew_history_script, self.keys, channels)
        self.by_channel: bool = options.redis_announce == "by_channel"
        self._clear()
        self._closed = False

    def _find_server(self) -> None:
        """Find out how connections are made, and what logs call the server."""
        url, timeout = self._options.url, self._options.store_timeout
        if url.startswith(SENTINEL_SCHEMES) and self._primary is None:
            self._primary, self._owns_primary = Primary(url, timeout), True
        if self._primary is None:
            self._connection = connection_arguments(url, timeout)
            self.where = describe(self._connection[1])
        else:
            self._connection = self._primary.connection_class, self._primary.arguments
            self.where = self._primary.where

    def _clear(self) -> None:
        # Guards the fields below; nothing is waited for under it, so it may be made before gevent patches the process.
        self._lock = threading.Lock()
        self._connections: Connections | None = None

    def _connected(self) -> Connections:
        with self._lock:
            if self._closed:
                raise BusClosed("the store was closed")
            if self._connections is not None:
                return self._connections
            connections = self._connections = Connections(*self._connection, self._options.store_timeout)
        if self._primary is not None and self._owns_primary:
            self._primary.watch()
        return connections

    def _client(self) -> Any:
        return self._connected().client

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate an error of redis-py, for a reader, into this package's."""
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> BackendUnavailable:
        """Translate an error for a reader: a refusal also counts as unavailable."""
        meaning = self._explain(error)
        if isinstance(meaning, BackendUnavailable):
            return meaning
        return BackendUnavailable(str(meaning), "forbidden")

    def _explain(self, error: Exception) -> Meaning:
        meaning = explain(error, self.where)
        connections = self._connections
        if connections is not None and isinstance(meaning, BackendUnavailable) and meaning.reason in _MADE_ANEW:
            # Where this server is no longer the primary, the name in the URL may by now lead to the one that is, and
            # where it is gone, the other connections are gone as well: to try each of them would take as many timeouts.
            connections.discard_idle()
        if meaning.reason == "unsupported" and "unknown command" in str(error) and self._is_sentinel():
            words = f"{self.where} is a sentinel, which keeps no messages; expected a Redis, or a URL {EXPECTED}"
            return InvalidOption("url", words)
        return meaning

    def _is_sentinel(self) -> bool:
        with suppress(redis.RedisError, OSError):
            return bool(self._client().info("server").get("redis_mode") == "sentinel")
        return False

    def _run(self, script: Script, arguments: Sequence[Any], call: Call | None = None) -> Any:
        """Run a script with what EVALSHA takes after its name. ``call``: sends it, in place of ``Connections.call``."""
        call = call or self._connected().call
        command = (b"EVALSHA", script.sha, *arguments)
        exchange = self._history.publish if script is self.publish_script else None
        try:
            return call(command, exchange)
        except NoScriptError:  # a new server, or one that was told to forget
            self._connected().call((b"SCRIPT", b"LOAD", script.text))
            return call(command, exchange)

    def break_off(self, primary: tuple[str, int]) -> None:
        """End the connections that lead elsewhere than to the primary; from any thread."""
        connections = self._connections
        if connections is not None:
            connections.break_off(primary)
