"""The connection of a feed to one node of a Redis Cluster, with its thread: carries the followers of all partitions
that are on that node.

On it a partition subscribes and asks at the same time, in RESP3. A node that no longer has the partition's slot
unsubscribes it by itself and says so, or answers MOVED; then the partition alone leaves this line.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import hiredis
import redis

from .. import forks
from ..errors import BackendUnavailable, InvalidOption
from ..loop.poller import Waker
from . import redis_feed
from .redis_cluster_follower import Follower, Question
from .redis_cluster_url import ClusterUrl, Place
from .redis_connection import shut_down
from .redis_line import Line

logger = logging.getLogger("messagebus.stores")

OUTAGES = (BackendUnavailable, InvalidOption, redis.RedisError, OSError)
AGAIN_SECONDS = 0.1
"""Before a question is asked again that the node could not answer, as the slot is on the move."""
_FENCE = b"here"


class Owner(Protocol):
    """The feed, as its lines see it; from their threads."""

    @property
    def closed(self) -> bool: ...

    def left_line(self, followers: Sequence[Follower], error: Exception | None) -> None:
        """Followers need another line. ``error``: what has gone wrong; ``None``: their slot has moved."""

    def came_up(self, follower: Follower) -> None: ...

    def announced(self, texts: Sequence[str]) -> None: ...


class _Asked:
    """A question, and what has come of its answer so far."""

    def __init__(self, follower: Follower | None, question: Question | None, is_fenced: bool) -> None:
        self.follower = follower
        self.turn = follower.turn if follower is not None else 0
        self.question = question
        self.is_fenced = is_fenced
        """Whether something was sent before it that may be answered with an error: then a fence ends the answer."""
        self.values: Any = None
        self.error: Exception | None = None


class ClusterLine:
    """See the module. ``adopt``, ``note_change``, ``hear_announcements`` and ``close`` are for any thread."""

    def __init__(self, owner: Owner, url: ClusterUrl, place: Place, timeout: float, announcements: bytes) -> None:
        """``timeout``: seconds that an answer may take."""
        self.place = place
        self._owner = owner
        self._url = url
        self._timeout = timeout
        self._announcements = announcements
        self._lock = threading.Lock()
        self.has_ended = False
        self.hears_announcements = False
        self._wants_announcements = False
        self._waker = Waker()
        self._inbox: deque[Follower] = deque()
        self._changed: deque[Follower] = deque()
        self._followers: dict[bytes, Follower] = {}
        self._asked: deque[_Asked] = deque()
        self._again: list[tuple[Follower, Question]] = []
        self._again_at = 0.0
        self._connection: Any = None
        self._line: Line | None = None
        self._is_subscribing = False
        self.thread = threading.Thread(target=self._run, name="messagebus-feed-node", daemon=True)

    # --- for any thread ---

    def adopt(self, follower: Follower) -> bool:
        """Follow a partition here; ``False``: the line has ended."""
        with self._lock:
            if self.has_ended:
                return False
            self._inbox.append(follower)
        self._waker.wake()
        return True

    def note_change(self, follower: Follower) -> None:
        self._changed.append(follower)
        self._waker.wake()

    def hear_announcements(self, wanted: bool) -> None:
        """One line of a feed does; where it carries nothing else and is to do so no more, it ends."""
        self._wants_announcements = wanted
        self._waker.wake()

    @property
    def carries(self) -> bool:
        """Whether partitions are followed here, or will be."""
        return bool(self._followers or self._inbox)

    def close(self) -> None:
        shut_down(self._connection)
        self._waker.wake()

    def drop(self) -> None:
        """In a child process."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()  # only closes the descriptor: redis-py sees that another process opened it
        self._waker.close()

    # --- the stream of a follower, for the line's thread ---

    def subscribe(self, channels: Sequence[bytes]) -> None:
        self._send(b"SSUBSCRIBE", channels)

    def unsubscribe(self, channels: Sequence[bytes]) -> None:
        self._send(b"SUNSUBSCRIBE", channels)

    def _send(self, command: bytes, channels: Sequence[bytes]) -> None:
        assert self._line
        if channels:
            self._is_subscribing = True
            self._line.send_all(command, channels)

    def ask(self, follower: Follower, question: Question, keys: Sequence[bytes]) -> None:
        assert self._line
        is_fenced = self._is_subscribing or not keys
        self._asked.append(_Asked(follower, question, is_fenced))
        if keys:
            self._line.ask(b"MGET", *keys)
        if is_fenced:
            self._line.ask(b"PING", _FENCE)
        self._is_subscribing = False

    def _fence(self, follower: Follower | None) -> None:
        """What was sent last may be answered with an error."""
        assert self._line
        if self._is_subscribing:
            self._asked.append(_Asked(follower, None, True))
            self._line.ask(b"PING", _FENCE)
            self._is_subscribing = False

    # --- the thread ---

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._follow()
        except OUTAGES as trouble:
            error = trouble
        except Exception as trouble:
            error = trouble
            if not self._owner.closed:
                logger.exception("the feed from the node %s:%d failed", *self.place)
        if forks.was_left_behind(self):
            forks.rest()
        with self._lock:
            self.has_ended = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
        self._waker.close()
        left = [*self._followers.values(), *self._inbox]
        for follower in left:
            follower.leave()
        self._owner.left_line(left, error)

    def _follow(self) -> None:
        arguments = {**self._url.arguments, "host": self.place[0], "port": self.place[1]}
        connection = self._connection = self._url.connection_class(**arguments)
        if self._owner.closed:
            return
        connection.connect()
        line = self._line = Line(connection._sock, self._waker, self._timeout)
        self._asked.append(_Asked(None, None, False))
        line.ask(b"HELLO", b"3")
        while self._asked:  # a node that is silent costs its partitions one timeout together
            if self._owner.closed:
                return
            self._take_in(line.receive(self._timeout))
        if self._inbox:
            self._inbox[0].source.check_setup()
        look_at = time.monotonic() + redis_feed.QUIET
        while not self._owner.closed:
            self._begin_new()
            self._send_changes()
            if self._is_idle():
                return
            wait_until = min(look_at, self._again_at) if self._again else look_at
            self._take_in(line.receive(max(wait_until - time.monotonic(), 0.0)))
            now = time.monotonic()
            if self._again and now >= self._again_at:
                again, self._again = self._again, []
                for follower, question in again:
                    self._guarded(follower, lambda f=follower, q=question: f.ask_again(q))  # type: ignore[misc]
            if now >= look_at:
                for follower in list(self._followers.values()):
                    self._guarded(follower, follower.look)
                look_at = now + redis_feed.QUIET
            # Under gevent, a socket that always has something to read would keep all other greenlets from running.
            time.sleep(0)

    def _is_idle(self) -> bool:
        """Whether nothing is followed here any more; then nothing will be."""
        if self._followers or self._wants_announcements:
            return False
        with self._lock:
            self.has_ended = not self._inbox
            return self.has_ended

    def _begin_new(self) -> None:
        if self._wants_announcements and not self.hears_announcements:
            self.hears_announcements = True
            assert self._line
            self._line.send(b"SUBSCRIBE", self._announcements)
            self._is_subscribing = True
            self._fence(None)
        while self._inbox:
            follower = self._inbox.popleft()
            self._followers[follower.source.tag] = follower
            self._guarded(follower, lambda f=follower: f.begin(self))  # type: ignore[misc]

    def _send_changes(self) -> None:
        for follower in dict.fromkeys([self._changed.popleft() for _ in range(len(self._changed))]):
            if self._is_here(follower):
                self._guarded(follower, follower.send_changes)
                self._fence(follower)

    def _is_here(self, follower: Follower) -> bool:
        return self._followers.get(follower.source.tag) is follower

    def _take_in(self, replies: Sequence[Any]) -> None:
        announced: list[str] = []
        touched: dict[Follower, None] = {}
        for reply in replies:
            if type(reply) is not hiredis.PushNotification:
                self._take_answer(reply)
            elif reply[0] == b"smessage":
                channel = reply[1]
                follower = self._followers.get(channel[: channel.index(b"}") + 1])
                if follower is not None:
                    self._guarded(follower, partial(follower.heard, channel, reply[2]))
                    touched[follower] = None
            elif reply[0] == b"message":
                announced.append(reply[2].decode(errors="replace"))
            elif reply[0] == b"sunsubscribe":
                self._unsubscribed(reply[1])
        for follower in touched:
            if self._is_here(follower):
                self._guarded(follower, follower.hand_over)
        if announced:
            self._owner.announced(announced)

    def _unsubscribed(self, channel: bytes | None) -> None:
        follower = self._followers.get(channel[: channel.find(b"}") + 1]) if channel else None
        if follower is not None and channel in (follower.source.epoch_channel, follower.source.common_channel):
            # Nobody here asked for that: the slot has moved.
            self._release(follower, None)

    def _take_answer(self, reply: Any) -> None:
        asked = self._asked[0]
        if isinstance(reply, Exception):
            asked.error = asked.error or reply
        elif not asked.is_fenced:
            asked.values = reply
        elif reply != _FENCE:
            asked.values = reply
            return
        if asked.is_fenced and isinstance(reply, Exception):
            return
        self._asked.popleft()
        follower, question = asked.follower, asked.question
        if follower is None:
            if asked.error is not None and not asked.is_fenced:
                raise BackendUnavailable(f"Redis at {self.place[0]}:{self.place[1]} said: {asked.error}")
            return  # a user who may not hear announcements hears messages all the same
        if not self._is_here(follower) or follower.turn != asked.turn:
            return
        if asked.error is not None:
            self._refused(follower, question, asked.error)
        elif question is not None:
            self._guarded(follower, lambda: self._answered(follower, question, asked.values))

    def _answered(self, follower: Follower, question: Question, values: Any) -> None:
        had_begun = follower.has_begun
        follower.hand_over()
        follower.answered(question, values)
        self._fence(follower)
        if follower.has_begun and not had_begun:
            self._owner.came_up(follower)

    def _refused(self, follower: Follower, question: Question | None, error: Exception) -> None:
        text = str(error)
        if text.startswith("MOVED"):
            self._release(follower, None)
        elif text.startswith(("TRYAGAIN", "ASK")) and question is not None and follower.has_begun:
            self._again.append((follower, question))
            self._again_at = time.monotonic() + AGAIN_SECONDS
        else:
            reason = "forbidden" if text.startswith("NOPERM") else "busy"
            self._release(follower, BackendUnavailable(f"Redis at {follower.source.where} said: {text}", reason))

    def _guarded(self, follower: Follower, call: Callable[[], object]) -> None:
        """What goes wrong with one partition is of no concern to the others."""
        try:
            call()
        except OUTAGES as error:
            if isinstance(error, OSError) and not isinstance(error, redis.RedisError):
                raise  # the line itself
            self._release(follower, error)
        except Exception as error:
            if self._owner.closed:
                raise
            # A bug in a listener, or in this package. The feed survives it, and continues after the message.
            logger.exception("the feed from Redis at %s failed, and starts again", follower.source.where)
            self._release(follower, error)

    def _release(self, follower: Follower, error: Exception | None) -> None:
        if self._followers.pop(follower.source.tag, None) is not None:
            follower.leave()
            self._owner.left_line([follower], error)
