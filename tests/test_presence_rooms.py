"""The pure parts of presence: own members and their grace, rooms, and what is told of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagebus import InvalidChannel, InvalidMember, InvalidSite, Member
from messagebus.message import id_key
from messagebus.presence.member import MAX_INFO, check_member, room_name
from messagebus.presence.own import OwnMembers
from messagebus.presence.room import Change, News, Room
from messagebus.presence.stamps import Stamps
from messagebus.presence.telling import Entry, Told, news, pack, pieces, read

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
    assert room.leave("w1", A) is None
    assert room.leave("w1", A) is None
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
