"""Who is there, over all workers: tells the others of this worker's members, hears of theirs, and tells the watchers.

Each worker tells what changes of its own members as a stream of numbered announcements, and every few seconds how far
that is. Who begins to ask for a room asks all workers for it once, and follows their streams from then on. See
docs/design.md.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec

from ..errors import BackendUnavailable, BusClosed
from ..loop.reactor import Reactor
from ..message import Message
from ..presence.member import Key, Member
from ..presence.room import Room
from ..presence.rules import PresenceRules, is_among
from ..presence.stamps import Stamps
from ..presence.telling import Entry, Group, Told, news, pack, pieces, read
from ..stores import Store
from .attendance import Attendance, changes, whole
from .membership import Membership
from .presence_hooks import HookRunner
from .workers import Answer, Workers, tell

logger = logging.getLogger("messagebus.hub")

BEAT_SECONDS = 5.0
"""Between two signs of life of a worker."""
SILENT_SECONDS = 25.0
"""After so much silence a worker's members are gone: it was killed, or cannot reach the store."""
TICK_SECONDS = 1.0
"""How often it is looked after both."""
FLUSH_SECONDS = 0.1
"""Between two messages to the watchers of a room."""
FLUSH_LARGE_SECONDS = 1.0
"""The same where they are told the count alone."""
ASK_SECONDS = 1.0
"""How long the workers' answers are waited for."""
WAIT_SECONDS = 1.5
"""How long a request waits until it is known who is in its rooms; afterwards they are told when that is known."""
LINGER_SECONDS = 60.0
"""How long a room stays known that nobody watches any more."""
MAX_IDLE_ROOMS = 10_000
"""How many of those."""
NAMES_AT_ONCE = 2000
"""Rooms of one question."""

PRESENCE = "presence"
"""What workers tell and ask each other."""
RELEASE = "presence-leave"
"""Told with a room and the id of somebody whom the program has let go."""

T = TypeVar("T")


class Deliver(Protocol):
    """Puts a message out to all who follow a name."""

    def __call__(self, name: str, message: Message, /) -> object: ...


