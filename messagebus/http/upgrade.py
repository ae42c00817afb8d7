"""From a request to a WebSocket: the handshake, and the taking of the socket."""

from __future__ import annotations

import re
from _socket import socket as RawSocket
from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple

from websockets.utils import accept_key
from werkzeug.wrappers import Request

from ..hub.node import Node
from ..options import Environ, Options
from . import hijack
from .parsing import check_method, check_origin
from .refusals import HTTPRefusal
from .streaming_response import Headers, StartResponse, head_of, hung_up


class Upgrade(NamedTuple):
    """A response that becomes a WebSocket."""

    node: Node
    adopt: Callable[[RawSocket, bytes, bytes], object]
    """Called in the loop with the taken socket, the lines of the response's head, and what the client has sent behind
    its request."""

    def respond(
        self, environ: Environ, start_response: StartResponse, status: str, headers: Headers
    ) -> Iterable[bytes]:
        """Like a WSGI application: returns what the server has to send."""
        head = b"" if hijack.upgraded(environ) else head_of(status, headers)
        taken = hijack.take(environ)
        if taken is not None:
            self.node.reactor.call_soon(self.adopt, taken.sock, head, taken.early)
        return hung_up(start_response)


def accept(
    request: Request,
    options: Options,
    subprotocols: Sequence[str],
    origins: Sequence[str | re.Pattern[str]] | None = None,
) -> tuple[Headers, str | None]:
    """The headers that accept a WebSocket, and which of the subprotocols the client gets: the first of its own that is
    among ours; ``None``: it offers none of them. ``origins``: whose pages may connect beside the server's own;
    ``None``: those of ``allowed_origins``.

    Raises:
        HTTPRefusal: The request is no handshake, it comes from a page that may not connect, or the server keeps its
            sockets.
    """
    check_method(request, "GET")
    chosen = _choose(request, subprotocols)
    headers = [] if hijack.upgraded(request.environ) else _shake_hands(request, chosen)
    check_origin(request, options.allowed_origins if origins is None else origins)
    if not hijack.can_take(request.environ):
        raise HTTPRefusal(
            HTTPStatus.NOT_IMPLEMENTED, "no_websocket", "this server keeps its sockets to itself; use another transport"
        )
    return headers, chosen


def _choose(request: Request, subprotocols: Sequence[str]) -> str | None:
    offered = request.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
    return next((name for name in map(str.strip, offered.split(",")) if name in subprotocols), None)


def _shake_hands(request: Request, subprotocol: str | None) -> Headers:
    """RFC 6455, section 4.2.2."""
    environ = request.environ
    if environ.get("HTTP_UPGRADE", "").lower() != "websocket":
        raise HTTPRefusal(
            HTTPStatus.UPGRADE_REQUIRED,
            "upgrade_required",
            "this is for WebSocket: the request has no 'Upgrade: websocket' (does a proxy take it away?)",
            "Upgrade",
            Upgrade="websocket",
            Connection="Upgrade",
        )
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
        raise _bad_handshake("expected HTTP/1.1")
    if environ.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        raise _bad_handshake("a handshake has no body")
    if "upgrade" not in [token.strip().lower() for token in environ.get("HTTP_CONNECTION", "").split(",")]:
        raise _bad_handshake("expected 'Connection: Upgrade'")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise _bad_handshake("expected 'Sec-WebSocket-Version: 13'", Sec_WebSocket_Version="13")
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    try:
        nonce = b64decode(key, validate=True)
    except ValueError:
        nonce = b""
    if len(nonce) != 16:
        raise _bad_handshake("Sec-WebSocket-Key is not 16 bytes in base64")
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_key(key))]
    if subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    return headers


def _bad_handshake(reason: str, **headers: str) -> HTTPRefusal:
    return HTTPRefusal(HTTPStatus.BAD_REQUEST, "bad_handshake", reason, **headers)
