"""Connections to Redis, and what its errors mean. redis-py makes the connections."""

from __future__ import annotations

import re
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from ..errors import BackendUnavailable, InvalidOption, PublishRefused
from .advice import for_redis
from .base import KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL
from .idle import MAX_IDLE, is_readable

MAX_CONNECTIONS = 32
"""Maximum connections of one process, without the feeds'. Callers wait up to ``store_timeout`` for a free one."""
KEPT = 16
"""Of these, the idle connections that commands keep; the others are in redis-py's pool, for its clients."""


Exchange = Callable[[Any, tuple[Any, ...]], Any]
"""Sends a command on a connection, and returns the answer."""
Prepare = Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]
"""Makes a command what it is to be on a connection."""


def exchange(connection: Any, command: tuple[Any, ...]) -> Any:
    connection.send_packed_command((hiredis.pack_command(command),))
    return connection.read_response()


_exchange = exchange  # where a parameter has that name


class Connections:
    """The connections of a store, made when needed. Safe from any thread and greenlet.

    Made when first used, so that its locks are of the right kind under gevent."""

    def __init__(self, connection_class: type[Any], arguments: dict[str, Any], timeout: float) -> None:
        self._pool = _Pool(
            connection_class=connection_class, max_connections=MAX_CONNECTIONS, timeout=timeout, **arguments
        )
        self.client = redis.Redis(connection_pool=self._pool)
        """For everything that is not :meth:`call`."""
        self._idle: list[Any] = []  # the one that was used last is used next; append and pop are atomic

    def call(self, command: tuple[Any, ...], exchange: Exchange | None = None) -> Any:
        """Send one command, and return the answer. ``exchange``: what does that in place of :func:`exchange`.

        Like redis-py's client, but without its layers for retries, metrics and kinds of answers, and without its way to
        assemble a command: those take a third of the time of a publish."""
        connection = self._take()
        try:
            answer = (exchange or _exchange)(connection, command)
        except redis.ResponseError:  # an answer like any other
            self._give_back(connection)
            raise
        except BaseException:
            # The answer may still come, and must not be taken for the next command's.
            self._discard(connection)
            raise
        self._give_back(connection)
        return answer

    def begin(self, commands: Sequence[tuple[Any, ...]], prepare: Prepare | None = None) -> Callable[[], list[Any]]:
        """Send commands on one connection, and return what reads the answers, which has to be called: meanwhile other
        servers can be sent theirs. An exception of redis-py takes the place of each answer that does not come."""
        connection = None
        try:
            connection = self._take()
            if prepare is not None:
                commands = [prepare(connection, command) for command in commands]
            connection.send_packed_command([hiredis.pack_command(command) for command in commands])
        except (redis.RedisError, OSError) as error:
            trouble = error  # the name of an exception is gone after its clause
            if connection is not None:
                self._discard(connection)
            return lambda: [trouble] * len(commands)
        except BaseException:  # gevent's timeouts are no Exception
            if connection is not None:
                self._discard(connection)
            raise
        return partial(self._read_answers, connection, len(commands))

    def _read_answers(self, connection: Any, number: int) -> list[Any]:
        answers: list[Any] = []
        try:
            while len(answers) < number:
                try:
                    answers.append(connection.read_response())
                except redis.ResponseError as error:
                    answers.append(error)
        except (redis.RedisError, OSError) as error:
            self._discard(connection)
            return answers + [error] * (number - len(answers))
        except BaseException:
            self._discard(connection)
            raise
        self._give_back(connection)
        return answers

    def call_durably(
        self, command: tuple[Any, ...], replicas: int, milliseconds: int, exchange: Exchange | None = None
    ) -> tuple[Any, int]:
        """Send one command that writes, then wait until so many replicas have what this connection has written. Returns
        the answer, and how many have."""
        connection = self._take()
        try:
            answer = (exchange or _exchange)(connection, command)
            try:
                connection.send_command("WAIT", replicas, milliseconds)
                reached = connection.read_response()
            except (redis.RedisError, OSError):
                # The answer has come, so it is written; whether any replica has it will not be known.
                connection.disconnect()
                reached = 0
        except redis.ResponseError:
            self._give_back(connection)
            raise
        except BaseException:
            self._discard(connection)
            raise
        self._give_back(connection)
        return answer, reached

    def _take(self) -> Any:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._pool.get_connection()
            sock = connection._sock  # redis-py has no public way to it; its own question takes longer
            if time.monotonic() - connection.messagebus_idle_since < MAX_IDLE and sock and not is_readable(sock):
                return connection
            self._discard(connection)

    def _give_back(self, connection: Any) -> None:
        if len(self._idle) < KEPT:
            connection.messagebus_idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            self._pool.release(connection)

    def _discard(self, connection: Any) -> None:
        """Close a connection of which it is not known what comes next."""
        connection.disconnect()
        self._pool.release(connection)

    def discard_idle(self) -> None:
        """Close the idle connections: what broke one of them may have broken all."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            self._discard(connection)
        self._pool.disconnect(inuse_connections=False)

    def break_off(self, primary: tuple[str, int]) -> None:
        """End all connections that lead elsewhere, those in use as well: who waits for an answer there gets an error.

        From any thread, so it only shuts sockets down, and leaves closing them to those who use them."""
        for connection in list(self._pool.made):
            if (connection.host, connection.port) != primary:
                shut_down(connection)

    def close(self) -> None:
        """Close all connections, those in use as well."""
        self._pool.disconnect()


def shut_down(connection: Any) -> None:
    """Wake whoever waits on a connection, from any thread."""
    sock = connection._sock if connection is not None else None  # redis-py has no public way to it
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class _Pool(redis.BlockingConnectionPool):
    """redis-py's pool, which keeps idle connections for a limited time."""

    def __init__(self, **arguments: Any) -> None:
        self.made: weakref.WeakSet[Any] = weakref.WeakSet()
        super().__init__(**arguments)  # type: ignore[no-untyped-call]

    def make_connection(self) -> Any:
        connection = super().make_connection()  # type: ignore[no-untyped-call]
        self.made.add(connection)
        return connection

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        connection = super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]
        now = time.monotonic()
        if now - getattr(connection, "messagebus_idle_since", now) > MAX_IDLE:
            connection.disconnect()  # the next command connects it again
        return connection

    def release(self, connection: Any) -> None:
        connection.messagebus_idle_since = time.monotonic()
        super().release(connection)  # type: ignore[no-untyped-call]


