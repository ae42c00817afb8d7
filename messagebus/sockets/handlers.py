"""The application's code on a socket: a ``talk`` in a thread of its own, or functions that are called when something
happens. What it raises ends its own connection, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple, Protocol

from ..errors import FAILED, NORMAL, ConnectionClosed
from ..hub.node import Node
from ..loop.jobs import start_thread
from .websocket import WebSocket

logger = logging.getLogger("messagebus.sockets")

Talk = Callable[[WebSocket], object]
OnMessage = Callable[[WebSocket, "str | bytes"], object]


class Functions(NamedTuple):
    """What serves a socket: ``talk``, or the others."""

    talk: Talk | None
    on_open: Talk | None
    on_message: OnMessage | None
    on_close: Talk | None
    context: Callable[[], AbstractContextManager[object]]
    """What they are called in."""
    where: str
    """For the log."""


class Handler(Protocol):
    """Serves one socket. Its methods are called in the loop."""

    def begin(self) -> None:
        """The connection is open."""

    def arrived(self) -> None:
        """A message waits."""

    def ended(self) -> None:
        """It is over. Called once."""


def handler_of(functions: Functions, node: Node, socket: WebSocket) -> Handler:
    kind = _Talking if functions.talk is not None else _Called
    return kind(functions, node, socket)


class _Talking:
    """Runs a ``talk``, which learns of everything from its socket."""

    def __init__(self, functions: Functions, node: Node, socket: WebSocket) -> None:
        self._functions = functions
        self._node = node
        self._socket = socket

    def begin(self) -> None:
        start_thread(self._run, "messagebus-talk")

    def _run(self) -> None:
        assert self._functions.talk is not None
        try:
            well = _call(partial(self._functions.talk, self._socket), self._functions, self._node, self._socket)
            self._socket._close_with(NORMAL if well else FAILED)
        finally:
            self._node.talks.end(True)

    def arrived(self) -> None: ...

    def ended(self) -> None: ...


class _Called:
    """Calls functions in jobs, one at a time and in order, and the others' between two of its own."""

    def __init__(self, functions: Functions, node: Node, socket: WebSocket) -> None:
        self._functions = functions
        self._node = node
        self._socket = socket
        self._opened = self._busy = self._over = self._told = False

    def begin(self) -> None:
        self._next()

    def arrived(self) -> None:
        self._next()

    def ended(self) -> None:
        self._over = True
        self._next()

    def _next(self) -> None:
        if self._busy or self._told:
            return
        functions, socket = self._functions, self._socket
        call: Callable[[], object] | None = None
        if not self._opened:
            self._opened = True
            call = functions.on_open and partial(functions.on_open, socket)
        if call is None:
            message = socket._take()
            if message is not None:
                assert functions.on_message is not None
                call = partial(functions.on_message, socket, message)
            elif self._over:
                self._told = True
                call = partial(functions.on_close, socket) if functions.on_close is not None else _nothing
        if call is not None:
            self._busy, is_last = True, self._told
            try:
                self._node.command_jobs.start(partial(self._run, call, is_last))
            except RuntimeError:
                logger.exception("a socket of the application's own is closed: there is no thread for its functions")
                self._busy = False
                self._socket._close_with(FAILED)
                if is_last:
                    self._node.talks.end(False)

    def _run(self, call: Callable[[], object], is_last: bool) -> None:
        if not _call(call, self._functions, self._node, self._socket):
            self._socket._close_with(FAILED)
        if is_last:
            self._node.talks.end(False)
        else:
            self._node.reactor.call_soon(self._done)

    def _done(self) -> None:
        self._busy = False
        self._next()


def _nothing() -> None: ...


def _call(call: Callable[[], object], functions: Functions, node: Node, socket: WebSocket) -> bool:
    """Call the application's function. Returns whether it went well: that its socket has ended is no fault."""
    try:
        with functions.context():
            call()
    except ConnectionClosed as error:
        if not socket.closed:  # another one's
            node.report(error, functions.where)
            return False
    except Exception as error:
        node.report(error, functions.where)
        return False
    except BaseException:  # gevent's timeouts, which it may have set, are no Exception; nor is sys.exit()
        logger.exception("%s failed", functions.where)
        return False
    return True
