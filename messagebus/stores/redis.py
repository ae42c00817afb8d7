"""The store in Redis: keys, commands and errors. The feed is in ``redis_feed``, the atomic write in ``publish.lua``.

The keys' layout is shared with other programs, which may have written anything: what cannot be decoded is logged and
left out. Needs Redis 6.2 or newer; all keys must be in one place, so a Redis cluster will not do.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import NoScriptError, ReadOnlyError
from redis.retry import Retry

from ..errors import BackendUnavailable, BusClosed, InvalidOption
from ..message import PIPE_ESCAPE, Ids, Message
from ..options import Options
from .base import Backlog, BacklogPage, BacklogQuery, Listener, Publication, Store, StoreState, ids_age
from .redis_feed import RedisFeed
from .sequencer import EPOCH_CHANGED, Entry, Trace, Unreadable, decode_entry

logger = logging.getLogger("messagebus.stores")

GLOBAL_ID = b"__mb_global_id_n"
GLOBAL_BACKLOG = b"__mb_global_backlog_n"
EPOCH = b"__mb_epoch"
BACKLOG_ID = b"__mb_backlog_id_n_"
BACKLOG = b"__mb_backlog_n_"
KNOWN = b"__mb_known_channels"

MAX_CONNECTIONS = 32
"""Of one process, the feeds' apart; who needs one more waits for up to ``store_timeout``."""
MAX_CHUNK, MAX_CHUNK_BYTES = 1000, 4 * 1024 * 1024
"""Messages, and about how many bytes of them, that are published by one call of the script: some milliseconds."""


class _Script(NamedTuple):
    text: bytes
    sha: str

    @classmethod
    def load(cls, name: str) -> _Script:
        text = Path(__file__).with_name(name).read_bytes()
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


_PUBLISH = _Script.load("publish.lua")
_BACKLOGS = _Script.load("backlogs.lua")
_RENEW_EPOCH = _Script.load("renew_epoch.lua")


