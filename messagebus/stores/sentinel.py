"""Who is the primary, as the sentinels say: they are asked for each new connection, and heard when that changes.

redis-py speaks to them, and to the primary: its ``SentinelManagedConnection`` asks a :class:`Primary` where to go. Its
own way to ask, ``Sentinel.discover_master``, is not used. It reads a sentinel's table, where the old address stands
until the failover is over, and other replicas may take a long time; ``get-master-addr-by-name`` names the new one from
its promotion on. And it cannot tell an unknown name from a primary that is down.

A process does not wait until a dead connection shows that the primary has changed, which takes a ``store_timeout``. A
thread for each sentinel hears of it, so that one that is cut off keeps nobody from hearing the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoPermissionError
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from .. import _compat, forks
from ..backoff import Backoff
from .base import KEEPALIVE_IDLE
from .redis_connection import WrongServer, connection_arguments, shut_down
from .sentinel_url import EXPECTED, SentinelUrl, read_sentinel_url

_compat.check("redis.sentinel", {"redis.sentinel:SentinelManagedConnection": ("connect_to",)})
logger = logging.getLogger("messagebus.stores")

Address = tuple[str, int]


class Answer(NamedTuple):
    config_epoch: int
    """Grows with each failover. A sentinel that was cut off meanwhile still has the one before."""
    address: Address


ASK_SECONDS = 1.0
"""Seconds at most for one sentinel to answer: the next one knows it as well."""
EVENTS = (b"+promoted-slave", b"+switch-master")
"""The one who leads the failover knows of it from the first on, the others from the second."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class NoPrimary(redis.ConnectionError):
    """No sentinel names a primary; the text says why."""


class Primary:
    """The primary of a name, for redis-py's connections. Safe from any thread and greenlet; connects to nothing yet."""

    is_master = True
    check_connection = False
    """Both are redis-py's questions."""

    def __init__(self, url: str, timeout: float) -> None:
        """
        Raises:
            InvalidOption: The URL is malformed.
        """
        self.url: SentinelUrl = read_sentinel_url(url)
        waits = min(timeout, ASK_SECONDS)
        self._sentinels = [connection_arguments(each, waits) for each in self.url.sentinels]
        connection_class, arguments = connection_arguments(self.url.primary, timeout)
        is_tls = issubclass(connection_class, redis.SSLConnection)
        self.connection_class = SentinelManagedSSLConnection if is_tls else SentinelManagedConnection
        arguments.pop("host", None)
        arguments.pop("port", None)
        self.arguments: dict[str, Any] = {**arguments, "connection_pool": self}
        self.where = f"{self.url.name} of the sentinels {', '.join(self.url.places)}, database {arguments['db']}"
        self.moved: Callable[[Address], None] = lambda address: None
        """Told of each new address, by the threads that listen."""
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._first = 0  # the sentinel that answered last
        self._newest: Answer | None = None
        self._watches: list[_Watch] = []

    def get_master_address(self) -> Address:
        """The address of the primary; redis-py's name for it. Asks one sentinel after the other.

        Raises:
            NoPrimary: None of them knows it, or none answers.
            WrongServer: One of them is no sentinel, or lets nobody ask, and the others know no more.
        """
        troubles: list[redis.RedisError] = []
        late: Answer | None = None
        for number in range(len(self._sentinels)):
            index = (self._first + number) % len(self._sentinels)
            try:
                answer = self.ask(index)
            except redis.RedisError as error:
                troubles.append(error)
                continue
            if self._newest is not None and answer.config_epoch < self._newest.config_epoch:
                late = max(late or answer, answer)
                continue
            self._first = index
            return answer.address
        if late is not None:
            self._newest = late  # all agree: their own memory was reset
            return late.address
        for trouble in troubles:
            if isinstance(trouble, WrongServer):
                raise trouble
        raise NoPrimary("; ".join(dict.fromkeys(map(str, troubles))))

    def ask(self, index: int) -> Answer:
        """What one sentinel says."""
        connection = self.open(index)
        name, place = self.url.name, self.url.places[index]
        try:
            connection.connect()
            connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
            found = connection.read_response()
            if found is None:
                connection.send_command("SENTINEL", "MASTERS")
                known = [_pairs(each)[b"name"].decode(errors="replace") for each in connection.read_response()]
                names = ", ".join(known[:10]) or "none"
                raise NoPrimary(f"the sentinel at {place} knows no primary of the name {name}, but {names}")
            connection.send_command("SENTINEL", "MASTER", name)
            config_epoch = int(_pairs(connection.read_response())[b"config-epoch"])
            return Answer(config_epoch, (found[0].decode(), int(found[1])))
        except NoPrimary:
            raise
        except redis.RedisError as error:
            raise self._explain(error, place) from error
        finally:
            connection.disconnect()

    def _explain(self, error: redis.RedisError, place: str) -> redis.RedisError:
        if isinstance(error, (redis.AuthenticationError, NoPermissionError)) or "NOAUTH" in str(error):
            return WrongServer(
                f"the sentinel at {place} does not let this process ask: {error}; its own user and password are the "
                "URL's sentinel_username and sentinel_password, and the user needs +ping +subscribe "
                "+sentinel|get-master-addr-by-name +sentinel|master +sentinel|masters &+promoted-slave &+switch-master",
                "unauthenticated",
            )
        if isinstance(error, redis.ResponseError):
            return WrongServer(
                f"{place} was expected to be a sentinel, but is a server that keeps data, or another one: it said "
                f"{str(error)[:120]!r}; with sentinels the URL is {EXPECTED}, without them redis://host:6379/0",
                "unsupported",
            )
        return NoPrimary(f"the sentinel at {place} does not answer: {error}")

    # --- what changes ---

    def watch(self) -> None:
        """Begin to hear the sentinels. May be repeated."""
        with self._lock:
            if self._watches:
                return
            self._watches = watches = [_Watch(self, index) for index in range(len(self._sentinels))]
        for each in watches:
            each.thread.start()

    def open(self, index: int) -> Any:
        """A connection to a sentinel."""
        connection_class, arguments = self._sentinels[index]
        return connection_class(**arguments)

    def named(self, answer: Answer) -> None:
        """A sentinel that listens says that this is the primary."""
        with self._lock:
            before = self._newest
            if before is not None and (answer.config_epoch < before.config_epoch or answer.address == before.address):
                return
            self._newest = answer
        if before is not None:
            logger.warning(
                "the primary %s is now %s:%d, and was %s:%d", self.url.name, *answer.address, *before.address
            )
            self.moved(answer.address)

    def close(self) -> None:
        with self._lock:
            watches, self._watches = self._watches, []
        for each in watches:
            each.close()

    def after_fork(self) -> None:
        watches = self._watches
        self._begin()
        for each in watches:
            each.abandon()


