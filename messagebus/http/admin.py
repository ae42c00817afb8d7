"""The admin page: ``/message-bus/admin``, and what it asks for below that. For those with one of ``admin_keys``."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

from werkzeug.wrappers import Request

from ..admin.feed import Admin, Session, Watcher
from ..admin.taps import OWN_IDS
from ..errors import (
    BackendUnavailable,
    InvalidChannel,
    InvalidData,
    InvalidSite,
    MessageTooLarge,
    NotDurable,
    PublishRefused,
)
from ..hub.addresses import source_of
from ..hub.node import Node
from ..hub.subscribe_request import SubscribeParams, SubscribeRequest
from ..hub.subscriber import Identity
from ..names import check_channel, store_name
from ..stores import BacklogQuery
from ..transports import EVENT_SOURCE
from ..wire import CLIENT_ID
from . import parsing
from .addresses import client_address
from .admin_session import find_admin_key, find_session, sign_in, sign_out
from .refusals import JSON_HEADERS, NO_CACHE, HTTPRefusal, not_durable, unavailable
from .statistics import check_admin
from .streaming_response import Headers, StreamingResponse

logger = logging.getLogger("messagebus.admin")

ASSETS = Path(__file__).parents[1] / "admin" / "assets"
NEWEST = 20
"""Messages of a channel that are shown."""
SHOWN_BYTES = 2000
"""Of a message's JSON."""
READ_BYTES = 4 * 1024 * 1024
"""Of them that are read; where they are more, the newest is shown alone."""
WRONG_KEY = "That is none of the admin keys."
NO_KEYS = "Nobody can sign in yet: set admin_keys (MESSAGEBUS_ADMIN_KEYS), and start the server again."
MAX_TEXT = 255
"""Characters of what is looked for."""
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_PAGE = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
]
_EVENTS = [
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
]


class Served(NamedTuple):
    """An answer: whole, or one that stays open."""

    status: HTTPStatus
    headers: Headers
    body: bytes = b""
    streaming: StreamingResponse | None = None


def serve_admin(node: Node, request: Request, place: str) -> Served:
    """Handle a request for the page; ``place`` is what comes after ``admin/``, empty for the page itself.

    Raises:
        HTTPRefusal: It is refused.
        BackendUnavailable: The store gives no answer.
    """
    if place in _FILES:
        parsing.check_method(request, "GET", "HEAD")
        return _file(place)
    if place in _FORMS:
        if place == "login" and request.method == "GET":  # somebody reloads what a form was answered with
            return _to_page("")
        parsing.check_method(request, "POST")
        parsing.check_origin(request, ())  # the page's own alone, whoever else may connect
        return _FORMS[place](node, request)
    if not place:
        parsing.check_method(request, "GET", "HEAD")
        if not node.options.admin_keys:
            return _form(place, NO_KEYS)._replace(status=HTTPStatus.FORBIDDEN)
        if _session(node, request) is not None:
            return _file("page.html")
        return _form(place, WRONG_KEY if request.environ.get("QUERY_STRING") == "wrong-key" else "")
    if _session(node, request) is None:
        check_admin(request, node.options)  # programs may show a key
    serve = _PLACES.get(place)
    if serve is None:
        raise HTTPRefusal(HTTPStatus.NOT_FOUND, "not_found", f"there is no admin/{place[:80]}")
    return serve(node, request)


def _file(name: str) -> Served:
    kind = f"{_TYPES[Path(name).suffix]}; charset=utf-8"
    return Served(HTTPStatus.OK, [("Content-Type", kind), *NO_CACHE, *_PAGE], (ASSETS / name).read_bytes())


def _form(place: str, problem: str) -> Served:
    """The form to sign in, with what was wrong, for an answer at ``admin`` or below it."""
    form = _file("login.html")
    told = f'<p role="alert">{problem}</p>' if problem else ""
    body = form.body.replace(b"<!-- problem -->", told.encode())
    return form._replace(body=body.replace(b'"admin/', b'"') if place else body)


def _to_page(query: str, cookie: str | None = None) -> Served:
    # Relative, and to where the addresses in the page are right: a proxy may have put the app below a prefix.
    cookies = [] if cookie is None else [("Set-Cookie", cookie)]
    return Served(HTTPStatus.SEE_OTHER, [("Location", f"../admin{query}"), *cookies, *NO_CACHE])


def _login(node: Node, request: Request) -> Served:
    address = client_address(request.environ, node.options.trusted_proxies)
    wait = node.publish_limits.take(f"sign-in {source_of(address)}", 1, 1)
    if wait:
        form = _form("login", f"One attempt a second from each address: try again in {wait} s.")
        headers = [*form.headers, ("Retry-After", str(wait))]
        return form._replace(status=HTTPStatus.TOO_MANY_REQUESTS, headers=headers)
    pairs = parsing.read_form(request, node.options)
    key = find_admin_key(str(pairs.get("key", "")), node.options)
    if key is None:
        logger.warning("a wrong key was shown to the admin page, from %s", address or "a Unix socket")
        return _to_page("?wrong-key")
    logger.info("somebody has signed in to the admin page, from %s", address or "a Unix socket")
    return _to_page("", sign_in(request, key))


