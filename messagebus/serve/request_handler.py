"""How ``messagebus serve`` reads a request: gevent's handler, but for its slow parts.

A request's head that comes whole with one read, as nearly every one does, is parsed by llhttp, the parser of Node.js
(through httptools): gevent's own code takes it for an e-mail, which costs more than all the bus does with it. That code
still reads the others, after llhttp has looked at their fields: for gevent alone, a head may say in two ways how long
its body is, and what one proxy takes for a body is the next request to it. A connection that the bus holds is handed
over as it is, with nothing to undo in the server: see ``hijack``. Bodies are read by gevent alone.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from gevent.pywsgi import Input, WSGIHandler
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from ..http.hijack import HAND_OVER

_GeventHandler: Any = WSGIHandler  # its methods that subclasses may replace are missing in its type stubs

JOINED = 64 * 1024
"""Bytes of a body that is copied behind its head, rather than written by itself."""
MAX_FIELD_LINE = 64 * 1024
MAX_FIELD_LINES = 100
"""With the empty one; gevent's parser takes no more, and says so with a traceback."""
MAX_LENGTH_DIGITS = 18
"""Of a Content-Length: more than these are not a number of bytes that could be read."""


class _Head:
    """What llhttp finds in a head, as it goes into the environ (PEP 3333)."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.target = b""

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if b"_" in name:
            return  # in the environ it would pass for the one with hyphens, which a proxy may have checked
        key = "HTTP_" + name.decode("latin-1").replace("-", "_").upper()
        text = value.strip(b" \t").decode("latin-1")  # llhttp leaves the blanks behind a value
        environ = self.environ
        if key in environ:
            if key == "HTTP_HOST":
                raise ValueError("two hosts")  # RFC 9112, section 3.2
            if key == "HTTP_CONTENT_TYPE":
                return  # there is one at most; as with gevent, the first
            text = environ[key] + ("; " if "COOKIE" in key else ",") + text
        environ[key] = text


class Handler(_GeventHandler):  # type: ignore[misc]
    """One connection; its methods are called by gevent."""

    socket: Any

    def handle_one_request(self) -> Any:
        try:
            seen = self.rfile.peek()
        except OSError:
            return None
        size = seen.find(b"\r\n\r\n") + 4
        if size < 4 or not self._read(seen[:size]):
            result = super().handle_one_request()
        else:
            self.rfile.read(size)
            self.application = self.server.application
            self.handle_one_response()
            self.environ.pop(HAND_OVER, None)  # it refers back to this handler
            result = None if self.close_connection or self.rfile.closed else True
        if result is True and not self._body_has_ended():
            return None  # nobody knows where the next request begins
        return result

    def _body_has_ended(self) -> bool:
        body: Any = self.wsgi_input
        if body.chunked_input:
            return body.chunk_length == 0 and not body._chunked_input_error
        return bool(body.position >= (body.content_length or 0))

    def _read(self, text: bytes) -> bool:
        """Take in a whole head; ``False`` where it is not for this way."""
        environ = self.server.get_environ()
        head = _Head(environ)
        parser = HttpRequestParser(head)
        try:
            parser.feed_data(text)
        except HttpParserUpgrade:
            pass  # what follows is for somebody else
        except HttpParserError:
            return False
        version = parser.get_http_version()
        if version not in ("1.1", "1.0") or not head.target.startswith(b"/"):
            return False
        if not _is_framed(environ.get("HTTP_CONTENT_LENGTH", ""), environ.get("HTTP_TRANSFER_ENCODING", "chunked")):
            return False

        self.command = environ["REQUEST_METHOD"] = parser.get_method().decode("latin-1")
        self.path = head.target.decode("latin-1")
        self.request_version = environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
        self.requestline = f"{self.command} {self.path} {self.request_version}"
        # Not parser.should_keep_alive(), which forgets the fields when a request without a body is complete.
        wishes = [wish.strip() for wish in environ.get("HTTP_CONNECTION", "").lower().split(",")]
        self.close_connection = "close" in wishes or (version == "1.0" and "keep-alive" not in wishes)
        path, _, query = head.target.partition(b"?")
        environ["SCRIPT_NAME"] = ""
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")
        environ["QUERY_STRING"] = query.decode("latin-1")
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = map(str, self.client_address[:2])
        self._read_body_from(environ)
        environ[HAND_OVER] = self._hand_over
        self.environ = environ
        return True

    def _read_body_from(self, environ: dict[str, Any]) -> None:
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if f"HTTP_{name}" in environ:
                environ[name] = environ.pop(f"HTTP_{name}")
        length = environ.get("CONTENT_LENGTH")
        self.content_length = None if length is None else int(length)
        self.wsgi_input = Input(
            self.rfile,
            self.content_length,
            socket=self.socket if environ.get("HTTP_EXPECT") == "100-continue" else None,
            chunked_input=environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked",
        )
        # After an upgrade the application reads whatever comes. It never ends, and Werkzeug takes the mere presence of
        # the flag for a promise that it does.
        upgraded = (
            environ.get("HTTP_CONNECTION", "").lower() == "upgrade"
            or environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        )
        if upgraded:
            environ["wsgi.input"] = self.rfile
        else:
            environ |= {"wsgi.input": self.wsgi_input, "wsgi.input_terminated": True}

    def MessageClass(self, file: Any, *args: Any) -> Any:
        """The fields of a head whose first line gevent has read; a ValueError is answered with 400."""
        lines: list[bytes] = []
        while not lines or lines[-1] not in (b"\r\n", b"\n", b""):
            if len(lines) == MAX_FIELD_LINES:
                raise ValueError("too many header fields")
            lines.append(file.readline(MAX_FIELD_LINE))
        fields = b"".join(lines)
        try:
            HttpRequestParser(None).feed_data(b"POST / HTTP/1.1\r\n" + fields)
        except HttpParserUpgrade:
            pass
        except HttpParserError as error:
            raise ValueError(f"malformed head: {error}") from None
        if lines[-1] != b"\r\n":
            raise ValueError("the head has no end")
        headers = super().MessageClass(BytesIO(fields), *args)
        if len(headers.get_all("host", ())) > 1:
            raise ValueError("two hosts")
        encodings = headers.get_all("transfer-encoding", ["chunked"])
        if not _is_framed(headers.get("content-length", ""), ",".join(encodings)):
            raise ValueError("Content-Length or Transfer-Encoding cannot be followed")
        return headers

    def _check_http_version(self) -> bool:
        return self.request_version in ("HTTP/1.1", "HTTP/1.0")

    def _hand_over(self) -> int:
        """The connection's descriptor, which is the caller's from now on: the server neither writes to it nor closes
        it."""
        descriptor: int = self.socket.detach()
        self.socket = None
        self.close_connection = True
        return descriptor

    def _write_with_headers(self, data: bytes) -> None:
        # gevent writes the head and the body apart, and most clients would have to read twice.
        self.headers_sent = True
        if self.socket is None:
            return  # handed over
        self.finalize_headers()
        if self.command == "HEAD":
            self.response_use_chunked = False  # the same for the mark of a body's end
        lines = [b"HTTP/1.1 " + self.status, *[b"%b: %b" % header for header in self.response_headers], b"\r\n"]
        head = b"\r\n".join(lines)
        if self.response_use_chunked or self.command == "HEAD" or len(data) > JOINED:
            self._sendall(head)
            self._write(data)
        else:
            self._sendall(head + data)

    def _write(self, data: bytes) -> None:
        if self.command != "HEAD":  # what follows its head would be read as the next response
            super()._write(data)

    def _sendall(self, data: bytes) -> None:
        if self.socket is not None:  # handed over, it is not the server's to write to
            super()._sendall(data)

    def log_request(self) -> None:
        if self.server.has_log:  # gevent would write a line for nobody
            super().log_request()


def _is_framed(length: str, encoding: str) -> bool:
    """Whether gevent can tell where a body ends, of a head that is in order to llhttp: to gevent, one in any other
    encoding than ``chunked`` has none."""
    return len(length) <= MAX_LENGTH_DIGITS and encoding.strip().lower() == "chunked"
