"""An app that refuses channels in all the ways there are."""

from __future__ import annotations

import threading

from flask import abort
from werkzeug.wrappers import Request

from messagebus import BackendUnavailable, MessageBus

from .contract import app

__all__ = ["app"]

hurry = threading.Event()

MessageBus.configure(protected_channels=("/private-*",), secret_key="a secret for tests", max_channels=5)


@MessageBus.authorize("/never-*")
def never(request: Request, channel: str) -> bool:
    return False


@MessageBus.authorize("/broken-*")
def broken(request: Request, channel: str) -> bool:
    raise LookupError("a mistake in a hook")


@MessageBus.authorize("/aborted-*")
def aborted(request: Request, channel: str) -> bool:
    abort(403, "log in first")


@MessageBus.authorize("/away-*")
def away(request: Request, channel: str) -> bool:
    raise BackendUnavailable("the hook's own store")


@MessageBus.authorize("/slow-*")
def slow(request: Request, channel: str) -> bool:
    """Slow until it is told to hurry."""
    return hurry.wait(60)


@app.post("/hurry")
def end_slowness() -> str:
    hurry.set()
    return "it hurries"
