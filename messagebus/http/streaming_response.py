"""A response that stays open, whatever the transport: a long poll, a stream, an EventSource or a WebSocket.

It takes its socket and gives it to the reactor, or blocks where the server keeps its sockets.
"""

from __future__ import annotations

import time
from _socket import socket as RawSocket
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple
from wsgiref.handlers import format_date_time

from ..errors import Close
from ..hub.joining import join_when_ready
from ..hub.node import Node
from ..hub.subscribe_request import SubscriptionPlan
from ..hub.subscriber import Subscriber
from ..loop.blocking_writer import BlockingWriter
from ..loop.socket_writer import SocketWriter
from ..options import Environ
from ..transports import WEBSOCKET, Transport
from ..transports.base import EMPTY_BATCH
from . import hijack
from .authorization import Handshake
from .websocket_session import WebSocketSubscriber

StartResponse = Callable[..., Any]
Headers = list[tuple[str, str]]

LAST_ANSWER_SECONDS = 10.0
"""Seconds that a client may take to read an answer that ends its connection."""


class StreamingResponse(NamedTuple):
    """A response that will stay open, and everything that was read for it."""

    node: Node
    plan: SubscriptionPlan
    taken: Transport
    """The transport on a taken socket."""
    blocking: Transport | None
    """The transport if the server keeps the socket; ``None``: there is none."""
    handshake: Handshake | None
    """For a WebSocket: what later subscriptions are authorized with; ``None``: everybody may subscribe."""
    begun: Callable[[Subscriber], object] | None = None
    """Called in the loop, when the response has its subscriber."""

    def respond(
        self, environ: Environ, start_response: StartResponse, status: str, headers: Headers
    ) -> Iterable[bytes]:
        """Like a WSGI application: returns what the server has to send."""
        # Before the socket is taken: afterwards an error could not be answered.
        head = b"" if hijack.upgraded(environ) else head_of(status, headers)
        taken = hijack.take(environ)
        if taken is None:
            return self._block(start_response, status, headers)
        self.node.reactor.call_soon(self._adopt, taken.sock, head, taken.early)
        return hung_up(start_response)

    def _adopt(self, sock: RawSocket, head: bytes, early: bytes) -> None:
        subscriber = self._make_subscriber(self.taken, head)
        reactor, limit = self.node.reactor, self.node.options.max_outbox
        outboxes, lingers = self.node.hub.outboxes, self.taken.name == WEBSOCKET.name
        subscriber.writer = SocketWriter(sock, reactor, subscriber, limit, outboxes, lingers)
        self._join(subscriber)
        if early and lingers:  # a client may write behind its handshake
            subscriber.on_data(early)

    def _block(self, start_response: StartResponse, status: str, headers: Headers) -> Iterable[bytes]:
        assert self.blocking is not None, "a transport that needs the socket is refused before"
        subscriber = self._make_subscriber(self.blocking, b"")
        limit, outboxes = self.node.options.max_outbox, self.node.hub.outboxes
        subscriber.writer = writer = BlockingWriter(self.node.reactor, subscriber, limit, outboxes)
        if self.blocking.preamble:
            self.node.reactor.call_soon(writer.put, self.blocking.preamble)
        self.node.reactor.call_soon(self._join, subscriber)
        if self.blocking.one_batch:
            return _whole(writer, start_response, status, headers)
        start_response(status, headers)
        return writer

    def _join(self, subscriber: Subscriber) -> None:
        join_when_ready(self.node, subscriber, self.plan)
        if self.begun is not None:
            self.begun(subscriber)

    def _make_subscriber(self, transport: Transport, head: bytes) -> Subscriber:
        request = self.plan.request
        if transport.name == WEBSOCKET.name:
            return WebSocketSubscriber(self.node, transport, request, head, self.handshake)
        params = request.params
        return Subscriber(
            self.node.hub,
            transport,
            request.identity,
            head,
            params.sequence,
            request.address,
            request.site_id,
            params.takes_refusals,
        )


def _whole(writer: Iterable[bytes], start_response: StartResponse, status: str, headers: Headers) -> Iterator[bytes]:
    """A response of one batch, which begins when its length is known."""
    body = b"".join(writer) or EMPTY_BATCH
    start_response(status, [*headers, ("Content-Length", str(len(body)))])
    yield body


def refuse_upgraded(environ: Environ, start_response: StartResponse, close: Close) -> Iterable[bytes]:
    """Close a WebSocket that the server has opened before the app could refuse it."""
    taken = hijack.take(environ)
    if taken is not None:
        taken.sock.setblocking(False)
        try:
            taken.sock.send(WEBSOCKET.end(close))
        except OSError:
            pass  # it has gone by itself
        taken.sock.close()
    return hung_up(start_response)


def respond_and_close(
    node: Node, environ: Environ, start_response: StartResponse, status: str, headers: Headers, body: bytes
) -> Iterable[bytes]:
    """Answer on a taken socket, which is closed afterwards."""
    data = head_of(status, headers) + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    taken = hijack.take(environ)
    if taken is not None:
        node.reactor.call_soon(_LastAnswer, node, taken.sock, data)
    return hung_up(start_response)


class _LastAnswer:
    """Sends its bytes, and closes the connection."""

    def __init__(self, node: Node, sock: RawSocket, data: bytes) -> None:
        self._writer = SocketWriter(sock, node.reactor, self, len(data), node.hub.outboxes, True)
        node.reactor.set_deadline(self._writer, LAST_ANSWER_SECONDS)
        self._writer.put(data)
        self._writer.finish()

    def on_deadline(self) -> None:
        self._writer.abort()

    def on_data(self, data: bytes) -> None: ...

    def on_slow(self) -> None: ...

    def on_drained(self) -> None: ...

    def on_closed(self) -> None: ...


def hung_up(start_response: StartResponse) -> Iterable[bytes]:
    # It goes to a socket that nobody reads, but the server's log shows it.
    start_response("200 OK", [("Content-Length", "0"), ("Connection", "close")])
    return []


def head_of(status: str, headers: Headers) -> bytes:
    """The lines of a response's head on a taken socket; its transport adds how the body is framed."""
    lines = [f"HTTP/1.1 {status}", f"Date: {_date(int(time.time()))}"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() != "content-length"]
    return "\r\n".join([*lines, ""]).encode("latin-1")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return format_date_time(second)
