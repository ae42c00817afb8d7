"""Refusals of requests: an HTTP status, and the one form that errors have everywhere."""

from __future__ import annotations

import json
from http import HTTPStatus

from .channels import ChannelRefused

NO_CACHE = [("Cache-Control", "must-revalidate, private, max-age=0"), ("Pragma", "no-cache"), ("Expires", "0")]
JSON_HEADERS = [
    ("Content-Type", "application/json; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
    *NO_CACHE,
]
RETRY_SECONDS = 2


def error_object(code: str, message: str, field: str | None = None) -> dict[str, str]:
    """The body of an error. ``field`` names the wrong part, if there is one."""
    error = {"code": code, "message": message}
    return error if field is None else {**error, "field": field}


class HTTPRefusal(Exception):
    """A refused request. ``headers``: further headers of the answer, with underscores for hyphens."""

    def __init__(self, status: HTTPStatus, code: str, message: str, field: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        self.headers = [*JSON_HEADERS, *((name.replace("_", "-"), value) for name, value in headers.items())]

    def body(self) -> bytes:
        return json.dumps({"error": error_object(self.code, str(self), self.field)}).encode()


def refuse_channel(refused: ChannelRefused) -> HTTPRefusal:
    """The refusal of a whole request for one of its channels."""
    code = refused.refusal.code
    status = HTTPStatus.FORBIDDEN if code == "forbidden" else HTTPStatus.BAD_REQUEST
    field = refused.channel[:100] if code == "invalid_channel" else refused.channel
    return HTTPRefusal(status, code, str(refused), field)


def unavailable(message: str) -> HTTPRefusal:
    return HTTPRefusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", message, Retry_After=str(RETRY_SECONDS))
