"""Who is there, over all workers: hears what they tell of their members, tells the watchers, and looks after both.

Each worker tells what changes of its own members (``presence_stream``). Who begins to ask for a room asks all workers
for it once (``presence_asking``), and follows their streams from then on. See docs/design.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ..loop.reactor import Reactor
from ..message import Message
from ..presence.member import Key, Member
from ..presence.room import Room
from ..presence.rules import PresenceRules, is_among
from ..presence.stamps import Stamps
from ..presence.telling import read
from ..presence.view import Heard
from ..stores import Store
from .attendance import Attendance
from .membership import Membership
from .presence_asking import WAIT_SECONDS, Asking
from .presence_hooks import HookRunner
from .presence_stream import HEARSAY, PRESENCE, Stream, Timer
from .presence_watchers import Deliver, Watchers
from .workers import Workers

BEAT_SECONDS = 5.0
"""Between two signs of life of a worker."""
SILENT_SECONDS = 25.0
"""After so much silence a worker's members are gone: it was killed, or cannot reach the store."""
TICK_SECONDS = 1.0
"""How often it is looked after both."""
LINGER_SECONDS = 60.0
"""How long a room stays known that nobody watches any more."""
MAX_IDLE_ROOMS = 10_000
"""How many of those."""

RELEASE = "presence-leave"
"""Told with a room and the id of somebody whom the program has let go."""

T = TypeVar("T")


