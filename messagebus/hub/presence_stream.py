"""What this worker tells all workers of its members: a stream of numbered announcements. See ``presence``."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from ..errors import BackendUnavailable, BusClosed
from ..loop.reactor import Reactor
from ..presence.member import Member
from ..presence.own import OwnMembers
from ..presence.rules import is_among
from ..presence.stamps import Stamps
from ..presence.telling import Entry, Group, Told, news, pack, pieces
from ..stores import Store
from .workers import tell

logger = logging.getLogger("messagebus.hub")

PRESENCE = "presence"
"""What workers tell and ask each other."""
HEARSAY = "presence-hearsay"
"""The same of another worker, which gives no answer itself."""
AGAIN_SECONDS = 1.0
"""Until what could not be told is told again."""


class Timer:
    """A deadline of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self.tick = 0

    def on_deadline(self) -> None:
        self._call()


class Stream:
    """See the module. In the reactor's loop, unless a method says otherwise."""

    def __init__(self, worker: str, own: OwnMembers, stamps: Stamps, store: Store, reactor: Reactor) -> None:
        self._worker = worker
        self._own = own
        self._stamps = stamps
        self._store = store
        self._reactor = reactor
        self.number = 0
        """Of the last telling."""
        self._outbox: deque[Told] = deque()
        self._is_open = self._is_sending = self._is_waking = self._stopped = False
        self._own_timer = Timer(self._on_due)
        self._send_timer = Timer(self._send)

    @property
    def is_behind(self) -> bool:
        """Whether something waits to be told."""
        return self._is_sending or bool(self._outbox)

    def open(self) -> None:
        """Begin to tell. Once this worker hears what is told, and the others know of it: who asks later waits for its
        answer, and who has asked before hears what it tells."""
        self._is_open = True
        self._send()

    def wake(self) -> None:
        """Tell of changes of one's own members, once for all that happens in this turn."""
        if not self._is_waking:
            self._is_waking = True
            self._reactor.call_soon(self._on_due)

    def _on_due(self) -> None:
        self._is_waking = False
        seconds = self._own.sweep()
        if seconds is not None:
            self._reactor.set_deadline(self._own_timer, max(seconds, 0.0))
        # While the store takes its time, changes gather: who comes and goes meanwhile is one entry.
        if self._own.changed and not self.is_behind:
            self._tell_changes()

    def _tell_changes(self) -> None:
        changed, self._own.changed = self._own.changed, {}
        stamp = self._stamps.next()
        rooms: dict[str, tuple[list[Entry], list[Any]]] = {}
        for name, key in changed:
            joined, left = rooms.setdefault(name, ([], []))
            entry = self._own.tell(name, key, stamp)
            if entry is None:
                left.append(msgspec.json.decode(key))
            else:
                joined.append(entry)
        self._push([group for name, (joined, left) in rooms.items() for group in news(name, joined, left)], stamp)

    def answer(self, question: Any) -> int | None:
        """Tell all whom this worker holds in the rooms in question. Returns the number that this ends with; ``None``:
        it was not asked."""
        if question["of"] is not None and self._worker not in question["of"]:
            return None
        if self._own.changed:
            self._tell_changes()
        names = dict.fromkeys(str(name) for name in question["rooms"])
        if question["wanted"]:
            names |= dict.fromkeys(name for name in self._own.names() if is_among(question["wanted"], name))
        before = self.number
        groups = [group for name in names for group in pieces(name, self._own.of(name))]
        self._push(groups, self._stamps.next())
        if self.number == before:
            self.beat()  # so that it is heard how far the stream is
        return self.number

    def pass_on(self, known: Told) -> None:
        """Tell what is known of another worker, and end that with a step of this one's own stream: who has heard the
        step has heard it all."""
        stamp = self._stamps.next()
        for packed in pack(known.rooms):
            self._outbox.append(Told(known.worker, known.number, stamp, packed, seconds=known.seconds))
        self._push([Group("", [])], stamp)

    def beat(self) -> None:
        """Tell the others that this worker lives, and how far its stream is."""
        self._put(Told(self._worker, self.number, self._stamps.next()))

    def bury(self, worker: str) -> None:
        """Tell the others that a worker is gone."""
        self._put(Told(self._worker, stamp=self._stamps.next(), gone=worker))

    def end(self, awaited: Sequence[tuple[str, Member, float]]) -> None:
        """Say goodbye to the other workers. Waits for the store; from any thread but the loop's. ``awaited``: see
        ``OwnMembers.awaited``. Under another name they outlive this worker: their next poll goes elsewhere."""
        self._stopped = True
        if not self.number:
            return
        farewell: list[Told] = []
        heir, stamp = f"{self._worker}-polls", self._stamps.last
        groups = [Group(name, [Entry(member.id, member.info, stamp, stamp)]) for name, member, _ in awaited]
        farewell += [Told(heir, number, stamp, packed) for number, packed in enumerate(pack(groups), 1)]
        if farewell:
            farewell.append(Told(heir, bye=True, seconds=max(seconds for _, _, seconds in awaited)))
        try:
            for told in (*farewell, Told(self._worker, bye=True)):
                tell(self._store, PRESENCE, told.to_json())
        except (BackendUnavailable, BusClosed):
            pass  # they find out by its silence

    def _push(self, groups: Iterable[Group], stamp: int) -> None:
        for packed in pack(groups):
            self.number += 1
            self._outbox.append(Told(self._worker, self.number, stamp, packed))
        self._send()

    def _put(self, told: Told) -> None:
        self._outbox.append(told)
        self._send()

    def _send(self) -> None:
        if self._is_sending or not self._outbox or self._stopped or not self._is_open:
            return
        self._is_sending = True
        tellings = [*self._outbox]
        self._outbox.clear()
        if self._store.shared:
            self._reactor.spawn(partial(self._announce, tellings))
        else:
            self._announce(tellings)

    def _announce(self, tellings: list[Told]) -> None:
        """Where it may wait for the store. One after the other: the numbers are in the order of the feed."""
        done = 0
        try:
            for telling in tellings:
                kind = PRESENCE if telling.worker == self._worker else HEARSAY
                tell(self._store, kind, telling.to_json())
                done += 1
        except (BackendUnavailable, BusClosed):
            pass
        except Exception:
            logger.exception("the other workers cannot be told who is there")
            done += 1  # it would fail again; they ask for what is missing
        finally:
            self._reactor.call_soon(self._sent, tellings[done:])

    def _sent(self, left: list[Told]) -> None:
        self._is_sending = False
        if left:
            self._outbox.extendleft(reversed(left))
            self._reactor.set_deadline(self._send_timer, AGAIN_SECONDS)
            return
        self._send()
        if self._own.changed:
            self.wake()
