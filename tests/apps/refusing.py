"""An app that refuses channels in all the ways there are."""

from __future__ import annotations

import time

from flask import abort
from werkzeug.wrappers import Request

from messagebus import BackendUnavailable, MessageBus

from .contract import app

__all__ = ["app"]

SLOW_SECONDS = 2.0

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
    time.sleep(SLOW_SECONDS)
    return True
