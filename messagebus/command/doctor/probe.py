"""Opens one transport through a URL as a browser would, and measures. Blocking, with a deadline for each step."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import ssl
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

HEADERS = {"User-Agent": "messagebus-doctor", "Cache-Control": "no-cache"}
STATUS = b"/__status"
MAX_BODY = 1 << 20


@dataclass
class Probe:
    """What became of one connection; times in seconds since the request was sent."""

    status: int = 0
    """0: no answer."""
    code: str = ""
    """The bus's own word for a refusal; empty where the answer is not the bus's."""
    first_at: float | None = None
    """When the first batch had arrived."""
    silent_for: float | None = None
    """How long nothing had come when the other side ended the connection; ``None``: it did not."""
    position: int = 0
    """The channel's last id, as a plain poll's first batch says."""
    watched: float = 0.0
    """How long the connection was watched after its first batch."""
    words: str = ""
    """What went wrong, for people."""
    reached: bool = True
    """Whether there was a connection at all."""


@dataclass(frozen=True)
class Place:
    """The bus's public URL, without a slash at the end."""

    url: str
    channel: str
    patience: float

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def origin(self) -> str:
        return f"{self.parts.scheme}://{self.parts.netloc.rpartition('@')[2]}"

    def path(self, way: str) -> str:
        """``way``: ``poll`` and the like, of a client that nobody else is."""
        return f"{self.parts.path}/doctor{secrets.token_hex(12)}/{way}"


def request(
    place: Place, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """
    Raises:
        OSError, http.client.HTTPException: There is no answer within the patience.
    """
    host, port = place.parts.hostname or "", place.parts.port
    if place.parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=place.patience, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=place.patience)
    try:
        connection.request(method, path, body, {**HEADERS, **(headers or {})})
        return connection, connection.getresponse()
    except BaseException:
        connection.close()
        raise


def poll(place: Place, query: str = "", position: int = -1, headers: dict[str, str] | None = None) -> Probe:
    """A poll; with ``query`` ``dlp=t`` one that is answered at once."""
    form = f"{quote(place.channel, safe='')}={position}"
    given = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
    return _watch(place, "POST", place.path("poll") + (f"?{query}" if query else ""), form, given)


def events(place: Place) -> Probe:
    path = f"{place.path('sse')}?{quote(place.channel, safe='')}=-1"
    return _watch(place, "GET", path, None, {"Accept": "text/event-stream"})


def _watch(place: Place, method: str, path: str, body: str | None, headers: dict[str, str]) -> Probe:
    probe, began = Probe(), time.monotonic()
    try:
        connection, response = request(place, method, path, body, {"Accept-Encoding": "gzip", **headers})
    except (TimeoutError, http.client.HTTPException) as error:
        silent = time.monotonic() - began
        probe.words = f"no answer within {silent:.1f} s"
        probe.watched = silent
        if not isinstance(error, TimeoutError):
            probe.words, probe.silent_for = f"the connection ended without an answer after {silent:.1f} s", silent
        return probe
    except OSError as error:
        return Probe(reached=False, words=str(error))
    with contextlib.closing(connection), response:
        probe.status = response.status
        if response.status != 200:
            said = b""
            with contextlib.suppress(OSError, http.client.HTTPException):
                said = response.read(MAX_BODY)
            probe.code, probe.words = _refusal(response.status, said)
            if response.status in (502, 504):
                probe.silent_for = time.monotonic() - began
            return probe
        _read(place, connection, response, probe, began)
    return probe


def _read(
    place: Place, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, probe: Probe, began: float
) -> None:
    """Read until the end, or for the patience: first for the first batch, then for the silence after it."""
    seen, last = b"", began
    squeezed = response.headers.get("Content-Encoding") == "gzip"
    unpack = zlib.decompressobj(wbits=31).decompress if squeezed else bytes
    deadline = began + place.patience
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        if connection.sock is not None:
            connection.sock.settimeout(left)
        try:
            data = response.read1(65_536)
        except TimeoutError:
            break
        except (OSError, http.client.HTTPException):
            data = b""
        now = time.monotonic()
        if not data:
            probe.silent_for = now - last
            break
        last = now
        if probe.first_at is None:
            seen = (seen + _unpacked(unpack, data))[-MAX_BODY:]
            if STATUS in seen:
                probe.first_at, deadline = now - began, now + place.patience
    probe.watched = time.monotonic() - (began if probe.first_at is None else began + probe.first_at)
    with contextlib.suppress(ValueError, TypeError, KeyError, IndexError):
        probe.position = int(json.loads(seen)[0]["data"][place.channel])
    if probe.first_at is None:
        probe.words = "an answer, but no batch of the bus in it" if seen else "the head of an answer, and no batch"


def _unpacked(unpack: Callable[[bytes], bytes], data: bytes) -> bytes:
    try:
        return unpack(data)
    except zlib.error:
        return b""


def websocket(place: Place, origin: str | None, watch: bool = True) -> Probe:
    """A WebSocket with an ``Origin``, or none as programs that are no browsers have it. ``watch``: also look at the
    first batch and the silence."""
    scheme = "wss" if place.parts.scheme == "https" else "ws"
    path = f"{place.path('ws')}?{quote(place.channel, safe='')}=-1"
    url = f"{scheme}://{place.parts.netloc.rpartition('@')[2]}{path}"
    probe, began = Probe(), time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            socket = stack.enter_context(
                connect(
                    url,
                    additional_headers=HEADERS,
                    user_agent_header=None,
                    origin=origin,  # type: ignore[arg-type]
                    subprotocols=["messagebus.v1"],  # type: ignore[list-item]
                    open_timeout=place.patience,
                    close_timeout=0.5,
                    ping_interval=None,
                    max_size=MAX_BODY,
                )
            )
        except InvalidStatus as error:
            code, words = _refusal(error.response.status_code, error.response.body or b"")
            return Probe(status=error.response.status_code, code=code, words=words)
        except (InvalidHandshake, TimeoutError, EOFError) as error:
            return Probe(words=f"the handshake failed: {str(error) or type(error).__name__}")
        except OSError as error:
            return Probe(reached=False, words=str(error))
        probe.status = 101
        if watch:
            _watch_frames(place, socket, probe, began)
    return probe


def _watch_frames(place: Place, socket: ClientConnection, probe: Probe, began: float) -> None:
    deadline, last = began + place.patience, time.monotonic()
    while (left := deadline - time.monotonic()) > 0:
        try:
            data = socket.recv(left)
        except TimeoutError:
            break
        except (WebSocketException, OSError, EOFError):
            probe.silent_for = time.monotonic() - last
            break
        last = time.monotonic()
        if probe.first_at is None and STATUS in (data.encode() if isinstance(data, str) else data):
            probe.first_at, deadline = last - began, last + place.patience
    probe.watched = time.monotonic() - (began if probe.first_at is None else began + probe.first_at)
    if probe.first_at is None:
        probe.words = "it opens, and no batch comes through it"


def _refusal(status: int, body: bytes | bytearray) -> tuple[str, str]:
    """The bus's code, and words for people."""
    try:
        said: Any = json.loads(bytes(body))
        error = said.get("error", said)
        code, message = str(error.get("code", "")), str(error.get("message", ""))
    except (ValueError, AttributeError):
        code = message = ""
    return code, f"answered {status}" + (f" {code}: {message[:200]}" if code else "")
