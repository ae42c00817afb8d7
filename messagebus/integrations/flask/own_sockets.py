"""``Bus.websocket``: what a view returns to speak with its client on a WebSocket."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

from flask import Response, request

from ...errors import BusClosed, InvalidOption
from ...http.refusals import unavailable
from ...http.routes import refuse
from ...http.servable import Servable
from ...option_kinds import Origins
from ...sockets.handlers import Functions, OnMessage, Talk
from ...sockets.opening import open_socket
from .blueprint import this_app, to_flask


def websocket(
    bus: Servable,
    talk: Talk | None,
    on_open: Talk | None,
    on_message: OnMessage | None,
    on_close: Talk | None,
    allowed_origins: Sequence[str | re.Pattern[str]] | None,
    subprotocols: Sequence[str],
) -> Response:
    """See ``Bus.websocket``."""
    if (talk is None) is (on_message is None):
        raise TypeError("websocket: expected talk, or on_message; and not both")
    if talk is not None and (on_open is not None or on_close is not None):
        raise TypeError("websocket: on_open and on_close go with on_message; a talk begins and ends by itself")
    _check_functions(talk=talk, on_open=on_open, on_message=on_message, on_close=on_close)
    if isinstance(subprotocols, str):
        raise TypeError("subprotocols: expected a list of names")
    origins = None if allowed_origins is None else _check_origins(allowed_origins)
    try:
        node = bus._running_node()
    except BusClosed:  # the server is shutting down, and the client had kept its connection
        return to_flask(refuse(request, bus.options, unavailable("the server is shutting down, come back")))
    where = f"the socket of {request.path}"
    functions = Functions(talk, on_open, on_message, on_close, this_app().app_context, where)
    return to_flask(open_socket(node, request, functions, origins, subprotocols))


def _check_functions(**given: object) -> None:
    for name, function in given.items():
        if function is None:
            continue
        if not callable(function):
            raise TypeError(f"{name}: expected a function, not {function!r:.80}")
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{name}: expected a plain function; there is no event loop that an async one could run in")


def _check_origins(allowed: Sequence[str | re.Pattern[str]]) -> tuple[str | re.Pattern[str], ...]:
    try:
        checked: tuple[str | re.Pattern[str], ...] = Origins().check(
            allowed if isinstance(allowed, str) else (*allowed,)
        )
    except ValueError as error:
        raise InvalidOption("allowed_origins", str(error)) from None
    return checked
