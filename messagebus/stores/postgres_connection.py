"""Connections to PostgreSQL: how they are made, how they wait, and a bounded pool of them.

psycopg decides how to wait for the server when it is imported, and where that was before
``gevent.monkey.patch_all()`` every wait would stop all greenlets. So the connections here decide each time.
"""

from __future__ import annotations

import math
import os
import re
import selectors
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg import errors, waiting
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .. import _compat, forks
from ..errors import BackendUnavailable, InvalidData, InvalidOption, PublishRefused
from ..loop.poller import gevent_is_in_charge
from ..urls import redact
from .advice import for_postgres
from .base import KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL
from .idle import MAX_IDLE, is_readable

_compat.check("psycopg")

MAX_CONNECTIONS = 8
"""Of one process, the feeds' apart; who needs one more waits for up to ``store_timeout``. Publishes follow each other
in the database anyway, and the server has 100 for all by default."""

LEAST_WAIT = 0.05
"""Seconds that an answer has, however long a connection had to be waited for."""


GIVEN_UP, CANCELLED = 0.8, 0.9
"""Parts of the time that a caller waits for an answer. After the first the server gives the statement up by itself;
after the second it is told to, and has the rest for it. So none goes on behind the caller's back, when a lock that it
waits for is free at last, and no connection piles up behind it."""


class PgConnection(psycopg.Connection[Any]):
    """A connection that gives up on a server that says nothing for ``answer_timeout`` seconds."""

    answer_timeout = 5.0
    idle_since = math.inf

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        wait = waiting.wait_poll if gevent_is_in_charge() else waiting.wait
        limit = self.answer_timeout * CANCELLED if timeout is None else timeout
        began = time.monotonic()
        try:
            # As interval the limit: there is nothing else to look after in between. (On the main thread there is:
            # Ctrl-C.)
            return wait(gen, self.pgconn.socket, limit if _off_the_main_thread() else interval, limit)
        except psycopg.OperationalError as error:
            if timeout is None and time.monotonic() - began >= limit and self.pgconn.status == psycopg.pq.ConnStatus.OK:
                self._cancel(self.answer_timeout * (1 - CANCELLED))
                self.pgconn.finish()
                raise psycopg.OperationalError(f"no answer within {self.answer_timeout:g} s") from error
            raise
        except psycopg.Error:
            raise
        except BaseException:
            # Cut into by Ctrl-C or gevent: the answer that is still to come must not be taken for that of another
            # question.
            if timeout is None:
                self.pgconn.finish()
            raise

    def limit_statements(self) -> None:
        """Have the server give up statements before the caller does; a limit that is lower already stays."""
        milliseconds = math.ceil(self.answer_timeout * GIVEN_UP * 1000)
        self.execute(_LIMIT, (f"{milliseconds}ms", f"{milliseconds}ms"))

    def _cancel(self, timeout: float) -> None:
        """Have the server end the statement that it is in: also one that waits for a standby, which no limit ends."""
        with suppress(Exception):  # it may be out of reach
            if _waits_unlike_gevent():
                from gevent import get_hub

                get_hub().threadpool.apply(self.cancel_safe, kwds={"timeout": timeout})
            else:
                self.cancel_safe(timeout=timeout)

    def leave_to_parent(self) -> None:
        """In a child process: close the descriptor and nothing else. Its number stays taken, for a greenlet that was
        copied with the parent may still use it."""
        forks.leave_behind(self)  # psycopg must never say goodbye on it, nor warn of it
        try:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, self.fileno(), inheritable=False)
            os.close(nothing)
        except (OSError, psycopg.Error):
            pass  # it was closed already


_LIMIT = """
    SELECT set_config('statement_timeout', %s, false)
    WHERE current_setting('statement_timeout')::interval = interval '0'
        OR current_setting('statement_timeout')::interval > %s::interval"""


def _off_the_main_thread() -> bool:
    return threading.current_thread() is not threading.main_thread()


def connection_arguments(url: str, timeout: float) -> str:
    """What to connect with. ``timeout`` in seconds, where the URL does not say otherwise.

    Raises:
        InvalidOption: The URL is malformed. It does not show the URL, which may have a password in it.
    """
    try:
        given = conninfo_to_dict(url)
        defaults: dict[str, Any] = {
            "connect_timeout": math.ceil(timeout),
            "application_name": "messagebus",
            # A peer that vanished without a word, on a connection that waits: noticed by the kernel, too.
            "tcp_user_timeout": math.ceil(timeout * 1000),
            # Often enough that no box on the way takes a quiet connection for one that is over.
            "keepalives_idle": KEEPALIVE_IDLE,
            "keepalives_interval": KEEPALIVE_INTERVAL,
            "keepalives_count": KEEPALIVE_COUNT,
            # Names and messages are sent and read as such, whatever the environment says.
            "client_encoding": "UTF8",
        }
        return make_conninfo("", **{**defaults, **given})
    except psycopg.Error as error:
        reason = str(error).strip()
        if 'URI query parameter: "' in reason:  # the parameter's name, and nothing else of the URL
            raise InvalidOption("url", reason) from None
        expected = "postgresql://[user[:password]@][host][:port][/database][?parameter=value]"
        raise InvalidOption("url", f"malformed; expected {expected}") from None


