"""The store in Redis: keys, commands and errors. The feed is in ``redis_feed``, the atomic write in ``publish.lua``.

The keys' layout is shared with other programs, which may have written anything: what cannot be decoded is logged and
left out. Needs Redis 6.2 or newer; all keys must be in one place, so a Redis cluster will not do.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from ..errors import BackendUnavailable, BusClosed, InvalidOption
from ..message import PIPE_ESCAPE, Ids, Message
from ..options import Options
from .base import IDS_AGE_FACTOR, Backend, Backlog, Listener, Publication, State
from .feed import Entry, Unreadable, decode_entry
from .redis_feed import RedisFeed

logger = logging.getLogger(__name__)

GLOBAL_ID = b"__mb_global_id_n"
GLOBAL_BACKLOG = b"__mb_global_backlog_n"
EPOCH = b"__mb_epoch"
BACKLOG_ID = b"__mb_backlog_id_n_"
BACKLOG = b"__mb_backlog_n_"

MAX_CONNECTIONS = 32
"""Of one process, the feeds' apart; who needs one more waits for up to ``store_timeout``."""
MAX_CHUNK, MAX_CHUNK_BYTES = 1000, 4 * 1024 * 1024
"""Messages, and about how many bytes of them, that are published by one call of the script: some milliseconds."""

_PUBLISH = Path(__file__).with_name("publish.lua").read_text()


class RedisBackend(Backend):
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
        self._clear()
        self._closed = False

    def _clear(self) -> None:
        # Guards the fields below; nothing is waited for under it, so it may be made before gevent patches the process.
        self._lock = threading.Lock()
        self._redis: Any = None
        self._script: Any = None
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
                self._script = self._redis.register_script(_PUBLISH)
            return self._redis

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Makes what redis-py raises into this package's error."""
        try:
            yield
        except redis.ResponseError as error:
            if "READONLY" in str(error):
                # This server is no longer the primary, and the name in the URL may by now lead to the one that is. The
                # pool's connections would hold on to this one.
                with self._lock:
                    self._redis = None
            raise BackendUnavailable(f"Redis at {self.where} said: {error}") from error
        except (redis.RedisError, OSError) as error:
            raise BackendUnavailable(f"Redis at {self.where} does not answer: {error}") from error

    def publish(self, name: str, envelope: bytes, *, max_backlog_size: int, max_backlog_age: int) -> Ids:
        return self._publish((Publication(name, envelope, max_backlog_size, max_backlog_age),))[0]

    def publish_many(self, messages: Sequence[Publication]) -> list[Ids]:
        ids: list[Ids] = []
        for chunk in _chunks(messages):
            ids += self._publish(chunk)
        return ids

    def _publish(self, messages: Sequence[Publication]) -> list[Ids]:
        keys = [GLOBAL_ID, GLOBAL_BACKLOG, EPOCH]
        arguments: list[object] = [
            self._options.max_global_backlog_size,
            self._options.clear_every,
            self._pubsub_channel,
            # Another one each time: it must differ from the one of before a reset.
            secrets.token_hex(8),
        ]
        for name, envelope, size, age in messages:
            key = name.encode()
            keys += (BACKLOG_ID + key, BACKLOG + key)
            stored_name = name.replace("|", PIPE_ESCAPE).encode()
            arguments += (key, stored_name, envelope, age, age * IDS_AGE_FACTOR, size)
        self._client()
        with self._errors():
            # The script object sends the SHA alone, and the text after Redis said NOSCRIPT.
            numbers = self._script(keys=keys, args=arguments)
        return [Ids(numbers[i], numbers[i + 1]) for i in range(0, len(numbers), 2)]

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

    def last_ids(self, names: Sequence[str]) -> list[int]:
        if not names:
            return []
        with self._errors():
            return [int(value or 0) for value in self._client().mget([BACKLOG_ID + name.encode() for name in names])]

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

    def state(self) -> State:
        with self._errors():
            global_id, epoch = self._client().mget([GLOBAL_ID, EPOCH])
        return State(int(global_id or 0), epoch.decode(errors="replace") if epoch else None)

    def named_state(self) -> State:
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
        self._delete((GLOBAL_ID, EPOCH, GLOBAL_BACKLOG), b"__mb_backlog_*")

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
            raise InvalidOption("url", f"the database must be a number, not {database!r}")
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
