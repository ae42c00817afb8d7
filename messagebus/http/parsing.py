"""Reads and checks a request. Malformed requests are rejected with an :class:`HTTPRefusal`, before any state
changes."""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Request

from ..errors import InvalidSite, InvalidTargets
from ..hub.epochs import longest_text
from ..hub.subscribe_request import SubscribeParams
from ..hub.subscriber import Identity
from ..message import check_id, id_key
from ..names import check_site
from ..options import Options
from ..transports import BY_CHANNEL, FORMS, PlainTransport, plain_transport
from ..transports.event_ids import split_ids
from ..wire import CLIENT_ID
from .origins import is_allowed, is_same
from .refusals import HTTPRefusal
from .requested_channels import Refusals, check_patterns, read_positions

logger = logging.getLogger("messagebus.http")

NO_GROUPS: frozenset[bytes] = frozenset()
"""Shared: Python makes a new one each time, and 15,000 subscribers would keep as many."""
OWN_KEYS = 32
"""Keys that start with ``__``, of which a request may have some beside its channels."""
NAMED_CHANNELS = 10
"""So many times ``max_channels`` a request may name that takes refusals; those beyond the first ``max_channels`` are
refused one by one. With more it is not read."""


def check_method(request: Request, *allowed: str) -> None:
    if request.method not in allowed:
        raise HTTPRefusal(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "method_not_allowed",
            f"{request.method[:20]} is not allowed here, {' and '.join(allowed)} are",
            Allow=", ".join(allowed),
        )


def check_client_id(client_id: str) -> None:
    if not CLIENT_ID.fullmatch(client_id):
        raise HTTPRefusal(
            HTTPStatus.BAD_REQUEST,
            "invalid_client_id",
            "a client id has 1 to 128 letters, digits, or any of _ . ~ -",
            "client_id",
        )


def new_client_id() -> str:
    """One for a client that brings none."""
    return secrets.token_hex(16)


def read_poll(request: Request, options: Options) -> SubscribeParams:
    """A poll's body, a form or JSON."""
    takes_refusals = has_flag(request, options, "__refusals")
    kind = request.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _read_params(_json_pairs(read_body(request, options.max_request_body)), options, takes_refusals)
    if kind in ("application/x-www-form-urlencoded", ""):
        return _read_params(read_form(request, options), options, takes_refusals)
    raise HTTPRefusal(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        f"a poll is application/x-www-form-urlencoded or application/json, not {kind[:100]}",
        "Content-Type",
    )


def has_flag(request: Request, options: Options, name: str) -> bool:
    """Whether a poll's query has ``name=t``. Nearly always the query is empty, or has nothing else."""
    query = request.environ.get("QUERY_STRING", "")
    return query == f"{name}=t" or (
        bool(query) and _query_pairs(query.encode("latin-1"), options, "query").get(name) == "t"
    )


def read_query(request: Request, options: Options, kind: str) -> tuple[SubscribeParams, PlainTransport | None]:
    """The channels of a request without a body, and the transport that its ``format`` and ``events`` ask for; ``None``:
    the usual batches. ``kind``: ``ws``, ``sse``, ``stream`` or ``iframe``."""
    query = request.environ.get("QUERY_STRING", "").encode("latin-1")
    pairs = _query_pairs(query, options, "query")
    transport = _read_format(pairs.pop("format", None), pairs.pop("events", None), options, kind)
    return _resumed(request, _read_params(pairs, options)), transport


def check_no_format(request: Request, options: Options) -> None:
    """Refuse a poll that asks for a format."""
    query = request.environ.get("QUERY_STRING", "")
    if "format" in query or "events" in query:
        pairs = _query_pairs(query.encode("latin-1"), options, "query")
        _read_format(pairs.get("format"), pairs.get("events"), options, "poll")


