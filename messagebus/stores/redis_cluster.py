"""The store on a Redis Cluster: partitions, each a store of its own on one of the nodes.

A partition numbers its messages itself. What the bus sees are ids that end in their partition (``partitions``); so
nothing but this module and the gates of the feed knows both kinds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import redis
from redis.exceptions import NoScriptError

from ..errors import BackendUnavailable, BusClosed, InvalidOption, PublishRefused
from ..message import Ids, Message
from ..options import Options
from .base import (
    BacklogPage,
    BacklogQuery,
    ChannelPage,
    Feed,
    Listener,
    Publication,
    PublicationId,
    Store,
    StoreState,
)
from .interest import Interest
from .partitions import decode_id, encode_id
from .redis_cluster_feed import ClusterFeed
from .redis_cluster_nodes import ClusterNodes, Moved, translate
from .redis_cluster_partition import Partition
from .redis_cluster_scan import BACKLOG, channel_page, delete_matching
from .redis_cluster_url import Place, read_cluster_url
from .redis_history import in_history, is_refused
from .redis_scripts import BACKLOGS, Script

logger = logging.getLogger("messagebus.stores")
T = TypeVar("T")

TRIES = 5
"""Times that a partition is looked for on the node that the last one names, before it counts as away."""
Job = tuple[Partition, Script, tuple[Any, ...]]


class RedisClusterStore(Store):
    """Keeps messages in the cluster of ``options.url``.

    Raises:
        InvalidOption: The URL is malformed.
    """

    shared = True
    by_channel = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self._url = read_cluster_url(options.url, options.store_timeout)
        self.partitions = self._url.partitions
        self.where = self._url.where
        self._nodes = ClusterNodes(self._url, options.store_timeout)
        self._parts = [Partition(options, self._nodes, number) for number in range(self.partitions)]
        self._feeds: list[ClusterFeed] = []
        self._when_back: list[Callable[[], None]] = []
        self._closed = False

    def publish_many(self, messages: Sequence[Publication], publication_id: PublicationId | None = None) -> list[Ids]:
        if len(messages) == 1:
            return self._publish(self.partition_of(messages[0].name), messages, publication_id)
        groups = self._by_partition([message.name for message in messages])
        if len(groups) == 1:
            return self._publish(next(iter(groups)), messages, publication_id)
        jobs: list[Job] = []
        for number, places in groups.items():
            part = self._parts[number]
            some = [messages[at] for at in places]
            jobs.append((part, part.publish_script, part.publish_arguments(some, publication_id)))
        answers = self._run_many(jobs, repeatable=publication_id is not None)
        found: list[Ids] = [Ids(0, 0)] * len(messages)
        for (part, _, _), places, answer in zip(jobs, groups.values(), answers, strict=True):
            ids = part.ids_of([messages[at] for at in places], answer)
            for at, each in zip(places, ids, strict=True):
                found[at] = self._encode(each, part.number)
        return found

    def _publish(self, number: int, messages: Sequence[Publication], publication_id: PublicationId | None) -> list[Ids]:
        """Publish messages of one partition."""
        part, is_known = self._parts[number], publication_id is not None
        place = self._nodes.known_place(part.slot)
        try:
            ids = part.publish_many(messages, publication_id)
        except BackendUnavailable as error:  # as few layers as possible where there is none
            if not isinstance(error, Moved) and not (is_known and self._is_replaced(part, place, error)):
                raise
            ids = self._on(number, lambda part: part.publish_many(messages, publication_id), repeatable=is_known)
        return [self._encode(each, number) for each in ids]

    def publish_durably(
        self, messages: Sequence[Publication], publication_id: PublicationId, replicas: int
    ) -> tuple[list[Ids], int]:
        found: list[Ids] = [Ids(0, 0)] * len(messages)
        least = replicas
        for number, places in self._by_partition([message.name for message in messages]).items():
            some = [messages[at] for at in places]
            call = partial(_publish_durably, messages=some, publication_id=publication_id, replicas=replicas)
            ids, reached = self._on(number, call)
            least = min(least, reached)
            for at, each in zip(places, ids, strict=True):
                found[at] = self._encode(each, number)
        return found, least

    # --- reading ---

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        groups = self._by_partition([query.name for query in queries])
        jobs: list[Job] = []
        for number, places in groups.items():
            part = self._parts[number]
            arguments = part.backlogs_arguments([queries[at] for at in places], max_bytes)
            jobs.append((part, BACKLOGS, arguments))
        found: list[Any] = [None] * len(queries)
        try:
            answers = self._run_many(jobs)
        except PublishRefused as error:  # a reader's words for it
            raise BackendUnavailable(str(error), "forbidden") from error
        for (part, _, _), places, answer in zip(jobs, groups.values(), answers, strict=True):
            for at, page in zip(places, part.pages_of(answer), strict=True):
                found[at] = page._replace(messages=self._encode_all(page.messages, part.number))
        return found

    def last_ids(self, names: Sequence[str]) -> list[int]:
        groups = self._by_partition(names)
        calls = []
        for number, places in groups.items():
            part = self._parts[number]
            keys = [part.keys.backlog_id + names[at].encode() for at in places]
            calls.append((part.slot, (b"MGET", *keys)))
        found = [0] * len(names)
        for (number, places), values in zip(groups.items(), self._nodes.call_many(calls), strict=True):
            if isinstance(values, Exception) or None in values:
                # A partition that has moved, or counters that are lost: one by one.
                some = [names[at] for at in places]
                values = self._on(number, lambda part, some=some: part.last_ids(some))  # type: ignore[misc]
            for at, value in zip(places, values, strict=True):
                found[at] = int(value)
        return found

    def global_backlog(self, after: int = 0) -> list[Message]:
        local, number = decode_id(after, self.partitions)
        return self._encode_all(self._on(number, lambda part: part.global_backlog(local)), number)

    def state(self, partition: int = 0) -> StoreState:
        return self._encode_state(self._on(partition, lambda part: part.state()), partition)

    def renew_epoch(self, epoch: str | None, partition: int = 0) -> StoreState:
        return self._encode_state(self._on(partition, lambda part: part.renew_epoch(epoch)), partition)

    def channels(self, cursor: str = "", limit: int = 1000) -> ChannelPage:
        with self._errors():
            return channel_page(self._nodes, cursor, limit)

    # --- what is of no channel ---

    def listen(self, listener: Listener, interest: Interest | None = None) -> Feed:
        if self._closed:
            raise BusClosed("the store was closed")
        feed = ClusterFeed(self._options, self._url, listener, interest, self._came_back)
        self._feeds = [other for other in self._feeds if not other.closed] + [feed]
        feed.start()
        return feed

    def when_back(self, call: Callable[[], None]) -> None:
        self._when_back.append(call)

    def _came_back(self, slot: int) -> None:
        self._nodes.left(slot)  # the feed has asked who has it, so others need not find out
        for call in self._when_back:
            call()

    def announce(self, text: str) -> None:
        # Any node tells all others. An announcer takes the same one as long as that answers: so its order is kept.
        try:
            self._on_first(lambda part: part.announce(text))
        except BackendUnavailable as error:
            if error.reason == "forbidden" or not self._announce_elsewhere(text):
                raise

    def _announce_elsewhere(self, text: str) -> bool:
        """The node that has the first partition does not answer: any other does as well."""
        try:
            for place, connections in self._nodes.primaries():
                if self._nodes.is_silent(place):
                    continue
                try:
                    connections.call((b"PUBLISH", self._parts[0].announcements, text))
                    return True
                except (redis.RedisError, OSError) as error:
                    self._nodes.gave_no_answer(place, error)
        except (redis.RedisError, OSError):
            pass  # nor does any other
        return False

    def report(self, worker: str, report: str) -> None:
        self._on_first(lambda part: part.report(worker, report))

    def withdraw(self, worker: str) -> None:
        self._on_first(lambda part: part.withdraw(worker))

    def reports(self) -> dict[str, str]:
        return self._on_first(lambda part: part.reports())

    def _on_first(self, call: Callable[[Partition], T]) -> T:
        """Call something on the partition that has what is of no channel. Its node is not waited for again and again by
        those who publish and read in the others."""
        part = self._parts[0]
        place = None
        with suppress(redis.RedisError, OSError):
            place = self._nodes.place(part.slot)
        if place is not None and self._nodes.is_silent(place):
            raise BackendUnavailable(f"Redis at {part.where} gave no answer a moment ago")
        try:
            return self._on(0, call)
        except BackendUnavailable as error:
            if place is not None:
                self._nodes.gave_no_answer(place, error.__cause__)
            raise

    def nodes(self) -> list[tuple[Place, Partition]]:
        """The nodes that have partitions, each with one of them."""
        found: dict[Place, Partition] = {}
        with self._errors():
            for part in self._parts:
                found.setdefault(self._nodes.place(part.slot), part)
        return sorted(found.items(), key=lambda each: each[0])

    def check(self) -> None:
        for _, part in self.nodes():
            self._on(part.number, lambda each: each.check())

    def forget(self, name: str) -> None:
        self._on(self.partition_of(name), lambda part: part.forget(name))

    def expire_all_backlogs(self) -> None:
        for number in range(self.partitions):
            self._on(number, lambda part: part.delete_fixed(ids=False))
        self._delete_matching(b"{*}" + BACKLOG + b"*")

    def reset(self) -> None:
        # First the ids, so that a message published meanwhile begins the new epoch.
        for number in range(self.partitions):
            self._on(number, lambda part: part.delete_fixed(ids=True))
        self._delete_matching(b"{*}__mb_backlog_*", b"{*}__mb_publication_*")
        # Last, as nobody with another number of partitions may begin before.
        with self._errors():
            self._nodes.delete_layout()

    def _delete_matching(self, *patterns: bytes) -> None:
        with self._errors():
            delete_matching(self._nodes, patterns)

    def close(self) -> None:
        self._closed = True
        feeds, self._feeds = self._feeds, []
        for feed in feeds:
            feed.close()
        self._nodes.close()

    def after_fork(self) -> None:
        feeds, self._feeds = self._feeds, []
        self._nodes.after_fork()
        for part in self._parts:
            part.after_fork()
        for feed in feeds:
            feed.abandon()

    # --- partitions ---

    def _by_partition(self, names: Sequence[str]) -> dict[int, list[int]]:
        """Partition -> the places of its names among these."""
        groups: dict[int, list[int]] = {}
        for at, name in enumerate(names):
            groups.setdefault(self.partition_of(name), []).append(at)
        return groups

    def _on(self, number: int, call: Callable[[Partition], T], *, repeatable: bool = True) -> T:
        """Call something on a partition, wherever it has moved to. ``repeatable``: whether it may be called again where
        no answer came, at the node that has taken the place of the one that is gone."""
        part = self._parts[number]
        for _ in range(TRIES - 1):
            place = self._nodes.known_place(part.slot)
            try:
                return part.translated(lambda: call(part))
            except Moved:
                continue
            except BackendUnavailable as error:
                if not repeatable or not self._is_replaced(part, place, error):
                    raise
        return part.translated(lambda: call(part))

    def _is_replaced(self, part: Partition, place: Place | None, error: Exception) -> bool:
        """Whether another node has the partition by now than the one that gave no answer."""
        if place is None or not isinstance(error, BackendUnavailable):
            return False
        try:
            return self._nodes.place(part.slot) != place
        except (redis.RedisError, OSError):
            return False

    def _run_many(self, jobs: Sequence[Job], *, repeatable: bool = True) -> list[Any]:
        """Run scripts side by side, each on its partition's node; ``repeatable``: see ``_on``. Returns their answers.

        Raises:
            BackendUnavailable, PublishRefused: One of them failed (``BackendUnavailable``, if it did so with that); the
                others were run all the same.
        """
        places = [self._nodes.known_place(part.slot) for part, _, _ in jobs]
        calls = [(part.slot, (b"EVALSHA", script.sha, *arguments)) for part, script, arguments in jobs]
        publishes = all(script is part.publish_script for part, script, _ in jobs)
        answers = self._nodes.call_many(calls, in_history if publishes else None)
        trouble: Exception | None = None
        for at, ((part, script, arguments), place, answer) in enumerate(zip(jobs, places, answers, strict=True)):
            if not isinstance(answer, Exception):
                continue
            try:
                if not isinstance(answer, NoScriptError) and not is_refused(answer):
                    meaning = part.explain(answer)
                    if not isinstance(meaning, Moved) and not (repeatable and self._is_replaced(part, place, meaning)):
                        raise meaning from answer
                run = partial(_run, script=script, arguments=arguments)
                answers[at] = self._on(part.number, run, repeatable=repeatable)
            except (BackendUnavailable, PublishRefused, InvalidOption) as error:
                trouble = error if trouble is None or isinstance(error, BackendUnavailable) else trouble
        if trouble is not None:
            raise trouble
        return answers

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            meaning = translate(error, self.where)
            if isinstance(meaning, BackendUnavailable):
                raise meaning from error
            raise BackendUnavailable(str(meaning), "forbidden") from error

    # --- ids ---

    def _encode(self, ids: Ids, number: int) -> Ids:
        return Ids(ids.message_id, encode_id(ids.global_id, number, self.partitions))

    def _encode_state(self, state: StoreState, number: int) -> StoreState:
        return state.encoded(number, self.partitions)

    def _encode_all(self, messages: list[Message], number: int) -> list[Message]:
        for message in messages:
            message.global_id = encode_id(message.global_id, number, self.partitions)
        return messages


def _run(part: Partition, script: Script, arguments: tuple[Any, ...]) -> Any:
    return part.run(script, arguments)


def _publish_durably(
    part: Partition, messages: Sequence[Publication], publication_id: PublicationId, replicas: int
) -> tuple[list[Ids], int]:
    return part.publish_durably(messages, publication_id, replicas)
