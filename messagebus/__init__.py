"""A durable message bus between Python processes and web pages.

:data:`MessageBus` is a ready-made bus for the process. :class:`Bus` makes further ones.
"""

from __future__ import annotations

import glob
import os
import warnings
from typing import TYPE_CHECKING, Any

from .bus import Bus, MessageBus
from .cable.channel import Channel
from .errors import (
    BackendUnavailable,
    BusClosed,
    ConnectionClosed,
    InvalidChannel,
    InvalidData,
    InvalidMember,
    InvalidOption,
    InvalidPosition,
    InvalidSite,
    InvalidTargets,
    MessageBusError,
    MessageTooLarge,
    NotDurable,
    PresenceFull,
    PublishQueueFull,
    PublishRefused,
)
from .message import Message
from .options import Options
from .presence.member import Member

if TYPE_CHECKING:
    from .client import AsyncClient, Client
    from .distributed_cache import DistributedCache
    from .publishing.arguments import PublishOptions
    from .sockets.websocket import WebSocket

__all__ = [
    "AsyncClient",
    "BackendUnavailable",
    "Bus",
    "BusClosed",
    "Channel",
    "Client",
    "ConnectionClosed",
    "DistributedCache",
    "InvalidChannel",
    "InvalidData",
    "InvalidMember",
    "InvalidOption",
    "InvalidPosition",
    "InvalidSite",
    "InvalidTargets",
    "Member",
    "Message",
    "MessageBus",
    "MessageBusError",
    "MessageTooLarge",
    "NotDurable",
    "Options",
    "PresenceFull",
    "PublishOptions",
    "PublishQueueFull",
    "PublishRefused",
    "WebSocket",
]

__version__ = "0.1.0"


def _look_for_namesake() -> None:
    """Warn if another package with the same import name is installed in the same place: each overwrites the other."""
    here = os.path.dirname(os.path.dirname(__file__))
    for found in glob.glob(os.path.join(glob.escape(here), "messagebus-*.*-info")):
        name = os.path.basename(found).rpartition(".")[0]
        warnings.warn(
            f"{name} is installed beside flask-messagebus. It is another project's package, and the two overwrite each "
            "other's files: pip uninstall messagebus, then pip install --force-reinstall --no-deps flask-messagebus",
            stacklevel=3,
        )


_look_for_namesake()


def __getattr__(name: str) -> Any:
    # It brings ssl along, which must not be imported before an app has called gevent's patching.
    if name in ("AsyncClient", "Client"):
        from . import client

        return getattr(client, name)
    if name == "DistributedCache":
        from .distributed_cache import DistributedCache

        return DistributedCache
    if name == "PublishOptions":
        from .publishing.arguments import PublishOptions

        return PublishOptions
    if name == "WebSocket":
        from .sockets.websocket import WebSocket

        return WebSocket
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
