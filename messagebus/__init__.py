"""A durable message bus between Python processes and web pages.

:data:`MessageBus` is the process's ready-made bus; whoever needs more makes them with :class:`Bus`.
"""

from __future__ import annotations

from .bus import Bus
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
)
from .message import Message
from .options import Options

__all__ = [
    "BackendUnavailable",
    "Bus",
    "BusClosed",
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
    "PublishQueueFull",
]

__version__ = "0.1.0"

MessageBus = Bus()
