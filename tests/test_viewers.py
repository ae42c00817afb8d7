"""Who follows a channel: what workers tell of it, and what a program that watches makes of that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from messagebus import BackendUnavailable
from messagebus.command.viewer_program import MOST_WAITING, WaitingLines
from messagebus.command.watch import Watch
from messagebus.hub.viewers import LASTS_SECONDS, MAX_TOLD, MAX_WATCHED, RENEW_SECONDS, VIEWERS, WATCH, Viewers


class FakeReactor:
    """A clock, and calls that are made at once."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timed: Any = None

    def clock(self) -> float:
        return self.now

    def call_soon(self, call: Any, *args: Any) -> None:
        call(*args)

    def set_deadline(self, timed: Any, seconds: float) -> None:
        self.timed = timed

    def passes(self, seconds: float) -> None:
        self.now += seconds
        timed, self.timed = self.timed, None
        if timed is not None:
            timed.on_deadline()


class Worker:
    """A worker's viewers, and what it has told."""

    def __init__(self) -> None:
        self.reactor = FakeReactor()
        self.followed: dict[str, dict[str, list[Any]]] = {}
        self.told: list[Any] = []
        membership: Any = SimpleNamespace(followers=self.followed.get)
        reactor: Any = self.reactor
        self.viewers = Viewers("w", membership, reactor, lambda kind, value: self.told.append((kind, value)))

    def follow(self, name: str, *clients: str) -> None:
        members = [SimpleNamespace(identity=SimpleNamespace(client_id=each)) for each in clients]
        self.followed[name] = {"websocket": members}

    def clients(self) -> list[list[str]]:
        assert all(kind == VIEWERS for kind, _ in self.told)
        return [value["clients"] for _, value in self.told]


def test_a_worker_tells_when_it_is_asked_and_when_something_has_changed() -> None:
    worker = Worker()
    worker.viewers.watch("/a")
    worker.reactor.passes(0.2)
    worker.follow("/a", "x", "y")
    worker.follow("/b", "z")
    worker.reactor.passes(0.2)
    worker.reactor.passes(0.2)
    worker.viewers.watch("/a")
    assert worker.clients() == [[], ["x", "y"], ["x", "y"]]
    assert [value["number"] for _, value in worker.told] == [1, 2, 3]


def test_it_tells_no_more_when_nobody_has_asked_for_a_while() -> None:
    worker = Worker()
    worker.viewers.watch("/a")
    worker.reactor.passes(LASTS_SECONDS)
    worker.follow("/a", "x")
    worker.reactor.passes(0.2)
    assert worker.clients() == [[]]
    assert worker.reactor.timed is None


def test_one_that_polls_is_there_until_its_next_poll_is_overdue() -> None:
    worker = Worker()
    worker.viewers.polled(["/a"], "early", 60)  # nobody watches
    worker.viewers.watch("/a")
    worker.viewers.polled(["/a", "/b"], "x", 10)
    worker.reactor.passes(9)
    worker.reactor.passes(2)
    assert worker.clients() == [[], ["x"], []]


def test_one_that_polled_and_has_a_connection_now_is_there_as_long_as_that() -> None:
    worker = Worker()
    worker.viewers.watch("/a")
    worker.viewers.polled(["/a"], "x", 10)
    worker.follow("/a", "x")
    worker.reactor.passes(0.2)
    worker.follow("/a")
    worker.reactor.passes(0.2)
    assert worker.clients() == [[], ["x"], []]


def test_what_a_worker_watches_and_tells_has_bounds() -> None:
    worker = Worker()
    for number in range(MAX_WATCHED + 1):
        worker.viewers.watch(f"/{number}")
    worker.viewers.watch(7)
    assert len(worker.told) == MAX_WATCHED
    worker.follow("/0", *[f"c{number}" for number in range(MAX_TOLD + 1)])
    worker.reactor.passes(0.2)
    assert len(worker.clients()[-1]) == MAX_TOLD


class Store:
    def __init__(self) -> None:
        self.is_away = False
        self.announced: list[str] = []

    def announce(self, text: str) -> None:
        if self.is_away:
            raise BackendUnavailable("away")
        self.announced.append(text)


class Watched:
    """A watch of ``/a``, its store and its clock."""

    def __init__(self) -> None:
        self.store, self.now = Store(), 100.0
        workers = SimpleNamespace(on=lambda kind, call: None)
        node: Any = SimpleNamespace(store=self.store, is_healthy=True, workers=workers)
        self.watch = Watch(node, "/a", lambda: self.now)

    def hear(self, worker: str, number: int, *clients: str, name: str = "/a") -> None:
        self.watch.hear({"worker": worker, "number": number, "name": name, "clients": [*clients]})


def test_a_watch_asks_again_and_again_and_adds_up_what_workers_tell() -> None:
    watched = Watched()
    assert watched.watch.clients() == set()
    watched.hear("one", 1, "x", "y")
    watched.hear("two", 1, "y", "z")
    watched.hear("two", 2, "other", name="/b")
    watched.watch.hear({"of a newer": "version"})
    assert watched.watch.clients() == {"x", "y", "z"}
    assert len(watched.store.announced) == 1
    assert WATCH in watched.store.announced[0]
    watched.now += RENEW_SECONDS
    watched.watch.clients()
    assert len(watched.store.announced) == 2


def test_a_telling_that_was_overtaken_changes_nothing() -> None:
    watched = Watched()
    watched.hear("one", 2, "x")
    watched.hear("one", 1, "x", "y")
    assert watched.watch.clients() == {"x"}


def test_a_worker_that_falls_silent_has_nobody_but_not_while_the_store_is_away() -> None:
    watched = Watched()
    watched.watch.clients()
    watched.hear("one", 1, "x")
    watched.hear("two", 1, "y")
    watched.store.is_away = True
    watched.now += 10 * LASTS_SECONDS
    assert watched.watch.clients() == {"x", "y"}
    watched.store.is_away = False
    watched.now += RENEW_SECONDS
    assert watched.watch.clients() == {"x", "y"}
    watched.now += LASTS_SECONDS - 1
    watched.hear("one", 2, "x")
    watched.now += 1
    assert watched.watch.clients() == {"x"}


def test_lines_wait_up_to_a_bound_and_one_of_any_size_always_may() -> None:
    waiting = WaitingLines()
    assert waiting.put(b"x" * (MOST_WAITING + 1))
    assert not waiting.put(b"y")
    assert waiting.take() == b"x" * (MOST_WAITING + 1)
    assert waiting.put(b"y")
    waiting.close()
    assert waiting.take() is None