class _Timer:
    """A deadline of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self.tick = 0

    def on_deadline(self) -> None:
        self._call()


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
        self._workers = workers
        self._store = store
        self._reactor = reactor
        self._followers = membership.followers
        self._deliver = deliver
        self._hooks = HookRunner(rules, reactor, report)
        self._stamps = Stamps()
        self._number = 0
        self._outbox: deque[Told] = deque()
        self._is_sending = self._is_waking = self._is_asking = self._stopped = False
        self._unknown: dict[str, None] = {}  # rooms that were not asked for yet
        self._has_asked = False  # for those that are wanted
        self._awaited: list[tuple[dict[str, Any], dict[str, int], float]] = []
        self._waiting: list[tuple[list[str], Callable[[], object]]] = []
        self._burying: dict[str, float] = {}
        self._dirty: dict[str, None] = {}
        self._heard_self_at = reactor.clock()
        self._beat_at = self._sweep_at = 0.0
        self._own_timer = _Timer(self._on_own_due)
        self._flush_timer = _Timer(self._flush)
        self._tick_timer = _Timer(self._tick)
        self._send_timer = _Timer(self._send)
        workers.on(PRESENCE, self._hear)
        workers.on(RELEASE, self._release)
        workers.on_question(PRESENCE, self._answer)
        attendance.wake = self._wake
        attendance.watch = self._watch

    def start(self) -> None:
        """The feed is connected. From any thread."""
        if self._rules.hooked:
            self._reactor.call_soon(self._begin)

    def stop(self) -> None:
        """Say goodbye to the other workers. Waits for the store; from any thread but the loop's."""
        self._stopped = True
        self._hooks.stop()
        if self._number:
            try:
                tell(self._store, PRESENCE, Told(self._workers.id, bye=True).to_json())
            except (BackendUnavailable, BusClosed):
                pass  # they find out by its silence

    # --- from any thread ---

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
        return done.wait(WAIT_SECONDS)

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
        """Tell of changes, once for all that happens in this turn."""
        if not self._is_waking:
            self._is_waking = True
            self._reactor.call_soon(self._on_own_due)

    def _on_own_due(self) -> None:
        self._is_waking = False
        seconds = self._own.sweep()
        if seconds is not None:
            self._reactor.set_deadline(self._own_timer, max(seconds, 0.0))
        if self._own.changed and not self._is_sending:
            self._tell_changes()
        self._begin()

    def _tell_changes(self) -> None:
        changed, self._own.changed = self._own.changed, {}
        stamp = self._stamps.next()
        rooms: dict[str, tuple[list[Entry], list[Any]]] = {}
        for name, key in changed:
            joined, left = rooms.setdefault(name, ([], []))
            member = self._own.tell(name, key, stamp)
            if member is None:
                left.append(msgspec.json.decode(key))
            else:
                joined.append(Entry(member.id, member.info, stamp))
        self._push([group for name, (joined, left) in rooms.items() for group in news(name, joined, left)], stamp)

    def _push(self, groups: Iterable[Group], stamp: int) -> None:
        for packed in pack(groups):
            self._number += 1
            self._outbox.append(Told(self._workers.id, self._number, stamp, packed))
        self._send()

    def _release(self, value: Any) -> None:
        self._own.release(str(value["room"]), str(value["key"]).encode())
        self._wake()

    # --- telling ---

    def _send(self) -> None:
        if self._is_sending or not self._outbox or self._stopped:
            return
        self._is_sending = True
        tellings = [*self._outbox]
        self._outbox.clear()
        self._run(partial(self._announce, tellings))

    def _run(self, call: Callable[[], object]) -> None:
        if self._store.shared:
            self._reactor.spawn(call)
        else:
            call()

    def _announce(self, tellings: list[Told]) -> None:
        """Where it may wait for the store. One after the other: the numbers are in the order of the feed."""
        done = 0
        try:
            for telling in tellings:
                tell(self._store, PRESENCE, telling.to_json())
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
            self._reactor.set_deadline(self._send_timer, TICK_SECONDS)
            return
        self._send()
        if self._own.changed:
            self._wake()

    # --- hearing ---

    def _hear(self, value: Any) -> None:
        told = read(value)
        if told is None or told.gone == self._workers.id:
            return
        now = self._reactor.clock()
        self._stamps.heard(told.stamp)
        self._burying.pop(told.gone, None)
        if told.worker == self._workers.id:
            # What is told comes back: the feed works. If it did not for a while, that was nobody else's silence.
            silence = now - self._heard_self_at
            if silence > 2 * BEAT_SECONDS:
                self._view.forgive(silence)
            self._heard_self_at = now
        if told.bye:
            self._view.ends(told.worker, now + self._own.grace)
        heard = self._view.hear(told)
        for name, change in heard.changes:
            if heard.author == self._workers.id and self._view.rooms[name].complete:
                self._hooks.add(name, change.member, change.joined)
        for name in heard.changed:
            self._view.rooms[name].measure(self._attendance.most_told)
        self._note(heard.changed)
        if self._awaited:
            self._settle()
        self._begin()

    def _note(self, names: Iterable[str]) -> None:
        if not self._dirty:
            self._reactor.call_soon(self._flush)
        self._dirty |= dict.fromkeys(names)

    def _flush(self) -> None:
        """Tell watchers what has changed, each room's once in a while."""
        now = self._reactor.clock()
        later: dict[str, None] = {}
        for name in self._dirty:
            room = self._view.rooms.get(name)
            if room is None or not room.complete or not room.has_news:
                continue
            if now < room.told_at + (FLUSH_LARGE_SECONDS if room.is_large else FLUSH_SECONDS):
                later[name] = None
                continue
            room.told_at = now
            self._tell_watchers(name, room)
        self._dirty = later
        if later:
            self._reactor.set_deadline(self._flush_timer, FLUSH_SECONDS)

    def _tell_watchers(self, name: str, room: Room) -> None:
        if self._followers(name) is None:
            room.is_told()
        elif room.has_switched or room.is_large:
            room.is_told()
            self._deliver(name, whole(name, room))
        else:
            told = room.take_news()
            if told.joined or told.left:
                self._deliver(name, changes(name, room, told))

    # --- asking ---

    def _watch(self, name: str) -> Room:
        room = self._view.rooms.get(name)
        if room is None:
            room = self._view.rooms[name] = Room()
            if self._view.has_wanted and self._rules.is_hooked(name):
                room.complete, room.version = True, self._stamps.next()
            else:
                self._unknown[name] = None
                self._ask_soon()
        room.touched = self._reactor.clock()
        self._begin()
        return room

    def _want(self, names: list[str], done: Callable[[], object]) -> None:
        rooms = [self._watch(name) for name in names]
        if all(room.complete for room in rooms):
            done()
        else:
            self._waiting.append((names, done))

    def _ask_soon(self) -> None:
        if not self._is_asking:
            self._is_asking = True
            self._reactor.call_soon(self._ask_now)

    def _ask_now(self) -> None:
        question = self._next_question()
        if question is None or self._stopped:
            self._is_asking = False
        else:
            self._reactor.spawn(partial(self._ask, question))

    def _next_question(self) -> dict[str, Any] | None:
        wanted = self._rules.hooked
        is_first = bool(wanted) and not self._has_asked
        if self._unknown or is_first:
            names = [*self._unknown][:NAMES_AT_ONCE]
            for name in names:
                del self._unknown[name]
            self._has_asked = self._has_asked or is_first
            return {"rooms": names, "wanted": wanted if is_first else [], "of": None}
        doubtful = self._view.doubtful()
        names = [*self._view.rooms]
        if not doubtful:
            return None
        for worker in doubtful:
            self._view.doubt(worker, False)
        return {"rooms": names, "wanted": wanted, "of": doubtful}

    def _ask(self, question: dict[str, Any]) -> None:
        """Where it may wait."""
        answers: list[Answer] | None = None
        try:
            names = question["rooms"]
            for begin in range(0, max(1, len(names)), NAMES_AT_ONCE):
                asked = {**question, "rooms": names[begin : begin + NAMES_AT_ONCE]}
                if begin:
                    asked["wanted"] = []
                answers = self._workers.ask(PRESENCE, asked, ASK_SECONDS)
        except (BackendUnavailable, BusClosed):
            answers = None
        except BaseException:
            logger.exception("the other workers cannot be asked who is there")
        finally:
            self._reactor.call_soon(self._asked, question, answers)

    def _asked(self, question: dict[str, Any], answers: list[Answer] | None) -> None:
        awaited = {answer.worker: answer.value for answer in answers or () if isinstance(answer.value, int)}
        unanswered = [worker for worker in question["of"] or () if worker not in awaited]
        for worker in unanswered:
            self._view.doubt(worker, True)
        if answers is None:
            self._unknown |= dict.fromkeys(question["rooms"] if question["of"] is None else ())
            self._has_asked = self._has_asked and not question["wanted"]
        if answers is None or unanswered:
            self._is_asking = False  # the next tick asks again
            return
        if question["of"] is None:
            self._awaited.append((question, awaited, self._reactor.clock() + ASK_SECONDS))
            self._settle()
        self._ask_now()

    def _answer(self, value: Any) -> int | None:
        """The number by which this worker's members of the rooms in question are told; ``None``: it was not asked."""
        if value["of"] is not None and self._workers.id not in value["of"]:
            return None
        if self._own.changed:
            self._tell_changes()
        names = dict.fromkeys(str(name) for name in value["rooms"])
        if value["wanted"]:
            names |= dict.fromkeys(name for name in self._own.names() if is_among(value["wanted"], name))
        groups = (
            group
            for name in names
            for group in pieces(name, [Entry(member.id, member.info, stamp) for _, member, stamp in self._own.of(name)])
        )
        before = self._number
        self._push(groups, self._stamps.next())
        if self._number == before:
            self._beat()
        return self._number

    def _settle(self) -> None:
        """Take rooms as known whose workers have all told whom they hold."""
        now = self._reactor.clock()
        left = []
        for question, awaited, until in self._awaited:
            if now < until and any(self._view.number_of(worker) < number for worker, number in awaited.items()):
                left.append((question, awaited, until))
                continue
            if question["wanted"]:
                self._has_wanted()
            for name in question["rooms"]:
                self._complete(name)
        self._awaited = left
        waiting, self._waiting = self._waiting, []
        for names, done in waiting:
            if all(room is not None and room.complete for room in map(self._view.rooms.get, names)):
                done()
            elif any(name in self._view.rooms for name in names):
                self._waiting.append((names, done))

    def _complete(self, name: str) -> None:
        room = self._view.rooms.get(name)
        if room is None or room.complete:
            return
        room.complete = True
        room.version = max(room.version, self._stamps.last)
        room.measure(self._attendance.most_told)
        room.is_told()
        if self._followers(name) is not None:
            self._deliver(name, whole(name, room))

    def _has_wanted(self) -> None:
        """All is known of the rooms that hooks are for."""
        self._view.has_wanted = True
        for name, room in self._view.rooms.items():
            if self._rules.is_hooked(name):
                for member in room.first_of(self._workers.id):
                    self._hooks.add(name, member, True)
                self._complete(name)

    # --- by the clock ---

    def _begin(self) -> None:
        """Look after it from time to time, as long as there is something to look after."""
        if not self._tick_timer.tick and not self._stopped and self._is_in_use():
            self._reactor.set_deadline(self._tick_timer, TICK_SECONDS)
            if not self._is_asking and self._next_is_due():
                self._ask_soon()

    def _is_in_use(self) -> bool:
        return bool(self._number or len(self._own) or self._view.rooms or self._rules.hooked)

    def _next_is_due(self) -> bool:
        return bool(self._unknown or self._view.doubtful() or (self._rules.hooked and not self._has_asked))

    def _tick(self) -> None:
        now = self._reactor.clock()
        if now >= self._beat_at and not self._outbox:
            self._beat()
        if now < self._heard_self_at + 2 * BEAT_SECONDS:
            for worker in self._view.over(now - SILENT_SECONDS):
                if worker != self._workers.id and self._burying.get(worker, 0.0) < now:
                    self._burying[worker] = now + BEAT_SECONDS
                    self._outbox.append(Told(self._workers.id, stamp=self._stamps.next(), gone=worker))
            self._send()
        if self._awaited:
            self._settle()
        if now >= self._sweep_at:
            self._sweep_at = now + LINGER_SECONDS / 3
            self._sweep(now)
        self._begin()

    def _beat(self) -> None:
        """Tell the others that this worker lives, and how far its stream is."""
        self._beat_at = self._reactor.clock() + BEAT_SECONDS
        self._outbox.append(Told(self._workers.id, self._number, self._stamps.next()))
        self._send()

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
                self._unknown.pop(name, None)

    def _members(self, name: str) -> dict[Key, Member]:
        room = self._view.rooms.get(name)
        found = {} if room is None else room.by_key()
        # What this worker has not told yet is true here already.
        for own_name, key in self._own.changed:
            member = self._own.find(name, key) if own_name == name else None
            if member is not None:
                found[key] = member
        return found
