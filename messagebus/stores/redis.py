"""The store in Redis: keys, commands and errors. The feed is in ``redis_feed``, the atomic write in ``publish.lua``.

The key layout is shared with other programs, which may have written anything: what cannot be decoded is logged and
skipped. Needs Redis 6.2 or newer; all keys must be on one server, so a Redis Cluster does not work.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import count
from typing import Any

import redis
from redis.exceptions import NoScriptError

from ..errors import BackendUnavailable, BusClosed, PublishRefused
from ..message import PIPE_ESCAPE, Ids, Message
from ..options import Options
from .advice import ANNOUNCEMENTS, OWN_CHANNEL, redis_commands, redis_rights
from .base import (
    MAX_MESSAGES,
    REMEMBERED,
    REPORT_LEASE,
    BacklogPage,
    BacklogQuery,
    ChannelPage,
    Listener,
    Publication,
    PublicationId,
    Store,
    StoreState,
    Trace,
    ids_age,
)
from .channel_sequencer import Snapshot
from .interest import Interest
from .redis_channel_feed import RedisChannelFeed
from .redis_connection import Connections, connection_arguments, describe, explain
from .redis_feed import RedisFeed
from .redis_scripts import BACKLOGS, PUBLISH, RENEW_EPOCH, REPORT, REPORTS, RIGHTS, Script
from .sentinel import Primary
from .sentinel_url import EXPECTED
from .sequencer import EPOCH_CHANGED, Entry, Unreadable, decode_entry

logger = logging.getLogger("messagebus.stores")

GLOBAL_ID = b"__mb_global_id_n"
GLOBAL_BACKLOG = b"__mb_global_backlog_n"
EPOCH = b"__mb_epoch"
BACKLOG_ID = b"__mb_backlog_id_n_"
BACKLOG = b"__mb_backlog_n_"
KNOWN = b"__mb_known_channels"
PUBLICATION = b"__mb_publication_"
WORKERS = b"__mb_workers"
REPORTS_OF_WORKERS = b"__mb_reports"
ANNOUNCED = b"__mb_announced_id"
OTHERS = b"__mb_announced_by_others"
SCANS_FOR_A_PAGE = 20
"""Times that a page of channels looks at a thousand of the database's keys, at most."""

SENTINEL_SCHEMES = ("redis+sentinel:", "rediss+sentinel:")
CHANNELS_AT_ONCE = 100
"""Channels whose backlogs are read in one step."""

_MADE_ANEW = ("gone", "read-only")
"""Reasons for which connections are replaced."""