class Presence:
    """See the module. In the reactor's loop, unless a method says otherwise."""

    def __init__(
        self,
        attendance: Attendance,
        rules: PresenceRules,
        workers: Workers,
        store: Store,
        reactor: Reactor,
        membership: Membership,
        deliver: Deliver,
        report: Callable[[Exception, str], object],
    ) -> None:
        self._attendance = attendance
        self._own = attendance.own
        self._view = attendance.view
        self._rules = rules
        self._worker = workers.id
        self._reactor = reactor
        self._followers = membership.followers
        self._watchers = Watchers(self._view, self._followers, deliver, reactor)
        self._hooks = HookRunner(rules, reactor, report)
        self._stamps = Stamps()
        self._stream = Stream(workers.id, self._own, self._stamps, store, reactor)
        self._asking = Asking(self._view, rules, workers, reactor, self._complete, self._has_wanted)
        self._burying: dict[str, float] = {}
        self._stopped = False
        self._heard_self_at = reactor.clock()
        self._beat_at = self._sweep_at = 0.0
        self._tick_timer = Timer(self._tick)
        workers.on(PRESENCE, self._hear)
        workers.on(HEARSAY, self._hear_of)
        workers.on(RELEASE, self._release)
        workers.on_question(PRESENCE, self._answer)
        workers.when_known(self._stream.open)
        attendance.wake = self._wake
        attendance.watch = self._watch

    def start(self) -> None:
        """The feed is connected. From any thread."""
        if self._rules.hooked:
            self._reactor.call_soon(self._begin)

    def stop(self) -> None:
        """Say goodbye to the other workers. Waits for the store; from any thread but the loop's."""
        self._stopped = self._asking.stopped = True
        self._hooks.stop()
        self._stream.end((self._in_loop(self._own.awaited) or []) if self._stream.number else [])

    # --- from any thread ---

    def store_answers(self, answers: bool) -> None:
        """The store is away: nobody can come back, so that nobody goes. Or it answers again, and whoever would have
        gone in the meantime has the grace from now on."""

        def look() -> None:
            if answers:
                self._own.release_all()
                self._stream.wake()
            else:
                self._own.hold()

        self._reactor.call_soon(look)

    def knows(self, names: Iterable[str]) -> bool:
        """Whether it is known who is in these rooms."""
        rooms, now = self._view.rooms, self._reactor.clock()
        for name in names:
            room = rooms.get(name)
            if room is None or not room.complete:
                return False
            room.touched = now
        return True

    def wait_for(self, names: Iterable[str]) -> bool:
        """Wait a moment until it is known who is in these rooms. Returns whether it is."""
        wanted = list(names)
        if self.knows(wanted):
            return True
        done = threading.Event()
        self._reactor.call_soon(self._want, wanted, done.set)
        # Where the store is away, nobody answers.
        return not self._asking.is_away and done.wait(WAIT_SECONDS)

    def due(self, watches: Mapping[str, int]) -> list[Message]:
        """What a poll that is answered at once has to be told, which knows these versions of rooms."""
        found = self._in_loop(lambda: [self._attendance.due(name, version) for name, version in watches.items()])
        return [message for message in found or () if message is not None]

    def members(self, name: str) -> list[Member]:
        """Those who are in a room. Waits for the other workers, if it is not known yet."""
        self.wait_for([name])
        return self._in_loop(lambda: [*self._members(name).values()]) or []

    def count(self, name: str) -> int:
        """How many there are."""
        self.wait_for([name])
        return self._in_loop(lambda: len(self._members(name))) or 0

    def keep(self, name: str, member: Member, seconds: float | None) -> bool:
        """The program says that somebody is in a room. ``False``: this worker holds too many."""

        def keep() -> bool:
            kept = self._own.keep(name, member, seconds)
            self._wake()
            return kept

        return self._in_loop(keep) is not False

    def polled(self, members: dict[str, Member], client_id: str, seconds: float) -> None:
        """A poll was answered at once whose client is a member of these rooms. The next one comes within so many
        seconds, or the client has gone."""

        def polled() -> None:
            for name, member in members.items():
                self._own.polled(name, member, client_id, seconds)
            self._wake()

        self._reactor.call_soon(polled)

    def _in_loop(self, call: Callable[[], T]) -> T | None:
        found: list[T] = []
        done = threading.Event()

        def run() -> None:
            try:
                found.append(call())
            finally:
                done.set()

        self._reactor.call_soon(run)
        done.wait(WAIT_SECONDS)
        return found[0] if found else None

    # --- this worker's members ---

    def _wake(self) -> None:
        self._stream.wake()
        self._begin()

    def _release(self, value: Any) -> None:
        self._own.release(str(value["room"]), str(value["key"]).encode())
        self._wake()

    def _answer(self, question: Any) -> int | None:
        about = question.get("about")
        if about is not None:
            return self._answer_about(about, question)
        number = self._stream.answer(question)
        self._begin()
        return number

    def _answer_about(self, worker: str, question: Any) -> int | None:
        """Tell what is known of another worker. Returns the number that this ends with; ``None``: nothing is."""
        wanted = question["wanted"]
        known = self._view.known_of(worker, question["rooms"], lambda name: is_among(wanted, name))
        if self._worker not in question["of"] or known is None:
            return None
        self._stream.pass_on(known)
        return self._stream.number

    # --- hearing ---

    def _hear(self, value: Any) -> None:
        told = read(value)
        if told is None or told.gone == self._worker:
            return
        now = self._reactor.clock()
        self._stamps.heard(told.stamp)
        self._burying.pop(told.gone, None)
        if told.worker == self._worker:
            # What is told comes back: the feed works. If it did not for a while, that was nobody else's silence.
            silence = now - self._heard_self_at
            if silence > 2 * BEAT_SECONDS:
                self._view.forgive(silence)
            self._heard_self_at = now
        if told.bye:
            self._view.ends(told.worker, now + (told.seconds or self._own.grace))
        self._take(self._view.hear(told))

    def _hear_of(self, value: Any) -> None:
        told = read(value)
        if told is not None and told.worker != self._worker:
            self._stamps.heard(told.stamp)
            self._take(self._view.hear_of(told))

    def _take(self, heard: Heard) -> None:
        for name, change in heard.changes:
            if heard.author == self._worker and self._view.has_wanted:
                self._hooks.add(name, change.member, change.joined)
        for name in heard.changed:
            self._view.rooms[name].measure(self._attendance.most_told)
        self._watchers.note(heard.changed)
        self._asking.settle()
        self._begin()

    # --- rooms ---

    def _watch(self, name: str) -> Room:
        room = self._view.rooms.get(name)
        if room is None:
            room = self._view.rooms[name] = Room()
            if self._view.has_wanted and self._rules.is_hooked(name):
                room.complete, room.version = True, self._stamps.next()
            else:
                self._asking.want(name)
        room.touched = self._reactor.clock()
        self._begin()
        return room

    def _want(self, names: list[str], done: Callable[[], object]) -> None:
        for name in names:
            self._watch(name)
        self._asking.when_known(names, done)

    def _complete(self, name: str) -> None:
        room = self._view.rooms.get(name)
        if room is None or room.complete:
            return
        room.complete = True
        room.version = max(room.version, self._stamps.last)
        room.measure(self._attendance.most_told)
        room.is_told()
        self._watchers.tell_all(name, room)

    def _has_wanted(self) -> None:
        """All is known of the rooms that hooks are for."""
        for name, change in self._view.has_heard_all(self._worker):
            self._hooks.add(name, change.member, change.joined)
        for name in self._view.rooms:
            if self._rules.is_hooked(name):
                self._complete(name)

    # --- by the clock ---

    def _begin(self) -> None:
        """Look after it from time to time, as long as there is something to look after."""
        if not self._tick_timer.tick and not self._stopped and self._is_in_use():
            self._reactor.set_deadline(self._tick_timer, TICK_SECONDS)
            self._asking.proceed()

    def _is_in_use(self) -> bool:
        return bool(self._stream.number or len(self._own) or self._view.rooms or self._rules.hooked)

    def _tick(self) -> None:
        now = self._reactor.clock()
        if now >= self._beat_at and not self._stream.is_behind:
            self._beat_at = now + BEAT_SECONDS
            self._stream.beat()
        if now < self._heard_self_at + 2 * BEAT_SECONDS:
            for worker in self._view.over(now - SILENT_SECONDS):
                if worker != self._worker and self._burying.get(worker, 0.0) < now:
                    self._burying[worker] = now + BEAT_SECONDS
                    self._stream.bury(worker)
        if now >= self._sweep_at:
            self._sweep_at = now + LINGER_SECONDS / 3
            self._sweep(now)
        self._begin()

    def _sweep(self, now: float) -> None:
        """Forget rooms that nobody asks for."""
        rooms = self._view.rooms
        idle = [
            (room.touched, name)
            for name, room in rooms.items()
            if self._followers(name) is None and not (len(room) and self._rules.is_hooked(name))
        ]
        idle.sort()
        for number, (touched, name) in enumerate(idle):
            if touched < now - LINGER_SECONDS or number < len(idle) - MAX_IDLE_ROOMS:
                del rooms[name]
                self._asking.forget(name)

    def _members(self, name: str) -> dict[Key, Member]:
        room = self._view.rooms.get(name)
        found = {} if room is None else room.by_key()
        # Who was not heard of yet is there already. Of the others the last word counts.
        return self._own.by_key(name) | found
