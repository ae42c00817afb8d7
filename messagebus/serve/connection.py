"""One client's connection to ``messagebus serve``: its requests, one after the other.

Every byte of a head and of a chunked body is read by llhttp, the strict parser of Node.js (through httptools). What is
between two requests has one reader: llhttp is fed no further than to the next empty line, the only place where a head
or a chunked body can end, and a body with a length is counted. So it is always known where the next request begins, and
what the bus does not take of a connection that it holds is still there.
"""

from __future__ import annotations

import logging
import re
import time
from io import BytesIO
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ..http.hijack import EARLY_BYTES, HAND_OVER
from .body import BodyError, open_body
from .limits import MIN_BODY_RATE, Limits, RareWarning
from .logs import AccessLog, printable
from .response import Response

logger = logging.getLogger("messagebus.serve")

MAX_TARGET = 8190
"""Bytes of a request's target."""
MAX_FIELDS = 100
MAX_LENGTH_DIGITS = 18
"""Of a Content-Length: more than these are not a number of bytes that could be read."""
READ_SIZE = 64 * 1024
LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024
READ_AHEAD = 64 * 1024
"""Bytes of a body that are read before the application is called: nearly every body comes whole, and a broken or slow
one never reaches the application."""


_RAW = re.compile(rb"[\x80-\xff]")


