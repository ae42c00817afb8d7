"""The numbers of the bus over HTTP: ``/message-bus/stats``, ``channels-stats`` and ``metrics``; and what became of a
message: ``why``."""

from __future__ import annotations

import hmac
import json
import socket
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from werkzeug.wrappers import Request

from ..errors import InvalidChannel, InvalidSite
from ..hub.node import Node
from ..names import check_channel
from ..options import Options
from ..statistics.bus import PAGE, ChannelStats, bus_stats, channel_stats, channels_page, workers_of
from ..statistics.prometheus import CONTENT_TYPE, render_metrics
from ..statistics.reachable import with_away
from ..statistics.why import read_user_id, why
from . import parsing
from .keys import bearer_token
from .refusals import NO_CACHE, HTTPRefusal

HOW_TO_ALLOW = (
    "nobody may see the numbers of the bus yet: set admin_keys (MESSAGEBUS_ADMIN_KEYS), and send one as "
    "'Authorization: Bearer KEY'"
)

MAX_PARAMETERS = 20
"""Of a query."""

Served = tuple[HTTPStatus, list[tuple[str, str]], bytes]
"""Status, headers and body of an answer."""


def serve_statistics(node: Node, request: Request, place: str) -> Served:
    """Handle a request for numbers. ``place``: one of ``PLACES``. Blocks for the store and the other workers.

    Raises:
        HTTPRefusal: It is refused.
        BackendUnavailable: The store gives no answer.
    """
    parsing.check_method(request, "GET", "HEAD")
    check_admin(request, node.options)
    kind, body = PLACES[place](node, _query(request, place))
    headers = [("Content-Type", kind), ("X-Content-Type-Options", "nosniff"), *NO_CACHE]
    return HTTPStatus.OK, headers, body


def check_admin(request: Request, options: Options) -> None:
    """Let those in who show one of ``admin_keys``; all are compared, whichever fits.

    Raises:
        HTTPRefusal: They do not.
    """
    if not options.admin_keys:
        raise HTTPRefusal(HTTPStatus.FORBIDDEN, "statistics_not_allowed", HOW_TO_ALLOW, "Authorization")
    token = (bearer_token(request) or "").encode(errors="replace")
    fits = [hmac.compare_digest(key.encode(), token) for key in options.admin_keys]
    if True not in fits:
        raise HTTPRefusal(
            HTTPStatus.UNAUTHORIZED,
            "unauthorized",
            "expected 'Authorization: Bearer KEY' with one of admin_keys",
            "Authorization",
            WWW_Authenticate='Bearer realm="messagebus"',
        )


def _query(request: Request, place: str) -> dict[str, str]:
    known = _KNOWN[place]
    text = str(request.environ.get("QUERY_STRING", ""))
    if text.count("&") >= MAX_PARAMETERS:
        raise _bad("query", f"expected {MAX_PARAMETERS} parameters at most")
    pairs = parse_qsl(text, keep_blank_values=True)
    for name, _ in pairs:
        if name not in known:
            expected = " and ".join(known) or "none"
            raise _bad(name[:80], f"there is no such parameter here; there are {expected}")
    return dict(pairs)


def _stats(node: Node, query: Mapping[str, str]) -> tuple[str, bytes]:
    if "channel" in query:
        return _as_json(_one(node, query["channel"], "channel"))
    if "channels" in query:
        pattern = query["channels"]
        if not pattern.endswith("*") or "*" in pattern[:-1]:
            raise _bad("channels", "expected * for all channels, or a prefix that ends in it, such as /chat/*")
        limit = _limit(query)
        try:
            page = channels_page(node, pattern[:-1], query.get("cursor", ""), limit)
        except ValueError as error:
            raise _bad("cursor", str(error)) from None
        found = [each._asdict() for each in page.channels]
        return _as_json({"channels": found, "cursor": page.cursor, **with_away(page.away)})
    return _as_json(bus_stats(node))


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(PAGE))
    limit = _number(text)
    if not 0 < limit <= PAGE:
        raise _bad("limit", f"expected a number from 1 to {PAGE}")
    return limit


