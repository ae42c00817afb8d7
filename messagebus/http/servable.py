"""What an adapter to a web framework needs of a bus, which it must not import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..hub.node import Node
from ..hub.permissions import Access
from ..hub.seen import Seen
from ..options import Options


class Servable(Protocol):
    """The interface of a bus for adapters. The underscored names are private to this package."""

    _access: Access

    @property
    def options(self) -> Options:
        """The settings in force."""

    def configure_app(self, config: Mapping[str, Any], dumps: Callable[[Any], str] | None = None) -> None:
        """Take the settings of an app."""

    def seen(self) -> Seen | None:
        """How far this process has received the store's messages."""

    def _running_node(self) -> Node:
        """The listening side, made on first use. Raises ``BusClosed``."""
