"""Commands of clients that have no WebSocket: one request each, ``POST CLIENT_ID/VERB`` with the verb's value."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from ..message import encode_json
from . import parsing
from .command import CommandError
from .commands import COMMANDS, read_command
from .context import RequestContext
from .refusals import JSON_HEADERS, NOT_DURABLE, HTTPRefusal

VERBS = tuple(verb for verb, kind in COMMANDS.items() if not kind.needs_subscriber and verb != "ping")
"""The commands that need no open connection. (Who wants to know whether the server is there asks for something.)"""

_STATUSES = {
    "forbidden": HTTPStatus.FORBIDDEN,
    "rejected": HTTPStatus.FORBIDDEN,
    "max_message_size": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "transient": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "too_many_publishes": HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_actions": HTTPStatus.TOO_MANY_REQUESTS,
    "gone": HTTPStatus.GONE,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "not_durable": NOT_DURABLE,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Of error codes, or of the limit that was met; what is not here is the client's fault: 400."""


def serve_call(context: RequestContext, verb: str) -> tuple[HTTPStatus, list[tuple[str, str]], bytes]:
    """Carry a command out, and wait for its result.

    A page of another origin cannot send one: its browser asks first before it sends JSON, and the origin is checked.
    """
    request, options = context.request, context.options
    parsing.check_method(request, "POST", "OPTIONS")
    cors = parsing.cors_headers(request, options)
    if request.method == "OPTIONS":
        return HTTPStatus.OK, [*JSON_HEADERS, *cors], b""
    parsing.check_origin(request, options.allowed_origins)
    kind = request.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        reason = f"a command is application/json, not {kind[:100] or 'of no type'}"
        raise HTTPRefusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", reason, "Content-Type")
    value = _read_value(parsing.read_body(request, options.max_frame_size, "max_frame_size"))
    caller = context.caller()
    try:
        command = read_command(caller, {verb: value})
        result = command.perform_at_once()
        if result is None:
            result = command.perform()
    except Exception as error:
        raise _refuse(CommandError.of(error)) from None
    return HTTPStatus.OK, [*JSON_HEADERS, *cors], encode_json({"ok": result})


def _read_value(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HTTPRefusal(HTTPStatus.BAD_REQUEST, "malformed", "the body is not JSON", "body") from None


def _refuse(error: CommandError) -> HTTPRefusal:
    status = _STATUSES.get(error.limit or error.code) or _STATUSES.get(error.code, HTTPStatus.BAD_REQUEST)
    headers = {} if error.retry_after is None else {"Retry_After": str(error.retry_after)}
    return HTTPRefusal(status, error.code, str(error), error.field, limit=error.limit, **headers)
