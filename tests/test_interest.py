"""What is told of an interest reaches the feed, once, and after it holds."""

from __future__ import annotations

from messagebus.stores import Interest


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
