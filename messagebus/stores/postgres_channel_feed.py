"""The feed of the PostgreSQL store that hears only what somebody in this process follows.

It listens to the buckets that its channels are in, and passes over what others in them get. PostgreSQL brings
notifications in the order of the publishes. To know how far it is, the feed reads a snapshot, and then notifies itself:
what the snapshot counts was announced before this *marker*, so it has come when the marker comes. What was published
between the two may have come as well.
"""

from __future__ import annotations

import secrets
import select
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from psycopg import Notify

from ..errors import BackendUnavailable
from ..loop.poller import Waker
from ..message import Message
from ..names import PIPE_ESCAPE
from . import postgres_feed
from .base import Listener
from .channel_feed import BothSources, ChannelFeed
from .channel_sequencer import Item, Snapshot
from .interest import Changes, Interest
from .postgres_connection import PgConnection
from .postgres_feed import ANNOUNCEMENTS, PostgresFeed, PostgresSource, bucket_of, is_pointer, listen
from .sequencer import decode_entry


class PostgresChannelSource(PostgresSource, BothSources, Protocol):
    def snapshot(self, names: Sequence[str]) -> Snapshot:
        """How far the store and some of its channels are, read at one moment."""


class PostgresChannelFeed(ChannelFeed, PostgresFeed):
    def __init__(
        self, source: PostgresChannelSource, listener: Listener, interest: Interest, timeout: float, **settings: Any
    ) -> None:
        """``timeout``: seconds that a marker may take. ``settings``: those of ``PostgresFeed``."""
        super().__init__(source, listener, **settings)
        self._channels = source
        self._timeout = timeout
        self._news = Waker()
        self._follow_names(source, interest, self._news)
        self._names: tuple[str, str, str] = ("", "", "")
        """The NOTIFY channels of the bus, of announcements, and of this feed's markers."""
        self._buckets: Counter[int] = Counter()
        self._behind_marker: Sequence[Notify] = ()
        """What came in one piece with the last marker, behind it."""

    def _follow_channels(self) -> Iterator[None]:
        self._source.named_state()
        channel = self._source.notify_channel()
        self._names = (channel, channel + ANNOUNCEMENTS, f"{channel}_{secrets.token_hex(8)}")
        connection = self._connect()
        with self._lock:
            self._connection = connection
        try:
            listen(connection, self._names)
            self._begin(connection)
            self._came_up()
            yield
            look_at = time.monotonic() + postgres_feed.QUIET
            while not self.closed:
                self._wait(connection, look_at - time.monotonic())
                changes = self._followed.take()
                looks = time.monotonic() >= look_at
                if looks:
                    look_at = time.monotonic() + postgres_feed.QUIET
                if looks or changes.any:
                    self._turn(connection, changes, looks)
                else:
                    self._by_channel.received(self._items([*connection.notifies(timeout=0, stop_after=1)]))
                yield
                # Under gevent, a socket that always has something to read would keep all other greenlets from running.
                time.sleep(0)
            raise BackendUnavailable("closed")
        finally:
            with self._lock:
                if self._connection is connection:
                    connection.close()
                    self._connection = None

    def _wait(self, connection: PgConnection, seconds: float) -> None:
        """Until something has come, there is something to do, or so many seconds have passed."""
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        poll.register(self._news.fileno(), select.POLLIN)
        if self._news.fileno() in [fd for fd, _ in poll.poll(max(seconds, 0.0) * 1000)]:
            self._news.clear()

    def _begin(self, connection: PgConnection) -> None:
        """Listen to all that is wanted, and let the sequencer go on from there."""
        self._buckets.clear()
        changes = self._followed.begin()
        self._change_buckets(connection, changes)
        snapshot = self._channels.snapshot([*self._followed.names])
        # What came before the snapshot is in what it counts.
        later = [item for item in self._items_before_marker(connection) if item.global_id > snapshot.global_id]
        self._by_channel.resume(snapshot)
        self._by_channel.received(later)
        self._tell(changes)
        self._by_channel.received(self._items(self._behind_marker))

    def _turn(self, connection: PgConnection, changes: Changes, looks: bool) -> None:
        """Take up what has changed, and learn how far the store is."""
        sequencer = self._by_channel
        sequencer.unfollow([name.encode() for name in changes.less])
        self._change_buckets(connection, changes)
        asked = [name for name, _ in changes.wanted]
        if looks:
            asked += self._followed.next_to_look_at()
        reached = sequencer.reached
        snapshot = self._channels.snapshot(asked)
        items = self._items_before_marker(connection)
        if snapshot.global_id >= reached:
            sequencer.received(items)
            snapshot = self._at_marker(snapshot, items)
        if not looks:
            sequencer.checked(snapshot)
        elif sequencer.looked(snapshot):
            raise BackendUnavailable(f"{self._where} does not deliver what is published")
        self._tell(changes)
        sequencer.received(self._items(self._behind_marker))

    def _at_marker(self, snapshot: Snapshot, items: Sequence[Item]) -> Snapshot:
        """The snapshot as it would be at the marker's place, behind these items."""
        newest = {item.channel: item.message_id for item in items}
        last_ids: dict[bytes, int | None] = {}
        for channel, last_id in snapshot.last_ids.items():
            known = max(self._by_channel.last_id(channel) or 0, newest.get(channel, 0))
            # Where the store has no count, and nothing has come since, the channel was forgotten.
            last_ids[channel] = last_id if last_id is None and channel not in newest else max(last_id or 0, known)
        return Snapshot(max(snapshot.global_id, self._by_channel.reached), snapshot.epoch, last_ids)

    def _tell(self, changes: Changes) -> None:
        self._gate.caught_up(self._by_channel.reached, changes.wanted)
        for call in changes.calls:
            call()

    def _change_buckets(self, connection: PgConnection, changes: Changes) -> None:
        before = set(self._buckets)
        self._buckets.update(map(bucket_of, changes.more))
        self._buckets.subtract(map(bucket_of, changes.less))
        self._buckets = +self._buckets
        more, less = self._buckets.keys() - before, before - self._buckets.keys()
        statements = [f'LISTEN "{self._names[0]}_{bucket}"' for bucket in more]
        statements += [f'UNLISTEN "{self._names[0]}_{bucket}"' for bucket in less]
        if statements:
            connection.execute("; ".join(statements))

    def _items_before_marker(self, connection: PgConnection) -> list[Item]:
        marker = self._names[2]
        connection.execute(f'NOTIFY "{marker}"')
        until = time.monotonic() + self._timeout
        came: list[Notify] = []
        while time.monotonic() < until and not self.closed:
            came += connection.notifies(timeout=max(until - time.monotonic(), 0.0), stop_after=1)
            for number, each in enumerate(came):
                if each.channel == marker:
                    self._behind_marker = came[number + 1 :]
                    return self._items(came[:number])
        raise BackendUnavailable(f"{self._where} does not deliver what is announced")

    def _items(self, notifications: Sequence[Notify]) -> list[Item]:
        """What has come of the channels that are followed. Hands over announcements."""
        bus, announcements, marker = self._names
        followed = self._followed.names
        payloads, announced = [], []
        for each in notifications:
            if each.channel == announcements:
                announced.append(each.payload)
            elif each.channel == bus:
                payloads.append((b"", "-1", "-1", each.payload))  # the epoch has changed
            elif each.channel != marker:
                global_id, message_id, name = each.payload.split("|", 3)[:3]
                if PIPE_ESCAPE in name:
                    name = name.replace(PIPE_ESCAPE, "|")
                if name in followed:
                    payloads.append((name.encode(), global_id, message_id, each.payload))
        if announced:
            self._gate.announced(announced)
        pointers = [int(global_id) for _, global_id, _, payload in payloads if is_pointer(payload)]
        read = self._source.read(pointers) if pointers else {}
        items = []
        for channel, global_id, message_id, payload in payloads:
            number = int(global_id)
            if number < 0:
                items.append(Item(channel, -1, -1, None))
                continue
            is_read = is_pointer(payload)
            entry = read.get(number) if is_read else decode_entry(payload.encode(), self._codec)
            # What is gone already leaves a hole that the next message, or a look, shows.
            if entry is not None or not is_read:
                items.append(Item(channel, number, int(message_id), entry if isinstance(entry, Message) else None))
        return items
