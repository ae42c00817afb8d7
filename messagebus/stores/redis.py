"""The store in Redis: what it writes, and its feeds (``redis_feed``). The atomic write is ``publish.lua``.

The layout of the keys is shared with other programs. Needs Redis 6.2 or newer; all keys must be on one server, so a
Redis Cluster does not work.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import redis

from ..errors import BackendUnavailable
from ..message import Ids
from ..options import Options
from .base import REMEMBERED, REPORT_LEASE, Listener, Publication, PublicationId, Store, StoreState
from .interest import Interest
from .redis_access import Call
from .redis_channel_feed import RedisChannelFeed
from .redis_connection import Exchange
from .redis_feed import RedisFeed
from .redis_history import UNKNOWN
from .redis_reading import RedisReading
from .redis_scripts import REPORT, REPORTS
from .redis_setup import RedisSetup
from .sentinel import Primary
from .sequencer import EPOCH_CHANGED

logger = logging.getLogger("messagebus.stores")


class RedisStore(RedisReading, RedisSetup, Store):
    """Keeps messages in the Redis of ``options.url``; processes that share its database share the bus.

    Raises:
        InvalidOption: The URL is malformed.
    """

    shared = True

    def __init__(self, options: Options, primary: Primary | None = None, prefix: bytes = b"") -> None:
        """The parameters are those of ``RedisAccess``."""
        super().__init__(options, primary, prefix)
        self._when_back: list[Callable[[], None]] = []
        if self._primary is not None and self._owns_primary:
            self._primary.moved = self._go_elsewhere
        self._arguments = (options.max_global_backlog_size, options.clear_every, self._pubsub_channel)

    def _clear(self) -> None:
        super()._clear()
        # Together another epoch for each publish: it must differ from the one of before a reset. To ask for random
        # numbers each time would let another thread in each time.
        self._epoch_prefix = secrets.token_hex(8)
        self._epoch_numbers = count()
        self._feeds: list[RedisFeed] = []

    def _go_elsewhere(self, primary: tuple[str, int]) -> None:
        """Another server is the primary: leave the one that was, at once."""
        with self._lock:
            feeds = list(self._feeds)
        self.break_off(primary)
        for feed in feeds:
            feed.go_elsewhere(primary)
        for call in self._when_back:
            call()

    def when_back(self, call: Callable[[], None]) -> None:
        self._when_back.append(call)

    def publish_many(
        self,
        messages: Sequence[Publication],
        publication_id: PublicationId | None = None,
        *,
        call: Call | None = None,
    ) -> list[Ids]:
        """``call``: sends the script's command, in place of ``Connections.call``."""
        if not messages:
            return []
        try:
            answer = self._run(self.publish_script, self.publish_arguments(messages, publication_id), call)
        except (redis.RedisError, OSError) as error:
            raise self._explain(error) from error
        return self.ids_of(messages, answer)

    def publish_durably(
        self, messages: Sequence[Publication], publication_id: PublicationId, replicas: int
    ) -> tuple[list[Ids], int]:
        self._check_may_wait()
        connections = self._connected()
        milliseconds = max(int(self._options.store_timeout * 500), 1)
        reached = 0

        def call(command: tuple[Any, ...], exchange: Exchange | None) -> Any:
            nonlocal reached
            answer, reached = connections.call_durably(command, replicas, milliseconds, exchange)
            return answer

        return self.publish_many(messages, publication_id, call=call), reached

    def publish_arguments(
        self, messages: Sequence[Publication], publication_id: PublicationId | None
    ) -> tuple[Any, ...]:
        """What ``publish.lua`` is called with for messages, one at least."""
        keys: Sequence[bytes]
        arguments: Sequence[Any]
        if len(messages) == 1:
            ((name, envelope, size, age),) = messages
            keys, of_channel = self.keys.of_channel(name, size, age)
            arguments = (*of_channel, 1, envelope)
        else:
            keys, arguments = self._arguments_of_many(messages)
        record, sequence, seconds = self.keys.epoch, 0, 0
        if publication_id is not None:
            record, sequence = self.keys.publication + publication_id.record.encode(), publication_id.sequence
            seconds = REMEMBERED
        # An epoch, in case the store has none: a new one each time.
        epoch = f"{self._epoch_prefix}{next(self._epoch_numbers):x}"
        every = (
            self.keys.global_id,
            self.keys.global_backlog,
            self.keys.epoch,
            self.keys.known,
            record,
            self.keys.announced,
            self.keys.others,
            self.keys.history,
        )
        of_store = (*self._arguments, epoch, sequence, seconds, self.own_prefix if self.by_channel else b"", UNKNOWN)
        return (len(every) + len(keys), *every, *keys, *of_store, *arguments)

    def _arguments_of_many(self, messages: Sequence[Publication]) -> tuple[list[bytes], list[Any]]:
        limits = {name: (size, age) for name, _, size, age in messages}
        numbers = {name: number for number, name in enumerate(limits, 1)}
        all_keys: list[bytes] = []
        all_arguments: list[Any] = []
        for name, (size, age) in limits.items():
            keys, arguments = self.keys.of_channel(name, size, age)
            all_keys += keys
            all_arguments += arguments
        for name, envelope, _, _ in messages:
            all_arguments += (numbers[name], envelope)
        return all_keys, all_arguments

    def ids_of(self, messages: Sequence[Publication], answer: bytes) -> list[Ids]:
        """The ids of messages, from the answer of ``publish.lua``."""
        _, global_id, *first_ids = map(int, answer.split(b"|"))
        if len(messages) == 1:
            return [Ids(first_ids[0], global_id)]
        next_ids = dict(zip(dict.fromkeys([message.name for message in messages]), first_ids, strict=True))
        ids = []
        for name, _, _, _ in messages:
            message_id = next_ids[name]
            next_ids[name] = message_id + 1
            ids.append(Ids(message_id, global_id))
            global_id += 1
        return ids

    def named_state(self) -> StoreState:
        """Like ``state``, but gives a store another epoch where its server may have less than was said of it, and a
        store without an epoch one. For the feed."""
        state = self._checked_state()
        if state.epoch is not None:
            return state
        try:
            with self._errors():
                self._client().set(self.keys.epoch, secrets.token_hex(8), nx=True)
        except BackendUnavailable:
            return state  # read-only: the feed works without
        return self._checked_state()

    def _checked_state(self) -> StoreState:
        try:
            with self._errors():
                return self._state_of(self._connected().call(self._state_command, self._history.read))
        except BackendUnavailable as error:
            if error.reason != "read-only":
                raise
            return self.state()  # a replica: its primary's processes see to it

    def renew_epoch(self, epoch: str | None, partition: int = 0) -> StoreState:
        before = self.named_state()
        if before.epoch != epoch:
            return before  # another process, or the server's new history, was the first
        new = secrets.token_hex(8)
        keys = (self.keys.epoch, self.keys.global_id, self.keys.known, self.keys.announced)
        own = self.own_prefix + b"/__epoch"
        arguments = (len(keys), *keys, epoch or "", new, self._pubsub_channel, EPOCH_CHANGED, own)
        try:
            with self._errors():
                global_id, now = self._run(self.renew_epoch_script, arguments)
        except BackendUnavailable as error:
            if error.reason != "read-only":
                raise
            return self.state()  # a replica: its primary's processes see to it
        if now.decode() == new:
            logger.warning("Redis at %s has gone back, and is given another epoch", self.where)
            return StoreState(int(global_id), new)
        return self.state()

    def listen(self, listener: Listener, interest: Interest | None = None) -> RedisFeed:
        # With a connection of its own for what it asks: however busy the others are, it goes on.
        source = RedisStore(self._options, self._primary)
        settings: dict[str, Any] = {
            "connect": lambda: self._connection[0](**self._connection[1]),
            "channel": self._pubsub_channel,
            "announcements": self._announcements,
            "where": self.where,
            "timeout": self._options.store_timeout,
            "codec": self._options.transport_codec,
        }
        if self.by_channel and interest is not None and not interest.everything:
            feed: RedisFeed = RedisChannelFeed(source, listener, interest, **settings)
        else:
            feed = RedisFeed(source, listener, **settings)
        self._connected()  # raises where the store was closed
        with self._lock:
            self._feeds = [other for other in self._feeds if not other.closed] + [feed]
        feed.start()
        return feed

    def announce(self, text: str) -> None:
        with self._errors():
            self._connected().call((b"PUBLISH", self._announcements, text))

    def report(self, worker: str, report: str) -> None:
        with self._errors():
            self._run(REPORT, (2, self.keys.workers, self.keys.reports, worker, report, REPORT_LEASE, 2 * REPORT_LEASE))

    def withdraw(self, worker: str) -> None:
        with self._errors(), self._client().pipeline() as pipeline:
            pipeline.zrem(self.keys.workers, worker).hdel(self.keys.reports, worker).execute()

    def reports(self) -> dict[str, str]:
        with self._errors():
            found = iter(self._run(REPORTS, (2, self.keys.workers, self.keys.reports)))
        return {worker.decode(): report.decode() for worker, report in zip(found, found, strict=True)}

    def forget(self, name: str) -> None:
        with self._errors():
            self._client().delete(self.keys.backlog + name.encode())

    def expire_all_backlogs(self) -> None:
        self._delete((self.keys.global_backlog,), self.keys.backlog + b"*")

    def reset(self) -> None:
        # First the ids, so that a message published meanwhile begins the new epoch.
        self._delete(
            (
                self.keys.global_id,
                self.keys.epoch,
                self.keys.global_backlog,
                self.keys.known,
                self.keys.announced,
                self.keys.others,
                self.keys.history,
                self.keys.lineage,
            ),
            self.keys.backlogs,
            self.keys.publication + b"*",
        )

    def _delete(self, keys: Sequence[bytes], *patterns: bytes) -> None:
        client = self._client()
        with self._errors():
            client.delete(*keys)
            for pattern in patterns:
                matching = list(client.scan_iter(match=pattern, count=1000))
                for start in range(0, len(matching), 1000):
                    client.delete(*matching[start : start + 1000])

    def close(self) -> None:
        with self._lock:
            self._closed = True
            feeds, connections = self._feeds, self._connections
            self._feeds, self._connections = [], None
        for feed in feeds:
            feed.close()
        if connections is not None:
            connections.close()
        if self._primary is not None and self._owns_primary:
            self._primary.close()

    def after_fork(self) -> None:
        feeds = self._feeds
        # The connections go with their last reference. redis-py knows the process that made one: elsewhere it only
        # closes the descriptor.
        self._clear()
        if self._primary is not None and self._owns_primary:
            self._primary.after_fork()
        for feed in feeds:
            feed.abandon()
