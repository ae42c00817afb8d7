"""Refusals of requests: an HTTP status, and the one form that errors have everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from ..errors import NotDurable
from ..hub.subscribe_request import ChannelRefusal
from ..limit_counts import LimitCounts
from .requested_channels import ChannelRefused

NO_CACHE = [("Cache-Control", "must-revalidate, private, max-age=0"), ("Pragma", "no-cache"), ("Expires", "0")]
JSON_HEADERS = [
    ("Content-Type", "application/json; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
    *NO_CACHE,
]
RETRY_SECONDS = 2
NOT_DURABLE = HTTPStatus.INSUFFICIENT_STORAGE
"""Of a publish that is stored, and not safe yet. Neither a success nor one of the statuses for which clients repeat a
request by themselves: that would store it twice, where the publish has no ``idempotency_key``."""


def error_object(
    code: str, message: str, field: str | None = None, retry_after: int | None = None
) -> dict[str, str | int]:
    """The body of an error. ``field`` names the wrong part, if there is one; ``retry_after``: seconds after which it
    may succeed, if that is known."""
    error: dict[str, str | int] = {"code": code, "message": message}
    if field is not None:
        error["field"] = field
    if retry_after is not None:
        error["retry_after"] = retry_after
    return error


class HTTPRefusal(Exception):
    """A refused request. ``limit``: the option that it has met, if it is one, to be counted. ``headers``: further
    headers of the answer, with underscores for hyphens."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        field: str | None = None,
        *,
        limit: str | None = None,
        **headers: str,
    ) -> None:
        super().__init__(message)
        self.also: Mapping[str, object] = {}
        """What the body has beside the error."""
        self.limit = limit
        self.status = status
        self.code = code
        self.field = field
        self.headers = [*JSON_HEADERS, *((name.replace("_", "-"), value) for name, value in headers.items())]

    def body(self) -> bytes:
        seconds = dict(self.headers).get("Retry-After")
        error = error_object(self.code, str(self), self.field, None if seconds is None else int(seconds))
        return json.dumps({"error": error, **self.also}).encode()


def refuse_channel(refused: ChannelRefused) -> HTTPRefusal:
    """The refusal of a whole request for one of its channels."""
    code = refused.refusal.code
    status = HTTPStatus.FORBIDDEN if code == "forbidden" else HTTPStatus.BAD_REQUEST
    field = refused.channel[:100] if code == "invalid_channel" else refused.channel
    return HTTPRefusal(status, code, str(refused), field, limit=limit_of(refused.refusal))


def limit_of(refusal: ChannelRefusal) -> str | None:
    """The option that a refused channel has met, if it is one."""
    return "max_channels" if refusal.code == "too_many_channels" else None


def count_refused(counts: LimitCounts, refused: Mapping[str, ChannelRefusal]) -> None:
    """Count the channels that a client is refused for a limit, one by one."""
    beyond = sum(limit_of(refusal) is not None for refusal in refused.values())
    if beyond:
        counts.count("max_channels", beyond)


def unavailable(message: str, limit: str | None = None) -> HTTPRefusal:
    seconds = str(RETRY_SECONDS)
    return HTTPRefusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", message, limit=limit, Retry_After=seconds)


def not_durable(error: NotDurable, channels: Sequence[str]) -> HTTPRefusal:
    """Of messages that are stored, and not safe yet. ``channels``: that of each message."""
    newest = dict(zip(channels, error.ids, strict=True))
    stored = [{"channel": channel, "message_id": ids[0], "global_id": ids[1]} for channel, ids in newest.items()]
    refusal = HTTPRefusal(NOT_DURABLE, "not_durable", str(error), "durable")
    refusal.also = {"channels": stored}
    return refusal
