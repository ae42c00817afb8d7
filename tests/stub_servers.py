"""Servers that are none of ours, in threads of this process: one that answers as a test says, and one that speaks only
the polls of the original message_bus."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

SEPARATOR = b"\r\n|\r\n"


class Request:
    """One request, to be answered by :meth:`answer`, or by :meth:`begin` and many :meth:`write`."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        parts = urlsplit(handler.path)
        self.method = handler.command
        self.path = parts.path
        self.query = parts.query
        self.headers = handler.headers
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
        self.form = dict(parse_qsl(body, keep_blank_values=True))

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))})
        self._handler.wfile.write(body)

    def batch(self, *messages: dict[str, Any]) -> None:
        self.answer(200, json.dumps(messages).encode(), Content_Type="application/json")

    def begin(self, status: int = 200, **headers: str) -> None:
        """The head of a chunked answer."""
        self._head(status, {**headers, "Transfer-Encoding": "chunked"})

    def write(self, data: bytes) -> None:
        """A chunk; an empty one is the last."""
        self._handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def hang_up(self) -> None:
        self._handler.close_connection = True


class StubServer:
    """Calls ``serve`` with each request, in a thread for each connection. ``requests`` are those so far."""

    def __init__(self, serve: Callable[[Request], None], context: ssl.SSLContext | None = None) -> None:
        stub = self
        self.requests: list[Request] = []
        self.connections = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                stub.connections += 1

            def respond(self) -> None:
                request = Request(self)
                stub.requests.append(request)
                try:
                    serve(request)
                except (ConnectionError, ssl.SSLError):
                    self.close_connection = True  # the client has gone

            do_GET = do_POST = respond

            def log_message(self, format: str, *arguments: object) -> None:
                """Silent."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A connection that breaks is what many a test is about."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> StubServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _number(text: str) -> int:
    """As Ruby's ``to_i``: what is not a number is 0."""
    try:
        return int(text or -1)
    except ValueError:
        return 0


class PollsOnly:
    """The polls of message_bus as its Ruby server has them: no other transport, no gaps, no epochs. Every key of a poll
    but ``__seq`` is a channel to it.

    ``lenient``: it takes a request to any path below the client's id for a poll, as the original does; otherwise what
    is no poll is not found. ``interval``: seconds that a poll is held.
    """

    def __init__(self, *, lenient: bool, interval: float = 0.4, streams: bool = True) -> None:
        self._lenient = lenient
        self._interval = interval
        self._streams = streams
        self._messages: list[dict[str, Any]] = []
        self._news = threading.Condition()

    def publish(self, channel: str, data: Any) -> None:
        with self._news:
            message = {"global_id": len(self._messages) + 1, "message_id": self._last_id(channel) + 1}
            self._messages.append({**message, "channel": channel, "data": data})
            self._news.notify_all()

    def _last_id(self, channel: str) -> int:
        return sum(message["channel"] == channel for message in self._messages)

    def serve(self, request: Request) -> None:
        if not self._lenient and not (request.method == "POST" and request.path.endswith("/poll")):
            request.answer(404, b"Not Found")
            return
        positions = {name: _number(value) for name, value in request.form.items() if name != "__seq"}
        if "dlp=t" in request.query:
            with self._news:
                request.batch(*self._due(positions))
        elif self._streams and request.headers.get("Dont-Chunk") != "true":
            self._stream(request, positions)
        else:
            with self._news:
                self._news.wait_for(lambda: self._due(dict(positions)), self._interval)
                request.batch(*self._due(positions))

    def _stream(self, request: Request, positions: dict[str, int]) -> None:
        request.begin(Content_Type="text/plain; charset=utf-8")
        with self._news:
            request.write(json.dumps(self._due(positions)).encode() + SEPARATOR)
            while self._news.wait_for(lambda: self._due(dict(positions)), self._interval):
                request.write(json.dumps(self._due(positions)).encode() + SEPARATOR)
        request.write(b"[]" + SEPARATOR)
        request.write(b"")

    def _due(self, positions: dict[str, int]) -> list[dict[str, Any]]:
        """What is due, and a status; moves the positions on."""
        due, status = [], {}
        for channel, position in positions.items():
            last_id = self._last_id(channel)
            if position == -1 or position > last_id:
                status[channel] = last_id
            else:
                after = position if position >= 0 else last_id + position + 1
                due += [m for m in self._messages if m["channel"] == channel and m["message_id"] > after]
            positions[channel] = last_id
        if status:
            due.append({"global_id": -1, "message_id": -1, "channel": "/__status", "data": status})
        return due
