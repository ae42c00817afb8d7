"""How ``messagebus serve`` reads a request: gevent's handler, but for its slow parts.

A request's head that comes whole with one read, as nearly every one does, is parsed by llhttp, the parser of Node.js
(through httptools): gevent's own code takes it for an e-mail, which costs more than all the bus does with it. That code
still reads the others, and says what is wrong with those that llhttp refuses. A connection that the bus holds is handed
over as it is, with nothing to undo in the server: see ``hijack``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

from gevent.pywsgi import Input, WSGIHandler
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from .hijack import HAND_OVER

_GeventHandler: Any = WSGIHandler  # its methods that subclasses may replace are missing in its type stubs

JOINED = 64 * 1024
"""Bytes of a body that is copied behind its head, rather than written by itself."""


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
        text = value.decode("latin-1")
        environ = self.environ
        if key in environ:
            text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
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
            return super().handle_one_request()
        self.rfile.read(size)
        self.application = self.server.application
        self.handle_one_response()
        self.environ.pop(HAND_OVER)  # it refers back to this handler
        return None if self.close_connection or self.rfile.closed else True

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

        self.command = environ["REQUEST_METHOD"] = parser.get_method().decode("latin-1")
        self.path = head.target.decode("latin-1")
        self.request_version = environ["SERVER_PROTOCOL"] = f"HTTP/{version}"
        self.requestline = f"{self.command} {self.path} {self.request_version}"
        self.close_connection = not parser.should_keep_alive()
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
        # After an upgrade the application reads whatever comes.
        upgraded = (
            environ.get("HTTP_CONNECTION", "").lower() == "upgrade"
            or environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        )
        environ["wsgi.input"] = self.rfile if upgraded else self.wsgi_input
        environ["wsgi.input_terminated"] = not upgraded

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
        self.finalize_headers()
        lines = [b"HTTP/1.1 " + self.status, *[b"%b: %b" % header for header in self.response_headers], b"\r\n"]
        head = b"\r\n".join(lines)
        if self.response_use_chunked or len(data) > JOINED:
            self._sendall(head)
            self._write(data)
        else:
            self._sendall(head + data)

    def _sendall(self, data: bytes) -> None:
        if self.socket is not None:  # handed over, it is not the server's to write to
            super()._sendall(data)

    def log_request(self) -> None:
        if self.server.has_log:  # gevent would write a line for nobody
            super().log_request()
