"""What is told of an interest reaches the feed, once, and after it holds."""

from __future__ import annotations

from functools import partial

from messagebus.stores import Interest
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
