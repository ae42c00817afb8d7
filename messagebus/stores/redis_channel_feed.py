"""The feed of the Redis store that hears only what somebody in this process follows: each channel has a pub/sub channel
of its own.

A channel is followed from the answer on to a question that was sent behind its SUBSCRIBE. The question is for the last
ids, the answer a snapshot for ``channel_sequencer``. The same question is sent every few seconds, as a ping that also
shows what has not come.

If another process does not announce its messages by channel, nothing of them comes here. ``publish.lua`` notes that;
then this feed goes over to the pub/sub channel that all have in common, and stays there.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import hiredis

from ..errors import BackendUnavailable
from ..loop.poller import Waker
from ..message import Message
from . import redis_feed
from .base import Listener
from .channel_sequencer import ChannelSequencer, ChannelSource, Item, Snapshot
from .interest import Interest
from .redis_feed import RedisFeed, RedisSource
from .redis_line import Line
from .sequencer import Sequencer, Unreadable, decode_entry

logger = logging.getLogger("messagebus.stores")

LOOKED_AT = 200
"""Followed channels whose last ids are compared with the store's, every ``QUIET`` seconds."""
OTHERS = (
    "another process announces messages on the common pub/sub channel alone; give all processes of the bus "
    "redis_announce='by_channel', or all of them 'together', as the Ruby gem has it, and start this one again"
)


class RedisChannelSource(RedisSource, ChannelSource, Protocol):
    own_prefix: bytes
    """What the pub/sub channel of a channel begins with."""

    def snapshot_keys(self, channels: Sequence[bytes]) -> Sequence[bytes]:
        """The keys that a snapshot is read from."""

    def snapshot(self, channels: Sequence[bytes], values: Sequence[bytes | None]) -> tuple[Snapshot, bool]:
        """The snapshot; and whether messages were not announced by channel."""


class _Question(NamedTuple):
    """What was asked on the connection."""

    channels: Sequence[bytes]
    wanted: Sequence[tuple[str, object]] = ()
    calls: Sequence[Callable[[], object]] = ()


class _HearAll(Exception):
    """Why the feed goes over to the common pub/sub channel."""


class RedisChannelFeed(RedisFeed):
    def __init__(
        self, source: RedisChannelSource, listener: Listener, interest: Interest, announcements: bytes, **settings: Any
    ) -> None:
        """``settings``: those of ``RedisFeed``."""
        super().__init__(source, listener, announcements=announcements, **settings)
        self._channels = source
        self._interest = interest
        self._prefix = source.own_prefix
        self._control = (announcements, source.own_prefix + b"/__epoch")
        self._by_channel = ChannelSequencer(source, self._gate)
        self._hears_all = False
        self._waker = Waker()
        interest.attach(self._waker.wake)
        self._subscribed: dict[bytes, None] = {}
        self._questions: deque[_Question] = deque()
        self._looked_at = 0
        self._left_out = False
        """Whether the last look had something that the stream should have brought."""

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            self._interest.attach(lambda: None)
            self._waker.close()

    def _interrupt(self) -> None:
        super()._interrupt()
        self._waker.wake()

    def _drop(self) -> None:
        super()._drop()
        self._waker.close()

    def _follow(self) -> Iterator[None]:
        if not self._hears_all:
            try:
                yield from self._follow_channels()
            except _HearAll as why:
                if str(why):
                    logger.warning("%s: from now on this process hears all channels: %s", self._where, why)
                self._sequencer = Sequencer(self._source, self._gate, again=self._by_channel.give_up())
                self._hears_all = self._interest.everything = True
        yield from super()._follow()

    def _follow_channels(self) -> Iterator[None]:
        self._source.check_setup()
        connection = self._connection = self._connect()
        try:
            connection.connect()
            line = Line(connection._sock, self._waker, self._timeout)
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
        interest = self._interest
        self._questions.clear()
        interest.take()  # these are among the names
        if interest.everything:
            raise _HearAll
        wanted = [(name, why) for name in interest.names() if (why := interest.find(name)) is not None]
        channels = [name.encode() for name, _ in wanted]
        self._subscribed = dict.fromkeys(channels)
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
                    self._gate.caught_up(self._by_channel.reached, wanted)
                    return replies[number + 1 :]
        raise BackendUnavailable(f"{self._where} gave no answer in time")

    def _send_changes(self, line: Line) -> None:
        """Subscribe to what is wanted by now, unsubscribe from what is not."""
        interest = self._interest
        names, calls = interest.take()
        if interest.everything:
            raise _HearAll
        if not names and not calls:
            return
        wanted, more, less = [], [], []
        for name in names:
            channel, why = name.encode(), interest.find(name)
            if why is not None:
                wanted.append((name, why))
                if channel not in self._subscribed:
                    self._subscribed[channel] = None
                    more.append(channel)
            elif channel in self._subscribed:
                del self._subscribed[channel]
                less.append(channel)
        self._by_channel.unfollow(less)
        line.subscribe([self._prefix + channel for channel in less], undo=True)
        line.subscribe([self._prefix + channel for channel in more])
        if wanted or calls:
            self._ask(line, _Question([name.encode() for name, _ in wanted], wanted, calls))

    def _look(self, line: Line) -> None:
        """Ask how far the store is, and whether some of the channels have all that they should."""
        if not self._questions:
            begin = self._looked_at if self._looked_at < len(self._subscribed) else 0
            self._looked_at = begin + LOOKED_AT
            self._ask(line, _Question(list(islice(self._subscribed, begin, self._looked_at))))

    def _ask(self, line: Line, question: _Question) -> None:
        self._questions.append(question)
        line.ask(b"MGET", *self._channels.snapshot_keys(question.channels))

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
        channels, wanted, calls = self._questions.popleft()
        # Those that were unsubscribed meanwhile are followed no more.
        channels_now = [channel for channel in channels if channel in self._subscribed]
        snapshot = self._snapshot(channels, reply)
        last_ids = {channel: snapshot.last_ids[channel] for channel in channels_now}
        left_out = self._by_channel.checked(snapshot._replace(last_ids=last_ids))
        if not wanted and not calls:
            if left_out and self._left_out:
                raise BackendUnavailable(f"{self._where} does not deliver what is published")
            self._left_out = left_out
        self._gate.caught_up(self._by_channel.reached, wanted)
        for call in calls:
            call()

    def _snapshot(self, channels: Sequence[bytes], values: Sequence[bytes | None]) -> Snapshot:
        snapshot, has_others = self._channels.snapshot(channels, values)
        if has_others:
            raise _HearAll(OTHERS)
        return snapshot


def message_id_of(stored: bytes) -> int:
    try:
        return int(stored.split(b"|", 2)[1])
    except (ValueError, IndexError):
        return 0