def _pairs(answer: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


class _Watch:
    """The thread that hears one sentinel, until it is closed."""

    def __init__(self, primary: Primary, index: int) -> None:
        self._primary = primary
        self._index = index
        self._connection: Any = None
        self._closed = False
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name="messagebus-sentinel", daemon=True)

    def close(self) -> None:
        self._closed = True
        self._stop.set()
        shut_down(self._connection)
        if self.thread is not threading.current_thread():
            self.thread.join(ASK_SECONDS)

    def abandon(self) -> None:
        """In a child, where the thread does not exist; but a gevent greenlet does, and must do no more."""
        self._closed = True
        self._stop = threading.Event()
        forks.leave_behind(self)

    def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not self._closed:
            connection = self._connection = self._primary.open(self._index)
            try:
                self._listen(connection, backoff)
            except (redis.RedisError, OSError) as error:
                # Whoever needs the primary asks again, and says in the log what is wrong.
                logger.debug("sentinel %s: %s", self._primary.url.places[self._index], error)
            finally:
                if not self._closed or not forks.was_left_behind(self):
                    connection.disconnect()
            self._stop.wait(backoff.next())
        if forks.was_left_behind(self):
            forks.rest()

    def _listen(self, connection: Any, backoff: Backoff) -> None:
        connection.connect()
        connection.send_command("SUBSCRIBE", *EVENTS)
        for _ in EVENTS:
            connection.read_response(timeout=ASK_SECONDS)
        self._ask()  # what changed while nobody listened
        backoff.reset()
        while not self._closed:
            if not connection.can_read(timeout=KEEPALIVE_IDLE):
                connection.send_command("PING", check_health=False)
                connection.read_response(timeout=ASK_SECONDS)
                self._ask()
                continue
            kind, *event = connection.read_response()
            if kind == b"message" and self._primary.url.name.encode() in event[1].split():
                self._ask()

    def _ask(self) -> None:
        self._primary.named(self._primary.ask(self._index))
