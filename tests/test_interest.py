"""What is told of an interest reaches the feed, once, and after it holds."""

from __future__ import annotations

from functools import partial

import pytest

from messagebus.stores import Interest
from messagebus.stores.interest import LOOKED_AT, Changes, Followed, HearAll
from messagebus.stores.partitions import partition_of


def test_many_changes_wake_the_feed_once_and_each_name_comes_once() -> None:
    interest = Interest(lambda name: None, list)
    woken: list[bool] = []
    interest.attach(lambda: woken.append(True))
    for name in ("/a", "/b", "/a"):
        interest.changed(name)
    assert woken == [True]
    assert interest.take() == (["/a", "/b"], [])
    interest.changed("/c")
    assert woken == [True, True]
    assert interest.take() == (["/c"], [])
    assert interest.take() == ([], [])


def test_what_is_asked_comes_with_what_has_changed() -> None:
    interest = Interest(lambda name: None, list)
    woken: list[bool] = []
    interest.attach(lambda: woken.append(True))
    interest.changed("/a")
    interest.ask(woken.clear)
    names, calls = interest.take()
    assert names == ["/a"]
    assert calls == [woken.clear]


def test_to_want_everything_wakes_the_feed_and_stays() -> None:
    interest = Interest(lambda name: None, list)
    woken: list[bool] = []
    interest.attach(lambda: woken.append(True))
    assert not interest.everything
    interest.want_everything()
    assert interest.everything
    assert woken == [True]


def test_each_partition_has_its_own_part_of_an_interest() -> None:
    names = [f"/n{number}" for number in range(20)]
    interest = Interest(lambda name: None, lambda: names, partitions=4)
    woken: list[int] = []
    for number, part in enumerate(interest.parts):
        part.attach(partial(woken.append, number))
        assert set(part.names()) == {name for name in names if partition_of(name, 4) == number} != set()
    interest.changed("/n7")
    assert woken == [partition_of("/n7", 4)]
    assert interest.parts[woken[0]].take() == (["/n7"], [])
    interest.ask(woken.clear, 2)
    assert interest.parts[2].take() == ([], [woken.clear])
    interest.want_everything()
    assert all(part.everything for part in interest.parts)


def test_the_interest_in_a_store_with_one_partition_is_its_own_only_part() -> None:
    interest = Interest(lambda name: None, list)
    assert list(interest.parts) == [interest]


def test_a_feed_is_told_what_it_has_to_follow_and_what_no_more() -> None:
    wanted: dict[str, object] = {"/a": 1, "/b": 2}
    interest = Interest(wanted.get, lambda: list(wanted))
    followed = Followed(interest)
    assert followed.begin() == Changes([("/a", 1), ("/b", 2)], ["/a", "/b"], [], [])
    assert not followed.take().any
    wanted["/c"] = 3
    del wanted["/a"]
    for name in ("/a", "/b", "/c"):
        interest.changed(name)
    changes = followed.take()
    assert changes == Changes([("/b", 2), ("/c", 3)], ["/c"], ["/a"], [])
    assert changes.any
    assert list(followed.names) == ["/b", "/c"]
    interest.ask(wanted.clear)
    assert followed.take().any


def test_a_feed_that_begins_again_follows_what_was_wanted_and_came_to_be_and_asks_for_no_names() -> None:
    wanted: dict[str, object] = {"/a": 1, "/b": 2}
    asked: list[bool] = []

    def names() -> list[str]:
        asked.append(True)
        return list(wanted)

    interest = Interest(wanted.get, names)
    followed = Followed(interest)
    followed.begin()
    wanted["/c"] = 3
    del wanted["/a"]
    for name in ("/a", "/c"):
        interest.changed(name)
    assert followed.begin() == Changes([("/b", 2), ("/c", 3)], ["/b", "/c"], [], [])
    assert asked == [True]


def test_all_names_are_looked_at_in_turn() -> None:
    wanted = {f"/{number}": number for number in range(LOOKED_AT + 50)}
    followed = Followed(Interest(wanted.get, lambda: wanted))
    followed.begin()
    looks = [followed.next_to_look_at() for _ in range(3)]
    assert [len(look) for look in looks] == [LOOKED_AT, 50, LOOKED_AT]
    assert [*looks[0], *looks[1]] == list(wanted)
    assert looks[2] == looks[0]


def test_a_feed_learns_that_everything_is_wanted() -> None:
    interest = Interest(lambda name: None, list)
    followed = Followed(interest)
    followed.begin()
    interest.want_everything()
    with pytest.raises(HearAll):
        followed.take()
    with pytest.raises(HearAll):
        followed.begin()
