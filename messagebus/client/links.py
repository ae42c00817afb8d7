"""A connection of each transport, from the request to batches. Each is opened once and read until it ends."""

from __future__ import annotations

import json
import ssl
from abc import ABC, abstractmethod
from collections import deque
from typing import Any

import h11
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import CLOSED, State
from websockets.uri import parse_uri

from .byte_stream import ByteStream
from .http11 import SHOWN, HttpConnection, LinkEnded, failure_of, header, shown
from .parsers import EventParser, StreamParser
from .settings import Address
from .types import Failure
from .waiting import Waiter

COMMAND_TIMEOUT = 10.0
"""Seconds that the server may take to receive a command, or a pong."""

_SERVERS_WORD = (1001, 1012, 1013)
"""Close codes with which the server says that it, and no proxy, ends the connection."""


class TransportLink(ABC):
    """The contract of a transport's connection. Not safe to share between threads.

    ``open`` and ``read`` raise :class:`LinkEnded`, or whatever OSError, ValueError or error of the protocol ended
    it."""

    speaks = False
    """Whether commands can be sent on it."""
    begun = False
    """Whether bytes of batches have come, if only a part of the first."""

    @property
    @abstractmethod
    def heard(self) -> float:
        """When the last bytes came, by the waiter's clock."""

    @property
    @abstractmethod
    def received(self) -> int:
        """Bytes received by it so far."""

    @abstractmethod
    async def open(self, deadline: float) -> None:
        """Connect and send what asks for the channels. Raises TimeoutError as well."""

    @abstractmethod
    async def read(self, deadline: float) -> bytes | None:
        """The next batch, as JSON; ``None`` where it is not there by the deadline, or the wait was woken."""

    async def send(self, command: dict[str, Any]) -> None:
        """Send a command; only where it ``speaks``."""
        raise TypeError(f"{type(self).__name__} takes no commands")

    @abstractmethod
    def close(self) -> None:
        """Give up what it has; may be repeated."""


class _HttpLink(TransportLink):
    """Reads one answer, and hands its body to a parser."""

    def __init__(self, connection: HttpConnection, parser: StreamParser | EventParser) -> None:
        self._connection = connection
        self._parser = parser
        self._response: h11.Response | None = None
        self._batches: deque[bytes] = deque()
        self._error = b""
        self._before = connection.received
        self._over = False

    @property
    def heard(self) -> float:
        return self._connection.heard

    @property
    def received(self) -> int:
        return self._connection.received - self._before

    async def read(self, deadline: float) -> bytes | None:
        while not self._batches:
            if self._over:
                raise LinkEnded(self._ending())
            event = await self._connection.read(deadline)
            if event is None:
                return None
            if isinstance(event, h11.Response):
                self._response = event
            elif isinstance(event, h11.Data):
                self._take(bytes(event.data))
            else:
                self._over = True
                if self._wanted and isinstance(self._parser, StreamParser):
                    self._batches += self._parser.finish()
        return self._batches.popleft()

    def _take(self, data: bytes) -> None:
        if self._wanted:
            self.begun = True
            self._batches += self._parser.feed(data)
            return
        # It may be an answer without an end: what is to be shown of it suffices.
        self._error += data[: SHOWN - len(self._error)]
        if len(self._error) == SHOWN or self._status == 200:
            raise LinkEnded(self._ending())

    @property
    def _status(self) -> int:
        return self._response.status_code if self._response else 0

    @property
    def _kind(self) -> str:
        """The answer's content type, without its parameters."""
        kind = header(self._response, b"content-type") if self._response else None
        return (kind or "").partition(";")[0].strip().lower()

    @property
    @abstractmethod
    def _wanted(self) -> bool:
        """Whether the answer is the one that was asked for."""

    @abstractmethod
    def _ending(self) -> Failure | None:
        """Why it ended."""

    def _refusal(self) -> Failure:
        assert self._response is not None
        return failure_of(self._response, self._error)

    def close(self) -> None:
        if not self._over:
            self._connection.close()  # an answer is under way on it


class PollLink(_HttpLink):
    """A poll of any kind: answered at once, held for one batch, or streamed."""

    def __init__(
        self, connection: HttpConnection, base: str, headers: dict[str, str], form: str, *, plain: bool, stream: bool
    ) -> None:
        """``base``: the path up to the client's id and a slash."""
        super().__init__(connection, StreamParser())
        self._target = f"{base}poll{'?dlp=t' if plain else ''}"
        self._headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        if not stream:
            self._headers["Dont-Chunk"] = "true"
        self._form = form.encode()

    async def open(self, deadline: float) -> None:
        await self._connection.request("POST", self._target, self._headers, self._form, deadline)

    @property
    def _wanted(self) -> bool:
        # A login page is no batch.
        return self._status == 200 and self._kind in ("application/json", "text/plain", "")

    def _ending(self) -> Failure | None:
        if self._status != 200:
            return self._refusal()
        if not self._wanted:
            message = f"the answer is {self._kind}, not a batch: a login page, or another address?"
            return Failure(message, self._status, code="not_a_batch")
        return None if self.begun else Failure("an empty answer")


