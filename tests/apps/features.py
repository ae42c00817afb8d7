"""The app with rooms, with users and groups that messages may be for."""

from __future__ import annotations

from messagebus import MessageBus
from messagebus.cable import times
from messagebus.options import Environ

from .rooms import app

__all__ = ["app"]


def groups(environ: Environ) -> list[str]:
    return str(environ.get("HTTP_X_GROUPS", "")).split()


times.EVERY, times.LEARNS_EVERY = 0.1, 1  # a client that names a moment is not to wait long
MessageBus.configure(user_id_lookup=lambda environ: environ.get("HTTP_X_USER"), group_ids_lookup=groups)