def describe(url: str) -> str:
    """Where a connection leads, without secrets."""
    if redact(url).endswith("://***"):  # not as a URL should be: any part of it may be the password
        return "the given URL"
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2] or ",".join(parse_qs(parts.query).get("host", ["localhost"]))
    database = parts.path.strip("/")
    return f"{hosts} database {database}" if database else hosts


def connect(arguments: str, timeout: float) -> PgConnection:
    """A new connection, in autocommit mode.

    Raises:
        psycopg.Error: It cannot be made.
    """
    connection: PgConnection
    if _waits_unlike_gevent():
        from gevent import get_hub

        connection = get_hub().threadpool.apply(PgConnection.connect, (arguments,), {"autocommit": True})
    else:
        connection = PgConnection.connect(arguments, autocommit=True)
    connection.answer_timeout = timeout
    try:
        connection.limit_statements()
    except BaseException:
        connection.close()
        raise
    return connection


def _waits_unlike_gevent() -> bool:
    """Whether psycopg was imported before gevent patched the process: then what does not go through
    ``PgConnection.wait`` would stop all greenlets."""
    return gevent_is_in_charge() and getattr(waiting, "DefaultSelector", None) is not selectors.DefaultSelector


def explain(error: psycopg.Error, where: str) -> BackendUnavailable | PublishRefused | InvalidData:
    """Translate an error of psycopg: whether waiting helps or not. (PostgreSQL, appendix A.)"""
    text = in_words(error)
    said = f"PostgreSQL at {where} said: {text}"
    state = error.sqlstate or ""
    if isinstance(error, psycopg.DataError):
        return InvalidData(f"PostgreSQL at {where} cannot store it: {text}")
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return BackendUnavailable(said, "read-only")
    if state.startswith("28") or _NOT_LET_IN.search(text):
        return PublishRefused(for_postgres(said), "unauthenticated")
    if state == errors.InsufficientPrivilege.sqlstate:
        return PublishRefused(for_postgres(said), "forbidden")
    if state in _BUSY or state.startswith("40") or _TOO_MANY.search(text):
        return BackendUnavailable(said, "busy")
    if state.startswith("53"):
        return BackendUnavailable(said, "full")
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and not state.startswith("54"):
        return BackendUnavailable(f"PostgreSQL at {where} does not answer: {text}")
    return PublishRefused(for_postgres(said), "unsupported" if isinstance(error, NO_TABLES) else "error")


NO_TABLES = (errors.UndefinedTable, errors.UndefinedFunction)
_BUSY = ("53300", "55P03", "57014", "57P03")
"""Too many connections, a lock that is taken, a statement that took too long, a server that starts."""
# Errors before the connection is established have no code, only a text.
_NOT_LET_IN = re.compile(r"authentication failed|no pg_hba\.conf entry|role \S+ does not exist|no password supplied")
_TOO_MANY = re.compile(r"too many (clients|connections)|connection slots are reserved|starting up")


def in_words(error: psycopg.Error) -> str:
    """On one line: libpq gives advice on several."""
    return " ".join(str(error).split())


class Pool:
    """Up to ``MAX_CONNECTIONS`` connections, made when needed. Safe from any thread and greenlet.

    Made when first used, so that its locks are of the right kind under gevent."""

    def __init__(self, arguments: str, timeout: float, where: str) -> None:
        self._arguments = arguments
        self._timeout = timeout
        self._where = where
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._idle: list[PgConnection] = []  # the one that was used last is used next
        self._taken: set[PgConnection] = set()
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[PgConnection]:
        """A connection for as long as the block lasts. One that broke is closed, and the idle ones with it.

        Raises:
            BackendUnavailable: None became free in time.
            psycopg.Error: None could be made.
        """
        deadline = time.monotonic() + self._timeout
        if not self._free.acquire(timeout=self._timeout):
            raise BackendUnavailable(
                f"PostgreSQL at {self._where}: {MAX_CONNECTIONS} connections are all in use", "busy"
            )
        try:
            connection = self._take()
            connection.answer_timeout = max(deadline - time.monotonic(), LEAST_WAIT)
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._free.release()

    def _take(self) -> PgConnection:
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection = self._idle.pop()
                self._taken.add(connection)
            is_fresh = time.monotonic() - connection.idle_since < MAX_IDLE
            if is_fresh and not connection.closed and not is_readable(connection.fileno()):
                return connection
            with self._lock:
                self._taken.discard(connection)
            connection.close()
        connection = connect(self._arguments, self._timeout)
        with self._lock:
            self._taken.add(connection)
        return connection

    def _give_back(self, connection: PgConnection) -> None:
        with self._lock:
            self._taken.discard(connection)
            if not self._closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
                return
        connection.close()

    def discard_idle(self) -> None:
        """Close the idle connections: what broke one of them may have broken all."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close the idle connections now, and those in use when they are given back."""
        with self._lock:
            self._closed = True
        self.discard_idle()

    def leave_to_parent(self) -> None:
        """In a child process; the lock may be held for ever there."""
        for connection in [*self._idle, *self._taken]:
            connection.leave_to_parent()
