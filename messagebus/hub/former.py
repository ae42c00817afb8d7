"""The life of a partition that is over, as far as readers have to know who come back with the id of an event.

A browser's own EventSource names no epoch, so that nobody could tell later of which life its last id is: by then the
ids that were lost have been given again. So before it is sent back it is told another one. In the loop only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..stores import StoreState
from ..transports import Transport
from ..transports.base import EMPTY_BATCH
from ..transports.event_ids import EventId, Reached, id_of_nowhere
from .subscriber import Phase, Subscriber
from .windows import Windows


class Former(NamedTuple):
    """See the module."""

    windows: Windows
    partition: int
    shared: int | None
    """Up to which global id the next life has what readers have who were live; ``None``: it is not another life."""

    @classmethod
    def of(cls, windows: Windows, state: StoreState) -> Former:
        """Before the windows come to this state."""
        partition = state.global_id % windows.partitions
        epoch = windows.epochs[partition]
        if epoch is None or state.epoch == epoch:
            return cls(windows, partition, None)
        shared = state.lineage.get(epoch)
        if shared is None:
            return cls(windows, partition, id_of_nowhere(partition, windows.partitions))
        return cls(windows, partition, min(shared, windows.reached[partition]))

    def tell_where_to_go_on(self, readers: Iterable[Subscriber]) -> None:
        """Give those that have ids of events one that still holds, or that nobody can take for one."""
        if self.shared is None:
            return
        encoded: dict[tuple[Transport, bool], bytes] = {}
        for reader in readers:
            transport, is_live = reader.transport, reader.catch_up is None
            if not transport.has_event_ids or reader.state is not Phase.OPEN:
                continue
            data = encoded.get((transport, is_live))
            if data is None:
                event_id = self.shared if is_live else self._nowhere(reader)
                data = encoded[transport, is_live] = transport.encode(EMPTY_BATCH, event_id)
            reader.put(data)

    def _nowhere(self, reader: Subscriber) -> EventId:
        """Of one that catches up, and is elsewhere in each partition than those that are live."""
        number = self.windows.partitions
        partitions = self.windows.partitions_of(reader.followed) if number > 1 else ()
        if len(partitions) < 2:
            return id_of_nowhere(self.partition, number)
        return Reached({each: id_of_nowhere(each, number) for each in partitions}, {})
