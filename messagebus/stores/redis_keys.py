"""The names of the keys in Redis. Other programs know them, so they never change; docs/redis.md lists them."""

from __future__ import annotations

from functools import lru_cache

from ..names import PIPE_ESCAPE
from .base import ids_age

ChannelArguments = tuple[tuple[bytes, bytes], tuple[bytes, bytes, int, int, int]]


class RedisKeys:
    """The names of the keys of one store. ``prefix``: what all of them begin with."""

    def __init__(self, prefix: bytes = b"") -> None:
        self.global_id = prefix + b"__mb_global_id_n"
        self.global_backlog = prefix + b"__mb_global_backlog_n"
        self.epoch = prefix + b"__mb_epoch"
        self.history = prefix + b"__mb_history"
        self.lineage = prefix + b"__mb_lineage"
        self.known = prefix + b"__mb_known_channels"
        self.workers = prefix + b"__mb_workers"
        self.reports = prefix + b"__mb_reports"
        self.announced = prefix + b"__mb_announced_id"
        self.others = prefix + b"__mb_announced_by_others"
        self.backlog_id = prefix + b"__mb_backlog_id_n_"
        """What the key of a channel's last id begins with; the channel's name follows."""
        self.backlog = prefix + b"__mb_backlog_n_"
        """The same of its backlog."""
        self.backlogs = prefix + b"__mb_backlog_*"
        """A pattern for all keys of channels."""
        self.publication = prefix + b"__mb_publication_"
        """What the key of a publication's record begins with."""
        self.of_channel = lru_cache(maxsize=4096)(self._of_channel)
        """See :meth:`_of_channel`. Remembered, as every publish asks it."""

    def _of_channel(self, name: str, size: int, age: int) -> ChannelArguments:
        """The arguments of ``publish.lua`` for a channel: its keys; its name, as in key names and as in stored
        messages; how much is kept, and for how long."""
        key = name.encode()
        stored_name = name.replace("|", PIPE_ESCAPE).encode()
        return (self.backlog_id + key, self.backlog + key), (key, stored_name, age, ids_age(age), size)
