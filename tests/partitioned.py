"""A store with partitions, made of as many ordinary stores: each is a partition, and keeps local ids.

It is what a store with partitions has to be to the rest of the bus, without a cluster. Real stores, and no fake answer:
only ids are mapped, and a partition can be taken away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from messagebus import Bus
from messagebus.errors import BackendUnavailable
from messagebus.message import Ids, Message
from messagebus.options import Options
from messagebus.publishing import publisher
from messagebus.stores import Feed, Interest, Listener, Store, StoreState, Trace, open_store
from messagebus.stores.base import BacklogPage, BacklogQuery, ChannelPage, Publication, PublicationId
from messagebus.stores.partitions import decode_id, encode_id, partition_of

PARTITIONS = 3
"""Of the store that the transports' stories are told on."""


class PartitionedStore(Store):
    """See the module."""

    def __init__(self, parts: Sequence[Store]) -> None:
        self.parts = [*parts]
        self.partitions = len(parts)
        self.shared = parts[0].shared
        self.by_channel = parts[0].by_channel
        self.gone: set[int] = set()
        """Partitions that do not answer, while they are in here. Their feeds go on."""

    def _global(self, local_id: int, partition: int) -> int:
        return encode_id(local_id, partition, self.partitions)

    def _local(self, global_id: int) -> tuple[int, int]:
        return decode_id(global_id, self.partitions)

    def _state(self, state: StoreState, partition: int) -> StoreState:
        return state.encoded(partition, self.partitions)

    def _part(self, partition: int) -> Store:
        if partition in self.gone:
            raise BackendUnavailable(f"partition {partition} is away")
        return self.parts[partition]

    def _side_by_side(self, names: Sequence[str], call: Callable[[Store, list[int]], Sequence[Any]]) -> list[Any]:
        """``call`` each partition with the places of its names; the answers, in the order of the names."""
        places: dict[int, list[int]] = {}
        for place, name in enumerate(names):
            places.setdefault(self.partition_of(name), []).append(place)
        found: list[Any] = [None] * len(names)
        errors = []
        for partition, theirs in places.items():
            try:
                for place, answer in zip(theirs, call(self._part(partition), theirs), strict=True):
                    found[place] = partition, answer
            except BackendUnavailable as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return found

    def publish_many(self, messages: Sequence[Publication], publication_id: PublicationId | None = None) -> list[Ids]:
        found = self._side_by_side(
            [message.name for message in messages],
            lambda part, places: part.publish_many([messages[place] for place in places], publication_id),
        )
        return [Ids(ids.message_id, self._global(ids.global_id, partition)) for partition, ids in found]

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        found = self._side_by_side(
            [query.name for query in queries],
            lambda part, places: part.backlogs([queries[place] for place in places], max_bytes),
        )
        return [page._replace(messages=self._messages(page.messages, partition)) for partition, page in found]

    def _messages(self, messages: Sequence[Message], partition: int) -> list[Message]:
        return [globalized(message, self._global(message.global_id, partition)) for message in messages]

    def last_ids(self, names: Sequence[str]) -> list[int]:
        found = self._side_by_side(names, lambda part, places: part.last_ids([names[place] for place in places]))
        return [last_id for _, last_id in found]

    def global_backlog(self, after: int = 0) -> list[Message]:
        local_id, partition = self._local(after)
        return self._messages(self._part(partition).global_backlog(local_id), partition)

    def state(self, partition: int = 0) -> StoreState:
        return self._state(self._part(partition).state(), partition)

    def renew_epoch(self, epoch: str | None, partition: int = 0) -> StoreState:
        return self._state(self._part(partition).renew_epoch(epoch), partition)

    def listen(self, listener: Listener, interest: Interest | None = None) -> Feed:
        parts = [None] * self.partitions if interest is None else [*interest.parts]
        return _Feeds(
            [part.listen(_Part(listener, number, self), parts[number]) for number, part in enumerate(self.parts)]
        )

    def announce(self, text: str) -> None:
        self.parts[0].announce(text)

    def report(self, worker: str, report: str) -> None:
        self.parts[0].report(worker, report)

    def withdraw(self, worker: str) -> None:
        self.parts[0].withdraw(worker)

    def reports(self) -> dict[str, str]:
        return self.parts[0].reports()

    def channels(self, cursor: str = "", limit: int = 1000) -> ChannelPage:
        number, _, rest = cursor.partition(":")
        partition = int(number or 0)
        if partition not in range(self.partitions):
            raise ValueError(f"no page has the cursor {cursor!r}")
        if len(self.gone) == self.partitions:
            raise BackendUnavailable("all partitions are away")
        is_gone = partition in self.gone
        names, more, _ = ChannelPage([], "") if is_gone else self._part(partition).channels(rest, limit)
        after = f"{partition + 1}:" if partition + 1 < self.partitions else ""
        return ChannelPage(names, f"{partition}:{more}" if more else after, (partition,) if is_gone else ())

    def forget(self, name: str) -> None:
        self._part(self.partition_of(name)).forget(name)

    def unheard(self) -> int:
        return sum(part.unheard() for part in self.parts)

    def expire_all_backlogs(self) -> None:
        for part in self.parts:
            part.expire_all_backlogs()

    def reset(self) -> None:
        for part in self.parts:
            part.reset()

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def after_fork(self) -> None:
        for part in self.parts:
            part.after_fork()


