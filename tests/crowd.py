"""Many subscribers at once, in one thread: they send their request as it is and keep every byte of the answer."""

from __future__ import annotations

import base64
import os
import re
import resource
import selectors
import socket
import time
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlencode

from .clients import FORM

TRANSPORTS = ("streaming", "long-polling", "eventsource", "websocket")


def raise_file_limit(files: int) -> None:
    """Let this process have so many files open, where the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))


def subscription(transport: str, client_id: str, channel: str) -> bytes:
    """The request for everything on a channel after position 0."""
    query = urlencode({channel: 0})
    path = f"/message-bus/{client_id}"
    if transport == "eventsource":
        return f"GET {path}/sse?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    if transport == "websocket":
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}"
        return f"GET {path}/ws?{query} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n\r\n".encode()
    head = f"POST {path}/poll HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {len(query)}\r\n"
    once = "Dont-Chunk: true\r\n" if transport == "long-polling" else ""
    return f"{head}{once}\r\n{query}".encode()


class Crowd:
    """``count`` subscribers of one channel over one transport."""

    def __init__(self, connect: Callable[[], socket.socket], transport: str, channel: str, count: int) -> None:
        raise_file_limit(count + 500)
        self.received = [bytearray() for _ in range(count)]
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._ended: set[int] = set()
        try:
            for number in range(count):
                sock = connect()
                self._sockets.append(sock)
                sock.sendall(subscription(transport, f"{transport}-{number}", channel))
                sock.setblocking(False)
                self._selector.register(sock, selectors.EVENT_READ, number)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def read_until(self, done: Callable[[bytearray], bool], timeout: float = 30.0) -> None:
        """Read until what each has received satisfies ``done``."""
        deadline = time.monotonic() + timeout
        waiting = {number for number, received in enumerate(self.received) if not done(received)}
        while waiting:
            left = deadline - time.monotonic()
            assert left > 0, (
                f"{len(waiting)} of {len(self.received)} still wait; one has {self.received[waiting.pop()]!r}"
            )
            changed = {number for key, _ in self._selector.select(left) if (number := self._read(key)) is not None}
            waiting -= {number for number in changed & waiting if done(self.received[number])}

    def _read(self, key: selectors.SelectorKey) -> int | None:
        sock, number = key.fileobj, key.data
        assert isinstance(sock, socket.socket)
        data = sock.recv(1 << 18)
        if not data:
            self._ended.add(number)
            self._selector.unregister(sock)
            return None
        self.received[number] += data
        assert isinstance(number, int)
        return number

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        self._selector.close()


def message_ids(received: bytes | bytearray) -> list[int]:
    """The ids of all messages in what a subscriber has received, whatever is around them."""
    return [int(number) for number in re.findall(rb'"message_id":([0-9]+)', received)]
