"""A durable message bus between Python processes and web pages.

:data:`MessageBus` is the process's ready-made bus; whoever needs more makes them with :class:`Bus`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .bus import Bus, MessageBus
from .errors import (
    BackendUnavailable,
    BusClosed,
    InvalidChannel,
    InvalidData,
    InvalidOption,
    InvalidPosition,
    InvalidSite,
    InvalidTargets,
    MessageBusError,
    MessageTooLarge,
    PublishQueueFull,
    PublishRefused,
)
from .message import Message
from .options import Options

if TYPE_CHECKING:
    from .client import AsyncClient, Client
    from .distributed_cache import DistributedCache
    from .publishing.arguments import PublishOptions

__all__ = [
    "AsyncClient",
    "BackendUnavailable",
    "Bus",
    "BusClosed",
    "Client",
    "DistributedCache",
    "InvalidChannel",
    "InvalidData",
    "InvalidOption",
    "InvalidPosition",
    "InvalidSite",
    "InvalidTargets",
    "Message",
    "MessageBus",
    "MessageBusError",
    "MessageTooLarge",
    "Options",
    "PublishOptions",
    "PublishQueueFull",
    "PublishRefused",
]

__version__ = "0.1.0"


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
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
