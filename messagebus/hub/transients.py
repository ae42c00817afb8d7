"""Delivers transient messages: to those who are live on the channel now, and are not behind. No store, no HTTP.

A transient message has no place among the others. On the wire it has the ids of the last message before it, so that a
client that knows nothing of such messages takes it for no step of its position. A reader that is behind is not given
it, and not cut off for it; of those with a key it is given the newest of each, when all that waited has been sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from ..message import Message, decode_message
from ..publishing.transient import Telling
from ..transports import Transport, join_batch
from .counters import Counters
from .membership import Followers, Membership
from .patterns import Pattern
from .permissions import Access, ReportError
from .subscriber import Phase, Subscriber
from .windows import Windows

logger = logging.getLogger("messagebus.hub")

MAX_KEYS = 32
"""Keys of which the newest message waits for one reader; of more, those that have waited longest are dropped."""

Answer = Callable[[Subscriber, str, Sequence[Message], bytes], object]
"""See ``Dispatcher.answer``."""


class TransientMessage(Message, gc=False):
    """Has the ids of the last message before it, or -1 where that is not known."""

    @classmethod
    def of(cls, message: Message) -> TransientMessage:
        """One whose place is not known yet."""
        return cls(
            -1,
            -1,
            message.channel,
            message.raw,
            message.site_id,
            message.user_ids,
            message.group_ids,
            message.client_ids,
            exclude_client_ids=message.exclude_client_ids,
            sender=message.sender,
        )

    @property
    def transient(self) -> bool:
        return True

    @property
    def json(self) -> bytes:
        return b'%b,"transient":true}' % super().json[:-1]

    @property
    def parts(self) -> tuple[bytes, ...]:
        return (self.json,)


class Transients:
    """See the module. In the reactor's loop only."""

    def __init__(
        self,
        windows: Windows,
        membership: Membership,
        access: Access,
        report: ReportError,
        counters: Counters,
        answer: Answer,
    ) -> None:
        """``report``: called when a filter fails. ``answer``: ends a poll with what it is given."""
        self._windows = windows
        self._membership = membership
        self._access = access
        self._report = report
        self._counters = counters
        self._answer = answer
        self._waiting: dict[Subscriber, dict[tuple[str, str], Message]] = {}
        """Reader that is behind -> channel as it follows it, and key -> the newest message."""

    def hear(self, told: Any) -> None:
        """A process tells a transient message."""
        try:
            telling = Telling.read(told)
            message = TransientMessage.of(decode_message(-1, -1, telling.name, telling.envelope.encode()))
        except (msgspec.ValidationError, ValueError) as error:
            logger.warning("a transient message cannot be read, perhaps a newer version's: %s", error)
            return
        names = [telling.name]
        names += [name for name, pattern in self._windows.patterns.items() if pattern.matches(message)]
        found = [(name, followers) for name in names if (followers := self._membership.followers(name)) is not None]
        if found and (not self._access.filters or self._access.lets_through(message, self._report)):
            for name, followers in found:
                self._deliver(name, followers, message, telling.key)

    def _deliver(self, name: str, followers: Followers, message: Message, key: str | None) -> None:
        placed = self._placed(message)
        if placed.message_id < 0 and Pattern.of(name) is None:
            return  # where the channel stands is not known here yet: nobody could be given a position
        for transport, readers in self._readers(name, followers, message):
            data = transport.encode(join_batch([placed]), None)
            for reader in readers:
                if not reader.writer.is_behind:
                    self._give(reader, name, placed, data)
                elif key is not None:
                    self._keep(reader, name, key, message)

    def _readers(
        self, name: str, followers: Followers, message: Message
    ) -> Iterable[tuple[Transport, Iterable[Subscriber]]]:
        """Those whom it is for, by transport."""
        if not message.targeted:
            return [(transport, [*members]) for transport, members in followers.items()]
        if message.user_ids is message.group_ids is message.client_ids is None:
            excluded = message.exclude_client_ids or ()
            return [
                (transport, [member for member in members if member.identity.client_id not in excluded])
                for transport, members in followers.items()
            ]
        found: dict[Transport, list[Subscriber]] = {}
        for reader in self._membership.find(message):
            if name in reader.channels:
                found.setdefault(reader.transport, []).append(reader)
        return found.items()

    def _placed(self, message: Message) -> Message:
        """The message with the position that everybody who is live on its channel has been given."""
        window = self._windows.find(message.name)
        last_id = -1 if window is None else window.last_id
        reached = self._windows.reached_for((message.name,))
        return TransientMessage(reached, last_id, message.channel, message.raw, message.site_id)

    def _give(self, reader: Subscriber, name: str, placed: Message, data: bytes) -> None:
        self._counters.delivered += 1
        self._counters.bytes += len(data)
        if reader.transport.one_batch:
            self._answer(reader, name, (placed,), data)
        else:
            reader.put(data)

    # --- readers that are behind ---

    def _keep(self, reader: Subscriber, name: str, key: str, message: Message) -> None:
        waiting = self._waiting.setdefault(reader, {})
        waiting.pop((name, key), None)  # the newest is the last in its turn as well
        waiting[name, key] = message
        if len(waiting) > MAX_KEYS:
            del waiting[next(iter(waiting))]
        reader.writer.tell_when_sent()

    def on_drained(self, reader: Subscriber) -> None:
        """All that waited for a reader has left."""
        if not self._waiting or reader.writer.is_behind:  # it was given a piece of what it has missed
            return
        for (name, _), message in self._waiting.pop(reader, {}).items():
            if name in reader.channels and reader.state is Phase.OPEN:
                placed = self._placed(message)
                self._give(reader, name, placed, reader.transport.encode(join_batch([placed]), None))

    def forget(self, reader: Subscriber) -> None:
        """Forget a disconnected reader. May be repeated."""
        if self._waiting:
            self._waiting.pop(reader, None)
