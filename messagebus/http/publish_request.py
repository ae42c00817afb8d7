"""Reads a request that publishes: where to, for whom, and the messages. What it does not understand is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl

from werkzeug.wrappers import Request

from ..publishing.arguments import PublishOptions
from .parsing import read_body
from .refusals import HTTPRefusal

FORM = "application/x-www-form-urlencoded"
MOST_FIELDS = 50
"""Names in a query or in a form."""
MOST_AT_ONCE = 10_000
"""Messages of one request."""
_LISTS = ("user_ids", "group_ids", "client_ids", "exclude_client_ids")
_NUMBERS = ("max_backlog_size", "max_backlog_age", "durable")
_KEYS = ("idempotency_key", "key")
_OPTIONS = (*_LISTS, *_NUMBERS, "transient", *_KEYS)
_PREFIX = "HTTP_X_MESSAGEBUS_"


class PublishRequest(NamedTuple):
    """The messages of a request, as pairs of channel and data, and the options of ``Bus.publish`` for them."""

    messages: list[tuple[str, Any]]
    options: PublishOptions
    many: bool
    """Whether the client has sent a list, be it of one."""


def read_channel(request: Request, rest: str | None) -> str | None:
    """The channel of a request: the rest of its path, or of ``?channel=/chat`` or ``?id=chat``; ``None``: none."""
    query = _query(request)
    named = [name for name in ("channel", "id") if name in query]
    if rest is not None:
        if named:
            raise _malformed("the path names the channel already", named[0])
        return rest if rest.startswith("/") else f"/{rest}"
    if len(named) > 1:
        raise _malformed("channel and id name the same thing; give one of them", "id")
    if "id" in query:
        return query["id"] if query["id"].startswith("/") else f"/{query['id']}"
    return query.get("channel")


def check_report_query(request: Request) -> None:
    """Refuse what a request for a report has no use for."""
    for name in _query(request):
        if name not in ("channel", "id"):
            raise _malformed(f"{name[:100]}: a report takes channel or id", name[:100])
    for name, _ in _headers(request):
        raise _malformed("a report takes no options", name)


def read_publish(request: Request, channel: str | None, limit: int) -> PublishRequest:
    """``limit``: bytes that the body may have."""
    query = _query(request)
    kind = _media_type(request)
    given = {name: value for name, value in query.items() if name not in ("channel", "id", "many")}
    many = kind == "application/x-ndjson" or _yes_or_no("many", query.get("many", "0"))
    body = read_body(request, limit, "max_message_size")
    data: Any
    if kind == FORM and b"=" in body:
        data = _read_form(body, given)
    elif kind == FORM and not body:
        raise _malformed("a form needs the field data", "data")
    elif kind == "application/json":
        data = _json(body, "the body")
    elif kind == "application/x-ndjson":
        data = [_json(line, f"line {number}") for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    else:
        data = _text(body)
    for header, value in _headers(request):
        name = header.removeprefix("X-MessageBus-").replace("-", "_").lower()
        if name in given:
            raise _malformed(f"{name} was given twice", header)
        given[name] = value
    options = cast(PublishOptions, {name: _read_option(name, value) for name, value in given.items()})
    if not many:
        if channel is None:
            raise _malformed("name the channel: ?channel=/chat", "channel")
        return PublishRequest([(channel, data)], options, False)
    if not isinstance(data, list) or not data:
        raise _malformed("many messages are a JSON array, or application/x-ndjson; at least one", "body")
    if len(data) > MOST_AT_ONCE:
        raise _malformed(f"{len(data)} messages; one request takes {MOST_AT_ONCE}", "body")
    pairs = [(channel, item) for item in data] if channel is not None else [_pair(item) for item in data]
    return PublishRequest(pairs, options, True)


def _pair(item: object) -> tuple[str, Any]:
    if not isinstance(item, dict) or set(item) != {"channel", "data"} or not isinstance(item["channel"], str):
        raise _malformed('without ?channel= each message is {"channel": ..., "data": ...}', "body")
    return item["channel"], item["data"]


def _media_type(request: Request) -> str:
    if "HTTP_CONTENT_ENCODING" in request.environ:
        raise _unsupported("the body must not be compressed", "Content-Encoding")
    kind = request.mimetype
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise _unsupported(f"the body is UTF-8, not {charset[:40]}", "Content-Type")
    known = ("", FORM, "application/json", "application/x-ndjson", "application/octet-stream", "application/xml")
    if kind not in known and not kind.startswith("text/"):
        raise _unsupported(
            f"a message is text/plain, application/json, application/x-ndjson or {FORM}, not {kind[:100]}",
            "Content-Type",
        )
    return kind


def _read_form(body: bytes, given: dict[str, str]) -> str:
    fields = _pairs(body, "body")
    if "data" not in fields:
        raise _malformed("a form needs the field data; send a text that has a '=' as text/plain", "data")
    data = fields.pop("data")
    for name, value in fields.items():
        if name in given:
            raise _malformed(f"{name[:100]} was given twice", name[:100])
        given[name] = value
    return data


def _read_option(name: str, value: str) -> Any:
    if name in _LISTS:
        ids = [each.strip() for each in value.split(",")]
        if not all(ids):
            raise _malformed(f"{name}: expected ids, separated by commas; leave it out to reach everybody", name)
        return ids if name.endswith("client_ids") else [_id(each) for each in ids]
    if name in _NUMBERS:
        if not (value.isascii() and value.isdigit() and len(value) <= 18):
            raise _malformed(f"{name}: expected a whole number, not {value[:40]!r}", name)
        return int(value)
    if name == "transient":
        return _yes_or_no(name, value)
    if name in _KEYS:
        return value
    raise _malformed(f"{name[:100]}: expected one of channel, id, many, {', '.join(_OPTIONS)}", name[:100])


def _id(text: str) -> object:
    """``7`` is a number, ``"7"`` and everything else is a text: ids of users and groups compare as JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    return value if isinstance(value, (str, int)) and not isinstance(value, bool) else text


def _yes_or_no(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise _malformed(f"{name}: expected 1 or 0", name)
    return value == "1"


def _headers(request: Request) -> Iterator[tuple[str, str]]:
    """The headers that are for the bus, by their names."""
    for name, value in request.environ.items():
        if name.startswith(_PREFIX):
            yield "X-MessageBus-" + name[len(_PREFIX) :].replace("_", "-").title(), value
        elif name == "HTTP_IDEMPOTENCY_KEY":
            yield "Idempotency-Key", value


def _query(request: Request) -> dict[str, str]:
    return _pairs(request.environ.get("QUERY_STRING", "").encode("latin-1"), "query")


def _pairs(text: bytes, field: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError:
        reason = f"the {field} is not percent-encoded UTF-8, or has more than {MOST_FIELDS} fields"
        raise _malformed(reason, field) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise _malformed(f"{name[:100]} was given twice; lists are separated by commas", name[:100])
        found[name] = value
    return found


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise _malformed("the body is not UTF-8", "body") from None


def _json(body: bytes, where: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _malformed(f"{where} is not JSON", "body") from None


def _malformed(message: str, field: str) -> HTTPRefusal:
    return HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", message, field)


def _unsupported(message: str, field: str) -> HTTPRefusal:
    return HTTPRefusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message, field)