def _read_format(name: object, events: object, options: Options, kind: str) -> PlainTransport | None:
    if name is None and events is None:
        return plain_transport(kind, _usual_format(options), {}, _templates_of(options)) if kind == "stream" else None
    if kind in ("poll", "iframe"):
        field = "events" if name is None else "format"
        raise _bad_format(f"{field}: a {kind} delivers batches only; ws, sse and stream know formats", field)
    if events is not None and kind != "sse":
        raise _bad_format("events: EventSource (sse) alone has named events", "events")
    if events not in (None, "channel"):
        raise _bad_format(f"events: expected channel, not {events!r:.80}", "events")
    templates = options.templates or {}
    name = _usual_format(options) if name is None else str(name)
    try:
        return plain_transport("events" if events else kind, name, templates, _templates_of(options))
    except KeyError:
        known = ", ".join([*FORMS, BY_CHANNEL, *templates])
        raise _bad_format(f"format: there is no {name!r:.80}; known are {known}", "format") from None


def _usual_format(options: Options) -> str:
    """That of a plain subscriber that names none."""
    return BY_CHANNEL if any(rule.template is not None for rule in options.channels) else "json"


def _templates_of(options: Options) -> tuple[tuple[str, str | None], ...]:
    return tuple([(rule.pattern, rule.template) for rule in options.channels])


def _bad_format(message: str, field: str) -> HTTPRefusal:
    return HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", message, field)


def _resumed(request: Request, params: SubscribeParams) -> SubscribeParams:
    """The positions as of the event that the browser has seen last."""
    last_event_id = request.environ.get("HTTP_LAST_EVENT_ID", "")
    if not last_event_id:
        return params
    try:
        return params._replace(resumed_at=split_ids(last_event_id))
    except ValueError:
        raise HTTPRefusal(
            HTTPStatus.BAD_REQUEST, "invalid_position", "Last-Event-ID: expected the id of an event", "Last-Event-ID"
        ) from None


def check_origin(request: Request, allowed: Sequence[str | re.Pattern[str]]) -> None:
    """Refuse a request of another origin than the server's own and those ``allowed``: browsers would let its page read
    all of a WebSocket (RFC 6455, section 10.2)."""
    origin = request.environ.get("HTTP_ORIGIN")
    if origin and not is_same(origin, request.host) and not is_allowed(origin, allowed):
        raise HTTPRefusal(
            HTTPStatus.FORBIDDEN,
            "forbidden_origin",
            f"pages of {origin[:100]} may not connect; see allowed_origins",
            "Origin",
        )


def cors_headers(request: Request, options: Options) -> list[tuple[str, str]]:
    """The headers that let an allowed page of another origin read the answer (WHATWG Fetch, section 3.3)."""
    if not options.allowed_origins:
        return []
    origin = request.headers.get("Origin")
    headers = [("Vary", "Origin")]
    if origin and is_allowed(origin, options.allowed_origins):
        headers += [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
        if request.method == "OPTIONS":
            asked = request.headers.get("Access-Control-Request-Headers", "")
            headers += [("Access-Control-Allow-Methods", "POST, GET"), ("Access-Control-Max-Age", "7200")]
            if asked and len(asked) < 1000:
                headers.append(("Access-Control-Allow-Headers", asked))
    return headers


def identify(request: Request, client_id: str, options: Options) -> tuple[Identity, str | None]:
    """The client's identity and site, as the lookups return them."""
    environ = request.environ
    user_id = options.user_id_lookup(environ) if options.user_id_lookup else None
    group_ids = options.group_ids_lookup(environ) if options.group_ids_lookup else None
    site_id = options.site_id_lookup(environ) if options.site_id_lookup else None
    if site_id is not None:
        try:
            check_site(site_id)
        except InvalidSite as error:
            raise _bad_lookup("site_id_lookup", error.reason, site_id) from None
    if isinstance(group_ids, (str, bytes)) or not (group_ids is None or isinstance(group_ids, Iterable)):
        raise _bad_lookup("group_ids_lookup", "a list of ids", group_ids)
    return (
        Identity(
            client_id,
            None if user_id is None else _looked_up("user_id_lookup", user_id),
            frozenset([_looked_up("group_ids_lookup", group_id) for group_id in group_ids]) if group_ids else NO_GROUPS,
        ),
        site_id,
    )


def _looked_up(lookup: str, value: object) -> bytes:
    """Check an id by the same rule as ``publish``."""
    try:
        return id_key(check_id(lookup, value))
    except InvalidTargets:
        raise _bad_lookup(lookup, "a string or a number (or a UUID) for an id", value) from None


def _bad_lookup(lookup: str, expected: str, value: object) -> HTTPRefusal:
    expected = expected.removeprefix("expected ")
    reason = f"{lookup} returned a value of type {type(value).__name__}; expected {expected}"
    _tell_once(reason)
    return HTTPRefusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", reason)


@lru_cache(maxsize=100)
def _tell_once(reason: str) -> None:
    logger.error("every request of such a client is refused: %s", reason)


def _read_params(pairs: Mapping[str, object], options: Options, takes_refusals: bool = False) -> SubscribeParams:
    asked = {key: value for key, value in pairs.items() if not key.startswith("__")}
    takes_refusals = takes_refusals or pairs.get("__refusals") in ("t", True)
    limit = options.max_channels
    if len(asked) > (limit * NAMED_CHANNELS if takes_refusals else limit):
        raise _too_many(options)
    sequence, epoch = pairs.get("__seq"), pairs.get("__epoch")
    if sequence is not None:
        text = str(sequence)
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "invalid_sequence", "__seq: expected a whole number", "__seq")
        sequence = int(text)
    if epoch is not None and not (isinstance(epoch, str) and len(epoch) <= longest_text(limit)):
        raise HTTPRefusal(
            HTTPStatus.BAD_REQUEST, "invalid_epoch", "__epoch: expected the text that a status gave", "__epoch"
        )
    given = pairs.get("__grants", "")
    tokens = given.split(",") if isinstance(given, str) else given
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise HTTPRefusal(
            HTTPStatus.BAD_REQUEST, "malformed", "__grants: expected tokens, separated by commas", "__grants"
        )
    refusals = Refusals(takes_refusals)
    positions = read_positions(asked, refusals, limit, limit, None)
    check_patterns(options, positions, refusals)
    grants = tuple(token for token in tokens if token)
    return SubscribeParams(positions, epoch, sequence, grants, takes_refusals, refusals.found)