def _session(node: Node, request: Request) -> Session | None:
    session = find_session(request, node.options)
    return None if session is None or admin_of(node).is_over(session) else session


def _logout(node: Node, request: Request) -> Served:
    session = _session(node, request)
    if session is not None:
        try:
            admin_of(node).sign_out(session)
        except BackendUnavailable:
            logger.warning("the other workers could not be told that somebody has signed out of the admin page")
    return _to_page("", sign_out(request))


def _events(node: Node, request: Request) -> Served:
    parsing.check_method(request, "GET")
    admin = admin_of(node)
    if admin.is_full or node.hub.is_full():
        raise unavailable("too many admin pages are open on this worker; close one")
    query = {name: request.args.get(name, "") for name in ("channels", "clients", "tap")}
    for name, text in query.items():
        if len(text) > MAX_TEXT:
            raise _bad(name, f"expected {MAX_TEXT} characters at most")
    if query["tap"] and not CLIENT_ID.fullmatch(query["tap"].removeprefix(OWN_IDS)):
        raise _bad("tap", "expected a client's id")
    session = _session(node, request)
    identity = Identity(f"{OWN_IDS}{secrets.token_hex(8)}", None, parsing.NO_GROUPS)
    address = client_address(request.environ, node.options.trusted_proxies)
    plan = node.plan(SubscribeRequest(identity, None, SubscribeParams({}, None, None), address))

    def begun(subscriber: Any) -> None:
        admin.watch(Watcher(subscriber, query["channels"], query["clients"], query["tap"] or None, session))

    streaming = StreamingResponse(node, plan, EVENT_SOURCE, EVENT_SOURCE, None, begun)
    return Served(HTTPStatus.OK, [*_EVENTS], streaming=streaming)


def _messages(node: Node, request: Request) -> Served:
    """The newest messages of a channel, as the store has them; ``?channel=``, ``?site=``."""
    parsing.check_method(request, "GET", "HEAD")
    name = _store_name(request.args.get("channel", ""), request.args.get("site") or None)
    [page] = node.store.backlogs([BacklogQuery(name, -NEWEST)], READ_BYTES)
    if page.through < page.last_id:  # cut at its size, after the oldest
        [page] = node.store.backlogs([BacklogQuery(name, -1)], READ_BYTES)
    found = [
        {
            "message_id": message.message_id,
            "global_id": message.global_id,
            "data": message.raw[:SHOWN_BYTES].decode(errors="replace"),
            "bytes": len(message.raw),
            "is_cut": len(message.raw) > SHOWN_BYTES,
            "is_targeted": message.targeted,
        }
        for message in page.messages
    ]
    kept = page.last_id - page.first_id + 1
    return _json({"messages": found[::-1], "last_id": page.last_id, "kept": kept})


def _publish(node: Node, request: Request) -> Served:
    """Publish a test message: ``{"channel": ..., "data": ...}``."""
    parsing.check_method(request, "POST")
    parsing.check_origin(request, ())
    given = _read_object(request, node)
    if given.keys() - {"channel", "data", "site"} or not {"channel", "data"} <= given.keys():
        raise _bad("body", "expected an object of channel and data, and perhaps site")
    try:
        ids = node.publish(given["channel"], given["data"], site_id=given.get("site") or None)
    except InvalidChannel as error:
        raise _bad("channel", str(error)) from None
    except MessageTooLarge as error:
        raise HTTPRefusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", str(error), "data") from None
    except InvalidSite as error:
        raise _bad("site", str(error)) from None
    except InvalidData as error:
        raise _bad("data", str(error)) from None
    except NotDurable as error:
        raise not_durable(error, [given["channel"]]) from None
    except (BackendUnavailable, PublishRefused) as error:
        raise unavailable(str(error)) from None
    return _json({"message_id": ids and ids.message_id})


def _read_object(request: Request, node: Node) -> dict[str, Any]:
    kind = request.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which no form of a foreign page can send
        raise HTTPRefusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "expected application/json", "Content-Type"
        )
    try:
        given = json.loads(parsing.read_body(request, node.options.max_message_size, "max_message_size"))
    except (ValueError, RecursionError):
        raise _bad("body", "the body is not JSON") from None
    if not isinstance(given, dict):
        raise _bad("body", "expected a JSON object")
    return given


def _store_name(channel: str, site: str | None) -> str:
    try:
        return store_name(check_channel(channel), site)
    except InvalidChannel as error:
        raise _bad("channel", str(error)) from None
    except InvalidSite as error:
        raise _bad("site", str(error)) from None


def _json(value: object) -> Served:
    return Served(HTTPStatus.OK, [*JSON_HEADERS], json.dumps(value).encode())


def _bad(field: str, reason: str) -> HTTPRefusal:
    return HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", f"{field}: {reason}", field)


def admin_of(node: Node) -> Admin:
    """What the node does for admin pages."""
    assert isinstance(node.admin, Admin)
    return node.admin


_FILES = ("page.js", "style.css")
_FORMS: Mapping[str, Callable[[Node, Request], Served]] = {"login": _login, "logout": _logout}
_PLACES: Mapping[str, Callable[[Node, Request], Served]] = {
    "events": _events,
    "messages": _messages,
    "publish": _publish,
}
