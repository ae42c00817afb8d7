"""How processes on one SQLite file wake each other: a datagram socket for each feed, in a directory beside the file.

Whoever has published sends one byte to each feed that wants one of the channels (``sqlite_marks``). A full socket is no
loss, for its feed is going to wake anyway. The socket of a process that has died refuses, and is deleted by whom it
refused. A byte that is lost costs what the feed's slow look at the file takes: ``sqlite_feed.QUIET``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import secrets
import socket
from collections.abc import Iterable, Iterator

from .sqlite_marks import ENDING, Bits, Marks, bits_of, has_any, open_marks

logger = logging.getLogger("messagebus.stores")

LONGEST_PATH = 100
"""Bytes that the address of a Unix socket can have everywhere."""
_warned: set[str] = set()


def directory_of(path: str) -> str:
    return path + "-listeners"


@contextlib.contextmanager
def _address(directory: str, name: str) -> Iterator[str]:
    """A path of the socket that is short enough for an address."""
    full = os.path.join(directory, name)
    if len(os.fsencode(full)) <= LONGEST_PATH:
        yield full
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


class Alarm:
    """A feed's socket. ``wait`` and what has to do with ``marks`` are for one thread; ``ring`` and ``close`` are for
    any."""

    def __init__(self, path: str, *, by_channel: bool = False) -> None:
        """``by_channel``: it is rung for channels that are marked, in place of all."""
        directory = directory_of(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
        self._name = os.path.join(directory, f"{os.getpid()}-{secrets.token_hex(4)}")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._marks: Marks | None = None
        try:
            with _address(*os.path.split(self._name)) as address:
                self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise
        if by_channel:
            with contextlib.suppress(OSError):
                self._marks = Marks(self._name + ENDING)
            # What dead processes have left that nobody has rung since would stay.
            Bells(path).ring()

    def mark(self, more: Iterable[str], less: Iterable[str] = ()) -> None:
        """Be rung for some channels, and no longer for others."""
        if self._marks is not None:
            try:
                self._marks.add(more)
                self._marks.remove(less)
            except OSError:
                self._marks.close()
                self._marks = None

    def wait(self, timeout: float) -> bool:
        """Whether it was rung within so many seconds. What was rung before the return counts as heard."""
        self._socket.settimeout(timeout)
        try:
            self._socket.recv(16)
        except (TimeoutError, BlockingIOError):
            return False
        self._socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            for _ in range(1000):
                self._socket.recv(16)
        return True

    def ring(self) -> None:
        ring_one(*os.path.split(self._name))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._name)
        if self._marks is not None:
            self._marks.close()
        self._socket.close()

    def leave_to_parent(self) -> None:
        """In a child: close the descriptors alone."""
        with contextlib.suppress(OSError):
            os.close(self._socket.detach())
        if self._marks is not None:
            self._marks.leave_to_parent()


class Bells:
    """What wakes the feeds of a file. Safe from any thread; one that is dropped leaves nothing open."""

    def __init__(self, path: str) -> None:
        self._directory = directory_of(path)
        self._known: dict[str, mmap.mmap] = {}
        """The marks of those that have some, by the names of their sockets."""

    def ring(self, names: Iterable[str] | None = None) -> None:
        """Wake every feed that wants one of these channels; ``None``: every feed."""
        try:
            found = set(os.listdir(self._directory))
        except OSError:
            return  # nobody has listened yet
        if not found:
            return
        bits = None if names is None else bits_of(names)
        for name in self._known.keys() - found:
            self._known.pop(name, None)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for name in found:
                if name.endswith(ENDING):
                    continue
                if bits is None or name + ENDING not in found or self._wants(name, bits):
                    ring_one(self._directory, name, sender)

    def _wants(self, name: str, bits: Bits) -> bool:
        marks = self._known.get(name)
        if marks is None:
            marks = open_marks(os.path.join(self._directory, name + ENDING))
            if marks is None:
                return True
            self._known[name] = marks
        return has_any(marks, bits)


def ring_one(directory: str, name: str, sender: socket.socket | None = None) -> None:
    if sender is None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            ring_one(directory, name, sender)
        return
    try:
        with _address(directory, name) as address:
            sender.sendto(b"\0", address)
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            _remove(directory, name)
        elif error.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.ENOENT) and directory not in _warned:
            _warned.add(directory)
            logger.warning(
                "processes that listen in %s hear messages late, for they cannot be woken: %s", directory, error
            )


def _remove(directory: str, name: str) -> None:
    for each in (name, name + ENDING):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, each))
