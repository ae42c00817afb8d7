"""One client's connection to ``messagebus serve``: its requests, one after the other, and what becomes of it."""

from __future__ import annotations

import logging
import time
from typing import Any, Protocol

from ..http.hijack import EARLY_BYTES, HAND_OVER
from ..limit_counts import SERVER
from .body import BodyError
from .limits import Limits, RareWarning
from .logs import AccessLog, printable
from .request_reader import READ_SIZE, HeadRefused, RequestReader
from .response import Response

logger = logging.getLogger("messagebus.serve")

LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024


_LIMITS = {413: "body_size", 414: "head_size", 431: "head_size"}


class ClientGone(ConnectionError):
    """The client does not read the answer."""


class Owner(Protocol):
    """The acceptor of the connection."""

    application: Any
    limits: Limits
    access_log: AccessLog | None
    warn: RareWarning
    waiting: dict[Connection, None]
    """Connections that wait for a request."""
    stopping: bool


class Connection:
    """See the module. Used by its own greenlet, except :meth:`let_go`."""

    def __init__(self, sock: Any, address: Any, environ: dict[str, Any], acceptor: Owner) -> None:
        """``environ``: what each request's begins with."""
        host, port = (address[0], str(address[1])) if isinstance(address, tuple) else ("", "")
        self._sock = sock
        self.address: str = host
        self._acceptor = acceptor
        self._reader = RequestReader(sock, (host, port), environ, acceptor.limits)
        self._early = bytearray()
        self._served = 0
        self._lingers = False  # the client may still be sending when it is answered for the last time

    # --- its life ---

    def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            while self._serve_one():
                pass
        except (HeadRefused, BodyError) as error:
            _count(error)
            self._refuse(error.code, str(error))
        except OSError:
            pass  # the client has gone
        finally:
            self._close()

    def let_go(self) -> None:
        """Close it from another greenlet while it waits for a request: the reader finds the end."""
        if self._sock is not None:
            try:
                self._sock.shutdown(0)
            except OSError:
                pass

    @property
    def is_fresh(self) -> bool:
        """Whether no request has been answered yet: then the client does not expect the connection to be closed."""
        return self._served == 0

    def _serve_one(self) -> bool:
        """One request; ``False``: it was the last."""
        environ = self._read_head()
        if environ is None:
            return False
        began = time.time()
        environ["wsgi.input"] = self._reader.read_ahead(environ)
        environ[HAND_OVER] = self._hand_over
        if "HTTP_UPGRADE" in environ:
            environ[EARLY_BYTES] = self._early = bytearray()  # the same one in a copy that a middleware may make
        environ["gunicorn.socket"] = self._sock  # where libraries look that speak WebSocket by themselves
        reader, to_head = self._reader, environ["REQUEST_METHOD"] == "HEAD"
        response = Response(self._send, closes=reader.closes, http_1_0=reader.http_1_0, to_head=to_head)
        try:
            self._answer(response, environ)
        finally:
            # They refer back to this object.
            environ.pop(HAND_OVER, None)
            environ.pop("gunicorn.socket", None)
            if self._acceptor.access_log is not None:
                self._acceptor.access_log(environ, reader.target, response, time.time() - began)
        self._served += 1
        if self._sock is None:
            return False
        self._lingers = not self._reader.has_ended(discard=True)
        return not (response.closes or self._lingers)

    def _read_head(self) -> dict[str, Any] | None:
        acceptor, reader, limits = self._acceptor, self._reader, self._acceptor.limits
        if acceptor.stopping and self._served and not reader.has_begun:
            return None
        acceptor.waiting[self] = None
        try:
            return reader.read_head(limits.keep_alive if self._served else limits.head_timeout)
        finally:
            acceptor.waiting.pop(self, None)

    def _answer(self, response: Response, environ: dict[str, Any]) -> None:
        try:
            response.answer(self._acceptor.application, environ, self._must_close)
        except (ClientGone, GeneratorExit):
            response.closes = True
        except StopIteration:
            response.closes = True  # the application has served the socket to its end by itself
        except BodyError as error:
            _count(error)
            self._acceptor.warn("a request from %s was refused: %s", self.address or "the socket", error)
            response.refuse(error.code, str(error))
        except Exception:
            logger.exception("%s %s failed", environ["REQUEST_METHOD"], printable(environ["PATH_INFO"]))
            response.refuse(500)

    def _must_close(self) -> bool:
        return (
            self._acceptor.stopping or not self._acceptor.limits.keep_alive or not self._reader.has_ended(discard=False)
        )

    def _hand_over(self) -> int:
        """The connection's descriptor, which is the caller's from now on: the server neither writes to it nor closes
        it. Bytes that came behind a request for an upgrade are in the environ's ``EARLY_BYTES`` then."""
        if self._reader.has_ended(discard=True):
            self._early += self._reader.take_rest()
        descriptor: int = self._sock.detach()
        self._sock = None
        return descriptor

    def _send(self, data: bytes) -> None:
        sock = self._sock
        if sock is None:
            return  # handed over: what the application returns is for nobody
        try:
            sock.settimeout(self._acceptor.limits.send_timeout)
            sent = sock.send(data)
            if sent < len(data):
                rest = memoryview(data)[sent:]
                while rest:
                    rest = rest[sock.send(rest) :]
        except OSError as error:
            raise ClientGone(str(error)) from None

    def _refuse(self, code: int, reason: str) -> None:
        """Answer a request that cannot be served, and close the connection."""
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


def _count(error: HeadRefused | BodyError) -> None:
    """Count a limit that a request has met, if it is refused for one."""
    late = "body_timeout" if isinstance(error, BodyError) else "head_timeout"
    limit = late if error.code == 408 else _LIMITS.get(error.code)
    if limit is not None:
        SERVER.count(limit)
