"""Writes a WSGI application's answer to its connection (PEP 3333, RFC 9112)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from wsgiref.handlers import format_date_time

JOINED = 64 * 1024
"""Bytes of a body that is sent with its head in one piece, rather than by itself."""
BODILESS = (204, 304)


class Response:
    """One answer. Used by the greenlet of its connection only."""

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_headers",
        "_left",
        "_send",
        "_to_head",
        "closes",
        "head_sent",
        "http_1_0",
        "sent",
        "status",
    )

    def __init__(self, send: Callable[[bytes], None], *, closes: bool, http_1_0: bool, to_head: bool) -> None:
        """``closes``: the connection ends with this answer. ``to_head``: to a HEAD, whose answer has no body."""
        self._send = send
        self.closes = closes
        self.http_1_0 = http_1_0
        self._to_head = self._bodiless = to_head
        self.status = ""
        self.head_sent = False
        self.sent = 0
        """Bytes of the body."""
        self._headers: list[tuple[str, str]] = []
        self._chunked = False
        self._left: int | None = None  # of the Content-Length that was announced

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """WSGI's ``start_response``."""
        if exc_info:
            if self.head_sent:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self.status:
            raise AssertionError("start_response was called twice")
        self.status = status
        self._headers = headers
        return self.write

    def answer(
        self, application: Callable[..., Iterable[bytes]], environ: dict[str, Any], close: Callable[[], bool]
    ) -> None:
        """Call the application, and send its answer. When the head is sent, ``close`` tells whether the connection has
        to end for a reason that is not in the request."""
        result = application(environ, self.start)
        try:
            whole = isinstance(result, (list, tuple))
            for data in result:
                if data:
                    self._write(data, close, sum(map(len, result)) if whole else None)
            if not self.head_sent:
                self._write(b"", close, 0 if whole else None)
            if self._chunked and not self._bodiless:
                self._send(b"0\r\n\r\n")
        finally:
            ended = getattr(result, "close", None)
            if ended is not None:
                ended()
        if self._left and not self._bodiless:
            self.closes = True  # less came than was announced

    def write(self, data: bytes) -> None:
        """The function that ``start_response`` returns, for applications from before there were iterables."""
        self._write(data, bool, None)

    def refuse(self, code: int, text: str = "") -> None:
        """Answer in place of an application that failed, and close the connection; send nothing if it has begun to
        answer."""
        self.closes = True
        self._left, self._chunked = None, False
        if not self.head_sent:
            body = f"{text}\n".encode() if text else b""
            self.status = f"{code} {HTTPStatus(code).phrase}"
            self._headers = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]
            self._write(body, bool, len(body))

    def _write(self, data: bytes, close: Callable[[], bool], length: int | None) -> None:
        """``length``: of the whole body, where it is known although no header says so."""
        if self.head_sent:
            self._send_body(b"", data)
            return
        if not self.status:
            raise AssertionError("the application did not call start_response")
        self.closes = self.closes or close()
        head = self._head(length)
        self.head_sent = True
        self._send_body(head, data)

    def _head(self, length: int | None) -> bytes:
        code = int(self.status[:3])
        headers = []
        says_date = says_connection = False
        for name, value in self._headers:
            lower = name.lower()
            if lower == "content-length":
                self._left = int(value)
            elif lower == "connection":
                says_connection = True
                self.closes = self.closes or value.lower() == "close"
            elif lower == "date":
                says_date = True
            elif lower == "transfer-encoding":
                continue  # the server's, not the application's
            headers.append(f"{name}: {value}\r\n")
        self._bodiless = self._to_head or code in BODILESS or code < 200
        if code in BODILESS or code < 200:
            pass
        elif self._left is None:
            if length is not None:
                self._left = length
                headers.append(f"Content-Length: {length}\r\n")
            elif self.http_1_0:
                self.closes = True  # its end is that of the body
            else:
                self._chunked = True
                headers.append("Transfer-Encoding: chunked\r\n")
        if not says_date:
            headers.append(f"Date: {_date(int(time.time()))}\r\n")
        if not says_connection:
            if self.closes:
                headers.append("Connection: close\r\n")
            elif self.http_1_0:
                headers.append("Connection: keep-alive\r\n")
        text = f"HTTP/1.1 {self.status}\r\n{''.join(headers)}\r\n"
        lines = len(headers) + 2
        if text.count("\n") != lines or text.count("\r") != lines or "\0" in text:
            raise ValueError("a response's status or header has a control character in it")
        return text.encode("latin-1")

    def _send_body(self, head: bytes, data: bytes) -> None:
        if self._bodiless or not data:
            data = b""
        else:
            if self._left is not None:
                if len(data) > self._left:
                    self.closes = True
                    data = data[: self._left]  # what is more than announced would be read as the next response
                self._left -= len(data)
            self.sent += len(data)
            if self._chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
        if head and len(data) > JOINED:
            self._send(head)
            self._send(data)
        elif head or data:
            self._send(head + data if head else data)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return format_date_time(second)
