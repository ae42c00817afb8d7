"""What is read from Redis: backlogs, ids, the state."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..message import Message
from .base import MAX_MESSAGES, BacklogPage, BacklogQuery, ChannelPage, StoreState, Trace
from .channel_sequencer import Snapshot
from .redis_access import RedisAccess
from .redis_history import read_lineage
from .redis_scripts import BACKLOGS
from .sequencer import Entry, Unreadable, decode_entry

logger = logging.getLogger("messagebus.stores")

SCANS_FOR_A_PAGE = 20
"""Times that a page of channels looks at a thousand of the database's keys, at most."""

CHANNELS_AT_ONCE = 100
"""Channels whose backlogs are read in one step."""


class RedisReading(RedisAccess):
    """The store's methods that change nothing.

    Other programs may have written anything: what cannot be decoded is logged and skipped."""

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        if not queries:
            return []
        with self._errors():
            answers = self._run(BACKLOGS, self.backlogs_arguments(queries, max_bytes))
        return self.pages_of(answers)

    def backlogs_arguments(self, queries: Sequence[BacklogQuery], max_bytes: int) -> tuple[Any, ...]:
        """What ``backlogs.lua`` is called with."""
        names = [query.name.encode() for query in queries]
        keys = [key for name in names for key in (self.keys.backlog_id + name, self.keys.backlog + name)]
        return (1 + len(keys), self.keys.epoch, *keys, max_bytes, *[query.after for query in queries])

    def pages_of(self, answers: Any) -> list[BacklogPage]:
        """The pages, from the answer of ``backlogs.lua``."""
        pages = []
        epoch = None if answers[0] is None else answers[0].decode()
        for after, through, last_id, first_id, milliseconds, stored in answers[1:]:
            entries = [decode_entry(each, self._options.transport_codec) for each in stored]
            messages = [entry for entry in entries if isinstance(entry, Message)]
            expires_in = milliseconds / 1000 if milliseconds >= 0 else math.inf
            pages.append(BacklogPage(messages, after, through, last_id, first_id, expires_in, epoch))
        return pages

    def last_ids(self, names: Sequence[str]) -> list[int]:
        if not names:
            return []
        keys = [name.encode() for name in names]
        with self._errors():
            values = self._client().mget([self.keys.backlog_id + key for key in keys])
            # A counter may have been lost while messages are kept; the next publish makes it again from these.
            lost = [number for number, value in enumerate(values) if value is None]
            if lost:
                with self._client().pipeline(transaction=False) as pipeline:
                    for number in lost:
                        pipeline.zrange(self.keys.backlog + keys[number], -1, -1, withscores=True)
                    for number, newest in zip(lost, pipeline.execute(), strict=True):
                        values[number] = newest[0][1] if newest else 0
        return [int(value) for value in values]

    def global_backlog(self, after: int = 0) -> list[Message]:
        return [entry for entry in self.entries(after) if isinstance(entry, Message)]

    def entries(self, after: int) -> list[Entry]:
        """The global backlog after a global id, with stand-ins for what cannot be decoded. For the feed."""
        pointers: list[tuple[int, bytes | None]] = []  # global id, name; None: not a pointer
        wanted: dict[bytes, tuple[int, int]] = {}  # name -> the first and the last message id
        with self._errors():
            members = self._client().zrangebyscore(self.keys.global_backlog, f"({after}", "+inf", withscores=True)
            for member, score in members:
                number, _, name = member.partition(b"|")
                try:
                    message_id = int(number)
                except ValueError:
                    logger.warning("global message %d: not a pointer to a message: %.100r", score, member)
                    pointers.append((int(score), None))
                    continue
                pointers.append((int(score), name))
                first, last = wanted.get(name, (message_id, message_id))
                wanted[name] = min(first, message_id), max(last, message_id)
            with self._client().pipeline(transaction=False) as pipeline:
                for name, (first, last) in wanted.items():
                    pipeline.zrangebyscore(self.keys.backlog + name, first, last)
                results = pipeline.execute(raise_on_error=False)
            unreadable: set[bytes | None] = {None}
            found: dict[int, Entry] = {}
            for name, result in zip(wanted, results, strict=True):
                if isinstance(result, Exception):
                    if "WRONGTYPE" not in str(result):
                        raise result
                    logger.warning("the backlog of %.100r is not a sorted set", name)
                    unreadable.add(name)
                    continue
                for stored in result:
                    entry = decode_entry(stored, self._options.transport_codec)
                    if entry is not None:
                        found[entry.global_id] = entry
        # By global id, not by the pointer's message id: where a channel's ids began again, an old pointer leads to a
        # newer message.
        for global_id, name in pointers:
            if name in unreadable:
                found[global_id] = Unreadable(global_id)
        return [found[global_id] for global_id, _ in pointers if global_id in found]

    def state(self, partition: int = 0) -> StoreState:
        with self._errors():
            return self._state_of(self._connected().call(self._state_command))

    @property
    def _state_command(self) -> tuple[bytes, ...]:
        keys = self.keys
        return b"MGET", keys.epoch, keys.history, keys.lineage, keys.global_id

    @staticmethod
    def _state_of(values: Sequence[bytes | None]) -> StoreState:
        name, _, lineage, global_id = values
        epoch = name.decode(errors="replace") if name else None
        return StoreState(int(global_id or 0), epoch, read_lineage(lineage, epoch))

    def snapshot_keys(self, channels: Sequence[bytes]) -> list[bytes]:
        """What a snapshot is read from. For the feed that hears by channel, as the next two."""
        return [
            self.keys.global_id,
            self.keys.epoch,
            self.keys.announced,
            self.keys.others,
            *[self.keys.backlog_id + channel for channel in channels],
        ]

    def snapshot(self, channels: Sequence[bytes], values: Sequence[bytes | None]) -> tuple[Snapshot, bool]:
        """The snapshot, and whether messages were not announced by channel."""
        global_id, epoch, announced, others, *last_ids = values
        ids = {channel: int(value) if value else None for channel, value in zip(channels, last_ids, strict=True)}
        snapshot = Snapshot(int(global_id or 0), epoch.decode(errors="replace") if epoch else None, ids)
        return snapshot, others is not None or (None not in (announced, global_id) and announced != global_id)

    def pages(self, after: Mapping[bytes, int]) -> dict[bytes, BacklogPage]:
        """The backlogs of channels after a message id, each as far as it goes."""
        found: dict[bytes, BacklogPage] = {}
        channels = list(after)
        for begin in range(0, len(channels), CHANNELS_AT_ONCE):
            some = channels[begin : begin + CHANNELS_AT_ONCE]
            queries = [BacklogQuery(channel.decode(), after[channel]) for channel in some]
            found |= zip(some, self.backlogs(queries, 1 << 53), strict=True)
        return found

    def contradicts(self, traces: Sequence[Trace]) -> bool:
        """Whether another message is stored in the place of one of these. For the feed."""
        with self._errors():
            for begin in range(0, len(traces), MAX_MESSAGES):
                chunk = traces[begin : begin + MAX_MESSAGES]
                with self._client().pipeline(transaction=False) as pipeline:
                    for trace in chunk:
                        key = trace.name.encode()
                        pipeline.zrangebyscore(self.keys.global_backlog, trace.global_id, trace.global_id)
                        pipeline.zrangebyscore(self.keys.backlog + key, trace.message_id, trace.message_id)
                        pipeline.get(self.keys.backlog_id + key)
                    answers = iter(pipeline.execute(raise_on_error=False))
                for trace, *found in zip(chunk, answers, answers, answers, strict=True):
                    if not any(isinstance(answer, Exception) for answer in found) and self._contradicts(trace, *found):
                        return True
        return False

    def _contradicts(self, trace: Trace, pointers: list[bytes], stored: list[bytes], last_id: bytes | None) -> bool:
        if pointers and b"%d|%b" % (trace.message_id, trace.name.encode()) not in pointers:
            return True
        entries = [decode_entry(each, self._options.transport_codec) for each in stored]
        if entries and not any(isinstance(entry, Message) and Trace.of(entry) == trace for entry in entries):
            return True
        return last_id is not None and int(last_id) < trace.message_id

    def channels(self, cursor: str = "", limit: int = 1000) -> ChannelPage:
        if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 20 and int(cursor) < 2**64):
            raise ValueError(f"expected a page's cursor, not {cursor!r:.80}")
        position, names = int(cursor or 0), []
        with self._errors():
            # SCAN looks at other programs' keys as well: where those are many, a page has few names or none.
            for _ in range(SCANS_FOR_A_PAGE):
                position, keys = self._client().scan(position, match=self.keys.backlog + b"*", count=1000)
                names += [key[len(self.keys.backlog) :].decode(errors="replace") for key in keys]
                if not position or len(names) >= limit:
                    break
        return ChannelPage(names, str(position or ""))
