"""Accepts the connections of one worker of ``messagebus serve``, up to its limits, and closes them cleanly."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import gevent
from gevent import socket as gevent_socket

from .. import __version__
from ..limit_counts import SERVER
from .connection import Connection
from .limits import DEFAULT_PER_ADDRESS, DESCRIPTORS_KEPT_FREE, Limits, RareWarning, files_allowed
from .logs import AccessLog

logger = logging.getLogger("messagebus.serve")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

ACCEPTED_AT_ONCE = 64
FRESH_SECONDS = 1.0
"""Seconds that a stopping server waits for the first request of an accepted connection."""
REFUSED_AT_ONCE = 64
CLOSED_AT_ONCE = 16
"""Idle connections that are closed when no descriptor is left, so that a crowd gets in soon."""
SHORTAGE_SECONDS = 0.1
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n"
    b"Retry-After: 2\r\nConnection: close\r\n\r\ntoo many connections\n"
)


class Acceptor:
    """See the module. Needs gevent, which must have patched the process."""

    def __init__(
        self,
        listeners: Iterable[socket.socket],
        application: Application,
        limits: Limits,
        access_log: AccessLog | None = None,
        *,
        multiprocess: bool = False,
    ) -> None:
        """``listeners`` stay unchanged: the acceptor works on copies of their descriptors. ``multiprocess``: other
        workers serve the same application."""
        self.application = application
        self.limits = limits
        self.access_log = access_log
        self.warn = RareWarning(logger)
        self.waiting: dict[Connection, None] = {}
        """Connections without a whole request, the one that has waited longest first."""
        self.stopping = False
        # gevent's own kind of socket, whatever kind the listener is.
        self._doors = [
            (gevent_socket.socket(fileno=os.dup(each.fileno())), _environ(each, multiprocess)) for each in listeners
        ]
        self._connections: dict[Connection, Any] = {}
        self._by_address: Counter[str] = Counter()
        self._refusing = 0
        self._highest = _highest_descriptor()
        self._accepting: list[Any] = []

    def __len__(self) -> int:
        """The number of connections, without those that the bus holds."""
        return len(self._connections)

    def start(self) -> None:
        self._accepting = [gevent.spawn(self._accept, *door) for door in self._doors]

    def close_doors(self) -> None:
        """Accept no more connections; those that stand are served."""
        self.stopping = True
        gevent.killall(self._accepting)
        for door in self._doors:
            self._accept_what_waits(*door)
            door[0].close()
        self._doors.clear()

    def stop(self, seconds: float) -> int:
        """Accept no more connections, give running requests up to ``seconds``, and close every connection. Returns how
        many requests were cut off."""
        deadline = time.monotonic() + seconds
        self.close_doors()
        for connection in list(self.waiting):
            if not connection.is_fresh:
                connection.let_go()
        gevent.joinall([*self._connections.values()], timeout=min(seconds, FRESH_SECONDS))
        for connection in list(self.waiting):
            connection.let_go()
        gevent.joinall([*self._connections.values()], timeout=max(0.0, deadline - time.monotonic()))
        left = [*self._connections.values()]
        gevent.killall(left, timeout=1.0)
        return len(left)

    # --- accepting ---

    def _accept(self, listener: Any, environ: dict[str, Any]) -> None:
        accepted = 0
        while True:
            try:
                sock, address = listener.accept()
            except OSError as error:
                if error.errno in _SHORTAGE:
                    self.warn("no connection can be accepted: %s", error.strerror)
                    self._highest = _highest_descriptor()  # the limit may have been lowered
                    closed = sum(self._make_room() for _ in range(CLOSED_AT_ONCE))
                    gevent.sleep(0.01 if closed else SHORTAGE_SECONDS)
                elif error.errno not in (errno.ECONNABORTED, errno.EPROTO):
                    logger.exception("accept failed")
                    gevent.sleep(1.0)
                continue
            self._admit(sock, address, environ)
            accepted += 1
            if accepted % ACCEPTED_AT_ONCE == 0:
                gevent.sleep(0)

    def _accept_what_waits(self, listener: Any, environ: dict[str, Any]) -> None:
        """Those whose connection stands, but that no server has taken yet: closing the listener would reset them."""
        listener.setblocking(False)
        with contextlib.suppress(OSError):
            for _ in range(self.limits.connections):
                sock, address = listener.accept()
                self._admit(sock, address, environ)

    def _admit(self, sock: Any, address: Any, environ: dict[str, Any]) -> None:
        host: str = address[0] if isinstance(address, tuple) else ""
        if 0 < self._per_address(host) <= self._by_address[host]:
            self._refuse(sock, "connections_per_address", f"{host} has {self._by_address[host]} connections")
            return
        crowded = len(self._connections) >= self.limits.connections
        if (crowded or sock.fileno() >= self._highest) and not self._make_room():
            what = "connections" if crowded else "open files, nearly all that the process may have"
            self._refuse(
                sock, "connections", f"there are {len(self._connections) if crowded else sock.fileno()} {what}"
            )
            return
        connection = Connection(sock, address, environ, self)
        self._by_address[host] += 1
        self._connections[connection] = gevent.spawn(self._serve, connection)

    def _serve(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            del self._connections[connection]
            left = self._by_address[connection.address] - 1
            if left:
                self._by_address[connection.address] = left
            else:
                del self._by_address[connection.address]

    def _per_address(self, host: str) -> int:
        given = self.limits.connections_per_address
        if given is not None:
            return given if host else 0
        return 0 if _is_private(host) else DEFAULT_PER_ADDRESS

    def _make_room(self) -> bool:
        """Close the connection that has been idle for the longest time."""
        connection = next(iter(self.waiting), None)
        if connection is None:
            return False
        del self.waiting[connection]
        connection.let_go()
        return True

    def _refuse(self, sock: Any, limit: str, why: str) -> None:
        SERVER.count(limit)
        self.warn("a connection was refused: %s", why)
        if self._refusing >= REFUSED_AT_ONCE:
            sock.close()
            return
        self._refusing += 1
        gevent.spawn(self._say_busy, sock)

    def _say_busy(self, sock: Any) -> None:
        try:
            # An answer is lost where the client's bytes are not read.
            sock.settimeout(FRESH_SECONDS)
            sock.recv(1 << 16)
            sock.send(_BUSY)
            sock.shutdown(1)
            sock.recv(1 << 16)
        except OSError:
            pass
        finally:
            self._refusing -= 1
            sock.close()


def _highest_descriptor() -> int:
    """From this number on, descriptors are not for connections."""
    allowed = files_allowed()
    return allowed - min(DESCRIPTORS_KEPT_FREE, allowed // 8)


@lru_cache(maxsize=4096)
def _is_private(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host.partition("%")[0]).is_private
    except ValueError:
        return True


def _environ(listener: socket.socket, multiprocess: bool) -> dict[str, Any]:
    name = listener.getsockname()
    host, port = (name[0], str(name[1])) if isinstance(name, tuple) else ("localhost", "")
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": f"messagebus/{__version__}",
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SCRIPT_NAME": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True,
    }
