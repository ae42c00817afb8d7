"""Readers of the bus, one for each transport, as strict as the protocol lets them be.

They read only while they are asked to: a client that nobody asks is a reader that has stopped reading. What they have
received and where they stand is theirs to tell; to come back with it, :meth:`Client.reconnect`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_websocket
from websockets.typing import Subprotocol

from .client_base import Batch, Client, Ended, Refused, request

__all__ = [
    "FORM",
    "NOT_CACHED",
    "TRANSPORTS",
    "Client",
    "Ended",
    "EventSource",
    "LongPolling",
    "Polling",
    "Refused",
    "Streaming",
    "WebSocket",
    "request",
]

FORM = "application/x-www-form-urlencoded"
SEPARATOR = b"\r\n|\r\n"
POLL_SECONDS = 0.005
"""Between two plain polls."""
NOT_CACHED = {"Cache-Control": "must-revalidate, private, max-age=0", "Pragma": "no-cache", "Expires": "0"}
ONE_BATCH = {
    "Content-Type": "application/json; charset=utf-8",
    "X-Content-Type-Options": "nosniff",
    **NOT_CACHED,
}
STREAM = {
    "Content-Type": "text/plain; charset=utf-8",
    "Transfer-Encoding": "chunked",
    "X-Content-Type-Options": "nosniff",
    **NOT_CACHED,
}
EVENTS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


class _HttpClient(Client):
    """Reads responses of HTTP/1.1."""

    _connection: http.client.HTTPConnection | None = None
    _response: http.client.HTTPResponse | None = None
    _sequence = 0

    def _send(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> None:
        if self._connection is None or self._connection.sock is None:
            parts = urlsplit(self.url)
            self._connection = http.client.HTTPConnection(parts.netloc, timeout=self.timeout)
            self._connection.sock = self._socket()
        self._connection.request(method, path, body, {**self.headers, **headers})

    def _send_poll(self, query: str, headers: Mapping[str, str]) -> None:
        self._sequence += 1
        form = urlencode({**self._query(), "__seq": str(self._sequence)})
        self._send("POST", self._path("poll") + query, form, {"Content-Type": FORM, **headers})

    def _receive(self, expected: Mapping[str, str]) -> http.client.HTTPResponse:
        """The head of the response."""
        assert self._connection is not None
        try:
            response = self._connection.getresponse()
        except (ConnectionError, http.client.BadStatusLine) as error:
            raise Ended from error
        if response.status != 200:
            with response:
                raise Refused(response.status, dict(response.getheaders()), response.read())
        for name, value in expected.items():
            assert response.getheader(name) == value, f"{name}: {response.getheader(name)}"
        return response

    def cut(self) -> None:
        connection, self._connection = self._connection, None
        response, self._response = self._response, None
        if connection is not None and connection.sock is not None:
            _reset(connection.sock)
        if response is not None:
            response.close()
        if connection is not None:
            connection.close()


class Polling(_HttpClient):
    """One request after another, each answered at once."""

    transport = "polling"

    def reconnect(self) -> None:
        self.cut()

    def _next(self) -> Batch:
        if self.batches and not self.batches[-1]:
            time.sleep(POLL_SECONDS)
        self._send_poll("?dlp=t", {})
        with self._receive(ONE_BATCH) as response:
            assert response.getheader("Content-Length") is not None
            return _decode(response.read())


class LongPolling(_HttpClient):
    """Each request is held until there is a batch."""

    transport = "long-polling"
    _asked = False

    def reconnect(self) -> None:
        self.cut()
        self._ask()

    def _ask(self) -> None:
        self._send_poll("", {"Dont-Chunk": "true"})
        self._asked = True

    def _next(self) -> Batch:
        if not self._asked:
            self._ask()
        self._asked = False
        with self._receive(ONE_BATCH) as response:
            assert response.getheader("Content-Length") is not None
            assert response.getheader("Transfer-Encoding") is None
            try:
                return _decode(response.read())
            except (ConnectionError, http.client.IncompleteRead) as error:
                raise Ended from error


class _Streamed(_HttpClient):
    """A response with an end that is not known."""

    _buffer = bytearray()

    def cut(self) -> None:
        super().cut()
        self._buffer = bytearray()

    def _part(self, separator: bytes) -> bytes | None:
        """The bytes up to the separator; ``None`` where the response has come to its end in order."""
        assert self._response is not None
        buffer = self._buffer
        start = 0
        while (end := buffer.find(separator, start)) < 0:
            start = max(0, len(buffer) - len(separator) + 1)
            try:
                data = self._response.read1(1 << 18)
            except (ConnectionError, http.client.IncompleteRead) as error:
                raise Ended from error
            if not data:
                if buffer:
                    raise Ended
                return None
            buffer += data
        part = bytes(buffer[:end])
        del buffer[: end + len(separator)]
        return part


class Streaming(_Streamed):
    """A response of many batches, each followed by a separator, and then the next request."""

    transport = "streaming"

    def reconnect(self) -> None:
        self.cut()
        self._send_poll("", {})

    def _next(self) -> Batch:
        if self._connection is None:
            self.reconnect()
        if self._response is None:
            self._response = self._receive(STREAM)
            assert self._response.getheader("Content-Length") is None
        part = self._part(SEPARATOR)
        if part is None:
            assert self.batches[-1] == [] or self.waits, "a stream's last batch is empty, or says when to come back"
            self.reconnect()
            return self._next()
        return _decode(part.replace(b"\r\n||\r\n", SEPARATOR))


class EventSource(_Streamed):
    """The events of a response that never ends, with the id that a browser would return."""

    transport = "eventsource"

    def reconnect(self) -> None:
        self.cut()
        headers = {"Accept": "text/event-stream"}
        if self.last_event_id is not None:
            headers["Last-Event-ID"] = str(self.last_event_id)
        self._send("GET", f"{self._path('sse')}?{urlencode(self._query())}", None, headers)

    def _next(self) -> Batch:
        if self._response is None:
            self._response = self._receive(EVENTS)
            kind = self._response.getheader("Content-Type")
            assert kind in ("text/event-stream", "text/event-stream; charset=utf-8")
        event = self._part(b"\n\n")
        if event is None:
            raise Ended
        *ids, data = event.split(b"\n")
        assert data.startswith(b"data: ")
        batch = _decode(data[len(b"data: ") :])
        if not ids and all(
            message.get("transient") or message["channel"].startswith(("/__status", "/__refused", "/__presence/"))
            for message in batch
        ):
            return batch  # a heartbeat, the end, a subscription's end, who is there, or what is not kept
        assert len(ids) == 1
        assert ids[0].startswith(b"id: ")
        self.last_event_id = ids[0][len(b"id: ") :].decode()
        reached = [*map(int, self.last_event_id.split("."))]  # of each partition
        assert max(reached) >= max((message["global_id"] for message in batch), default=0)
        return batch


class WebSocket(Client):
    """Frames as another library reads them."""

    transport = "websocket"
    _ws: ClientConnection | None = None
    _answers: deque[dict[str, Any]]

    def reconnect(self) -> None:
        self.cut()
        self._answers = deque()
        url = f"{self.url.replace('http', 'ws', 1)}/message-bus/{self.client_id}/ws?{urlencode(self._query())}"
        try:
            # Entered, as the library wants it, and never left: cut() ends it as no close() of the library would.
            self._ws = open_websocket(
                url,
                sock=self._socket(),
                subprotocols=[Subprotocol("messagebus.v1")],
                additional_headers=self.headers,
                open_timeout=self.timeout,
                ping_interval=None,
                close_timeout=self.timeout,
                max_size=None,
            ).__enter__()
        except InvalidStatus as error:
            response = error.response
            headers = dict(response.headers.raw_items())
            raise Refused(response.status_code, headers, bytes(response.body or b"")) from None

    @property
    def ws(self) -> ClientConnection:
        assert self._ws is not None, "not connected"
        return self._ws

    def cut(self) -> None:
        ws, self._ws = self._ws, None
        if ws is not None:
            with contextlib.suppress(OSError):
                ws.socket.shutdown(socket.SHUT_RDWR)
            # Its thread may be waiting for somebody to read what it has; it sees the end after that.
            with contextlib.suppress(ConnectionClosed):
                while True:
                    ws.recv(self.timeout)
            ws.recv_events_thread.join(self.timeout)

    def _next(self) -> Batch:
        while True:
            received = self._receive()
            if isinstance(received, list):
                return received
            self._answers.append(received)

    def _receive(self) -> Any:
        try:
            text = self.ws.recv(self.timeout)
        except ConnectionClosed as closed:
            raise Ended(closed.rcvd.code if closed.rcvd else None) from None
        assert isinstance(text, str), "text frames only"
        return json.loads(text)

    # --- what only this transport has ---

    def send(self, command: dict[str, Any]) -> None:
        self.ws.send(json.dumps(command))

    def answer(self) -> dict[str, Any]:
        """The next answer; batches that come before it are taken as ever."""
        while not self._answers:
            received = self._receive()
            if isinstance(received, list):
                self._take(received)
            else:
                self._answers.append(received)
        return self._answers.popleft()

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command, and return the answer to it."""
        self.send({**command, "id": 1})
        answer = self.answer()
        assert answer.pop("id") == 1
        return answer

    def closed(self) -> int | None:
        """Read to the end; the close code."""
        try:
            while True:
                self.next_batch()
        except Ended as ended:
            return ended.code


TRANSPORTS: tuple[type[Client], ...] = (Polling, LongPolling, Streaming, EventSource, WebSocket)


def _decode(text: bytes) -> Batch:
    batch: Batch = json.loads(text)
    assert isinstance(batch, list)
    return batch


def _reset(sock: socket.socket) -> None:
    """Close with RST, as when a cable is pulled and the peer hears of it later."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
