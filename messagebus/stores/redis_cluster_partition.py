"""One partition of a bus on a Redis Cluster: what a whole store is on one Redis, on the node that has its slot now.

It knows local ids alone, and no other partition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis

from ..codecs import Codec
from ..errors import BackendUnavailable
from ..options import Options
from .advice import redis_cluster_commands, redis_cluster_rights
from .channel_sequencer import Snapshot
from .hash_tags import hash_tags, slot_of
from .redis import RedisStore
from .redis_cluster_nodes import ClusterNodes, Moved, translate
from .redis_connection import Connections, Meaning
from .redis_scripts import PUBLISH, RENEW_EPOCH, RENEW_HISTORY, RIGHTS, Script

_SHARDED_PUBLISH, _SHARDED_RENEW_EPOCH = PUBLISH.sharded(), RENEW_EPOCH.sharded()
_SHARDED_RENEW_HISTORY = RENEW_HISTORY.sharded()
T = TypeVar("T")
_ELSEWHERE = ("gone", "read-only", "busy")
"""Reasons for which it is asked again which node has the slot."""


class Partition(RedisStore):
    """See the module. Each method may raise ``Moved``: then it has done nothing, and may be called again."""

    publish_script = _SHARDED_PUBLISH
    renew_epoch_script = _SHARDED_RENEW_EPOCH
    renew_history_script = _SHARDED_RENEW_HISTORY

    def __init__(self, options: Options, nodes: ClusterNodes, number: int) -> None:
        """``nodes``: closed by whoever made them."""
        self.nodes = nodes
        self.number = number
        self.tag = hash_tags(nodes.url.partitions)[number]
        self.slot = slot_of(self.tag)
        super().__init__(options, None, self.tag)
        self.by_channel = True

    def _find_server(self) -> None:
        self._connection = self.nodes.url.connection_class, self.nodes.url.arguments
        self.where = f"{self.nodes.url.where} partition {self.number}"

    def _connected(self) -> Connections:
        return self.nodes.connections(self.slot)

    def _explain(self, error: Exception) -> Meaning:
        meaning = translate(error, self.where)
        if isinstance(meaning, Moved):
            self.nodes.left(self.slot, meaning.to)
        elif isinstance(meaning, BackendUnavailable) and meaning.reason in _ELSEWHERE:
            self.nodes.failed(self.slot)
        return meaning

    explain = _explain

    def run(self, script: Script, arguments: Sequence[Any]) -> Any:
        """Run a script; raises what redis-py raises."""
        return self._run(script, arguments)

    @property
    def common_channel(self) -> bytes:
        """The shard channel on which all messages of the partition are announced."""
        return self._pubsub_channel

    @property
    def epoch_channel(self) -> bytes:
        """The shard channel on which another epoch of the partition is announced."""
        return self.own_prefix + b"/__epoch"

    @property
    def codec(self) -> Codec | None:
        return self._options.transport_codec

    @property
    def announcements(self) -> bytes:
        return self._announcements

    def snapshot_keys(self, channels: Sequence[bytes]) -> list[bytes]:
        return [self.keys.global_id, self.keys.epoch, *[self.keys.backlog_id + channel for channel in channels]]

    def snapshot(self, channels: Sequence[bytes], values: Sequence[bytes | None]) -> tuple[Snapshot, bool]:
        global_id, epoch, *last_ids = values
        # On a cluster everybody announces by channel.
        return super().snapshot(channels, (global_id, epoch, None, None, *last_ids))

    def _refused(self) -> list[str]:
        channels = (self._pubsub_channel, self._announcements, self.own_prefix + b"/")
        refused = self._run(RIGHTS, (1, self.keys.backlog + b"/", *channels, *redis_cluster_commands(), *self.waits))
        return [command.decode() for command in refused]

    def rights(self) -> str:
        rights = redis_cluster_rights(self._announcements.decode(errors="replace"))
        return " ".join([rights, *[f"+{each}" for each in self.waits]])

    def call(self, command: tuple[Any, ...]) -> Any:
        """Run a command on the node that has the partition."""
        with self._errors():
            return self._connected().call(command)

    def translated(self, call: Callable[[], T]) -> T:
        """Call something that may raise an error of redis-py, and translate that."""
        try:
            return call()
        except (redis.RedisError, OSError) as error:
            raise self._explain(error) from error

    def delete_fixed(self, *, ids: bool) -> None:
        """Delete the keys that belong to no channel; ``ids``: those as well that say what comes next."""
        keys = [self.keys.global_backlog]
        if ids:
            keys = [
                *(self.keys.global_id, self.keys.epoch, self.keys.global_backlog, self.keys.known),
                *(self.keys.announced, self.keys.others, self.keys.workers, self.keys.reports),
                *(self.keys.history, self.keys.lineage),
            ]
        self.call((b"DEL", *keys))
