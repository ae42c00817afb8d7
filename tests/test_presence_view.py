"""What workers make of each other's tellings of who is where, whatever was lost or came twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from messagebus.message import id_key
from messagebus.presence.member import room_name
from messagebus.presence.room import Room
from messagebus.presence.rules import PresenceRules
from messagebus.presence.telling import Entry, Group, Told, pieces
from messagebus.presence.view import View

from .test_presence_rooms import A, Clock


class Worker:
    """One that holds members and hears the others over a feed that may lose something."""

    def __init__(self, name: str, rooms: list[str]) -> None:
        self.name = name
        self.held: dict[str, dict[str, Any]] = {room: {} for room in rooms}
        self.number = 0
        self.view = View(Clock(), lambda room: False)
        for room in rooms:
            self.view.rooms[room] = Room()
        self.counted: dict[tuple[str, bytes], int] = {}

    def join(self, room: str, who: str, info: Any, stamp: int) -> Told:
        self.held[room][who] = info, stamp
        return self._step(Group(room, [Entry(who, info, stamp, stamp)]), stamp)

    def leave(self, room: str, who: str, stamp: int) -> Told:
        self.held[room].pop(who, None)
        return self._step(Group(room, [], [who]), stamp)

    def whole(self, stamp: int) -> list[Told]:
        return [
            self._step(group, stamp)
            for room, held in self.held.items()
            for group in pieces(room, [Entry(who, info, since, since) for who, (info, since) in held.items()])
        ]

    def beat(self, stamp: int) -> Told:
        return Told(self.name, self.number, stamp)

    def _step(self, group: Group, stamp: int) -> Told:
        self.number += 1
        return Told(self.name, self.number, stamp, [group])

    def hear(self, told: Told) -> None:
        for room, change in self.view.hear(told).changes:
            key = room, change.key
            self.counted[key] = self.counted.get(key, 0) + (1 if change.joined else -1)
            assert self.counted[key] in (0, 1), "nobody comes twice, or goes twice"


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["r", "s"]),
        st.sampled_from("abc"),
        st.sampled_from(["join", "leave", "whole", "beat", "again", "gone"]),
        st.sets(st.integers(0, 2)),
    ),
    max_size=60,
)


@given(STEPS)
def test_workers_agree_on_who_is_there_whatever_was_lost_or_came_twice_once_it_was_asked_for(steps: list[Any]) -> None:
    workers = [Worker(name, ["r", "s"]) for name in ("w0", "w1", "w2")]
    by_name = {worker.name: worker for worker in workers}
    last: list[Told] = []
    stamp = 0
    for number, room, who, what, deaf in steps:
        stamp += 1
        worker = workers[number]
        if what == "join":
            last = [worker.join(room, who, stamp % 3, stamp)]
        elif what == "leave":
            last = [worker.leave(room, who, stamp)]
        elif what == "whole":
            last = worker.whole(stamp)
        elif what == "beat":
            last = [worker.beat(stamp)]
        elif what == "gone":
            # It is alive: it was only silent. Its next sign shows that.
            last = [Told(worker.name, stamp=stamp, gone=workers[(number + 1) % 3].name)]
        for told in last:
            for listener in workers:
                if workers.index(listener) not in deaf and listener.name != told.gone:
                    listener.hear(told)
    for told in [worker.beat(stamp) for worker in workers]:
        for listener in workers:
            listener.hear(told)
    asked = {name for listener in workers for name in listener.view.doubtful()}
    for name in asked:
        for told in by_name[name].whole(stamp + 1):
            for listener in workers:
                listener.hear(told)
    for room in ("r", "s"):
        true = {id_key(who) for worker in workers for who in worker.held[room]}
        for listener in workers:
            assert {*listener.view.rooms[room].by_key()} == true
            assert {key for (name, key), count in listener.counted.items() if name == room and count} == true


def test_of_a_member_that_two_hold_every_worker_knows_who_was_first_and_who_was_last() -> None:
    workers = [Worker(name, ["r"]) for name in ("w0", "w1")]
    stream = [
        workers[0].join("r", "a", 1, 11),
        workers[1].join("r", "a", 1, 10),
        workers[0].leave("r", "a", 12),
        workers[1].leave("r", "a", 13),
    ]
    for worker in workers:
        heard = [worker.view.hear(told) for told in stream]
        authors = [(each.author, change.joined) for each in heard for _, change in each.changes]
        assert authors == [("w0", True), ("w1", False)]


def test_the_members_of_a_worker_that_ends_are_kept_for_the_grace_and_of_a_silent_one_for_long() -> None:
    clock = Clock()
    view = View(clock, lambda room: False)
    view.rooms["r"] = Room()
    for name in ("ends", "silent", "lives"):
        view.hear(Told(name, 1, 1, [Group("r", [Entry(name, None, 1, 1)])]))
    view.ends("ends", clock.now + 5)
    clock.now += 5
    assert view.over(clock.now - 25) == ["ends"]
    clock.now += 21
    view.hear(Told("lives", 1, 2))
    assert sorted(view.over(clock.now - 25)) == ["ends", "silent"]
    view.forgive(26)
    assert view.over(clock.now - 25) == ["ends"]
    assert view.hear(Told("lives", stamp=3, gone="silent")).changed == ["r"]
    assert sorted(view.rooms["r"].by_key()) == [id_key("ends"), id_key("lives")]


def test_what_is_known_of_a_silent_worker_is_passed_on_to_who_has_not_heard_it() -> None:
    clock = Clock()
    old, new = View(clock, lambda room: False), View(clock, lambda room: False)
    for view in (old, new):
        view.rooms["r"] = Room()
        view.rooms["s"] = Room()
    old.rooms["r"].complete = old.rooms["s"].complete = True
    old.hear(Told("dead", 7, 1, [Group(room, [Entry("ann", None, 1, 1)]) for room in "rs"]))
    clock.now += 9
    assert old.known_of("nobody", ["r"], lambda room: False) is None
    known = old.known_of("dead", ["r"], lambda room: room == "s")
    assert known is not None
    assert sorted(group.name for group in known.rooms) == ["r", "s"]
    assert sorted(new.hear_of(known).changed) == ["r", "s"]
    assert list(new.rooms["r"].by_key()) == [A]
    # Its silence goes on, and it ends in both at the same time.
    clock.now += 17
    assert old.over(clock.now - 25) == new.over(clock.now - 25) == ["dead"]
    # Who has heard it itself knows better, and so does the worker that was not dead.
    assert old.hear_of(known).changes == []
    new.hear(Told("dead", 8, 2, [Group("r", [], ["ann"])]))
    assert new.doubtful() == []
    assert not new.rooms["r"].by_key()
    assert new.hear_of(known).changes == []


def test_rooms_that_hooks_are_for_are_there_without_being_asked_for() -> None:
    rules = PresenceRules()
    assert not rules
    assert not rules.is_hooked("/__presence/rooms/1")
    rules.on_join.append(("/rooms/*", lambda channel, member: None))
    view = View(Clock(), rules.is_hooked)
    view.has_wanted = True
    view.hear(
        Told("w", 1, 5, [Group(room_name(name, "site"), [Entry(1, None, 5, 5)]) for name in ("/rooms/1", "/other")])
    )
    [name] = view.rooms
    assert name == room_name("/rooms/1", "site")
    assert view.rooms[name].complete
    assert len(rules.hooks(name, True)) == 1
    assert not rules.hooks(name, False)