# --- errors ---

_WORDS = re.compile(r"(?:^|[-:] ?)([A-Z]{3,})\b")
"""Redis's code for an error: the first word of the text, or, for a script in version 6, a word in the middle."""
_UNAVAILABLE = {
    "READONLY": "read-only",
    "OOM": "full",
    "MISCONF": "full",
    "NOREPLICAS": "busy",
    "LOADING": "busy",
    "HISTORY": "busy",
    "BUSY": "busy",
    "MASTERDOWN": "busy",
    "CLUSTERDOWN": "busy",
    "TRYAGAIN": "busy",
}
_TYPES: dict[type[Exception], str] = {
    redis.ReadOnlyError: "READONLY",
    redis.OutOfMemoryError: "OOM",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.MovedError: "MOVED",
    redis.exceptions.AskError: "ASK",
    redis.exceptions.ClusterCrossSlotError: "CROSSSLOT",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.TryAgainError: "TRYAGAIN",
}
_REFUSED = {
    "NOPERM": "forbidden",
    "NOAUTH": "unauthenticated",
    "WRONGPASS": "unauthenticated",
    "WRONGTYPE": "wrong type",
    "MOVED": "unsupported",
    "ASK": "unsupported",
    "CROSSSLOT": "unsupported",
}


class WrongServer(redis.RedisError):
    """What answers is not what the URL says, or lets nobody in; the text says what it is. ``reason``: see
    ``PublishRefused``."""

    def __init__(self, words: str, reason: str) -> None:
        super().__init__(words)
        self.reason = reason


