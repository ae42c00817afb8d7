"""The app of the transports' stories on a store with partitions."""

from __future__ import annotations

from ..partitioned import PARTITIONS, stores_of

_stores = stores_of(PARTITIONS)  # kept, for as long as the process lives
_stores.__enter__()

from .contract import app  # noqa: E402

__all__ = ["app"]
