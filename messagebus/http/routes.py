"""Handles a request to the bus, from the WSGI environ to an answer, complete or streaming. No Flask.

``answer`` reads and checks the request, and asks the store for what it needs, in the server's thread. It makes every
refusal. Its result is either complete, or takes its socket as soon as the server calls it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

from werkzeug.wrappers import Request, Response

from ..errors import BackendUnavailable, Close
from ..hub.node import Node
from ..hub.subscribe_request import SubscriptionPlan
from ..options import Environ, Options
from ..transports import (
    EVENT_SOURCE,
    IFRAME,
    LONG_POLLING,
    LONG_POLLING_WSGI,
    STREAMING,
    STREAMING_WSGI,
    WEBSOCKET,
    Transport,
    join_batch,
)
from . import hijack, parsing, static_files
from .addresses import check_address
from .admin import serve_admin
from .authorization import Handshake, HookContext, plain_context
from .calls import VERBS, serve_call
from .context import RequestContext
from .health import RESOURCES
from .publishing import PLACES, serve_publishing
from .refusals import JSON_HEADERS, NO_CACHE, HTTPRefusal, refuse_channel, unavailable
from .requested_channels import ChannelRefused
from .statistics import PLACES as STATISTICS
from .statistics import serve_statistics
from .streaming_response import Headers, StartResponse, StreamingResponse, refuse_upgraded, respond_and_close
from .upgrade import Upgrade, accept

SUBPROTOCOL = "messagebus.v1"
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
FRAME = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Accel-Buffering", "no"),
    # A page of another origin may not frame it; and nothing of it is loaded from anywhere.
    ("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'; frame-ancestors 'self'"),
    ("X-Frame-Options", "SAMEORIGIN"),
]

MOST_BUFFERED = 16 * 1024
"""Bytes of an answer that every socket takes at once. A longer answer is sent by the loop, if possible, which closes
readers that take nothing and shares large messages between readers."""
MOST_SENT = 256 * 1024
"""The same where the server itself ends readers that take nothing."""


class Answer(NamedTuple):
    """A response: complete, or one that stays open."""

    status: HTTPStatus
    headers: Headers
    body: bytes = b""
    streaming: StreamingResponse | Upgrade | None = None
    upgraded: Close | None = None
    """The close of a WebSocket that the server has already opened."""
    closes_by: Node | None = None
    """Who sends it on a taken socket, where the server must not read another request from the connection."""

    @property
    def is_plain(self) -> bool:
        """Whether the server can send it by itself."""
        return self.streaming is None and self.upgraded is None and self.closes_by is None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self.respond(environ, start_response, self.headers)

    def respond(self, environ: Environ, start_response: StartResponse, headers: Headers) -> Iterable[bytes]:
        """Like a WSGI application, with the headers as the callers before left them."""
        status = f"{self.status.value} {self.status.phrase}"
        if self.upgraded is not None:
            return refuse_upgraded(environ, start_response, self.upgraded)
        if self.streaming is not None:
            return self.streaming.respond(environ, start_response, status, headers)
        if self.closes_by is not None:
            return respond_and_close(self.closes_by, environ, start_response, status, headers, self.body)
        start_response(status, [*headers, ("Content-Length", str(len(self.body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]


def answer(node: Node, request: Request, path: str, context: HookContext = plain_context) -> Answer | Response:
    """Handle a request; ``path`` is what comes after ``/message-bus/``. Only exceptions of the user's lookups
    propagate."""
    if node.says_that_it_is_alone and request.environ.get("wsgi.multiprocess"):
        node.say_that_it_is_alone()
    must_close = hijack.mend_input(request.environ)
    try:
        answered = _route(node, request, path, context)
    except HTTPRefusal as refusal:
        if refusal.limit is not None:
            node.hub.refused.count(refusal.limit)
        answered = refuse(request, node.options, refusal)
    if must_close and isinstance(answered, Answer):
        answered = answered._replace(closes_by=node)
    lookup = node.options.extra_response_headers_lookup
    if lookup is not None and isinstance(answered, Answer):
        extra = dict(lookup(request.environ) or {})
        replaced = {name.lower() for name in extra}
        kept = [(name, value) for name, value in answered.headers if name.lower() not in replaced]
        answered = answered._replace(headers=[*kept, *extra.items()])
    return answered


def refuse(request: Request, options: Options, refusal: HTTPRefusal) -> Answer:
    """The answer to a refused request."""
    upgraded = None
    if hijack.upgraded(request.environ):
        passes = refusal.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
        upgraded = Close(1013 if passes else 1008, str(refusal))
    headers = [*refusal.headers, *parsing.cors_headers(request, options)]
    return Answer(refusal.status, headers, refusal.body(), upgraded=upgraded)


def _route(node: Node, request: Request, path: str, context: HookContext) -> Answer | Response:
    first, _, rest = path.partition("/")
    if first == "static":
        parsing.check_method(request, "GET", "HEAD")
        return static_files.respond(request, rest)
    if first in PLACES and node.options.http_publishing:
        return Answer(*serve_publishing(node, request, first, rest))
    try:
        if path in STATISTICS and node.options.statistics:
            return Answer(*serve_statistics(node, request, path))
        if first == "admin" and node.options.admin:
            served = serve_admin(node, request, rest)
            return Answer(served.status, served.headers, served.body, served.streaming)
        return _resource(node, request, path) or _endpoint(node, request, first, rest, context)
    except ChannelRefused as refused:
        raise refuse_channel(refused) from None
    except BackendUnavailable:
        raise unavailable("the store is unavailable, come back") from None


def _resource(node: Node, request: Request, path: str) -> Answer | None:
    report = RESOURCES.get(path)
    if report is None:
        return None
    parsing.check_method(request, "GET", "HEAD")
    return Answer(HTTPStatus.OK, [*JSON_HEADERS], json.dumps(report(node)).encode())


def _endpoint(node: Node, request: Request, client_id: str, name: str, context: HookContext) -> Answer:
    serve = ENDPOINTS.get(name)
    if serve is None:
        raise HTTPRefusal(HTTPStatus.NOT_FOUND, "not_found", f"expected CLIENT_ID/ and one of {', '.join(ENDPOINTS)}")
    parsing.check_client_id(client_id)
    return serve(RequestContext(node, request, client_id, context))


def _poll(context: RequestContext) -> Answer:
    request, options = context.request, context.options
    parsing.check_method(request, "POST", "OPTIONS")
    cors = parsing.cors_headers(request, options)
    if request.method == "OPTIONS":
        return Answer(HTTPStatus.OK, [*JSON_HEADERS, *cors])
    parsing.check_no_format(request, options)
    plan = context.plan(context.admit(parsing.read_poll(request, options)))
    if context.node.on_poll is not None:
        context.node.on_poll(context.client_id)
    hub = context.node.hub
    environ = request.environ
    short = parsing.has_flag(request, options, "dlp")
    may_be_held = options.long_polling_enabled and not short and not hub.is_full()
    streamed = (
        options.chunked_encoding_enabled
        and environ.get("HTTP_DONT_CHUNK", "").lower() != "true"
        and environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
    )
    if may_be_held and streamed:
        return _streaming(context, plan, [*NO_CACHE, *STREAM], STREAMING, STREAMING_WSGI)
    batch = context.due_now(plan)
    most = MOST_SENT if hijack.limits_writes(environ) else MOST_BUFFERED
    large = sum(len(message.raw) for message in batch) > most
    if (may_be_held and not batch) or (large and not hub.is_full()):
        return _streaming(context, plan, JSON_HEADERS, LONG_POLLING, LONG_POLLING_WSGI)
    context.answered(plan, may_be_held)
    return Answer(HTTPStatus.OK, [*JSON_HEADERS, *cors], join_batch(batch))


def _event_source(context: RequestContext) -> Answer:
    parsing.check_method(context.request, "GET")
    return _open(context, "sse", EVENTS, EVENT_SOURCE)


def _stream(context: RequestContext) -> Answer:
    parsing.check_method(context.request, "GET")
    return _open(context, "stream", [*NO_CACHE, *STREAM], None)


def _iframe(context: RequestContext) -> Answer:
    parsing.check_method(context.request, "GET")
    return _open(context, "iframe", [*NO_CACHE, *FRAME], IFRAME)


def _open(context: RequestContext, kind: str, headers: Headers, usual: Transport | None) -> Answer:
    """A response that ends when its connection does. ``usual``: its transport without a format."""
    params, plain = parsing.read_query(context.request, context.options, kind)
    plan = context.plan(context.admit(params))
    _check_room(context)
    transport = plain or usual
    assert transport is not None, "a stream has a format always"
    return _streaming(context, plan, headers, transport, transport)


def _websocket(context: RequestContext) -> Answer:
    request = context.request
    headers, _ = accept(request, context.options, (SUBPROTOCOL,))
    params, plain = parsing.read_query(request, context.options, "ws")
    plan = context.plan(context.admit(params))
    _check_room(context)
    answer = _streaming(context, plan, headers, plain or WEBSOCKET, None, context.handshake(params))
    return answer._replace(status=HTTPStatus.SWITCHING_PROTOCOLS)


def _call(context: RequestContext, verb: str) -> Answer:
    return Answer(*serve_call(context, verb))


def _streaming(
    context: RequestContext,
    plan: SubscriptionPlan,
    headers: Headers,
    taken: Transport,
    blocking: Transport | None,
    handshake: Handshake | None = None,
) -> Answer:
    subscribe = plan.request
    replaces = subscribe.params.sequence is not None and taken.name != WEBSOCKET.name
    check_address(context.node, context.client_id, subscribe.address, replaces)
    headers = [*headers, *parsing.cors_headers(context.request, context.options)]
    plan = context.with_ask(plan, context.options.long_polling_interval if taken.bounded else math.inf)
    streaming = StreamingResponse(context.node, plan, taken, blocking, handshake)
    return Answer(HTTPStatus.OK, headers, streaming=streaming)


def _check_room(context: RequestContext) -> None:
    if context.node.hub.is_full():
        raise unavailable("max_active_clients are connected; poll, or come back", "max_active_clients")


ENDPOINTS: Mapping[str, Callable[[RequestContext], Answer]] = {
    "poll": _poll,
    "sse": _event_source,
    "ws": _websocket,
    "stream": _stream,
    "iframe": _iframe,
    **{verb: partial(_call, verb=verb) for verb in VERBS},
}
"""The endpoints after ``/message-bus/CLIENT_ID/``."""
