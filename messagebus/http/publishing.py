"""Publishing over HTTP: ``/message-bus/channels/CHANNEL`` and ``/message-bus/publish?channel=CHANNEL``."""

from __future__ import annotations

import logging
from http import HTTPStatus

from werkzeug.wrappers import Request

from ..channel_rules import find_rule, is_stored
from ..errors import (
    BackendUnavailable,
    InvalidChannel,
    InvalidData,
    InvalidOption,
    InvalidTargets,
    MessageTooLarge,
    NotDurable,
    PublishRefused,
)
from ..hub.addresses import source_of
from ..hub.audience import Audience
from ..hub.node import Node
from ..hub.workers import forget
from ..message import TRACE_FIELDS, Ids
from ..names import check_channel
from ..option_kinds import Key
from ..options import Options
from ..stores.base import BacklogQuery
from . import parsing
from .addresses import client_address
from .keys import bearer_token, find_key, opens
from .publish_report import Report, choose, render
from .publish_request import check_report_query, read_channel, read_publish
from .refusals import NO_CACHE, HTTPRefusal, not_durable, unavailable

logger = logging.getLogger("messagebus.http")

PLACES = ("channels", "publish")
"""What is served under ``/message-bus/`` where ``http_publishing`` is on: these are no clients' ids then."""
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")
HOW_TO_ALLOW = (
    "nobody may publish over HTTP yet: set publisher_keys (MESSAGEBUS_PUBLISHER_KEYS), and send one as "
    "'Authorization: Bearer KEY'; or start messagebus serve with --allow-anonymous-publish"
)

Published = tuple[HTTPStatus, list[tuple[str, str]], bytes]
"""Status, headers and body of an answer."""


def serve_publishing(node: Node, request: Request, place: str, rest: str) -> Published:
    """Handle a request that publishes, or asks for a report. ``place``: one of ``PLACES``; ``rest``: what comes after
    it in the path.

    Raises:
        HTTPRefusal: It is refused; nothing has changed.
    """
    if bool(rest) is not (place == "channels"):
        expected = "expected channels/CHANNEL or publish?channel=CHANNEL"
        raise HTTPRefusal(HTTPStatus.NOT_FOUND, "not_found", expected, "channel")
    parsing.check_method(request, *METHODS)
    options = node.options
    cors = parsing.cors_headers(request, options)
    if request.method == "OPTIONS":
        return HTTPStatus.NO_CONTENT, [("Allow", ", ".join(METHODS)), *cors], b""
    parsing.check_origin(
        request, options.allowed_origins
    )  # a browser sends forms and texts of any page without asking first
    kind = choose(request.accept_mimetypes)
    if kind is None:
        raise HTTPRefusal(
            HTTPStatus.NOT_ACCEPTABLE,
            "not_acceptable",
            "the answer is application/json, text/plain, application/xml or application/yaml",
            "Accept",
        )
    key = _admit(node, request)
    if node.access.off:
        raise unavailable("the bus is off")
    channel = read_channel(request, _strictly(request, rest) if rest else None)
    reads = request.method == "GET"
    if channel is not None:
        _check_channel(options, channel, key, reads)
    try:
        if reads:
            check_report_query(request)
            if channel is None:
                raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", "name the channel: ?channel=/chat", "channel")
            status, reports, many = HTTPStatus.OK, _report(node, {channel: None}), False
        elif request.method == "DELETE":
            status, reports, many = HTTPStatus.OK, [_forget(node, request, channel)], False
        else:
            status, reports, many = _publish(node, request, channel, key)
    except InvalidChannel as error:
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "invalid_channel", str(error), "channel") from None
    except MessageTooLarge as error:
        raise HTTPRefusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", str(error), "body", limit=error.name
        ) from None
    except InvalidData as error:
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", str(error), "body") from None
    except InvalidTargets as error:
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "invalid_targets", str(error), str(error).split(":")[0]) from None
    except InvalidOption as error:
        if error.option == "url":
            raise _refused_by_store(error) from None
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "invalid_option", str(error), error.option) from None
    except BackendUnavailable as error:
        raise unavailable(str(error)) from None
    except PublishRefused as error:
        raise _refused_by_store(error) from None
    headers = [("Content-Type", f"{kind}; charset=utf-8"), ("X-Content-Type-Options", "nosniff"), *NO_CACHE, *cors]
    return status, headers, render(kind, reports, many)


def _refused_by_store(error: Exception) -> HTTPRefusal:
    logger.error("the store refused a message: %s", error)
    words = "the store refused the message; see the server's log"
    return HTTPRefusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", words)


def _admit(node: Node, request: Request) -> Key | None:
    """The key that a request shows; ``None`` where it shows none, and may need none."""
    options = node.options
    key = find_key(request, options.publisher_keys)
    if key is not None:
        return key
    may_need_none = options.anonymous_publish or any(rule.publish == "anyone" for rule in options.channels)
    if may_need_none and bearer_token(request) is None:
        return None
    raise _needs_key(options)


def _needs_key(options: Options) -> HTTPRefusal:
    if not options.publisher_keys and not options.anonymous_publish:
        return HTTPRefusal(HTTPStatus.FORBIDDEN, "publishing_not_allowed", HOW_TO_ALLOW, "Authorization")
    return HTTPRefusal(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "expected 'Authorization: Bearer KEY' with one of publisher_keys",
        "Authorization",
        WWW_Authenticate='Bearer realm="messagebus"',
    )


