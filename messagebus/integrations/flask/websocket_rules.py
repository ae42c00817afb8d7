"""Says why Flask refuses a WebSocket: to Werkzeug, a rule is for requests that ask for one, or for the others."""

from __future__ import annotations

import logging

from flask import Request

logger = logging.getLogger("messagebus.http")

MOST_TOLD = 20
"""Paths that are told of; each once. They are the client's to choose, where a rule has variables."""
_told: set[str] = set()


def explain_mismatch(request: Request) -> None:
    """A request matches a rule of the other kind, and is about to be answered with 400."""
    if request.path in _told or len(_told) >= MOST_TOLD:
        return
    _told.add(request.path)
    if request.headers.get("Upgrade", "").lower() == "websocket":
        logger.warning(
            "a WebSocket to %.200r was refused with 400: Werkzeug matches it to no rule that is for plain requests. "
            "Write @app.get(..., websocket=True) for a view that returns MessageBus.websocket(...)",
            request.path,
        )
    else:
        logger.warning(
            "a request to %.200r was refused with 400: its rule has websocket=True, and the request has no "
            "'Upgrade: websocket'; a proxy may have taken it away",
            request.path,
        )