class EventSourceLink(_HttpLink):
    """A stream of events, which only ends when its connection does."""

    def __init__(self, connection: HttpConnection, base: str, headers: dict[str, str], query: str) -> None:
        super().__init__(connection, EventParser())
        self._target = f"{base}sse?{query}"
        self._headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **headers}

    async def open(self, deadline: float) -> None:
        await self._connection.request("GET", self._target, self._headers, b"", deadline)

    @property
    def _wanted(self) -> bool:
        # Servers that know no EventSource may take the request for another.
        return self._status == 200 and self._kind == "text/event-stream"

    def _ending(self) -> Failure | None:
        if self._status != 200:
            return self._refusal()
        return Failure("the connection ended" if self._wanted else "the answer is no event stream")


class WebSocketLink(TransportLink):
    """One text frame a batch, and commands the other way."""

    speaks = True

    def __init__(
        self,
        waiter: Waiter,
        address: Address,
        context: ssl.SSLContext | None,
        base: str,
        headers: dict[str, str],
        query: str,
    ) -> None:
        self._waiter = waiter
        self._address = address
        self._context = context
        self._headers = headers
        uri = parse_uri(f"{'wss' if address.secure else 'ws'}://{address.authority}{base}ws?{query}")
        # No limit: a batch is as large as the backlog that was asked for. No compression, which costs memory.
        self._protocol = ClientProtocol(uri, max_size=None)
        self._stream: ByteStream | None = None
        self._texts: deque[bytes] = deque()
        self._fragments: list[bytes] = []
        self._refused: Failure | None = None

    @property
    def heard(self) -> float:
        return self._stream.heard if self._stream else self._waiter.clock()

    @property
    def received(self) -> int:
        return self._stream.received if self._stream else 0

    async def open(self, deadline: float) -> None:
        stream = self._stream = await ByteStream.connect(self._waiter, self._address, self._context, deadline)
        request = self._protocol.connect()
        for name, value in self._headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        await stream.send(b"".join(self._protocol.data_to_send()), deadline)
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            await self._feed(await stream.receive_through(deadline))
        error = self._protocol.handshake_exc
        if isinstance(error, InvalidStatus):
            raise LinkEnded(_failure_of(error.response))
        if error is not None:
            raise LinkEnded(Failure(f"no WebSocket: {error}"))

    async def read(self, deadline: float) -> bytes | None:
        assert self._stream is not None
        while not self._texts:
            if self._refused:
                raise LinkEnded(self._refused)
            if self._protocol.state is CLOSED or self._protocol.close_expected():
                close = self._protocol.close_rcvd
                if close is None:
                    raise LinkEnded(Failure("the connection broke"))
                by_server = close.code in _SERVERS_WORD
                raise LinkEnded(Failure(f"closed: {close.code} {close.reason}", by_server=by_server))
            data = await self._stream.receive(deadline)
            if data is None:
                return None
            await self._feed(data)
        return self._texts.popleft()

    async def _feed(self, data: bytes) -> None:
        assert self._stream is not None
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._on_frame(event)
        answer = b"".join(self._protocol.data_to_send())  # pongs, and the answer to a close
        if answer:
            await self._stream.send(answer, self._waiter.clock() + COMMAND_TIMEOUT)

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self._refused = Failure("the server sent a binary frame")
        if frame.opcode not in (Opcode.TEXT, Opcode.CONT):
            return
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            self._texts.append(b"".join(self._fragments))
            self._fragments.clear()
            self.begun = True

    async def send(self, command: dict[str, Any]) -> None:
        assert self._stream is not None
        self._protocol.send_text(json.dumps(command, separators=(",", ":")).encode())
        await self._stream.send(b"".join(self._protocol.data_to_send()), self._waiter.clock() + COMMAND_TIMEOUT)

    def close(self) -> None:
        if self._stream is None:
            return
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            self._stream.send_now(b"".join(self._protocol.data_to_send()))
        self._stream.close()


def _failure_of(response: Response) -> Failure:
    said = shown(bytes(response.body or b""))
    retry_after = response.headers.get_all("Retry-After")
    return Failure(
        f"{response.status_code} {said}".strip(), response.status_code, retry_after[0] if retry_after else None
    )


ERRORS = (OSError, ValueError, RecursionError, h11.ProtocolError, InvalidHandshake)
"""What may end a link beside LinkEnded."""
