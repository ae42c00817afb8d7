"""Which client of the bus a request belongs to: one to the bus itself, or any other of the same page."""

from __future__ import annotations

from werkzeug.wrappers import Request

from ..wire import CLIENT_ID, ROOT

HEADER = "X-MessageBus-Client-Id"
FIELD = "messagebus_client_id"
"""Of a form, or of a query."""


def client_id_of(request: Request) -> str | None:
    """The id that a request shows, if it is well-formed; the client itself has chosen it. Reads the form of a request
    that has neither the header nor the field in its query."""
    _, is_ours, rest = request.path.rpartition(ROOT)
    found = rest.partition("/")[0] if is_ours else request.headers.get(HEADER) or request.args.get(FIELD)
    if not found:
        found = request.form.get(FIELD)
    return found if found and CLIENT_ID.fullmatch(found) else None
