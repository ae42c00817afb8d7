"""What an adapter to a web framework needs of a bus. The bus stands behind the adapters, which must not import it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..hub.node import Node
from ..hub.permissions import Access
from ..options import Options
from ..stores import StoreState


class Servable(Protocol):
    """A bus, as an adapter sees it. The underscored names are private to this package."""

    _access: Access

    @property
    def options(self) -> Options:
        """The settings in force."""

    def configure_app(self, config: Mapping[str, Any], dumps: Callable[[Any], str] | None = None) -> None:
        """Take the settings of an app."""

    def seen(self) -> StoreState | None:
        """How far this process has heard its store."""

    def _running_node(self) -> Node:
        """What listens, which begins with its first use. Raises ``BusClosed``."""