class HeadRefused(Exception):
    """A request that is not served; ``code`` is the status to say so with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class ClientGone(ConnectionError):
    """Nobody reads what is sent."""


class _Message:
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


class Owner(Protocol):
    """Who has accepted the connection."""

    application: Any
    limits: Limits
    access_log: AccessLog | None
    warn: RareWarning
    waiting: dict[Connection, None]
    """Those that wait for a request."""
    stopping: bool


class Connection:
    """See the module. For its own greenlet, but for :meth:`let_go`."""

    def __init__(self, sock: Any, address: Any, environ: dict[str, Any], acceptor: Owner) -> None:
        """``environ``: what each request's begins with."""
        self._sock = sock
        self.address: str = address[0] if isinstance(address, tuple) else ""
        self._port = str(address[1]) if isinstance(address, tuple) else ""
        self._environ = environ
        self._acceptor = acceptor
        self._limits = acceptor.limits
        self._buffer = bytearray()
        self._early = bytearray()
        self._served = 0
        self._parser: Any = None
        self._message: _Message | None = None
        self._http_1_0 = False
        self._closes = False
        self._lingers = False  # the client may still be sending when it is answered for the last time
        self._expects = False  # the client waits for a "100 Continue" before it sends the body
        self._left: int | None = 0  # bytes of the body that have not been taken from the buffer; None: chunked
        self._received = 0
        self._body_began = 0.0

    # --- its life ---

    def run(self) -> None:
        """Serve it until it ends."""
        try:
            while self._serve_one():
                pass
        except (HeadRefused, BodyError) as error:
            self._refuse(error.code, str(error))
        except OSError:
            pass  # the client has gone
        finally:
            self._close()

    def let_go(self) -> None:
        """End it from elsewhere while it waits for a request: whoever reads finds its end."""
        if self._sock is not None:
            try:
                self._sock.shutdown(0)
            except OSError:
                pass

    @property
    def is_fresh(self) -> bool:
        """No request has been answered on it: its client has no reason to expect that it may be closed."""
        return self._served == 0

    def _serve_one(self) -> bool:
        """One request; ``False``: it was the last."""
        environ = self._read_head()
        if environ is None:
            return False
        began = time.time()
        environ["wsgi.input"] = self._read_ahead(environ)
        environ[HAND_OVER] = self._hand_over
        if "HTTP_UPGRADE" in environ:
            environ[EARLY_BYTES] = self._early = bytearray()  # the same one in a copy that a middleware may make
        environ["gunicorn.socket"] = self._sock  # where libraries look that speak WebSocket by themselves
        response = Response(
            self._send, closes=self._closes, http_1_0=self._http_1_0, to_head=environ["REQUEST_METHOD"] == "HEAD"
        )
        try:
            self._answer(response, environ)
        finally:
            # They refer back to this object.
            environ.pop(HAND_OVER, None)
            environ.pop("gunicorn.socket", None)
            if self._acceptor.access_log is not None:
                assert self._message is not None
                self._acceptor.access_log(environ, self._message.target, response, time.time() - began)
        self._served += 1
        if self._sock is None:
            return False
        self._lingers = not self._has_ended(discard=True)
        return not (response.closes or self._lingers)

    def _answer(self, response: Response, environ: dict[str, Any]) -> None:
        try:
            response.answer(self._acceptor.application, environ, self._must_close)
        except (ClientGone, GeneratorExit):
            response.closes = True
        except StopIteration:
            response.closes = True  # the application has served the socket to its end by itself
        except BodyError as error:
            self._acceptor.warn("a request from %s was refused: %s", self.address or "the socket", error)
            response.refuse(error.code, str(error))
        except Exception:
            logger.exception("%s %s failed", environ["REQUEST_METHOD"], printable(environ["PATH_INFO"]))
            response.refuse(500)

    def _must_close(self) -> bool:
        return self._acceptor.stopping or not self._limits.keep_alive or not self._has_ended(discard=False)

    def _hand_over(self) -> int:
        """The connection's descriptor, which is the caller's from now on: the server neither writes to it nor closes
        it. Bytes that came behind a request for an upgrade are in the environ's ``EARLY_BYTES`` then."""
        if self._has_ended(discard=True):
            self._early += self._buffer
        descriptor: int = self._sock.detach()
        self._sock = None
        return descriptor

    def _send(self, data: bytes) -> None:
        sock = self._sock
        if sock is None:
            return  # handed over: what the application returns is for nobody
        try:
            sock.settimeout(self._limits.send_timeout)
            sent = sock.send(data)
            if sent < len(data):
                rest = memoryview(data)[sent:]
                while rest:
                    rest = rest[sock.send(rest) :]
        except OSError as error:
            raise ClientGone(str(error)) from None

    def _refuse(self, code: int, reason: str) -> None:
        """Answer what is not a request that could be served, and end the connection."""
        self._acceptor.warn("a request from %s was refused: %s", self.address or "the socket", printable(reason))
        self._lingers = True
        response = Response(self._send, closes=True, http_1_0=False, to_head=False)
        try:
            response.refuse(code, printable(reason))
        except OSError:
            pass

    def _close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        try:
            # To close while bytes come in, or wait to be read, resets the connection: its client may never see the
            # answer that was sent before.
            size, deadline = 0, 0.0
            if self._lingers:
                sock.shutdown(1)
                deadline = time.monotonic() + LINGER_SECONDS
            while size < LINGER_BYTES:
                sock.settimeout(max(0.0, deadline - time.monotonic()) if deadline else 0.0)
                data = sock.recv(READ_SIZE)
                if not data:
                    break
                size += len(data)
        except OSError:
            pass
        finally:
            sock.close()

    # --- the head ---

    def _read_head(self) -> dict[str, Any] | None:
        """The environ of the next request; ``None`` where the client has gone or may stay no longer.

        Raises:
            HeadRefused: It is not to be served.
        """
        buffer, limits, acceptor = self._buffer, self._limits, self._acceptor
        message = self._message = _Message(self._environ.copy())
        self._parser = HttpRequestParser(message)
        acceptor.waiting[self] = None
        try:
            if not buffer:
                if acceptor.stopping and self._served:
                    return None
                self._sock.settimeout(limits.keep_alive if self._served else limits.head_timeout)
                data = self._sock.recv(READ_SIZE)
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
        finally:
            acceptor.waiting.pop(self, None)
        return self._understand(message)

    def _feed(self) -> bool:
        """Give llhttp what comes next, up to where a head or a chunked body may end; ``False``: more must come first.

        Raises:
            HeadRefused: It is malformed, or larger than it may be.
        """
        buffer, message = self._buffer, self._message
        assert message is not None
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

    def _understand(self, message: _Message) -> dict[str, Any]:
        """Complete the environ from a whole head."""
        environ, parser, target = message.environ, self._parser, message.target
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise HeadRefused(400, "HTTP/1.1 and HTTP/1.0 are spoken here")
        if not target.startswith((b"/", b"*")):
            target = self._absolute(target, environ)
        self._http_1_0 = version == "1.0"
        environ["REQUEST_METHOD"] = parser.get_method().decode("latin-1")
        environ["SERVER_PROTOCOL"] = "HTTP/1.0" if self._http_1_0 else "HTTP/1.1"
        path, _, query = target.partition(b"?")
        environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
        environ["QUERY_STRING"] = query.decode("latin-1")
        if self._port:
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.address, self._port
        # Not parser.should_keep_alive(), which forgets the fields when a request without a body is complete.
        connection = environ.get("HTTP_CONNECTION")
        if connection is None:
            self._closes = self._http_1_0
        else:
            wishes = [wish.strip() for wish in connection.lower().split(",")]
            self._closes = "close" in wishes or (self._http_1_0 and "keep-alive" not in wishes)
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

    def _frame(self, environ: dict[str, Any], message: _Message) -> None:
        """Find out how long the body is."""
        if (kind := environ.pop("HTTP_CONTENT_TYPE", None)) is not None:
            environ["CONTENT_TYPE"] = kind
        length = environ.pop("HTTP_CONTENT_LENGTH", None)
        encoding = environ.get("HTTP_TRANSFER_ENCODING")
        self._received = 0
        if encoding is not None:
            if encoding.lower() != "chunked" or self._http_1_0:
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
        self._expects = environ.get("HTTP_EXPECT", "").lower() == "100-continue" and not self._http_1_0

    # --- the body ---

    def _read_ahead(self, environ: dict[str, Any]) -> Any:
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
        assert message is not None
        if self._expects:
            self._expects = False
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
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
                    self._closes = True
                    raise BodyError(error.code, str(error)) from None
            elif not self._left:
                return b""
            elif buffer:
                data = bytes(buffer[: self._left])
                del buffer[: self._left]
                self._left -= len(data)
                return data
            self._receive_body()

    def _receive_body(self) -> None:
        limits = self._limits
        deadline = self._body_began + limits.body_timeout + self._received / MIN_BODY_RATE
        self._sock.settimeout(min(limits.body_timeout, max(0.001, deadline - time.monotonic())))
        try:
            data = self._sock.recv(READ_SIZE)
        except TimeoutError:
            self._closes = True
            raise BodyError(408, "the request's body came too slowly") from None
        except OSError:
            data = b""
        if not data:
            self._closes = True
            raise BodyError(400, "the request's body ended early")
        self._received += len(data)
        if 0 < limits.body_size < self._received:
            self._closes = True
            raise BodyError(413, f"a request's body has {limits.body_size} bytes at most")
        self._buffer += data

    def _has_ended(self, discard: bool) -> bool:
        """Whether the request has been taken from the buffer to its end, with what is in there already. ``discard``:
        take it; nobody reads it."""
        message = self._message
        assert message is not None
        if self._left is None:
            return message.ended
        if discard and 0 < self._left <= len(self._buffer):
            del self._buffer[: self._left]
            self._left = 0
        return self._left <= (0 if discard else len(self._buffer))