class RedisStore(Store):
    """Keeps messages in the Redis that ``options.url`` names; processes that share its database share the bus.

    Raises:
        InvalidOption: The URL is malformed.
    """

    shared = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self._connection_class, self._connection_options = _connection(options)
        self.where = _describe(self._connection_options)
        channel = options.redis_pubsub_channel
        self._pubsub_channel = (channel or f"_message_bus_{self._connection_options['db']}").encode()
        self._arguments = (options.max_global_backlog_size, options.clear_every, self._pubsub_channel)
        self._clear()
        self._closed = False

    def _clear(self) -> None:
        # Guards the fields below; nothing is waited for under it, so it may be made before gevent patches the process.
        self._lock = threading.Lock()
        self._redis: Any = None
        # Together another epoch for each publish: it must differ from the one of before a reset. To ask for random
        # numbers each time would let another thread in each time.
        self._epoch_prefix = secrets.token_hex(8)
        self._epoch_numbers = count()
        self._feeds: list[RedisFeed] = []

    def _client(self) -> Any:
        with self._lock:
            if self._closed:
                raise BusClosed("the store was closed")
            if self._redis is None:
                pool = redis.BlockingConnectionPool(  # type: ignore[no-untyped-call]
                    connection_class=self._connection_class,
                    max_connections=MAX_CONNECTIONS,
                    timeout=self._options.store_timeout,
                    **self._connection_options,
                )
                self._redis = redis.Redis(connection_pool=pool)
            return self._redis

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Makes what redis-py raises into this package's error."""
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> BackendUnavailable:
        if not isinstance(error, redis.ResponseError):
            return BackendUnavailable(f"Redis at {self.where} does not answer: {error}")
        if _is_read_only(error):
            # This server is no longer the primary, and the name in the URL may by now lead to the one that is. The
            # pool's connections would hold on to this one.
            with self._lock:
                self._redis = None
        return BackendUnavailable(f"Redis at {self.where} said: {error}")

    def publish(self, name: str, envelope: bytes, *, max_backlog_size: int, max_backlog_age: int) -> Ids:
        keys, target = _target(name, max_backlog_size, max_backlog_age)
        message_id, global_id = self._run_publish(keys, (*target, 1, envelope))
        return Ids(message_id, global_id)

    def publish_many(self, messages: Sequence[Publication]) -> list[Ids]:
        ids: list[Ids] = []
        for chunk in _chunks(messages):
            ids += self._publish(chunk)
        return ids

    def _publish(self, messages: Sequence[Publication]) -> Iterable[Ids]:
        keys: list[bytes] = []
        targets: list[Any] = []
        contents: list[Any] = []
        numbers: dict[tuple[str, int, int], int] = {}
        # What is said of a channel is said once, however many of the messages are for it.
        for name, envelope, size, age in messages:
            number = numbers.get((name, size, age))
            if number is None:
                number = numbers[name, size, age] = len(numbers) + 1
                target_keys, target = _target(name, size, age)
                keys += target_keys
                targets += target
            contents += (number, envelope)
        ids = self._run_publish(keys, targets + contents)
        return map(Ids, ids[::2], ids[1::2])

    def _run_publish(self, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        """Run ``publish.lua`` with the keys and arguments that every call has, and these."""
        epoch = f"{self._epoch_prefix}{next(self._epoch_numbers):x}"
        all_keys = (GLOBAL_ID, GLOBAL_BACKLOG, EPOCH, KNOWN, *keys)
        return self._run(_PUBLISH, (len(all_keys), *all_keys, *self._arguments, epoch, *arguments))

    def _run(self, script: _Script, arguments: Sequence[Any]) -> Any:
        """Run a script with what EVALSHA takes after its name."""
        pool = self._client().connection_pool
        command = (b"EVALSHA", script.sha, *arguments)
        try:
            try:
                return _call(pool, command)
            except NoScriptError:  # a new server, or one that was told to forget
                _call(pool, (b"SCRIPT", b"LOAD", script.text))
                return _call(pool, command)
        except (redis.RedisError, OSError) as error:
            raise self._unavailable(error) from error

    def backlog(self, name: str, after: int = 0) -> Backlog:
        key = name.encode()
        with self._errors(), self._client().pipeline(transaction=True) as pipeline:
            pipeline.zrangebyscore(BACKLOG + key, f"({after}", "+inf")
            pipeline.get(BACKLOG_ID + key)
            pipeline.zrange(BACKLOG + key, 0, 0, withscores=True)
            stored, last, oldest = pipeline.execute()
        entries = [decode_entry(each, self._options.transport_codec) for each in stored]
        messages = [entry for entry in entries if isinstance(entry, Message)]
        last_id = int(last or 0)
        if messages:
            # Other programs let the id's key expire with the backlog; the one may go a moment before the other.
            last_id = max(last_id, messages[-1].message_id)
        return Backlog(messages, last_id, int(oldest[0][1]) if oldest else last_id + 1)

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        if not queries:
            return []
        names = [query.name.encode() for query in queries]
        keys = [key for name in names for key in (BACKLOG_ID + name, BACKLOG + name)]
        answers = self._run(_BACKLOGS, (len(keys), *keys, max_bytes, *[query.after for query in queries]))
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
            # A counter may have been lost while messages are kept; the next publish makes it anew from these.
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
        """As ``state``, but a store that has no epoch yet is given one. For the feed."""
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
        arguments = (2, EPOCH, GLOBAL_ID, epoch or "", new, self._pubsub_channel, EPOCH_CHANGED)
        try:
            global_id, now = self._run(_RENEW_EPOCH, arguments)
        except BackendUnavailable as error:
            if error.__cause__ is None or not _is_read_only(error.__cause__):
                raise
            return self.state()  # a replica: its primary's processes see to it
        if now.decode() == new:
            logger.warning("Redis at %s has gone back, and is given another epoch", self.where)
        return StoreState(int(global_id), now.decode(errors="replace"))

    def contradicts(self, traces: Sequence[Trace]) -> bool:
        """Whether something else is stored in the place of one of these messages. For the feed."""
        with self._errors():
            for begin in range(0, len(traces), MAX_CHUNK):
                chunk = traces[begin : begin + MAX_CHUNK]
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

    def listen(self, listener: Listener) -> RedisFeed:
        feed = RedisFeed(
            self,
            listener,
            connect=lambda: self._connection_class(**self._connection_options),
            channel=self._pubsub_channel,
            where=self.where,
            timeout=self._options.store_timeout,
            codec=self._options.transport_codec,
        )
        self._client()  # raises where the store was closed
        with self._lock:
            self._feeds = [other for other in self._feeds if not other.closed] + [feed]
        feed.start()
        return feed

    def expire_all_backlogs(self) -> None:
        self._delete((GLOBAL_BACKLOG,), BACKLOG + b"*")

    def reset(self) -> None:
        # First of all the numbers, so that a message published meanwhile begins the new life.
        self._delete((GLOBAL_ID, EPOCH, GLOBAL_BACKLOG, KNOWN), b"__mb_backlog_*")

    def _delete(self, keys: Sequence[bytes], pattern: bytes) -> None:
        client = self._client()
        with self._errors():
            client.delete(*keys)
            matching = list(client.scan_iter(match=pattern, count=1000))
            for start in range(0, len(matching), 1000):
                client.delete(*matching[start : start + 1000])

    def close(self) -> None:
        with self._lock:
            self._closed = True
            feeds, client = self._feeds, self._redis
            self._feeds, self._redis = [], None
        for feed in feeds:
            feed.close()
        if client is not None:
            client.connection_pool.disconnect()

    def after_fork(self) -> None:
        feeds = self._feeds
        # The pool goes with its last reference. redis-py knows the process that made a connection: elsewhere it only
        # closes the descriptor.
        self._clear()
        for feed in feeds:
            feed.abandon()


def _call(pool: Any, command: Sequence[Any]) -> Any:
    """Send one command over a connection of the pool, and return the answer.

    As redis-py's client does, but without its layers for retries, metrics and the kinds of answer: they are a fifth
    of the time that a publish takes."""
    connection = pool.get_connection()
    try:
        connection.send_command(*command)
        return connection.read_response()
    except redis.ResponseError:
        raise  # an answer like any other
    except BaseException:
        # The answer may yet come, and must not be taken for that to the next command.
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


@lru_cache(maxsize=4096)
def _target(name: str, size: int, age: int) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes, int, int, int]]:
    """What ``publish.lua`` is told of a channel: its keys; its name, in both forms, and how much is kept how long."""
    key = name.encode()
    stored_name = name.replace("|", PIPE_ESCAPE).encode()
    return (BACKLOG_ID + key, BACKLOG + key), (key, stored_name, age, ids_age(age), size)


