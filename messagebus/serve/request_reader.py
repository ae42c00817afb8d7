"""Reads the requests on one connection to ``messagebus serve``: heads, and bodies as the application asks for them.

Every byte of a head and of a chunked body is read by llhttp, the strict parser of Node.js (through httptools). What is
between two requests has one reader: llhttp is fed no further than to the next empty line, the only place where a head
or a chunked body can end, and a body with a length is counted. So it is always known where the next request begins, and
what the bus does not take of a connection that it holds is still there.
"""

from __future__ import annotations

import re
import time
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from .body import BodyError, open_body
from .limits import MIN_BODY_RATE, Limits

MAX_TARGET = 8190
"""Bytes of a request's target."""
MAX_FIELDS = 100
MAX_LENGTH_DIGITS = 18
"""Of a Content-Length: more than these are not a number of bytes that could be read."""
READ_SIZE = 64 * 1024
READ_AHEAD = 64 * 1024
"""Bytes of a body that are read before the application is called: nearly every body comes whole, and a broken or slow
one never reaches the application."""
_NO_HOST = re.compile(r"[\s/@?#\\,]")
_RAW = re.compile(rb"[\x80-\xff]")


class HeadRefused(Exception):
    """A request that is not served; ``code`` is the status to say so with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Message:
    """What llhttp finds in a request. Fields go into the environ at once (PEP 3333)."""

    __slots__ = ("body", "ended", "environ", "fields", "head_ended", "refusal", "size", "target", "target_ended")

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.target = b""
        self.target_ended = False
        self.fields = 0
        self.size = 0
        """Bytes of its head."""
        self.head_ended = False
        self.ended = False
        self.body: list[bytes] = []
        """Pieces of a chunked body."""
        self.refusal: HeadRefused | None = None

    def without_raw_bytes(self, part: bytes) -> bytes:
        """A head's next bytes, with those of the target that should have been percent-encoded: programs send them, and
        llhttp refuses them."""
        line, end, rest = part.partition(b"\n")
        self.target_ended = bool(end)
        if line.isascii():
            return part
        return _RAW.sub(lambda found: b"%%%02X" % found[0][0], line) + end + rest

    def on_url(self, part: bytes) -> None:
        if not self.head_ended:
            self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_ended:
            return  # behind a chunked body, where nobody asks for it
        self.fields += 1
        if b"_" in name:
            return  # in the environ it would pass for the one with hyphens, which a proxy may have checked
        key = "HTTP_" + name.decode("latin-1").replace("-", "_").upper()
        text = value.strip(b" \t").decode("latin-1")  # llhttp leaves the blanks behind a value
        environ = self.environ
        if key == "HTTP_HOST" and _NO_HOST.search(text):
            self.refusal = HeadRefused(400, "malformed host")
        if key in environ:
            if key == "HTTP_HOST":
                self.refusal = HeadRefused(400, "two hosts")  # RFC 9112, section 3.2
            if key == "HTTP_CONTENT_TYPE":
                return  # there is one at most; the first
            text = environ[key] + ("; " if "COOKIE" in key else ",") + text
        environ[key] = text

    def on_headers_complete(self) -> None:
        self.head_ended = True

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        self.ended = True


class RequestReader:
    """See the module. For the greenlet of its connection alone."""

    def __init__(
        self,
        sock: Any,
        address: tuple[str, str],
        environ: dict[str, Any],
        limits: Limits,
    ) -> None:
        """``address``: the client's host and port; empty on a Unix socket. ``environ``: what each request's begins
        with."""
        self._sock = sock
        self._address = address
        self._environ = environ
        self._limits = limits
        self._buffer = bytearray()
        self._parser: Any = None
        self._message = Message(environ)
        self.http_1_0 = False
        self.closes = False
        """Whether the client wants the connection to end with the answer."""
        self._expects = False  # the client waits for a "100 Continue" before it sends the body
        self._left: int | None = 0  # bytes of the body that have not been taken from the buffer; None: chunked
        self._received = 0
        self._body_began = 0.0

    @property
    def target(self) -> bytes:
        """The target of the current request, as it was sent."""
        return self._message.target

    @property
    def has_begun(self) -> bool:
        """Whether bytes of another request are there."""
        return bool(self._buffer)

    def take_rest(self) -> bytes:
        """What has come behind the request; from now on it is the caller's."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    # --- the head ---

    def read_head(self, patience: float) -> dict[str, Any] | None:
        """The environ of the next request; ``None`` where the client has gone, or sends no byte for ``patience``
        seconds.

        Raises:
            HeadRefused: It is not to be served.
            OSError: The connection has failed.
        """
        buffer, limits = self._buffer, self._limits
        message = self._message = Message(self._environ.copy())
        self._parser = HttpRequestParser(message)
        if not buffer:
            self._sock.settimeout(patience)
            try:
                data = self._sock.recv(READ_SIZE)
            except TimeoutError:
                return None
            if not data:
                return None
            buffer += data
        deadline = 0.0
        while not message.head_ended:
            if self._feed():
                continue
            now = time.monotonic()
            deadline = deadline or now + limits.head_timeout
            if now >= deadline:
                raise HeadRefused(408, f"a request's head has {limits.head_timeout:g} seconds to arrive")
            self._sock.settimeout(deadline - now)
            try:
                data = self._sock.recv(READ_SIZE)
            except TimeoutError:
                continue
            if not data:
                if message.size or buffer.strip(b"\r\n"):
                    raise HeadRefused(400, "the request ended within its head")
                return None
            buffer += data
        return self._understand(message)

    def _feed(self) -> bool:
        """Give llhttp what comes next, up to where a head or a chunked body may end; ``False``: more must come first.

        Raises:
            HeadRefused: It is malformed, or larger than it may be.
        """
        buffer, message = self._buffer, self._message
        size = buffer.find(b"\r\n\r\n") + 4
        if size < 4:
            size = len(buffer) - 3  # which may be the beginning of an end
            if size <= 0:
                return False
        part = bytes(buffer[:size])
        del buffer[:size]
        in_head = not message.head_ended
        if in_head and not message.target_ended:
            part = message.without_raw_bytes(part)
        try:
            self._parser.feed_data(part)
        except HttpParserUpgrade:
            pass  # what follows is for somebody else
        except HttpParserError as error:
            raise HeadRefused(400, f"malformed {'head' if in_head else 'body'}: {error}") from None
        if message.refusal is not None:
            raise message.refusal
        if in_head:
            message.size += size
            if len(message.target) > MAX_TARGET:
                raise HeadRefused(414, f"a request's target has {MAX_TARGET} bytes at most")
            if message.size > self._limits.head_size:
                raise HeadRefused(431, f"a request's head has {self._limits.head_size} bytes at most")
            if message.fields > MAX_FIELDS:
                raise HeadRefused(431, f"a request has {MAX_FIELDS} header fields at most")
        return True

    def _understand(self, message: Message) -> dict[str, Any]:
        """Complete the environ from a whole head."""
        environ, parser, target = message.environ, self._parser, message.target
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise HeadRefused(400, "only HTTP 1.0 and 1.1 are spoken here")
        if not target.startswith((b"/", b"*")):
            target = self._absolute(target, environ)
        self.http_1_0 = version == "1.0"
        environ["REQUEST_METHOD"] = parser.get_method().decode("latin-1")
        environ["SERVER_PROTOCOL"] = "HTTP/1.0" if self.http_1_0 else "HTTP/1.1"
        path, _, query = target.partition(b"?")
        environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
        environ["QUERY_STRING"] = query.decode("latin-1")
        if self._address[1]:
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self._address
        # Not parser.should_keep_alive(), which forgets the fields when a request without a body is complete.
        connection = environ.get("HTTP_CONNECTION")
        if connection is None:
            self.closes = self.http_1_0
        else:
            wishes = [wish.strip() for wish in connection.lower().split(",")]
            self.closes = "close" in wishes or (self.http_1_0 and "keep-alive" not in wishes)
        self._frame(environ, message)
        return environ

    @staticmethod
    def _absolute(target: bytes, environ: dict[str, Any]) -> bytes:
        """``http://host/path``, which a server has to take (RFC 9112, section 3.2.2); its host counts, not the
        field's."""
        scheme, separator, rest = target.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            raise HeadRefused(400, "the target is no path")
        end = min((rest.find(mark) for mark in (b"/", b"?", b"#") if mark in rest), default=len(rest))
        environ["HTTP_HOST"] = rest[:end].decode("latin-1")
        path = rest[end:]
        return path if path.startswith(b"/") else b"/" + path

    def _frame(self, environ: dict[str, Any], message: Message) -> None:
        """Find out how long the body is."""
        if (kind := environ.pop("HTTP_CONTENT_TYPE", None)) is not None:
            environ["CONTENT_TYPE"] = kind
        length = environ.pop("HTTP_CONTENT_LENGTH", None)
        encoding = environ.get("HTTP_TRANSFER_ENCODING")
        self._received = 0
        if encoding is not None:
            if encoding.lower() != "chunked" or self.http_1_0:
                raise HeadRefused(400, "this Transfer-Encoding cannot be followed")
            self._left = None
            if message.ended:
                # An upgrade is offered, and httptools is done with such a request when it has its head. The body comes
                # all the same, before anything is upgraded.
                message.ended = False
                self._parser = HttpRequestParser(message)
                self._parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        elif length is not None:
            if len(length) > MAX_LENGTH_DIGITS or not (length.isascii() and length.isdigit()):
                raise HeadRefused(400, "Content-Length cannot be followed")
            environ["CONTENT_LENGTH"] = length
            self._left = int(length)
            if 0 < self._limits.body_size < self._left:
                raise HeadRefused(413, f"a request's body has {self._limits.body_size} bytes at most")
        else:
            self._left = 0
        self._expects = environ.get("HTTP_EXPECT", "").lower() == "100-continue" and not self.http_1_0

    # --- the body ---

    def read_ahead(self, environ: dict[str, Any]) -> Any:
        """``wsgi.input``: all of a short body, the beginning of a long one."""
        if self._left == 0:
            return BytesIO()
        self._body_began = time.monotonic()
        if self._expects:  # whether the client is to send it at all, the application says by reading
            return open_body(b"", self._read_body)
        parts: list[bytes] = []
        size = 0
        while size <= READ_AHEAD:
            part = self._read_body()
            if not part:
                return BytesIO(parts[0] if len(parts) == 1 else b"".join(parts))
            parts.append(part)
            size += len(part)
        return open_body(b"".join(parts), self._read_body)

    def _read_body(self) -> bytes:
        """Bytes of the body; empty at its end.

        Raises:
            BodyError: There is no way to its end.
        """
        message, buffer = self._message, self._buffer
        if self._expects:
            self._expects = False
            self._go_on()
        while True:
            if self._left is None:
                if message.body:
                    data = b"".join(message.body)
                    message.body.clear()
                    return data
                if message.ended:
                    return b""
                try:
                    if self._feed():
                        continue
                except HeadRefused as error:
                    self.closes = True
                    raise BodyError(error.code, str(error)) from None
            elif not self._left:
                return b""
            elif buffer:
                data = bytes(buffer[: self._left])
                del buffer[: self._left]
                self._left -= len(data)
                return data
            self._receive_body()

    def _go_on(self) -> None:
        try:
            self._sock.settimeout(self._limits.send_timeout)
            self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        except OSError:
            self.closes = True
            raise BodyError(400, "the client has gone") from None

    def _receive_body(self) -> None:
        limits = self._limits
        deadline = self._body_began + limits.body_timeout + self._received / MIN_BODY_RATE
        self._sock.settimeout(min(limits.body_timeout, max(0.001, deadline - time.monotonic())))
        try:
            data = self._sock.recv(READ_SIZE)
        except TimeoutError:
            self.closes = True
            raise BodyError(408, "the request's body came too slowly") from None
        except OSError:
            data = b""
        if not data:
            self.closes = True
            raise BodyError(400, "the request's body ended early")
        self._received += len(data)
        if 0 < limits.body_size < self._received:
            self.closes = True
            raise BodyError(413, f"a request's body has {limits.body_size} bytes at most")
        self._buffer += data

    def has_ended(self, discard: bool) -> bool:
        """Whether the request has been taken from the buffer to its end, with what is in there already. ``discard``:
        take it; nobody reads it."""
        message = self._message
        if self._left is None:
            return message.ended
        if discard and 0 < self._left <= len(self._buffer):
            del self._buffer[: self._left]
            self._left = 0
        return self._left <= (0 if discard else len(self._buffer))
