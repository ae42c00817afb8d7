"""The feed of the Redis store: one thread that reads the pub/sub channel, and comes back after every outage.

redis-py makes the connection (TLS, password, database). From then on this module reads the socket itself, in bulk:
that takes a fraction of the time per message; and a burst reaches the listener as one list.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import redis

from ..errors import BackendUnavailable
from .base import Listener
from .feed import Entry, Gate, Sequencer, Source

logger = logging.getLogger(__name__)

BULK = 256 * 1024
"""Bytes asked of the socket at once."""
QUIET = 5.0
"""Seconds without a word after which the server is asked whether it is still there."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two attempts to connect: the first is short, each next up to twice as long, as far as the longest."""

_NOTHING = object()
_left_behind: list[RedisFeed] = []
"""Feeds that a fork has copied together with their greenlets, see ``abandon``."""


class RedisFeed:
    """A running feed. Begins with ``start``; under gevent's monkey patching its thread is a greenlet."""

    def __init__(
        self,
        source: Source,
        listener: Listener,
        *,
        connect: Callable[[], Any],
        channel: bytes,
        decode: Callable[[bytes], Entry | None],
        where: str,
        timeout: float,
    ) -> None:
        self._gate = Gate(listener)
        self._sequencer = Sequencer(source, self._gate)
        self._connect = connect
        self._channel = channel
        self._decode = decode
        self._where = where
        self._timeout = timeout
        self._random = random.Random()
        self._connection: Any = None
        self._down = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="messagebus-feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._gate.is_shut

    def close(self) -> None:
        self._gate.shut()
        self._stop.set()
        connection = self._connection
        # redis-py has no public way to a connection's socket.
        sock = connection._sock if connection is not None else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread
            except OSError:
                pass  # it is gone already
        if self._thread is not threading.current_thread():
            # In vain only while it connects to a host that does not answer; it may not call the listener then, either.
            self._thread.join(1.0)

    def abandon(self) -> None:
        """In a child process, where the thread does not exist; but a gevent greenlet does, and must do no more."""
        self._gate.shut_after_fork()
        self._stop = threading.Event()
        _left_behind.append(self)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()  # only closes the descriptor: redis-py sees that another process opened it

    def _run(self) -> None:
        attempts = 0
        while not self.closed:
            try:
                for _ in self._connected():
                    attempts = 0
            except (BackendUnavailable, redis.RedisError, OSError) as error:
                self._went_down(error)
            except Exception as error:
                # A listener's mistake, or this package's. The feed outlives it, and goes on behind the message.
                logger.exception("the feed from Redis at %s failed, and begins again", self._where)
                self._went_down(error)
            self._stop.wait(self._pause(attempts))
            attempts += 1
        if self in _left_behind:
            # For good: ``threading`` has forgotten this thread at the fork, and would print a traceback if it ended.
            self._stop.wait()

    def _pause(self, attempts: int) -> float:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts, 10))
        # At random, so that the processes of a site do not come back to a restarted Redis all at once.
        return longest * self._random.uniform(0.5, 1.0)

    def _connected(self) -> Iterator[None]:
        """Lives through one connection. Yields after each step that went well; never returns but by an error."""
        self._sequencer.prepare()
        connection = self._connection = self._connect()
        try:
            connection.connect()
            connection.send_command("SUBSCRIBE", self._channel)
            bulks = self._bulks(connection._sock)
            first = next(bulks)
            if isinstance(first[0], Exception):
                raise BackendUnavailable(f"Redis at {self._where} said: {first[0]}")
            self._sequencer.catch_up()
            self._came_up()
            yield
            self._hand_over(first)
            for replies in bulks:
                yield
                self._hand_over(replies)
                # Under gevent, a socket that always has something to read would keep all other greenlets from running.
                time.sleep(0)
        finally:
            connection.disconnect()
            self._connection = None

    def _bulks(self, sock: Any) -> Iterator[list[Any]]:
        """What the server sends, as it comes, never empty lists. Raises ``OSError`` when the connection is gone."""
        reader = hiredis.Reader(notEnoughData=_NOTHING)
        buffer: Any = bytearray(BULK)
        asked = False
        while not self.closed:
            sock.settimeout(self._timeout if asked else QUIET)
            try:
                size = sock.recv_into(buffer)
            except TimeoutError:
                if asked:
                    raise
                sock.sendall(b"*1\r\n$4\r\nPING\r\n")
                asked = True
                continue
            if not size:
                break
            asked = False
            reader.feed(buffer, 0, size)
            replies = []
            while (reply := reader.gets()) is not _NOTHING:
                replies.append(reply)
            if replies:
                yield replies
        raise ConnectionResetError("connection closed by the server")

    def _hand_over(self, replies: list[Any]) -> None:
        entries = []
        for reply in replies:
            # Besides messages: the answer to SUBSCRIBE, and pongs.
            if type(reply) is list and reply[0] == b"message":
                entry = self._decode(reply[2])
                if entry is not None:
                    entries.append(entry)
        if entries:
            self._sequencer.received(entries)

    def _went_down(self, error: Exception) -> None:
        if self._down or self.closed:
            return
        self._down = True
        logger.warning("no feed from Redis at %s, trying until it is back: %s", self._where, error)
        self._gate.healthy(False)

    def _came_up(self) -> None:
        if self._down:
            self._down = False
            logger.info("the feed from Redis at %s is back", self._where)
            self._gate.healthy(True)