def _check_channel(options: Options, channel: str, key: Key | None, reads: bool = False) -> None:
    """``reads``: it asks for a report alone."""
    try:
        check_channel(channel)
    except InvalidChannel as error:
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "invalid_channel", str(error), "channel") from None
    rule = find_rule(options.channels, channel)
    allowed = None if rule is None or (reads and rule.publish == "nobody") else rule.publish
    if allowed == "anyone":
        return
    if allowed == "nobody":
        raise HTTPRefusal(HTTPStatus.FORBIDDEN, "forbidden", f"{channel}: its rule lets nobody publish", "channel")
    if key is None:
        if allowed is None and options.anonymous_publish:
            return
        raise _needs_key(options)
    if not opens(key, channel) or (allowed is not None and key.name not in allowed):
        raise HTTPRefusal(HTTPStatus.FORBIDDEN, "forbidden", f"{channel}: this key is not for it", "channel")


def _strictly(request: Request, rest: str) -> str:
    """The channel in the path, if it is UTF-8: servers replace what is not."""
    try:
        request.environ.get("PATH_INFO", "").encode("latin-1").decode()
    except UnicodeError:
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", "the path is not UTF-8", "channel") from None
    return rest


def _publish(
    node: Node, request: Request, channel: str | None, key: Key | None
) -> tuple[HTTPStatus, list[Report], bool]:
    publisher = node.publisher
    asked = read_publish(request, channel, _body_limit(node, channel))
    names = list(dict.fromkeys(name for name, _ in asked.messages))
    for name in names:
        _check_channel(node.options, name, key)
    checked = publisher.check(asked.messages, _trace_of(request), **asked.options)
    _check_rate(node, request, key, len(asked.messages))
    # Before the message, which ends the polls that wait for it.
    audiences = _audiences(node, names)
    try:
        given = publisher.publish(checked)
    except NotDurable as error:
        raise not_durable(error, [name for name, _ in asked.messages]) from None
    newest = {name: ids for (name, _), ids in zip(asked.messages, given, strict=True)}
    if not checked.transient and all(ids is None for ids in given):
        waiting = (Report(name, None, None, 0, 0, *_told(audiences[name]), True) for name in names)
        return HTTPStatus.ACCEPTED, [*waiting], asked.many
    heard = any(audience.subscribers for audience in audiences.values())
    status = HTTPStatus.CREATED if heard else HTTPStatus.ACCEPTED
    return status, _reports(node, newest, audiences), asked.many


def _trace_of(request: Request) -> dict[str, str]:
    """The span of the program that sends the request, as W3C Trace Context names it."""
    given = {field: request.environ.get(f"HTTP_{field.upper()}") for field in TRACE_FIELDS}
    return {field: value for field, value in given.items() if value}


def _forget(node: Node, request: Request, channel: str | None) -> Report:
    """Delete a channel's backlog."""
    check_report_query(request)
    if channel is None:
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", "name the channel: ?channel=/chat", "channel")
    forget(node.store, channel)
    [report] = _report(node, {channel: None})
    return report


def _body_limit(node: Node, channel: str | None) -> int:
    """Bytes: as large as all channels take, or more where the channel takes more. Each message is measured later."""
    limit = node.options.max_message_size
    rule = None if channel is None else find_rule(node.options.channels, channel)
    return limit if rule is None else max(limit, rule.max_message_size or 0)


def _check_rate(node: Node, request: Request, key: Key | None, messages: int) -> None:
    options = node.options
    if key is not None:
        name, publisher, limit = "max_publishes_per_key", f"key {key.key}", options.max_publishes_per_key
    else:
        address = client_address(request.environ, options.trusted_proxies)
        name, publisher = "max_publishes_per_client", f"address {source_of(address)}"
        limit = options.max_publishes_per_client
    wait = node.publish_limits.take(publisher, messages, limit)
    if wait:
        raise HTTPRefusal(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_many_publishes",
            f"{name} allows {limit} messages a second; come back in {wait} s",
            name,
            limit=name,
            Retry_After=str(wait),
        )


def _report(node: Node, published: dict[str, Ids | None]) -> list[Report]:
    return _reports(node, published, _audiences(node, [*published]))


def _reports(node: Node, published: dict[str, Ids | None], audiences: dict[str, Audience]) -> list[Report]:
    """What is known of channels, one round trip for all. ``published``: the ids that their newest messages were given,
    as far as that is known."""
    rules = node.options.channels
    try:
        pages = node.store.backlogs([BacklogQuery(name, -1) for name in published], 1)
    except BackendUnavailable:
        known = {name: ids for name, ids in published.items() if ids is not None}
        if len(known) < len(published):
            raise
        # It is stored: who was told of a failure would publish it once more.
        return [
            Report(name, ids.message_id, ids.global_id, None, ids.message_id, *_told(audiences[name]))
            for name, ids in known.items()
        ]
    return [
        Report(
            channel,
            ids.message_id if ids is not None else page.last_id,
            ids.global_id if ids is not None else None,
            max(0, page.last_id - page.first_id + 1) if is_stored(rules, channel) else 0,
            page.last_id,
            *_told(audiences[channel]),
        )
        for (channel, ids), page in zip(published.items(), pages, strict=True)
    ]


def _audiences(node: Node, names: list[str]) -> dict[str, Audience]:
    """Over all workers; of this one alone while the store, through which they are asked, is away."""
    try:
        return dict(zip(names, node.audiences.of(names), strict=True))
    except BackendUnavailable:
        return dict(zip(names, node.audiences.own(names), strict=True))


def _told(audience: Audience) -> tuple[int, int | None]:
    return audience.subscribers, None if audience.asked_for is None else int(audience.asked_for)
