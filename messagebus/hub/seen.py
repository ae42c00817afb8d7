"""How far a process had received the store's messages at one moment. A value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..stores.partitions import partition_of
from .epochs import Epochs


class Seen:
    """See the module. What is asked for by a name is of that channel's partition of the store."""

    def __init__(self, global_ids: Sequence[int], epochs: Epochs) -> None:
        """Of each partition."""
        self._global_ids = (*global_ids,)
        self._epochs = epochs.copy()

    @property
    def partitions(self) -> int:
        """How many the store has."""
        return len(self._global_ids)

    @property
    def global_id(self) -> int:
        """The last global id.

        Raises:
            ValueError: The store has several partitions, each of which has its own: see :meth:`global_id_of`.
        """
        if len(self._global_ids) > 1:
            raise ValueError(f"the store has {len(self._global_ids)} partitions, each of which has its own global ids")
        return self._global_ids[0]

    @property
    def epoch(self) -> str | None:
        """The epoch of a store with one partition, ``None`` otherwise: see :meth:`epoch_of`."""
        return self._epochs[0] if len(self._global_ids) == 1 else None

    def global_id_of(self, name: str) -> int:
        """The last global id before what is to come on a channel, by its stored name."""
        return self._global_ids[partition_of(name, len(self._global_ids))]

    def epoch_of(self, names: Iterable[str]) -> str | None:
        """The epoch that a client with these channels is to know, by their stored names."""
        number = len(self._global_ids)
        return self._epochs.text([partition_of(name, number) for name in names])