def _is_read_only(error: BaseException) -> bool:
    """Whether the server is a replica. Redis 6 says so of a script within the words of another error."""
    return isinstance(error, ReadOnlyError) or "-READONLY" in str(error)


def _chunks(messages: Sequence[Publication]) -> Iterator[Sequence[Publication]]:
    """What goes into one call of the script: as long as it takes, Redis answers nobody else."""
    begin = size = 0
    for end, message in enumerate(messages):
        if end - begin >= MAX_CHUNK or (size > MAX_CHUNK_BYTES):
            yield messages[begin:end]
            begin, size = end, 0
        size += len(message.envelope)
    if begin < len(messages):
        yield messages[begin:]


def _connection(options: Options) -> tuple[type[Any], dict[str, Any]]:
    """The class and the arguments of a connection. No error shows the URL: it may hold a password."""
    try:
        database = urlsplit(options.url).path.strip("/")
        if not options.url.startswith("unix:") and database and not database.isdecimal():
            raise InvalidOption(
                "url",
                "the database must be a number; a / in the password is written %2F",
            )
        from_url: dict[str, Any] = parse_url(options.url)  # type: ignore[no-untyped-call]
        connection_class = from_url.pop("connection_class", redis.Connection)
        arguments = {
            "db": 0,
            "socket_timeout": options.store_timeout,
            "socket_connect_timeout": options.store_timeout,
            **from_url,
            # redis-py would send a command again when no answer came, and so publish twice without a word.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        arguments["db"] = int(arguments["db"])
        # Not connected: only to find names among the URL's parameters that no connection knows.
        connection_class(**arguments)
    except InvalidOption:
        raise
    except Exception as error:
        if isinstance(error, TypeError) and "argument" in str(error):
            raise InvalidOption("url", str(error).rpartition(") ")[2].removeprefix("got an ")) from None
        raise InvalidOption("url", "malformed; expected redis://[[user]:password@]host[:port][/database]") from None
    return connection_class, arguments


def _describe(arguments: dict[str, Any]) -> str:
    """Where a connection leads, without secrets."""
    place = arguments.get("path") or f"{arguments.get('host', 'localhost')}:{arguments.get('port', 6379)}"
    return f"{place} database {arguments['db']}"