Meaning = BackendUnavailable | PublishRefused | InvalidOption
"""What an error means: waiting helps; it does not; the URL leads to a server of another kind."""


def explain(error: Exception, where: str) -> Meaning:
    """Translate an error of redis-py."""
    if isinstance(error, WrongServer):
        if error.reason == "unsupported":
            return InvalidOption("url", str(error))
        return PublishRefused(str(error), error.reason)
    if isinstance(error, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
        words = f"Redis at {where} does not let this process in: {error}"
        return PublishRefused(for_redis(words), "unauthenticated")
    if isinstance(error, redis.BusyLoadingError) or "max number of clients" in str(error):
        return BackendUnavailable(f"Redis at {where} said: {error}", "busy")
    if isinstance(error, redis.DataError):
        return PublishRefused(f"Redis at {where} cannot be told that: {error}")
    if not isinstance(error, redis.ResponseError):
        return BackendUnavailable(for_redis(f"Redis at {where} does not answer: {error}"))
    # redis-py takes the word off the text where it knows it.
    text = f"{_TYPES.get(type(error), '')} {error}".strip()
    words = f"Redis at {where} said: {text}"
    for word in _WORDS.findall(text):
        if word in _UNAVAILABLE:
            return BackendUnavailable(words, _UNAVAILABLE[word])
        if _REFUSED.get(word) == "unsupported":
            return InvalidOption("url", for_redis(words))
        if word in _REFUSED:
            return PublishRefused(for_redis(words), _REFUSED[word])
    if "user executing the script" in text:  # the words of Redis 7 for NOPERM within a script
        return PublishRefused(for_redis(words), "forbidden")
    return PublishRefused(words, "unsupported" if "unknown command" in text.lower() else "error")


# --- URLs ---

_KEEPALIVE: dict[str, Any] = {
    "socket_keepalive": True,
    # Where the system has them by these names.
    "socket_keepalive_options": {
        getattr(socket, name): value
        for name, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE),
            ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
            ("TCP_KEEPCNT", KEEPALIVE_COUNT),
        )
        if hasattr(socket, name)
    },
}


def connection_arguments(url: str, timeout: float) -> tuple[type[Any], dict[str, Any]]:
    """The class and the arguments of a connection. ``timeout``: seconds to connect, and to wait for an answer. No error
    shows the URL: it may hold a password."""
    try:
        database = urlsplit(url).path.strip("/")
        if not url.startswith("unix:") and database and not database.isdecimal():
            raise InvalidOption("url", "the database must be a number; a / in the password is written %2F")
        from_url: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        connection_class = from_url.pop("connection_class", redis.Connection)
        arguments = {
            **({} if connection_class is redis.UnixDomainSocketConnection else _KEEPALIVE),
            "db": 0,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            **from_url,
            # redis-py would silently send a command again when no answer came, and so publish twice.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        arguments["db"] = int(arguments["db"])
        # Not connected: only to find names among the URL's parameters that no connection knows.
        connection_class(**arguments)
    except InvalidOption:
        raise
    except Exception as error:
        if isinstance(error, TypeError) and "argument" in str(error):
            raise InvalidOption("url", str(error).rpartition(") ")[2].removeprefix("got an ")) from None
        raise InvalidOption("url", "malformed; expected redis://[[user]:password@]host[:port][/database]") from None
    return connection_class, arguments


def describe(arguments: dict[str, Any]) -> str:
    """The target of a connection, without secrets."""
    place = arguments.get("path") or f"{arguments.get('host', 'localhost')}:{arguments.get('port', 6379)}"
    return f"{place} database {arguments['db']}"
