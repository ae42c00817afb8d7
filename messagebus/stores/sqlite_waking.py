"""How processes on one SQLite file wake each other: a datagram socket for each feed, in a directory beside the file.

Whoever has published sends one byte to each. A full socket is no loss, for its feed is going to wake anyway. The socket
of a process that has died refuses, and is deleted by whom it refused. A byte that is lost costs what the feed's slow
look at the file takes: ``sqlite_feed.QUIET``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import socket
from collections.abc import Iterator

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
    """A feed's socket. ``wait`` is for one thread; ``ring`` and ``close`` are for any."""

    def __init__(self, path: str) -> None:
        directory = directory_of(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
        self._name = os.path.join(directory, f"{os.getpid()}-{secrets.token_hex(4)}")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with _address(*os.path.split(self._name)) as address:
                self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise

    def wait(self, timeout: float) -> bool:
        """Whether it was rung within so many seconds. What was rung before the return counts as heard."""
        self._socket.settimeout(timeout)
        try:
            self._socket.recv(16)
            self._socket.settimeout(0)
            for _ in range(1000):
                self._socket.recv(16)
        except (TimeoutError, BlockingIOError):
            return self._socket.gettimeout() == 0
        return True

    def ring(self) -> None:
        ring_one(*os.path.split(self._name))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._name)
        self._socket.close()

    def leave_to_parent(self) -> None:
        """In a child: close the descriptor alone."""
        with contextlib.suppress(OSError):
            os.close(self._socket.detach())


def ring_all(path: str) -> None:
    """Wake every feed of the file."""
    directory = directory_of(path)
    try:
        names = os.listdir(directory)
    except OSError:
        return  # nobody has listened yet
    if names:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for name in names:
                ring_one(directory, name, sender)


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
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))
        elif error.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.ENOENT) and directory not in _warned:
            _warned.add(directory)
            logger.warning(
                "processes that listen in %s hear messages late, for they cannot be woken: %s", directory, error
            )