def _too_many(options: Options) -> HTTPRefusal:
    return HTTPRefusal(
        HTTPStatus.BAD_REQUEST,
        "too_many_channels",
        f"max_channels allows {options.max_channels} channels",
        "channels",
        limit="max_channels",
    )


def _query_pairs(text: bytes, options: Options, field: str) -> dict[str, object]:
    if text.count(b"&") > options.max_channels * NAMED_CHANNELS + OWN_KEYS:
        raise _too_many(options)
    try:
        return dict(parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict"))
    except ValueError:
        raise HTTPRefusal(
            HTTPStatus.BAD_REQUEST, "malformed", f"the {field} is not percent-encoded UTF-8", field
        ) from None


def read_form(request: Request, options: Options) -> dict[str, object]:
    """The fields of a form, up to ``max_request_body``."""
    if "form" in request.__dict__:  # somebody has read the body before us, and left what was in it here
        return dict(request.form.items())
    return _query_pairs(read_body(request, options.max_request_body), options, "body")


def _json_pairs(body: bytes) -> dict[str, object]:
    try:
        pairs: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", "the body is not JSON", "body") from None
    if not isinstance(pairs, dict):
        raise HTTPRefusal(
            HTTPStatus.BAD_REQUEST, "malformed", "the body is not a JSON object of channels and positions", "body"
        )
    return pairs


def read_body(request: Request, limit: int, option: str = "max_request_body") -> bytes:
    """The body of a request. ``option``: the name of the limit, for the refusal."""
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit, option)
    try:
        if length is not None:
            return request.get_data()
        body = request.stream.read(limit + 1)  # chunked: its length shows when it has been read
    except RequestEntityTooLarge:
        raise _too_large(limit, option) from None
    except Exception:  # the client has gone, or its chunks make no sense: every server has an error of its own for that
        reason = "the body ended early, or its chunks cannot be read"
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", reason, "body", Connection="close") from None
    if len(body) > limit:
        raise _too_large(limit, option)
    return body


def _too_large(limit: int, option: str) -> HTTPRefusal:
    return HTTPRefusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too_large",
        f"{option} allows {limit} bytes",
        "body",
        limit=option,
        Connection="close",
    )
