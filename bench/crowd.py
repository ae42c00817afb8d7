"""The load generator: many subscribers, one epoll, one thread.

It must take more than any server sends, so it reads in large pieces into one buffer and counts messages by a token
instead of parsing them. Every subscriber's count is checked; of some the whole stream is kept and their messages'
numbers are checked for order, loss and repetition. While something is timed it polls without sleeping: a sleeping
reader would have the server pay for waking it.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Sequence
from types import TracebackType

from .wires import DIGITS, TOKEN, Wire

BUFFER = 1 << 20
OPENING = 256
"""Connections that are being opened at the same time."""
SOURCES = 16
"""Loopback addresses to come from: one alone has 28,000 ports, and closed connections keep theirs for a minute."""
KEPT = 5
_NUMBER = re.compile(re.escape(TOKEN) + rb"(\d{%d})" % DIGITS)
_FIRST, _LAST = TOKEN


class Failed(Exception):
    """A contender lost or repeated messages, or a connection."""


class Crowd:
    """``len(channels)`` subscribers, the n-th of the n-th channel."""

    def __init__(self, port: int, wire: Wire, channels: Sequence[str], position: int = -1, first: int = 0) -> None:
        """``first``: the number of the first one, where there are several crowds."""
        self._first = first
        self.port, self.wire, self.channels, self.position = port, wire, channels, position
        self.count = len(channels)
        self.received = 0
        """Messages, over all."""
        self.bytes = 0
        self._sockets: dict[int, socket.socket] = {}
        self._order: list[socket.socket] = []
        self._epoll = select.epoll()
        self._buffer = bytearray(BUFFER)
        self._split: set[int] = set()  # whose last piece ended in the token's first byte
        # By descriptor: a list is the quickest way from an event to its subscriber.
        self._receive: list[object] = []
        self._counts: list[int] = []
        self._kept: dict[int, bytearray] = {}
        self._next = 0

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- beginning ---

    def open(self, timeout: float = 60.0) -> float:
        """Open all connections as fast as they are accepted, and return the seconds it took.

        What comes before a subscriber is ready is not counted, unless its wire never says that it is."""
        began = time.perf_counter()
        deadline = began + timeout
        pending: dict[int, bytearray] = {}
        answered: set[int] = set()
        events = select.EPOLLIN | select.EPOLLOUT
        while self._next < self.count or pending:
            while self._next < self.count and len(pending) < OPENING:
                fd = self._connect(self._next)
                self._epoll.register(fd, events)
                pending[fd] = bytearray()
                self._next += 1
            if time.perf_counter() > deadline:
                raise Failed(f"{len(self._sockets) - len(pending)} of {self.count} connected in {timeout:.0f} s")
            for fd, mask in self._epoll.poll(0, OPENING):
                if fd not in pending:
                    continue
                if mask & select.EPOLLOUT:
                    self._begin(fd)
                    self._epoll.modify(fd, select.EPOLLIN)
                    if not self.wire.ready:
                        del pending[fd]
                        continue
                if mask & ~select.EPOLLOUT and self._is_ready(fd, pending[fd], answered):
                    del pending[fd]
        return time.perf_counter() - began

    def _connect(self, number: int) -> int:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect
        sock.bind((f"127.0.0.{2 + number % SOURCES}", 0))
        sock.connect_ex(("127.0.0.1", self.port))
        fd = sock.fileno()
        self._sockets[fd] = sock
        if fd >= len(self._counts):
            self._counts += [0] * (fd + 1 - len(self._counts))
            self._receive += [None] * (fd + 1 - len(self._receive))
        self._counts[fd] = number  # for _begin; counting starts after it
        self._receive[fd] = sock.recv_into
        if number % max(1, self.count // KEPT) == 0:
            self._kept[fd] = bytearray()
        return fd

    def _begin(self, fd: int) -> None:
        number, self._counts[fd] = self._counts[fd], 0
        error = self._sockets[fd].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise Failed(f"connection {number} was refused (error {error})")
        self._sockets[fd].send(self.wire.request(self.channels[number], self._first + number, self.position))

    def _is_ready(self, fd: int, said: bytearray, answered: set[int]) -> bool:
        data = self._sockets[fd].recv(BUFFER)
        said += data
        if not data:
            raise Failed(f"a connection was closed while it was opened: {bytes(said[:300])!r}")
        if said.startswith(b"HTTP/1.1 ") and bytes(said[9:12]) not in (b"101", b"200"):
            raise Failed(f"a connection was refused: {bytes(said[:300])!r}")
        if self.wire.answer is not None and fd not in answered:
            marker, answer = self.wire.answer
            if marker in said:
                answered.add(fd)
                self._sockets[fd].send(answer)
                del said[:]
            return False
        return self.wire.ready in said

    def send(self, number: int, data: bytes) -> None:
        """Have the n-th subscriber say something; it has to be short."""
        if not self._order:
            self._order = [*self._sockets.values()]
        self._order[number].sendall(data)

    # --- reading ---

    def read(self, sockets: int = 1024) -> int:
        """Read whatever there is, once, on up to so many sockets. Returns how many messages it was."""
        receive, counts, buffer, split, kept = self._receive, self._counts, self._buffer, self._split, self._kept
        found = buffer.count
        total = size_of_all = 0
        for fd, _ in self._epoll.poll(0, sockets):
            try:
                size = receive[fd](buffer)  # type: ignore[operator]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Failed(f"a connection broke: {error}") from None
            if not size:
                raise Failed("the server closed a connection")
            messages = found(TOKEN, 0, size)
            if split and fd in split:
                split.discard(fd)
                messages += buffer[0] == _LAST
            if buffer[size - 1] == _FIRST:
                split.add(fd)
            counts[fd] += messages
            total += messages
            size_of_all += size
            if fd in kept:
                kept[fd] += buffer[:size]
        self.received += total
        self.bytes += size_of_all
        return total

    def read_until(self, received: int, timeout: float = 30.0) -> float:
        """Read until so many messages have come over all, and return the moment."""
        deadline = time.perf_counter() + timeout
        while self.received < received:
            if not self.read() and time.perf_counter() > deadline:
                raise Failed(f"{received - self.received} of {received} messages did not come in {timeout:.0f} s")
        return time.perf_counter()

    def check(self, each: int, in_order: bool = True) -> None:
        """Every subscriber has received ``each`` messages since it began, and the kept ones, if there is an order, 1,
        2, 3, ...

        Raises:
            Failed: Otherwise.
        """
        until = time.perf_counter() + 0.05  # for repeated ones to come
        while time.perf_counter() < until:
            self.read()
        wrong = [self._counts[fd] for fd in self._sockets if self._counts[fd] != each]
        if wrong:
            raise Failed(f"{len(wrong)} subscribers received {min(wrong)} to {max(wrong)} messages instead of {each}")
        for stream in self._kept.values() if in_order else ():
            numbers = [int(number) for number in _NUMBER.findall(stream)]
            if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
                raise Failed("a subscriber received messages out of order")

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._epoll.close()
