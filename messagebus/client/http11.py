"""HTTP/1.1 on a wire: one request at a time, and the next one on the same connection where the server allows it.

h11 does the protocol. Redirects are not followed, nor is a proxy asked: the address is the server's own.
"""

from __future__ import annotations

import json
import ssl

import h11

from .byte_stream import ByteStream
from .settings import Address
from .types import Failure
from .waiting import Waiter

MAX_HEAD = 65_536
SHOWN = 300
"""Bytes of an error's body that are shown."""


class LinkEnded(Exception):
    """A connection has come to its end: in good order, or with a problem."""

    def __init__(self, failure: Failure | None) -> None:
        super().__init__(failure.message if failure else "ended in order")
        self.failure = failure


class HttpConnection:
    """See the module. Not safe to share between threads; raises OSError and h11.ProtocolError where it breaks."""

    def __init__(self, waiter: Waiter, address: Address, context: ssl.SSLContext | None) -> None:
        self._waiter = waiter
        self._address = address
        self._context = context
        self._stream: ByteStream | None = None
        self._h11 = h11.Connection(h11.CLIENT)
        self._request: tuple[h11.Request, bytes] | None = None
        self._received = 0

    @property
    def heard(self) -> float:
        """When the last bytes came; when it began to connect, where none have."""
        return self._stream.heard if self._stream else self._waiter.clock()

    @property
    def received(self) -> int:
        """Bytes received so far, over all its wires."""
        return self._received + (self._stream.received if self._stream else 0)

    async def request(self, method: str, target: str, headers: dict[str, str], body: bytes, deadline: float) -> None:
        """Send a request; the answer to the one before is thrown away, with its connection where it is not over."""
        all_headers = [("Host", self._address.authority), *headers.items()]
        if body:
            all_headers.append(("Content-Length", str(len(body))))
        request = h11.Request(method=method, target=target, headers=all_headers)
        if self._stream is not None:
            try:
                self._h11.start_next_cycle()
                await self._send(request, body, deadline)
            except (OSError, h11.ProtocolError):
                self.close()
            else:
                # The server may be closing this connection right now: until its answer begins, it can be repeated.
                self._request = (request, body)
                return
        await self._open(request, body, deadline)

    async def _open(self, request: h11.Request, body: bytes, deadline: float) -> None:
        self._request = None
        self._stream = await ByteStream.connect(self._waiter, self._address, self._context, deadline)
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        await self._send(request, body, deadline)

    async def _send(self, request: h11.Request, body: bytes, deadline: float) -> None:
        assert self._stream is not None
        parts = [self._h11.send(request)]
        if body:
            parts.append(self._h11.send(h11.Data(data=body)))
        parts.append(self._h11.send(h11.EndOfMessage()))
        await self._stream.send(b"".join(part for part in parts if part), deadline)

    async def read(self, deadline: float) -> h11.Response | h11.Data | h11.EndOfMessage | None:
        """The next part of the answer; ``None`` where it is not there by the deadline, or the wait was woken."""
        while True:
            event = await self._next_event(deadline)
            if event is None or isinstance(event, (h11.Response, h11.Data, h11.EndOfMessage)):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise ConnectionError("the connection broke")

    async def _next_event(self, deadline: float) -> object:
        assert self._stream is not None
        while True:
            repeat = self._request
            try:
                event = self._h11.next_event()
                if event is not h11.NEED_DATA:
                    self._request = None
                    return event
                data = await self._stream.receive(deadline)
                if data is None:
                    return None
                if data:
                    self._request = None
                elif self._h11.their_state is h11.SEND_RESPONSE:
                    raise ConnectionError("the connection broke before there was an answer")
                self._h11.receive_data(data)
            except (OSError, h11.RemoteProtocolError):
                if repeat is None or self._request is None:
                    raise
                self.close()
                await self._open(*repeat, deadline)

    def close(self) -> None:
        """Close the connection; the next request makes another one."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._received += stream.received
            stream.close()


def header(response: h11.Response, name: bytes) -> str | None:
    """The value of a header, by its name in lower case."""
    return next((value.decode("latin-1") for key, value in response.headers if key == name), None)


def shown(body: bytes) -> str:
    """The beginning of an error's body, on one line: it may be a proxy's whole page."""
    text = body[:SHOWN].decode(errors="replace")
    return " ".join("".join([char if char.isprintable() else " " for char in text]).split())


def failure_of(response: h11.Response, body: bytes) -> Failure:
    """What an answer that is not the one asked for says."""
    status, said = response.status_code, shown(body)
    code, url = _code(body), None
    location = header(response, b"location")
    if location is not None and 300 <= status < 400:
        code, url = "redirected", location[:SHOWN]
        said = f"redirected to {url}; redirects are not followed, give the client that address"
    return Failure(f"{status} {said}".strip(), status, header(response, b"retry-after"), code, url)


def _code(body: bytes) -> str | None:
    """The code of an error body of the bus."""
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return code if isinstance(code, str) else None