class RedisStore(Store):
    """Keeps messages in the Redis of ``options.url``; processes that share its database share the bus.

    Raises:
        InvalidOption: The URL is malformed.
    """

    shared = True

    def __init__(self, options: Options, primary: Primary | None = None) -> None:
        """``primary``: of the store whose feed this one is for, which closes it."""
        self._options = options
        self._primary, self._owns_primary = primary, False
        self._when_back: list[Callable[[], None]] = []
        if options.url.startswith(SENTINEL_SCHEMES) and primary is None:
            self._primary, self._owns_primary = Primary(options.url, options.store_timeout), True
        if self._primary is None:
            self._connection = connection_arguments(options.url, options.store_timeout)
            self.where = describe(self._connection[1])
        else:
            self._connection = self._primary.connection_class, self._primary.arguments
            self.where = self._primary.where
            if self._owns_primary:
                self._primary.moved = self._go_elsewhere
        channel = options.redis_pubsub_channel
        self._pubsub_channel = (channel or f"_message_bus_{self._connection[1]['db']}").encode()
        self._announcements = self._pubsub_channel + ANNOUNCEMENTS.encode()
        self.own_prefix = self._pubsub_channel + OWN_CHANNEL.encode()
        self.by_channel = options.redis_announce == "by_channel"
        self._arguments = (options.max_global_backlog_size, options.clear_every, self._pubsub_channel)
        self._clear()
        self._closed = False

    def _clear(self) -> None:
        # Guards the fields below; nothing is waited for under it, so it may be made before gevent patches the process.
        self._lock = threading.Lock()
        self._connections: Connections | None = None
        # Together another epoch for each publish: it must differ from the one of before a reset. To ask for random
        # numbers each time would let another thread in each time.
        self._epoch_prefix = secrets.token_hex(8)
        self._epoch_numbers = count()
        self._feeds: list[RedisFeed] = []
        self._findings: list[str] = []
        self._may_wait = False

    def _connected(self) -> Connections:
        with self._lock:
            if self._closed:
                raise BusClosed("the store was closed")
            if self._connections is not None:
                return self._connections
            connections = self._connections = Connections(*self._connection, self._options.store_timeout)
        if self._primary is not None and self._owns_primary:
            self._primary.watch()
        return connections

    def _go_elsewhere(self, primary: tuple[str, int]) -> None:
        """Another server is the primary: leave the one that was, at once."""
        with self._lock:
            feeds = list(self._feeds)
        self.break_off(primary)
        for feed in feeds:
            feed.go_elsewhere(primary)
        for call in self._when_back:
            call()

    def break_off(self, primary: tuple[str, int]) -> None:
        """End the connections that lead elsewhere than to the primary; from any thread."""
        connections = self._connections
        if connections is not None:
            connections.break_off(primary)

    def when_back(self, call: Callable[[], None]) -> None:
        self._when_back.append(call)

    def _client(self) -> Any:
        return self._connected().client

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate an error of redis-py, for a reader, into this package's."""
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> BackendUnavailable:
        """Translate an error for a reader: a refusal also counts as unavailable."""
        meaning = self._explain(error)
        if isinstance(meaning, PublishRefused):
            return BackendUnavailable(str(meaning), "forbidden")
        return meaning

    def _explain(self, error: Exception) -> BackendUnavailable | PublishRefused:
        meaning = explain(error, self.where)
        connections = self._connections
        if connections is not None and isinstance(meaning, BackendUnavailable) and meaning.reason in _MADE_ANEW:
            # Where this server is no longer the primary, the name in the URL may by now lead to the one that is, and
            # where it is gone, the other connections are gone as well: to try each of them would take as many timeouts.
            connections.discard_idle()
        if meaning.reason == "unsupported" and "unknown command" in str(error) and self._is_sentinel():
            words = f"{self.where} is a sentinel, which keeps no messages; expected a Redis, or a URL {EXPECTED}"
            return PublishRefused(words, "unsupported")
        return meaning

    def _is_sentinel(self) -> bool:
        with suppress(redis.RedisError, OSError):
            return bool(self._client().info("server").get("redis_mode") == "sentinel")
        return False

    def publish_many(
        self,
        messages: Sequence[Publication],
        publication_id: PublicationId | None = None,
        *,
        call: Callable[[tuple[Any, ...]], Any] | None = None,
    ) -> list[Ids]:
        """``call``: sends the script's command, in place of ``Connections.call``."""
        if len(messages) == 1:
            ((name, envelope, size, age),) = messages
            keys, arguments = _channel(name, size, age)
            _, global_id, message_id = self._publish(publication_id, keys, (*arguments, 1, envelope), call)
            return [Ids(message_id, global_id)]
        if not messages:
            return []
        limits = {name: (size, age) for name, _, size, age in messages}
        numbers = {name: number for number, name in enumerate(limits, 1)}
        all_keys: list[bytes] = []
        all_arguments: list[Any] = []
        for name, (size, age) in limits.items():
            keys, arguments = _channel(name, size, age)
            all_keys += keys
            all_arguments += arguments
        for name, envelope, _, _ in messages:
            all_arguments += (numbers[name], envelope)
        _, global_id, *first_ids = self._publish(publication_id, all_keys, all_arguments, call)
        next_ids = dict(zip(numbers, first_ids, strict=True))
        ids = []
        for name, _, _, _ in messages:
            message_id = next_ids[name]
            next_ids[name] = message_id + 1
            ids.append(Ids(message_id, global_id))
            global_id += 1
        return ids

    def publish_durably(
        self, messages: Sequence[Publication], publication_id: PublicationId, replicas: int
    ) -> tuple[list[Ids], int]:
        self._check_may_wait()
        connections = self._connected()
        milliseconds = max(int(self._options.store_timeout * 500), 1)
        reached = 0

        def call(command: tuple[Any, ...]) -> Any:
            nonlocal reached
            answer, reached = connections.call_durably(command, replicas, milliseconds)
            return answer

        return self.publish_many(messages, publication_id, call=call), reached

    def _check_may_wait(self) -> None:
        """Before anything is written: what is stored and cannot be waited for is neither done nor undone."""
        if self._may_wait:
            return
        try:
            refused = self._run(RIGHTS, (1, BACKLOG + b"/", self._pubsub_channel, self._announcements, "", "wait"))
        except (redis.RedisError, OSError) as error:
            raise self._explain(error) from error
        if refused:
            raise PublishRefused(
                f"Redis at {self.where}: this user may not run wait, which durable needs: ACL SETUSER <user> +wait",
                "forbidden",
            )
        self._may_wait = True

    def _publish(
        self,
        publication_id: PublicationId | None,
        keys: Sequence[bytes],
        arguments: Sequence[Any],
        call: Callable[[tuple[Any, ...]], Any] | None,
    ) -> Any:
        """Run ``publish.lua`` with the keys and arguments that every call has, and these. Returns the numbers of its
        answer."""
        record, sequence, seconds = EPOCH, 0, 0
        if publication_id is not None:
            record, sequence = PUBLICATION + publication_id.record.encode(), publication_id.sequence
            seconds = REMEMBERED
        # An epoch, in case the store has none: a new one each time.
        epoch = f"{self._epoch_prefix}{next(self._epoch_numbers):x}"
        every = (GLOBAL_ID, GLOBAL_BACKLOG, EPOCH, KNOWN, record, ANNOUNCED, OTHERS)
        of_store = (*self._arguments, epoch, sequence, seconds, self.own_prefix if self.by_channel else b"")
        try:
            answer = self._run(PUBLISH, (len(every) + len(keys), *every, *keys, *of_store, *arguments), call)
        except (redis.RedisError, OSError) as error:
            raise self._explain(error) from error
        return map(int, answer.split(b"|"))

    def _run(
        self, script: Script, arguments: Sequence[Any], call: Callable[[tuple[Any, ...]], Any] | None = None
    ) -> Any:
        """Run a script with what EVALSHA takes after its name."""
        call = call or self._connected().call
        command = (b"EVALSHA", script.sha, *arguments)
        try:
            return call(command)
        except NoScriptError:  # a new server, or one that was told to forget
            self._connected().call((b"SCRIPT", b"LOAD", script.text))
            return call(command)

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        if not queries:
            return []
        names = [query.name.encode() for query in queries]
        keys = [key for name in names for key in (BACKLOG_ID + name, BACKLOG + name)]
        with self._errors():
            answers = self._run(BACKLOGS, (len(keys), *keys, max_bytes, *[query.after for query in queries]))
        pages = []
        for after, through, last_id, first_id, milliseconds, stored in answers:
            entries = [decode_entry(each, self._options.transport_codec) for each in stored]
            messages = [entry for entry in entries if isinstance(entry, Message)]
            expires_in = milliseconds / 1000 if milliseconds >= 0 else math.inf
            pages.append(BacklogPage(messages, after, through, last_id, first_id, expires_in))
        return pages

    def last_ids(self, names: Sequence[str]) -> list[int]:
        if not names:
            return []
        keys = [name.encode() for name in names]
        with self._errors():
            values = self._client().mget([BACKLOG_ID + key for key in keys])
            # A counter may have been lost while messages are kept; the next publish makes it again from these.
            lost = [number for number, value in enumerate(values) if value is None]
            if lost:
                with self._client().pipeline(transaction=False) as pipeline:
                    for number in lost:
                        pipeline.zrange(BACKLOG + keys[number], -1, -1, withscores=True)
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
            members = self._client().zrangebyscore(GLOBAL_BACKLOG, f"({after}", "+inf", withscores=True)
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
                    pipeline.zrangebyscore(BACKLOG + name, first, last)
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

    def state(self) -> StoreState:
        with self._errors():
            global_id, epoch = self._client().mget([GLOBAL_ID, EPOCH])
        return StoreState(int(global_id or 0), epoch.decode(errors="replace") if epoch else None)

    def named_state(self) -> StoreState:
        """Like ``state``, but gives a store without an epoch one. For the feed."""
        state = self.state()
        if state.epoch is not None:
            return state
        try:
            with self._errors():
                self._client().set(EPOCH, secrets.token_hex(8), nx=True)
        except BackendUnavailable:
            return state  # read-only: the feed works without
        return self.state()

    def renew_epoch(self, epoch: str | None) -> StoreState:
        new = secrets.token_hex(8)
        keys = (EPOCH, GLOBAL_ID, KNOWN, ANNOUNCED)
        own = self.own_prefix + b"/__epoch"
        arguments = (len(keys), *keys, epoch or "", new, self._pubsub_channel, EPOCH_CHANGED, own)
        try:
            with self._errors():
                global_id, now = self._run(RENEW_EPOCH, arguments)
        except BackendUnavailable as error:
            if error.reason != "read-only":
                raise
            return self.state()  # a replica: its primary's processes see to it
        if now.decode() == new:
            logger.warning("Redis at %s has gone back, and is given another epoch", self.where)
        return StoreState(int(global_id), now.decode(errors="replace"))

    def check_setup(self) -> None:
        """Say in the log what this user may not do, and what is set so that messages will be lost. For the feed, when
        it connects."""
        channel = self.pubsub_channel
        findings = []
        try:
            refused = self.refused_commands()
            if refused:
                rights = redis_rights(channel, self.by_channel)
                findings.append(f"this user may not run {', '.join(refused)}; it needs: ACL SETUSER <user> {rights}")
        except BackendUnavailable as error:
            if error.reason != "forbidden":
                return
            findings.append(str(error))
        try:
            memory = self._client().info("memory")
        except (redis.RedisError, OSError):
            memory = {}  # it may not ask that, and need not
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            findings.append(
                f"maxmemory-policy is {policy}, which deletes backlogs: CONFIG SET maxmemory-policy noeviction"
            )
        for finding in findings:
            if finding not in self._findings:
                logger.error("Redis at %s: %s", self.where, finding)
        self._findings = findings

    @property
    def pubsub_channel(self) -> str:
        """What processes listen to for what is published."""
        return self._pubsub_channel.decode(errors="replace")

    def refused_commands(self) -> list[str]:
        """Those of the commands that the bus runs which this user may not run.

        Raises:
            BackendUnavailable: Redis does not answer, or does not even let it ask (``reason`` is ``forbidden``).
        """
        with self._errors():
            channels = (self._pubsub_channel, self._announcements, self.own_prefix + b"/" if self.by_channel else b"")
            refused = self._run(RIGHTS, (1, BACKLOG + b"/", *channels, *redis_commands(self.by_channel)))
        return [command.decode() for command in refused]

    def facts(self) -> dict[str, Any]:
        """What INFO and CONFIG GET say of the server, memory and persistence; without what this user may not ask."""
        facts: dict[str, Any] = {}
        client = self._client()
        for section in ("server", "memory", "persistence"):
            with suppress(redis.ResponseError):
                facts |= client.info(section)
        for name in ("client-output-buffer-limit", "save"):
            with suppress(redis.ResponseError):
                facts |= client.config_get(name)
        return facts

    def snapshot_keys(self, channels: Sequence[bytes]) -> list[bytes]:
        """What a snapshot is read from. For the feed that hears by channel, as the next two."""
        return [GLOBAL_ID, EPOCH, ANNOUNCED, OTHERS, *[BACKLOG_ID + channel for channel in channels]]

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
                        pipeline.zrangebyscore(GLOBAL_BACKLOG, trace.global_id, trace.global_id)
                        pipeline.zrangebyscore(BACKLOG + key, trace.message_id, trace.message_id)
                        pipeline.get(BACKLOG_ID + key)
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
            self._run(REPORT, (2, WORKERS, REPORTS_OF_WORKERS, worker, report, REPORT_LEASE, 2 * REPORT_LEASE))

    def withdraw(self, worker: str) -> None:
        with self._errors(), self._client().pipeline() as pipeline:
            pipeline.zrem(WORKERS, worker).hdel(REPORTS_OF_WORKERS, worker).execute()

    def reports(self) -> dict[str, str]:
        with self._errors():
            found = iter(self._run(REPORTS, (2, WORKERS, REPORTS_OF_WORKERS)))
        return {worker.decode(): report.decode() for worker, report in zip(found, found, strict=True)}

    def channels(self, cursor: str = "", limit: int = 1000) -> ChannelPage:
        if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 20 and int(cursor) < 2**64):
            raise ValueError(f"expected a page's cursor, not {cursor!r:.80}")
        position, names = int(cursor or 0), []
        with self._errors():
            # SCAN looks at other programs' keys as well: where those are many, a page has few names or none.
            for _ in range(SCANS_FOR_A_PAGE):
                position, keys = self._client().scan(position, match=BACKLOG + b"*", count=1000)
                names += [key[len(BACKLOG) :].decode(errors="replace") for key in keys]
                if not position or len(names) >= limit:
                    break
        return ChannelPage(names, str(position or ""))

    def forget(self, name: str) -> None:
        with self._errors():
            self._client().delete(BACKLOG + name.encode())

    def expire_all_backlogs(self) -> None:
        self._delete((GLOBAL_BACKLOG,), BACKLOG + b"*")

    def reset(self) -> None:
        # First the ids, so that a message published meanwhile begins the new epoch.
        self._delete(
            (GLOBAL_ID, EPOCH, GLOBAL_BACKLOG, KNOWN, ANNOUNCED, OTHERS), b"__mb_backlog_*", PUBLICATION + b"*"
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


@lru_cache(maxsize=4096)
def _channel(name: str, size: int, age: int) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes, int, int, int]]:
    """The arguments of ``publish.lua`` for a channel: its keys; its name, as in key names and as in stored messages;
    how much is kept, and for how long."""
    key = name.encode()
    stored_name = name.replace("|", PIPE_ESCAPE).encode()
    return (BACKLOG_ID + key, BACKLOG + key), (key, stored_name, age, ids_age(age), size)
