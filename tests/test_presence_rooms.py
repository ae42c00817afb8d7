"""The pure parts of presence: own members and their grace, rooms, and what workers make of each other's tellings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagebus import InvalidChannel, InvalidMember, InvalidSite, Member
from messagebus.message import id_key
from messagebus.presence.member import MAX_INFO, check_member, room_name
from messagebus.presence.own import OwnMembers
from messagebus.presence.room import Change, News, Room
from messagebus.presence.rules import PresenceRules
from messagebus.presence.stamps import Stamps
from messagebus.presence.telling import Entry, Group, Told, news, pack, pieces, read
from messagebus.presence.view import View

ANN, BOB = Member("ann", {"name": "Ann"}), Member("bob")
A, B = id_key("ann"), id_key("bob")


def entry(member: Member, stamp: int, at: int = 0) -> Entry:
    return Entry(member.id, member.info, stamp, at or stamp)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- members ---


def test_a_member_is_an_id_or_a_pair_or_a_member() -> None:
    assert check_member(7) == check_member((7, None)) == check_member(Member(7.0)) == Member(7)
    assert check_member(("ann", {"a": (1, 2)})) == Member("ann", {"a": [1, 2]})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "expected a Member"),
        (True, "expected a Member"),
        ((1, 2, 3), "expected a Member"),
        ((1, {1, 2}), "no JSON value"),
        ((1, float("nan")), "no JSON value"),
        ((1, "\ud800"), "no JSON value"),
        ((1, "x" * MAX_INFO), f"info has {MAX_INFO + 2} bytes of JSON; {MAX_INFO} are allowed"),
        ("x" * 254, "the id has 256 bytes"),
        ("\ud800", "no text"),
    ],
)
def test_what_is_no_member_is_refused_with_what_was_expected(value: object, words: str) -> None:
    with pytest.raises(InvalidMember, match=words):
        check_member(value)


def test_each_site_has_rooms_of_its_own_also_of_channels_that_all_sites_share() -> None:
    assert room_name("/rooms/7", None) == "/__presence/rooms/7"
    assert room_name("/global/x", "one") != room_name("/global/x", "two")
    with pytest.raises(InvalidChannel):
        room_name("rooms", None)
    with pytest.raises(InvalidSite):
        room_name("/rooms", "")


def test_stamps_grow_whatever_the_clock_does_and_stay_above_what_was_heard() -> None:
    times = iter([10.0, 10.0, 5.0, 10.0])
    stamps = Stamps(lambda: next(times), lambda steps: 0)
    first = stamps.next()
    assert [stamps.next(), stamps.next()] == [first + 1, first + 2]
    stamps.heard(first + 100)
    assert stamps.next() == first + 101


# --- own members ---


def make_own(most: int = 10) -> tuple[OwnMembers, Clock]:
    clock = Clock()
    return OwnMembers(clock, 5.0, most), clock


def told(own: OwnMembers) -> dict[str, bool]:
    """Whom the others would be told of, and whether as there."""
    changed, own.changed = own.changed, {}
    return {key.decode(): own.tell(name, key, 1) is not None for name, key in changed}


def test_one_with_several_connections_is_there_until_the_last_has_ended_and_the_grace_is_over() -> None:
    own, clock = make_own()
    for tab in "xyz":
        assert own.enter("r", ANN, tab)
    assert told(own) == {'"ann"': True}
    for _ in range(3):
        clock.now += 10
        assert own.sweep() is None
        own.leave("r", A)
    clock.now += 4.9
    own.sweep()
    assert told(own) == {}
    assert len(own) == 1
    clock.now += 0.2
    assert own.sweep() is None
    assert told(own) == {'"ann"': False}
    assert (len(own), own.rooms) == (0, 0)


def test_who_comes_back_within_the_grace_was_never_away() -> None:
    own, clock = make_own()
    own.enter("r", ANN, "x")
    told(own)
    own.leave("r", A)
    clock.now += 4
    own.enter("r", ANN, "y")
    clock.now += 100
    own.sweep()
    assert told(own) == {}
    assert own.find("r", A) == ANN
    own.leave("r", A)
    own.leave("r", A)  # more often than it came: nothing
    clock.now += 6
    own.sweep()
    assert told(own) == {'"ann"': False}


def test_while_nobody_can_come_back_nobody_goes_and_the_grace_begins_when_they_can() -> None:
    own, clock = make_own()
    own.enter("r", ANN, "x")
    own.polled("r", Member("bob"), "y", 2.0)
    own.enter("r", Member("eve"), "z")
    told(own)
    own.leave("r", A)
    own.hold()
    clock.now += 60
    own.leave("r", id_key("eve"))
    assert own.sweep() is None
    assert told(own) == {}
    own.release_all()
    clock.now += 4.9
    own.sweep()
    assert told(own) == {}
    own.enter("r", ANN, "x")
    clock.now += 0.2
    own.sweep()
    assert told(own) == {'"bob"': False, '"eve"': False}


def test_another_info_is_news_of_the_same_member() -> None:
    own, _ = make_own()
    own.enter("r", ANN, "x")
    told(own)
    own.enter("r", ANN._replace(info=2), "y")
    assert told(own) == {'"ann"': True}
    assert own.find("r", A) == Member("ann", 2)


def test_a_poll_is_waited_for_and_a_connection_takes_its_place() -> None:
    own, clock = make_own()
    own.polled("r", ANN, "x", 65.0)
    clock.now += 60
    own.polled("r", ANN, "x", 65.0)
    clock.now += 60
    own.sweep()
    assert own.find("r", A)
    own.enter("r", ANN, "x")
    own.leave("r", A)
    clock.now += 6
    own.sweep()
    assert own.find("r", A) is None


def test_a_poll_that_is_waited_for_outlives_the_worker_and_no_connection_does() -> None:
    own, clock = make_own()
    own.polled("r", ANN, "x", 65.0)
    own.polled("r", BOB, "y", 3.0)
    own.enter("s", BOB, "y")
    clock.now += 5
    assert own.awaited() == [("r", ANN, 60.0)]


def test_the_program_keeps_and_releases_a_member_whatever_its_connections_do() -> None:
    own, clock = make_own()
    own.keep("r", ANN, None)
    own.enter("r", ANN, "x")
    own.leave("r", A)
    clock.now += 1000
    own.sweep()
    assert own.find("r", A)
    own.enter("r", ANN, "x")
    own.release("r", A)
    assert own.find("r", A)
    own.leave("r", A)
    clock.now += 6
    own.sweep()
    assert own.find("r", A) is None
    own.keep("r", BOB, 30)
    clock.now += 31
    own.sweep()
    assert own.find("r", B) is None
    own.keep("r", BOB, None)
    own.release("r", B)
    assert len(own) == 0


def test_there_are_no_more_members_than_the_bound() -> None:
    own, _ = make_own(1)
    assert own.enter("r", ANN, "x") == own.enter("r", ANN, "y") == ("r", A)
    assert not own.enter("s", ANN, "x")
    assert not own.polled("r", BOB, "x", 1)
    assert not own.keep("r", BOB, None)
    assert len(own) == 1


# --- a room ---


def test_a_member_of_several_workers_comes_once_and_goes_with_the_last() -> None:
    room = Room()
    assert room.join("w1", entry(ANN, 1)) == Change(A, ANN, True)
    assert room.join("w2", entry(ANN, 2)) is None
    assert room.join("w3", entry(ANN, 3)) is None
    assert [*room.first_of("w1")] == [ANN]
    assert [*room.first_of("w2")] == []
    assert room.leave("w1", A) is None
    assert room.leave("w1", A) is None
    assert [*room.first_of("w2")] == [ANN]
    assert room.leave("w3", A) is None
    assert room.leave("w2", A) == Change(A, ANN, False)
    assert len(room) == 0


def test_the_newest_info_counts_whoever_tells_of_it_again() -> None:
    room = Room()
    room.join("w1", entry(ANN, 1))
    room.join("w2", entry(Member("ann", "new"), 5))
    room.replace("w1", [entry(ANN, 1)])
    assert room.members() == [Member("ann", "new")]
    room.join("w1", entry(Member("ann", "newer"), 1, 7))
    assert room.members() == [Member("ann", "newer")]


def test_watchers_are_told_what_is_another_than_they_believe_and_nothing_else() -> None:
    room = Room()
    room.join("w", entry(ANN, 1))
    assert room.moved(50)
    assert not room.moved(60)
    assert room.version == 50
    assert room.take_news() == News([ANN], [])
    room.leave("w", A)
    room.join("w", entry(ANN, 2))  # came back in between
    room.join("w", entry(BOB, 2))
    room.leave("w", B)
    assert room.moved(40)
    assert room.version == 51
    assert room.take_news() == News([], [])
    room.join("w", entry(ANN._replace(info=1), 3))
    room.join("w", entry(BOB, 3))
    assert room.take_news() == News([Member("ann", 1), BOB], [])
    room.leave("w", A)
    assert room.take_news() == News([], ["ann"])


def test_a_room_above_the_bound_is_counted_until_it_is_well_below() -> None:
    room = Room()
    for number in range(11):
        room.join("w", entry(Member(number), 1))
    room.measure(10)
    assert (room.is_large, room.has_switched) == (True, True)
    room.is_told()
    for number in range(2):
        room.leave("w", id_key(number))
    room.measure(10)
    assert (room.is_large, room.has_switched) == (True, False)
    room.leave("w", id_key(2))
    room.measure(10)
    assert (room.is_large, room.has_switched) == (False, True)


# --- tellings ---

ENTRIES = st.lists(
    st.builds(
        Entry, st.one_of(st.integers(), st.text(max_size=50)), st.text(max_size=300), st.integers(0), st.integers(0)
    ),
    max_size=60,
)


@given(ENTRIES, st.lists(st.integers(), max_size=300))
def test_what_is_told_is_cut_to_pieces_of_a_bounded_size_and_nothing_is_lost(
    entries: list[Entry], left: list[int]
) -> None:
    groups = [*news("/room", entries, left), *pieces("/room", entries)]
    tellings = [Told("w", 1, 1, packed).to_json() for packed in pack(groups)]
    assert all(len(json.dumps(each)) < 12_000 for each in tellings)
    heard = [group for each in tellings for group in read(json.loads(json.dumps(each))).rooms]  # type: ignore[union-attr]
    assert [entry for group in heard if group.piece < 0 for entry in group.joined] == entries
    assert [each for group in heard for each in group.left] == left
    assert [entry for group in heard if group.piece >= 0 for entry in group.joined] == entries


@pytest.mark.parametrize(
    "value", [None, [], {}, {"from": 1}, {"from": "w", "rooms": [["name"]]}, {"from": "w", "bye": 1}]
)
def test_what_no_worker_of_this_version_tells_is_nothing(value: object) -> None:
    assert read(value) is None


# --- what workers make of it ---


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
