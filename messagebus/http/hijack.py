"""Takes a request's socket out of the WSGI server. Only this module knows the differences between servers.

It works alike with every server: the socket is duplicated, and the server's own descriptor is made to refer to a socket
whose other end is closed. To the server the client has just hung up, which every server handles without logging an
error. It ends the request and closes its descriptor; neither its shutdown nor its keep-alive reaches the client. The
response that the application returns goes nowhere.

Where the socket is:

=========================================  ========================================================
Werkzeug (Flask's development server)      ``environ["werkzeug.socket"]``
gunicorn ``sync``, ``gthread``, ``gevent`` ``environ["gunicorn.socket"]``
gevent ``pywsgi``                          the file that ``environ["wsgi.input"]`` reads from
gevent-websocket, both of its forms        the same; its open WebSocket is taken over, see below
=========================================  ========================================================

gevent-websocket has answered 101 before the application is called and would then serve the connection from a greenlet
of its own; its socket is taken like any other, so that such a subscriber costs no more than the rest.

``messagebus serve`` alone knows of the bus: it hands its socket over and is done with it.
"""

from __future__ import annotations

import os
from _socket import socket as RawSocket
from _socket import socketpair
from io import BufferedReader
from typing import Any, NamedTuple

from ..options import Environ

HAND_OVER = "messagebus.hand_over"
"""Environ key of a server that hands over its socket: a function that returns the descriptor."""
EARLY_BYTES = "messagebus.early_bytes"
"""In the environ of such a server, where a request asks for an upgrade: a bytearray, with what the client had sent
behind the request once the socket is given away."""


class Taken(NamedTuple):
    """A connection taken from the server."""

    sock: RawSocket
    early: bytes
    """Bytes that the client sent after its request and that the server has already read."""


def limits_writes(environ: Environ) -> bool:
    """Whether the server itself closes a connection whose client takes nothing of its answer."""
    return HAND_OVER in environ


def can_take(environ: Environ) -> bool:
    """Whether :func:`take` would find a socket: not on an unknown server, nor if the server itself ends TLS or speaks
    HTTP/2."""
    return HAND_OVER in environ or _descriptor(environ) is not None


def take(environ: Environ) -> Taken | None:
    """Take the request's socket, which the caller then has to write to and close; ``None`` if :func:`can_take` says no.

    The request must have been read completely. Everything that the server writes from now on is lost."""
    hand_over = environ.get(HAND_OVER)
    if hand_over is not None:
        return Taken(RawSocket(fileno=hand_over()), bytes(environ.pop(EARLY_BYTES, b"")))
    descriptor = _descriptor(environ)
    if descriptor is None:
        return None
    taken = RawSocket(fileno=os.dup(descriptor))
    dead, other = socketpair()
    other.close()
    os.dup2(dead.fileno(), descriptor, inheritable=False)
    dead.close()
    return Taken(taken, _buffered(environ.get("wsgi.input")))


def upgraded(environ: Environ) -> bool:
    """Whether the server has accepted the WebSocket by itself, before anybody could refuse it."""
    return environ.get("wsgi.websocket") is not None


def mend_input(environ: Environ) -> bool:
    """Give a request its body back, where gevent has put the bare connection in its place: pywsgi does so for whatever
    has ``Connection: Upgrade``, which many proxies add to all requests. ``True``: done, and the server knows nothing of
    it. It would take the next request for the rest of the body, so that the connection must not see another one."""
    file = environ.get("wsgi.input")
    if not isinstance(file, BufferedReader) or "werkzeug.socket" in environ:
        return False
    length = int(environ.get("CONTENT_LENGTH") or 0)
    chunked = environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked"
    if not chunked and not length:
        return False
    from gevent.pywsgi import Input

    environ["wsgi.input"] = Input(file, None if chunked else length, chunked_input=chunked)
    environ["wsgi.input_terminated"] = True
    return True


def _buffered(stream: Any) -> bytes:
    """What a server has read beyond a request, after its descriptor has been replaced, so that there is no more to
    come."""
    unreader = getattr(getattr(stream, "reader", None), "unreader", None)
    if unreader is not None:  # gunicorn's
        return bytes(unreader.read())
    file = getattr(stream, "rfile", stream)
    return file.peek() if isinstance(file, BufferedReader) else b""


def _descriptor(environ: Environ) -> int | None:
    if environ.get("SERVER_PROTOCOL") not in ("HTTP/1.1", "HTTP/1.0"):
        return None
    sock = (
        environ.get("werkzeug.socket") or environ.get("gunicorn.socket") or _socket_of_input(environ.get("wsgi.input"))
    )
    if sock is None or hasattr(sock, "getpeercert"):  # the latter is TLS: its bytes are not what the client must see
        return None
    try:
        descriptor: int = sock.fileno()
    except (OSError, ValueError):
        return None
    return descriptor if descriptor >= 0 else None


def _socket_of_input(stream: Any) -> Any:
    # pywsgi's Input has the connection's buffered file as `rfile`, or is that file where an upgrade is asked for;
    # below it lies a SocketIO, and below that the socket.
    file = getattr(stream, "rfile", stream)
    return getattr(getattr(file, "raw", None), "_sock", None)
