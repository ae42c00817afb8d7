"""The gate between the feed of one partition and its listener: local ids on this side, global ids on that."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from ..message import Message
from .base import Listener, StoreState, Trace
from .partitions import decode_id, encode_id
from .sequencer import Gate


class PartitionGate(Gate):
    """See the module; otherwise like ``Gate``."""

    def __init__(self, listener: Listener, partition: int, partitions: int) -> None:
        super().__init__(listener)
        self._partition = partition
        self._partitions = partitions

    def started(self, state: StoreState) -> None:
        super().started(self._encode(state))

    def received(self, messages: Sequence[Message]) -> None:
        if self._partitions > 1:
            messages = list(map(copy, messages))  # the feed keeps some, as they are
            partition, partitions = self._partition, self._partitions
            for message in messages:
                message.global_id = message.global_id * partitions + partition  # encode_id, without the call
        super().received(messages)

    def resync(self, state: StoreState) -> None:
        super().resync(self._encode(state))

    def renewed(self, state: StoreState) -> None:
        super().renewed(self._encode(state))

    def healthy(self, healthy: bool, partition: int = 0) -> None:
        super().healthy(healthy, self._partition)

    def caught_up(self, global_id: int, wanted: Sequence[tuple[str, object]]) -> None:
        super().caught_up(encode_id(global_id, self._partition, self._partitions), wanted)

    def newest(self) -> Sequence[Trace]:
        own = []
        for trace in super().newest():
            local, partition = decode_id(trace.global_id, self._partitions)
            if partition == self._partition:
                own.append(trace._replace(global_id=local))
        return own

    def _encode(self, state: StoreState) -> StoreState:
        return state.encoded(self._partition, self._partitions)
