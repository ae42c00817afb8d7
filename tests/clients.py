"""Readers of the bus, one for each transport, as strict as the protocol lets them be.

They read only while they are asked to: a client that nobody asks is a reader that has stopped reading. What they have
received and where they stand is theirs to tell; to come back with it, :meth:`Client.reconnect`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlencode, urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_websocket
from websockets.typing import Subprotocol

Message = dict[str, Any]
Batch = list[Message]
ClientT = TypeVar("ClientT", bound="Client")

SEPARATOR = b"\r\n|\r\n"
POLL_SECONDS = 0.005
"""Between two plain polls."""
NOT_CACHED = {"Cache-Control": "must-revalidate, private, max-age=0", "Pragma": "no-cache", "Expires": "0"}
ONE_BATCH = {"Content-Type": "application/json; charset=utf-8", **NOT_CACHED}
STREAM = {
    "Content-Type": "text/plain; charset=utf-8",
    "Transfer-Encoding": "chunked",
    "X-Content-Type-Options": "nosniff",
    **NOT_CACHED,
}
EVENTS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


class Ended(Exception):
    """The server has ended the connection; ``code`` is a WebSocket's close code."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(f"the server ended the connection, code {code}")
        self.code = code


class Refused(Exception):
    """The server has answered with something else than 200 or 101."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"{status}: {body[:200]!r}")
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def error(self) -> dict[str, str]:
        """What the JSON body says is wrong."""
        assert self.headers["Content-Type"] == "application/json; charset=utf-8"
        found: dict[str, str] = json.loads(self.body)["error"]
        return found


class Client(ABC):
    """One subscriber. Not safe to share between threads."""

    transport: ClassVar[str]

    def __init__(
        self,
        url: str,
        positions: Mapping[str, int | str],
        *,
        client_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        epoch: str | None = None,
        last_event_id: int | None = None,
        receive_buffer: int | None = None,
        timeout: float = 20.0,
    ) -> None:
        """``epoch``: what the client sends as ``__epoch``, ``None`` for nothing. ``receive_buffer``: bytes that the
        kernel may receive before the client reads. ``timeout``: seconds for any one read."""
        self.url = url
        self.positions: dict[str, int | str] = dict(positions)
        self.client_id = client_id or secrets.token_hex(16)
        self.headers = dict(headers or {})
        self.epoch = epoch
        self.last_event_id = last_event_id
        self.receive_buffer = receive_buffer
        self.timeout = timeout
        self.batches: list[Batch] = []
        self.received: list[Message] = []
        """Messages of the channels, without statuses and gaps."""
        self.statuses: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        self._unread: deque[Message] = deque()

    @classmethod
    def connect(cls: type[ClientT], url: str, positions: Mapping[str, int | str], **options: Any) -> ClientT:
        """Ask for channels from their positions; what the server says to that comes with the first batch."""
        client = cls(url, positions, **options)
        client.reconnect()
        return client

    def __enter__(self: ClientT) -> ClientT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cut()

    # --- the connection ---

    @abstractmethod
    def reconnect(self) -> None:
        """Come back with the positions and the epoch as they are now."""

    @abstractmethod
    def cut(self) -> None:
        """Close the socket without a word. May be repeated."""

    @abstractmethod
    def _next(self) -> Batch:
        """The next batch as it comes. Raises Ended, Refused or TimeoutError."""

    # --- what it receives ---

    def next_batch(self) -> Batch:
        """Read the next batch, whatever is in it."""
        batch = self._next()
        self._take(batch)
        return batch

    def messages(self, count: int, timeout: float = 20.0, resume: bool = False) -> list[Message]:
        """The next messages of the channels. ``resume``: come back where the server ends the connection."""
        deadline = time.monotonic() + timeout
        while len(self._unread) < count:
            assert time.monotonic() < deadline, f"{len(self._unread)} of {count} messages in {timeout} s"
            try:
                self.next_batch()
            except Ended:
                if not resume:
                    raise
                self.reconnect()
        return [self._unread.popleft() for _ in range(count)]

    def data(self, count: int, **options: Any) -> list[Any]:
        """As :meth:`messages`, only their data."""
        return [message["data"] for message in self.messages(count, **options)]

    def status(self) -> dict[str, Any]:
        """Read until there is a status that was not asked for here before."""
        seen = len(self.statuses)
        while len(self.statuses) == seen:
            self.next_batch()
        return self.statuses[-1]

    def position(self, channel: str) -> int | str:
        return self.positions[channel]

    def _take(self, batch: Batch) -> None:
        self.batches.append(batch)
        global_ids = []
        for number, message in enumerate(batch):
            assert set(message) == {"global_id", "message_id", "channel", "data"}, message
            channel, data = message["channel"], message["data"]
            if channel == "/__status":
                assert number == len(batch) - 1, "a status is the last of its batch"
                self._take_status(data)
            elif channel == "/__gap":
                assert number == 0, "a gap is the first of its batch"
                self.gaps.append(data)
            else:
                global_ids.append(message["global_id"])
                self.positions[channel] = message["message_id"]
                self.received.append(message)
                self._unread.append(message)
            assert (message["global_id"] == message["message_id"] == -1) == channel.startswith("/__")
        assert global_ids == sorted(set(global_ids)), "a batch is in the order of the global ids"

    def _take_status(self, data: dict[str, Any]) -> None:
        self.statuses.append(data)
        for channel, position in data.items():
            if channel == "__epoch":
                self.epoch = position
            else:
                assert channel in self.positions
                self.positions[channel] = position

    def _query(self) -> dict[str, str]:
        query = {channel: str(position) for channel, position in self.positions.items()}
        if self.epoch is not None:
            query["__epoch"] = self.epoch
        return query

    def _path(self, end: str) -> str:
        return f"{urlsplit(self.url).path}/message-bus/{self.client_id}/{end}"

    def _socket(self) -> socket.socket:
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        sock = socket.socket()
        try:
            if self.receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
            sock.settimeout(self.timeout)
            sock.connect((parts.hostname, parts.port))
        except OSError:
            sock.close()
            raise
        return sock


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


FORM = "application/x-www-form-urlencoded"


class Polling(_HttpClient):
    """One request after another, each answered at once."""

    transport = "polling"

    def reconnect(self) -> None:
        self.cut()

    def _next(self) -> Batch:
        if self.batches and not self.batches[-1]:
            time.sleep(POLL_SECONDS)
        self._send_poll("?dlp=t", {})
        response = self._receive(ONE_BATCH)
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
        response = self._receive(ONE_BATCH)
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
            assert self.batches[-1] == [], "a stream's last batch is an empty one"
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
        if batch == [] and not ids:
            return batch  # a heartbeat
        assert len(ids) == 1
        assert ids[0].startswith(b"id: ")
        self.last_event_id = int(ids[0][len(b"id: ") :])
        assert self.last_event_id >= max((message["global_id"] for message in batch), default=0)
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
            raise Refused(response.status_code, headers, response.body or b"") from None

    @property
    def ws(self) -> ClientConnection:
        assert self._ws is not None, "not connected"
        return self._ws

    def cut(self) -> None:
        ws, self._ws = self._ws, None
        if ws is not None:
            # Its thread is woken by that, and closes the socket.
            with contextlib.suppress(OSError):
                ws.socket.shutdown(socket.SHUT_RDWR)
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


@contextlib.contextmanager
def request(
    url: str, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """A plain request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20.0)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Connection": "close", **(headers or {})})
        yield connection.getresponse()
