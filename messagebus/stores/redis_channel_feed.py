"""The feed of the Redis store that hears only what somebody in this process follows: each channel has a pub/sub channel
of its own.

A channel is followed from the answer on to a question that was sent behind its SUBSCRIBE. The question is for the last
ids, the answer a snapshot for ``channel_sequencer``. The same question is sent every few seconds, as a ping that also
shows what has not come.

If another process does not announce its messages by channel, nothing of them comes here. ``publish.lua`` notes that;
then this feed goes over to the pub/sub channel that all have in common, and stays there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import hiredis

from ..errors import BackendUnavailable
from ..loop.poller import Waker
from ..message import Message
from . import redis_feed
from .base import Listener
from .channel_feed import BothSources, ChannelFeed
from .channel_sequencer import Item, Snapshot
from .interest import HearAll, Interest
from .redis_feed import RedisFeed, RedisSource
from .redis_line import Line
from .sequencer import Unreadable, decode_entry

OTHERS = (
    "another process announces messages on the common pub/sub channel alone; give all processes of the bus "
    "redis_announce='by_channel', or all of them 'together', as the Ruby gem has it, and start this one again"
)


class RedisChannelSource(RedisSource, BothSources, Protocol):
    own_prefix: bytes
    """What the pub/sub channel of a channel begins with."""

    def snapshot_keys(self, channels: Sequence[bytes]) -> Sequence[bytes]:
        """The keys that a snapshot is read from."""

    def snapshot(self, channels: Sequence[bytes], values: Sequence[bytes | None]) -> tuple[Snapshot, bool]:
        """The snapshot; and whether messages were not announced by channel."""


class _Question(NamedTuple):
    """What was asked on the connection."""

    names: Sequence[str]
    wanted: Sequence[tuple[str, object]] = ()
    calls: Sequence[Callable[[], object]] = ()


class RedisChannelFeed(ChannelFeed, RedisFeed):
    def __init__(
        self, source: RedisChannelSource, listener: Listener, interest: Interest, announcements: bytes, **settings: Any
    ) -> None:
        """``settings``: those of ``RedisFeed``."""
        super().__init__(source, listener, announcements=announcements, **settings)
        self._channels = source
        self._prefix = source.own_prefix
        self._control = (announcements, source.own_prefix + b"/__epoch")
        self._news = Waker()
        self._follow_names(source, interest, self._news)
        self._questions: deque[_Question] = deque()

    def _follow_channels(self) -> Iterator[None]:
        self._source.check_setup()
        connection = self._connection = self._connect()
        try:
            connection.connect()
            line = Line(connection._sock, self._news, self._timeout)
            rest = self._begin(line)
            self._came_up()
            yield
            self._hand_over_items(rest)
            look_at = time.monotonic() + redis_feed.QUIET
            while not self.closed:
                self._send_changes(line)
                replies = line.receive(max(look_at - time.monotonic(), 0.0))
                if replies:
                    yield
                    self._hand_over_items(replies)
                if time.monotonic() >= look_at:
                    self._look(line)
                    look_at = time.monotonic() + redis_feed.QUIET
                # Under gevent, a socket that always has something to read would keep all other greenlets from running.
                time.sleep(0)
            raise ConnectionResetError("closed")
        finally:
            connection.disconnect()
            self._connection = None

    def _begin(self, line: Line) -> list[Any]:
        """Subscribe to all that is wanted, and let the sequencer go on from there. Returns what came behind that."""
        self._questions.clear()
        changes = self._followed.begin()
        channels = [name.encode() for name in self._followed.names]
        line.ask(b"HELLO", b"3")
        line.subscribe([*self._control, *[self._prefix + channel for channel in channels]])
        line.ask(b"MGET", *self._channels.snapshot_keys(channels))
        answers = 0
        until = time.monotonic() + self._timeout
        while time.monotonic() < until:
            replies = line.receive(self._timeout)
            for number, reply in enumerate(replies):
                if type(reply) is hiredis.PushNotification:
                    continue  # a message that comes before the answer is in what the answer counts
                if isinstance(reply, Exception):
                    raise BackendUnavailable(f"{self._where} said: {reply}")
                answers += 1
                if answers == 2:
                    self._by_channel.resume(self._snapshot(channels, reply))
                    self._tell(changes.wanted, changes.calls)
                    return replies[number + 1 :]
        raise BackendUnavailable(f"{self._where} gave no answer in time")

    def _send_changes(self, line: Line) -> None:
        """Subscribe to what is wanted by now, unsubscribe from what is not."""
        changes = self._followed.take()
        if not changes.any:
            return
        less = [name.encode() for name in changes.less]
        self._by_channel.unfollow(less)
        line.subscribe([self._prefix + channel for channel in less], undo=True)
        line.subscribe([self._prefix + name.encode() for name in changes.more])
        if changes.wanted or changes.calls:
            self._ask(line, _Question([name for name, _ in changes.wanted], changes.wanted, changes.calls))

    def _look(self, line: Line) -> None:
        """Ask how far the store is, and whether some of the channels have all that they should."""
        if not self._questions:
            self._ask(line, _Question(self._followed.next_to_look_at()))

    def _ask(self, line: Line, question: _Question) -> None:
        self._questions.append(question)
        line.ask(b"MGET", *self._channels.snapshot_keys([name.encode() for name in question.names]))

    def _hand_over_items(self, replies: Sequence[Any]) -> None:
        """Pass on what has come, in its order."""
        items: list[Item] = []
        announced: list[str] = []
        begin = len(self._prefix)
        codec = self._codec
        for reply in replies:
            if type(reply) is not hiredis.PushNotification:
                self._hand_over_run(items)
                items = []
                self._answered(reply)
            elif reply[0] == b"message":
                if reply[1] == self._announcements:
                    announced.append(reply[2].decode(errors="replace"))
                    continue
                entry = decode_entry(reply[2], codec)
                channel = reply[1][begin:]
                if type(entry) is Message:
                    items.append(Item(channel, entry.global_id, entry.message_id, entry))
                elif isinstance(entry, Unreadable):
                    items.append(Item(channel, entry.global_id, message_id_of(reply[2]), None))
        self._hand_over_run(items)
        if announced:
            self._gate.announced(announced)

    def _hand_over_run(self, items: Sequence[Item]) -> None:
        if items:
            self._by_channel.received(items)

    def _answered(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise BackendUnavailable(f"{self._where} said: {reply}")
        names, wanted, calls = self._questions.popleft()
        snapshot = self._snapshot([name.encode() for name in names], reply)
        # Those that were unsubscribed meanwhile are followed no more.
        now = [name.encode() for name in names if name in self._followed.names]
        snapshot = snapshot._replace(last_ids={channel: snapshot.last_ids[channel] for channel in now})
        if wanted or calls:
            self._by_channel.checked(snapshot)
        elif self._by_channel.looked(snapshot):
            raise BackendUnavailable(f"{self._where} does not deliver what is published")
        self._tell(wanted, calls)

    def _tell(self, wanted: Sequence[tuple[str, object]], calls: Sequence[Callable[[], object]]) -> None:
        self._gate.caught_up(self._by_channel.reached, wanted)
        for call in calls:
            call()

    def _snapshot(self, channels: Sequence[bytes], values: Sequence[bytes | None]) -> Snapshot:
        snapshot, has_others = self._channels.snapshot(channels, values)
        if has_others:
            raise HearAll(OTHERS)
        return snapshot


def message_id_of(stored: bytes) -> int:
    try:
        return int(stored.split(b"|", 2)[1])
    except (ValueError, IndexError):
        return 0
