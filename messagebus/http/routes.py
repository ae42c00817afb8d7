"""A request to the bus, from the WSGI environ to an answer or a response that is held. No Flask.

``answer`` reads and checks the request and asks the store for what it takes, in the server's thread. It decides
everything that can be refused; what it returns is either complete, or held from when the server calls it.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from websockets.utils import accept_key
from werkzeug.wrappers import Request, Response

from ..errors import BackendUnavailable, Close
from ..hub.node import Node
from ..hub.subscriber import Subscriber
from ..options import Environ
from ..transports import (
    EVENT_SOURCE,
    LONG_POLLING,
    LONG_POLLING_WSGI,
    STREAMING,
    STREAMING_WSGI,
    WEBSOCKET,
    Transport,
    join_batch,
)
from . import hijack, static_files
from . import parsing as requests
from .context import Context, RequestContext, plain_context, unavailable
from .held_response import Headers, HeldResponse, MakeSubscriber, StartResponse, refuse_upgraded
from .parsing import HTTPRefusal
from .websocket_session import WebSocketSubscriber

SUBPROTOCOL = "messagebus.v1"
NO_CACHE = [("Cache-Control", "must-revalidate, private, max-age=0"), ("Pragma", "no-cache"), ("Expires", "0")]
JSON = ("Content-Type", "application/json; charset=utf-8")
STREAM = [
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Accel-Buffering", "no"),
]
EVENTS = [
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
]


class Answer(NamedTuple):
    """A response: complete, or held."""

    status: HTTPStatus
    headers: Headers
    body: bytes = b""
    hold: HeldResponse | None = None
    upgraded: Close | None = None
    """How to close a WebSocket that the server has already opened."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self.respond(environ, start_response, self.headers)

    def respond(self, environ: Environ, start_response: StartResponse, headers: Headers) -> Iterable[bytes]:
        """As a WSGI application, with the headers as they were left by whoever passed it on."""
        status = f"{self.status.value} {self.status.phrase}"
        if self.upgraded is not None:
            return refuse_upgraded(environ, start_response, self.upgraded)
        if self.hold is not None:
            return self.hold.respond(environ, start_response, status, headers)
        start_response(status, [*headers, ("Content-Length", str(len(self.body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]


def answer(node: Node, request: Request, path: str, context: Context = plain_context) -> Answer | Response:
    """Serve a request; ``path`` is what comes after ``/message-bus/``. Raises nothing but what the user's lookups
    raise."""
    try:
        answered = _route(node, request, path, context)
    except HTTPRefusal as refusal:
        upgraded = None
        if hijack.upgraded(request.environ):
            upgraded = Close(1013 if refusal.status is HTTPStatus.SERVICE_UNAVAILABLE else 1008, str(refusal)[:100])
        headers = [JSON, *NO_CACHE, *refusal.headers, *requests.cors_headers(request, node.options)]
        answered = Answer(refusal.status, headers, refusal.body(), upgraded=upgraded)
    lookup = node.options.extra_response_headers_lookup
    if lookup is not None and isinstance(answered, Answer):
        extra = dict(lookup(request.environ) or {})
        replaced = {name.lower() for name in extra}
        kept = [(name, value) for name, value in answered.headers if name.lower() not in replaced]
        answered = answered._replace(headers=[*kept, *extra.items()])
    return answered


def _route(node: Node, request: Request, path: str, context: Context) -> Answer | Response:
    first, _, rest = path.partition("/")
    if first == "static":
        requests.check_method(request, "GET", "HEAD")
        return static_files.respond(request, rest)
    serve = ENDPOINTS.get(rest)
    if serve is None:
        raise HTTPRefusal(HTTPStatus.NOT_FOUND, "not_found", "expected CLIENT_ID/poll, CLIENT_ID/sse or CLIENT_ID/ws")
    requests.check_client_id(first)
    try:
        return serve(RequestContext(node, request, first, context))
    except BackendUnavailable:
        raise unavailable("the store is unavailable, come back") from None


def _poll(exchange: RequestContext) -> Answer:
    request, options = exchange.request, exchange.options
    requests.check_method(request, "POST", "OPTIONS")
    cors = requests.cors_headers(request, options)
    if request.method == "OPTIONS":
        return Answer(HTTPStatus.OK, [JSON, *NO_CACHE, *cors])
    exchange.prepare(requests.read_poll(request, options))
    hub = exchange.node.hub
    environ = request.environ
    # Nearly always there is no query, and nothing to parse.
    short = "dlp" in environ.get("QUERY_STRING", "") and request.args.get("dlp") == "t"
    held = options.long_polling_enabled and not short and not hub.is_full()
    streamed = (
        options.chunked_encoding_enabled
        and environ.get("HTTP_DONT_CHUNK", "").lower() != "true"
        and environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
    )
    if held and streamed:
        return _hold(exchange, [*NO_CACHE, *STREAM], STREAMING, STREAMING_WSGI)
    batch = exchange.due_now()
    if held and not batch:
        return _hold(exchange, [JSON, *NO_CACHE], LONG_POLLING, LONG_POLLING_WSGI)
    if exchange.asked.sequence is not None:
        exchange.node.reactor.call_soon(hub.replace, exchange.client_id, exchange.asked.sequence)
    return Answer(HTTPStatus.OK, [JSON, *NO_CACHE, *cors], join_batch(batch))


def _hold(
    exchange: RequestContext,
    headers: Headers,
    taken: Transport,
    blocking: Transport | None,
    make: MakeSubscriber | None = None,
) -> Answer:
    headers = [*headers, *requests.cors_headers(exchange.request, exchange.options)]
    make = make or exchange.subscriber_maker()
    # Whoever comes by these is a client of ours, and is told the epoch when it begins.
    says_epoch = exchange.epoch_teller(unasked=taken in (EVENT_SOURCE, WEBSOCKET))
    hold = HeldResponse(exchange.node, taken, blocking, make, exchange.prepared, exchange.reader(), says_epoch)
    return Answer(HTTPStatus.OK, headers, hold=hold)


def _event_source(exchange: RequestContext) -> Answer:
    requests.check_method(exchange.request, "GET")
    exchange.prepare(requests.read_query(exchange.request, exchange.options))
    _check_room(exchange)
    return _hold(exchange, EVENTS, EVENT_SOURCE, EVENT_SOURCE)


def _websocket(exchange: RequestContext) -> Answer:
    request, node = exchange.request, exchange.node
    requests.check_method(request, "GET")
    upgraded = hijack.upgraded(request.environ)
    handshake = [] if upgraded else _shake_hands(request)
    requests.check_origin(request, exchange.options)
    asked = requests.read_query(request, exchange.options)
    if not hijack.can_take(request.environ):
        raise HTTPRefusal(
            HTTPStatus.NOT_IMPLEMENTED, "no_websocket", "this server keeps its sockets to itself; use another transport"
        )
    exchange.prepare(asked)
    _check_room(exchange)
    identity, site_id, refused = exchange.identity, exchange.site_id, exchange.refused_later()

    def make(transport: Transport, head: bytes) -> Subscriber:
        return WebSocketSubscriber(node, identity, head, site_id, refused)

    held = _hold(exchange, handshake, WEBSOCKET, None, make)
    return Answer(HTTPStatus.SWITCHING_PROTOCOLS, held.headers, hold=held.hold)


def _check_room(exchange: RequestContext) -> None:
    if exchange.node.hub.is_full():
        raise unavailable("max_active_clients are connected; poll, or come back")


def _shake_hands(request: Request) -> Headers:
    """The headers that accept a WebSocket (RFC 6455, section 4.2.2)."""
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
    offered = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
    if SUBPROTOCOL in [name.strip() for name in offered.split(",")]:
        headers.append(("Sec-WebSocket-Protocol", SUBPROTOCOL))
    return headers


def _bad_handshake(reason: str, **headers: str) -> HTTPRefusal:
    return HTTPRefusal(HTTPStatus.BAD_REQUEST, "bad_handshake", reason, **headers)


ENDPOINTS: Mapping[str, Callable[[RequestContext], Answer]] = {"poll": _poll, "sse": _event_source, "ws": _websocket}
"""What stands behind ``/message-bus/CLIENT_ID/``."""
