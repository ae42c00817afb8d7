"""The feed of the PostgreSQL store: one thread that listens to NOTIFY on its own connection.

A notification is a stored message or, where that is too long for one, its ids and name: then it is read from the table.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import psycopg

from ..codecs import Codec
from ..errors import BackendUnavailable
from .base import Listener
from .feed_thread import FeedThread
from .postgres_connection import PgConnection
from .sequencer import Entry, Source, decode_entry

ANNOUNCEMENTS = "_announcements"
"""What the name of the NOTIFY channel of announcements ends with, behind the one of messages."""
BUCKETS = 256
"""Of names, by their hash: messages have a NOTIFY channel for each. For every channel that somebody listens on,
PostgreSQL goes through all that a connection listens on, one after the other: so there cannot be one for each name."""
QUIET = 5.0
"""Idle seconds after which the feed pings the server."""


def bucket_of(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % BUCKETS


def is_pointer(payload: str) -> bool:
    """Whether it is a message's ids and name alone."""
    return payload.count("|") == 2


def listen(connection: PgConnection, channels: Iterable[str]) -> None:
    connection.execute("; ".join(f'LISTEN "{channel}"' for channel in channels))


class PostgresSource(Source, Protocol):
    def read(self, global_ids: Sequence[int]) -> dict[int, Entry]:
        """Those of the messages that are still kept, by global id."""

    def notify_channel(self) -> str:
        """The NOTIFY channel. Raises while the store has no tables."""


class PostgresFeed(FeedThread):
    OUTAGES = (BackendUnavailable, psycopg.Error, OSError)

    def __init__(
        self,
        source: PostgresSource,
        listener: Listener,
        *,
        connect: Callable[[], PgConnection],
        where: str,
        codec: Codec | None,
    ) -> None:
        super().__init__(source, listener, f"PostgreSQL at {where}")
        self._codec = codec
        self._source = source
        self._connect = connect
        self._connection: PgConnection | None = None
        # Held to close the connection's descriptor, or to use it from another thread: its number may be another
        # file's a moment later.
        self._lock = threading.Lock()

    def _interrupt(self) -> None:
        with self._lock:
            connection = self._connection
            if connection is not None and not connection.closed:
                with socket.socket(fileno=os.dup(connection.fileno())) as sock:
                    try:
                        sock.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass  # it is gone already

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._lock = threading.Lock()
        if connection is not None:
            connection.leave_to_parent()

    def _follow(self) -> Iterator[None]:
        self._sequencer.prepare()
        channel = self._source.notify_channel()
        connection = self._connect()
        with self._lock:
            self._connection = connection
        try:
            announcements = channel + ANNOUNCEMENTS
            listen(connection, [channel, announcements, *[f"{channel}_{bucket}" for bucket in range(BUCKETS)]])
            self._sequencer.resume()
            self._came_up()
            yield
            checked = time.monotonic()
            while not self.closed:
                # All that one read of the socket has brought.
                notifications = list(connection.notifies(timeout=QUIET, stop_after=1))
                if not notifications:
                    connection.execute("SELECT 1")
                    if not self._sequencer.check_alive():
                        raise BackendUnavailable(f"{self._where} does not deliver what is published")
                elif (now := time.monotonic()) - checked > QUIET:
                    # There was no pause that was long enough to ask, and the change may not have been announced here.
                    self._sequencer.check_epoch()
                    checked = now
                yield
                self._hand_over([each.payload for each in notifications if each.channel != announcements])
                announced = [each.payload for each in notifications if each.channel == announcements]
                if announced:
                    self._gate.announced(announced)
                # Under gevent, a socket that always has something to read would keep all other greenlets from running.
                time.sleep(0)
            raise BackendUnavailable("closed")
        finally:
            with self._lock:
                if self._connection is connection:
                    connection.close()
                    self._connection = None

    def _hand_over(self, payloads: Sequence[str]) -> None:
        pointers = {payload: int(payload.partition("|")[0]) for payload in payloads if is_pointer(payload)}
        read = self._source.read([*pointers.values()]) if pointers else {}
        entries: list[Entry] = []
        for payload in payloads:
            pointer = pointers.get(payload)
            entry = decode_entry(payload.encode(), self._codec) if pointer is None else read.get(pointer)
            if entry is not None:
                entries.append(entry)
            elif pointer is not None:
                # Gone from the channel already. What the others are to be told is the same as after an outage.
                self._sequencer.received(entries)
                entries = []
                self._sequencer.resume()
        if entries:
            self._sequencer.received(entries)