def _number(text: str) -> int:
    """A whole number of up to 18 digits; 0 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0


def _one(node: Node, channel: str, field: str) -> dict[str, Any]:
    try:
        [found] = channel_stats(node, [check_channel(channel)])
    except InvalidChannel as error:
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "invalid_channel", str(error), field) from None
    return found._asdict()


def _channels_stats(node: Node, query: Mapping[str, str]) -> tuple[str, bytes]:
    """As nginx-push-stream-module answers, by its names."""
    asked = query.get("id")
    if asked is not None and asked != "ALL":
        channel = asked if asked.startswith("/") else f"/{asked}"
        return _as_json(_as_push_stream(ChannelStats(**_one(node, channel, "id"))))
    stats = bus_stats(node)
    whole = {
        "hostname": socket.gethostname(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "channels": stats["channels"],
        "wildcard_channels": 0,
        "uptime": stats["uptime"],
    }
    page = channels_page(node)
    whole |= with_away([*page.away, *stats.get("partitions_away", ())])
    if asked == "ALL":
        return _as_json({**whole, "infos": [_as_push_stream(each) for each in page.channels]})
    by_worker = [
        {"pid": str(w["pid"]), "subscribers": w["subscribers"], "uptime": w["uptime"]} for w in stats["by_worker"]
    ]
    return _as_json(
        {
            **whole,
            "published_messages": stats["published_messages"],
            "stored_messages": sum(each.stored_messages for each in page.channels),
            "messages_in_trash": 0,
            "channels_in_delete": 0,
            "channels_in_trash": 0,
            "subscribers": stats["subscribers"],
            "by_worker": by_worker,
        }
    )


def _as_push_stream(stats: ChannelStats) -> dict[str, Any]:
    return {
        "channel": stats.channel,
        "published_messages": stats.published_messages,
        "stored_messages": stats.stored_messages,
        "subscribers": stats.subscribers,
    }


def _metrics(node: Node, query: Mapping[str, str]) -> tuple[str, bytes]:
    try:
        return CONTENT_TYPE, render_metrics(workers_of(node), node.is_healthy)
    except ImportError:
        raise HTTPRefusal(
            HTTPStatus.NOT_IMPLEMENTED,
            "no_prometheus_client",
            "install it where the server runs: pip install 'flask-messagebus[metrics]'",
        ) from None


def _why(node: Node, query: Mapping[str, str]) -> tuple[str, bytes]:
    """``channel``, ``id``, and ``user`` (as JSON, or a text that is none) or ``client``."""
    message_id = _number(query.get("id", ""))
    if not message_id:
        raise _bad("id", "expected a message id, 1 or more, of up to 18 digits")
    if ("user" in query) is ("client" in query):
        raise _bad("user", "expected user or client, and not both")
    try:
        user_id = read_user_id(query["user"]) if "user" in query else None
        found = why(node, query.get("channel", ""), message_id, user_id, query.get("client"), query.get("site"))
    except InvalidChannel as error:
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "invalid_channel", str(error), "channel") from None
    except InvalidSite as error:
        raise _bad("site", str(error)) from None
    return _as_json({"findings": [each._asdict() for each in found]})


def _as_json(body: object) -> tuple[str, bytes]:
    return "application/json", json.dumps(body).encode()


def _bad(field: str, message: str) -> HTTPRefusal:
    return HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", f"{field}: {message}", field)


PLACES: Mapping[str, Callable[[Node, Mapping[str, str]], tuple[str, bytes]]] = {
    "stats": _stats,
    "channels-stats": _channels_stats,
    "metrics": _metrics,
    "why": _why,
}
"""What is at ``/message-bus/...`` where ``statistics`` is on: these are no clients' ids then. Each returns a media type
and a body."""
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "stats": ("channel", "channels", "cursor", "limit"),
    "channels-stats": ("id",),
    "metrics": (),
    "why": ("channel", "id", "user", "client", "site"),
}