class _Feeds:
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds

    def close(self) -> None:
        for feed in self._feeds:
            feed.close()


class _Part(Listener):
    """Tells the listener of the whole store what the feed of a partition brings."""

    def __init__(self, listener: Listener, partition: int, store: PartitionedStore) -> None:
        self._listener = listener
        self._partition = partition
        self._store = store

    def started(self, state: StoreState) -> None:
        self._listener.started(self._store._state(state, self._partition))

    def received(self, messages: Sequence[Message]) -> None:
        self._listener.received(self._store._messages(messages, self._partition))

    def resync(self, state: StoreState) -> None:
        self._listener.resync(self._store._state(state, self._partition))

    def renewed(self, state: StoreState) -> None:
        self._listener.renewed(self._store._state(state, self._partition))

    def healthy(self, healthy: bool, partition: int = 0) -> None:
        self._listener.healthy(healthy, self._partition)

    def announced(self, texts: Sequence[str]) -> None:
        if self._partition == 0:
            self._listener.announced(texts)

    def caught_up(self, global_id: int, wanted: Sequence[tuple[str, object]]) -> None:
        self._listener.caught_up(self._store._global(global_id, self._partition), wanted)

    def newest(self) -> Sequence[Trace]:
        found = []
        for trace in self._listener.newest():
            local_id, partition = self._store._local(trace.global_id)
            if partition == self._partition:
                found.append(trace._replace(global_id=local_id))
        return found


def globalized(message: Message, global_id: int) -> Message:
    """A copy with another global id. (In memory the original is the store's.)"""
    return Message(
        global_id,
        message.message_id,
        message.channel,
        message.raw,
        message.site_id,
        message.user_ids,
        message.group_ids,
        message.client_ids,
        message.kept,
        message.exclude_client_ids,
        message.trace,
    )


def name_in(partition: int, partitions: int, begin: str = "/n") -> str:
    """A channel of a partition."""
    numbers = range(100 * partitions)
    return next(name for number in numbers if partition_of(name := f"{begin}{number}", partitions) == partition)


def open_partitioned(options: Options, partitions: int) -> PartitionedStore:
    """Of the store that a URL names so many: in memory, files beside each other, or databases of one Redis."""
    urls = [options.url] * partitions
    if options.url.startswith("sqlite:"):
        urls = [f"{options.url}.{number}" for number in range(partitions)]
    elif options.url.startswith("redis:"):
        urls = [f"{options.url.rpartition('/')[0]}/{number}" for number in range(partitions)]
    return PartitionedStore([open_store(dataclasses.replace(options, url=url)) for url in urls])


@contextmanager
def stores_of(partitions: int) -> Iterator[None]:
    """Whatever begins to publish or to listen meanwhile has stores of so many partitions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher, "open_store", lambda options: open_partitioned(options, partitions))
        yield


def partitioned_bus(partitions: int, **options: Any) -> Bus:
    """A bus on such a store."""
    bus = Bus(**options)
    with stores_of(partitions):
        bus._publisher_now()
    return bus
