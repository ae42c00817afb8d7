"""The feed of the Redis store: one thread that reads the pub/sub channel.

redis-py makes the connection (TLS, password, database). Then this module reads the socket itself, in bulk: that takes a
fraction of the time per message, and a burst reaches the listener as one list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import hiredis
import redis

from .. import _compat
from ..codecs import Codec
from ..errors import BackendUnavailable
from .base import Listener
from .feed_thread import FeedThread
from .redis_connection import shut_down
from .sequencer import Source, decode_entry

_compat.check("redis")

BULK = 64 * 1024
"""Bytes read from the socket at once: some three hundred messages, which are still in the processor's cache when they
are written out. With four times as many, each message takes a quarter longer."""
QUIET = 5.0
"""Idle seconds after which the feed pings the server."""

_NOTHING = object()


class RedisSource(Source, Protocol):
    def check_setup(self) -> None:
        """Say in the log what is wrong with the server's settings and with this user's rights."""

    def close(self) -> None: ...

    def break_off(self, primary: tuple[str, int]) -> None:
        """End the connections that lead elsewhere than to the primary."""

    def after_fork(self) -> None: ...


class RedisFeed(FeedThread):
    OUTAGES = (BackendUnavailable, redis.RedisError, OSError)

    def __init__(
        self,
        source: RedisSource,  # closed with the feed
        listener: Listener,
        *,
        connect: Callable[[], Any],
        channel: bytes,
        announcements: bytes,
        where: str,
        timeout: float,
        codec: Codec | None,
    ) -> None:
        super().__init__(source, listener, f"Redis at {where}")
        self._codec = codec
        self._source = source
        self._connect = connect
        self._channel = channel
        self._announcements = announcements
        self._timeout = timeout
        self._connection: Any = None

    def close(self) -> None:
        super().close()
        self._source.close()

    def _interrupt(self) -> None:
        shut_down(self._connection)

    def go_elsewhere(self, primary: tuple[str, int]) -> None:
        """The primary is there now: end a connection that leads elsewhere, and make another one at once."""
        self._source.break_off(primary)
        connection = self._connection
        if connection is not None and (connection.host, connection.port) != primary:
            shut_down(connection)
        self.hurry()

    def _drop(self) -> None:
        self._source.after_fork()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()  # only closes the descriptor: redis-py sees that another process opened it

    def _follow(self) -> Iterator[None]:
        self._source.check_setup()
        self._sequencer.prepare()
        connection = self._connection = self._connect()
        try:
            connection.connect()
            connection.send_command("SUBSCRIBE", self._channel)
            # Apart: a user who may not hear announcements hears messages all the same.
            connection.send_command("SUBSCRIBE", self._announcements)
            bulks = self._bulks(connection._sock)
            first = next(bulks)
            if isinstance(first[0], Exception):
                raise BackendUnavailable(f"{self._where} said: {first[0]}")
            self._sequencer.resume()
            self._came_up()
            yield
            self._hand_over(first)
            checked = time.monotonic()
            for replies in bulks:
                yield
                if not self._hand_over(replies):
                    if not self._sequencer.check_alive():
                        raise BackendUnavailable(f"{self._where} does not deliver what is published")
                elif (now := time.monotonic()) - checked > QUIET:
                    # There was no pause that was long enough to ask, and the change may not have been announced here.
                    self._sequencer.check_epoch()
                    checked = now
                # Under gevent, a socket that always has something to read would keep all other greenlets from running.
                time.sleep(0)
        finally:
            connection.disconnect()
            self._connection = None

    def _bulks(self, sock: Any) -> Iterator[list[Any]]:
        """The server's replies as they arrive, in lists that are never empty. Raises ``OSError`` when the connection is
        gone."""
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

    def _hand_over(self, replies: list[Any]) -> bool:
        """Pass messages on. Returns whether there were any, readable or not, rather than only the answer to a ping."""
        entries = []
        announced = []
        live = False
        for reply in replies:
            # Besides messages: the answer to SUBSCRIBE, and pongs.
            if type(reply) is list and reply[0] == b"message":
                if reply[1] == self._announcements:
                    announced.append(reply[2].decode(errors="replace"))
                    continue
                live = True
                entry = decode_entry(reply[2], self._codec)
                if entry is not None:
                    entries.append(entry)
        if entries:
            self._sequencer.received(entries)
        if announced:
            self._gate.announced(announced)
        return live
