"""Who has come and gone, for workers that begin to listen while others come and go: each change is one worker's."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from messagebus.message import id_key
from messagebus.presence.arrivals import Arrivals
from messagebus.presence.member import Member
from messagebus.presence.room import Change
from messagebus.presence.telling import Entry, Group, Told, pieces
from messagebus.presence.view import View

from .test_presence_rooms import Clock

Hook = tuple[str, bool]
"""Who, and whether they have come."""


class Worker:
    """One that begins to listen at some time, asks the others, and calls hooks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: dict[str, tuple[Any, int, int]] = {}
        self.number = 0
        self.view: View | None = None
        self.asked: dict[str, int] = {}
        """Worker -> up to which number its stream has to be heard; negative: it has not answered."""
        self.called: list[Hook] = []

    @property
    def knows(self) -> bool:
        return self.view is not None and self.view.has_wanted

    def begin(self, others: list[Worker]) -> None:
        self.view = View(Clock(), lambda room: True)
        self.asked = {other.name: -1 for other in others}
        self._settle()

    def join(self, who: str, info: Any, stamp: int) -> Told:
        since = self.held[who][1] if who in self.held else stamp
        self.held[who] = info, since, stamp
        return self._step([Group("r", [Entry(who, info, since, stamp)])], stamp)

    def leave(self, who: str, stamp: int) -> Told:
        del self.held[who]
        return self._step([Group("r", [], [who])], stamp)

    def answer(self, asker: Worker, stamp: int) -> Told:
        entries = [Entry(who, info, since, at) for who, (info, since, at) in self.held.items()]
        told = self._step(pieces("r", entries), stamp)
        asker.asked[self.name] = self.number
        return told

    def _step(self, groups: list[Group], stamp: int) -> Told:
        self.number += 1
        return Told(self.name, self.number, stamp, groups)

    def hear(self, told: Told) -> None:
        if self.view is None:
            return
        heard = self.view.hear(told)
        if heard.author == self.name and self.view.has_wanted:
            self.called += [(change.member.id, change.joined) for _, change in heard.changes]
        self._settle()

    def _settle(self) -> None:
        view = self.view
        if view is None or view.has_wanted:
            return
        if all(0 <= number <= view.number_of(name) for name, number in self.asked.items()):
            self.called += [(change.member.id, change.joined) for _, change in view.has_heard_all(self.name)]


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["turn", "turn", "info", "answer"]), st.sampled_from("ab")),
    max_size=30,
)


ANOTHER_INFO = [(0, "turn", "a"), (0, "turn", "a"), (1, "turn", "a"), (1, "turn", "a"), (0, "info", "a")]


@settings(max_examples=500)
@example(ANOTHER_INFO, Random(1))
@given(STEPS, st.randoms())
def test_each_coming_and_going_is_one_workers_whenever_the_others_began(steps: list[Any], dice: Any) -> None:
    workers = [Worker(f"w{number}") for number in range(3)]
    there: list[Hook] = []

    def tell(told: Told) -> None:
        for worker in workers:
            worker.hear(told)

    def answer(worker: Worker, asker: Worker) -> None:
        if asker.asked.get(worker.name) == -1:
            tell(worker.answer(asker, 0))

    for number, what, who in steps:
        worker = workers[number]
        others = [other for other in workers if other is not worker and other.view is not None]
        if worker.view is None:
            worker.begin(others)
        elif what == "turn":
            was_there = any(who in each.held for each in workers)
            # Clocks differ: a later telling may have a lower stamp. The order of the feed counts.
            stamp = dice.randrange(1, 1000)
            tell(worker.leave(who, stamp) if who in worker.held else worker.join(who, None, stamp))
            is_there = any(who in each.held for each in workers)
            if is_there != was_there:
                there.append((who, is_there))
        elif what == "answer":
            for other in others:
                answer(worker, other)
        elif who in worker.held:
            tell(worker.join(who, "another info", worker.held[who][2] + 1))
    for asker in workers:
        for worker in workers:
            answer(worker, asker)
    assert sorted(hook for worker in workers for hook in worker.called) == sorted(there)
    assert all(worker.knows for worker in workers if worker.view is not None)


def test_who_was_buried_before_all_was_known_has_gone_by_who_told_it() -> None:
    arrivals = Arrivals()
    ann, bob = Entry("ann", None, 1, 1), Entry("bob", None, 2, 2)
    arrivals.held("dead", "r", [ann])
    arrivals.joined("dead", "r", bob)
    arrivals.joined("lives", "r", bob)
    arrivals.gone("lives", "dead")
    assert arrivals.changes_by("lives") == [("r", Change(id_key("ann"), Member("ann"), joined=False))]
    assert arrivals.changes_by("other") == []


def test_who_is_no_longer_among_all_whom_a_worker_tells_has_gone_though_that_was_not_heard() -> None:
    view = View(Clock(), lambda room: True)
    ann = Entry("ann", None, 1, 1)
    view.hear(Told("other", 1, 1, [Group("r", [ann])]))
    view.hear(Told("other", 3, 3, pieces("r", [])))  # in the second she has left
    view.hear(Told("own", 1, 4, [Group("r", [ann])]))
    assert view.has_heard_all("own") == [("r", Change(ann.key, ann.member, joined=True))]


def test_who_goes_before_all_is_known_has_the_last_info() -> None:
    view = View(Clock(), lambda room: True)
    first, last = Entry("ann", "first", 1, 1), Entry("ann", "last", 1, 2)
    for number, group in enumerate([Group("r", [first]), Group("r", [last]), Group("r", [], ["ann"])], 1):
        view.hear(Told("own", number, number, [group]))
    assert view.has_heard_all("own") == [
        ("r", Change(first.key, first.member, joined=True)),
        ("r", Change(first.key, last.member, joined=False)),
    ]
