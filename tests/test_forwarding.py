"""A call that another worker is to carry out is carried out once there, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from messagebus.cable import forwarding
from messagebus.cable.forwarding import Answer, Call, Fail, Forwarding
from messagebus.loop.jobs import Jobs
from messagebus.options import Options
from messagebus.stores.base import MAX_ANNOUNCEMENT
from messagebus.stores.memory import MemoryStore
from messagebus.stores.parts import MAX_PARTS

from .eventually import eventually
from .test_workers import Worker as StoreWorker


class Worker(StoreWorker):
    """One of two workers of a store; a call is carried out by noting it and answering with its value."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.command_jobs = Jobs(2, "test-command")
        self.carried_out: list[Any] = []
        self.found: list[Any] = []
        self.errors: list[str] = []
        node: Any = SimpleNamespace(
            workers=self.workers, reactor=self.reactor, command_jobs=self.command_jobs, store=store
        )
        self.forwarding = Forwarding(node, self._carry_out)

    def _carry_out(self, call: Call, answer: Answer, fail: Fail) -> None:
        self.carried_out.append(call.value)
        answer(call.value)

    def send(self, worker: Worker, value: Any) -> None:
        call = Call("perform", "c1", None, value)
        self.reactor.call_soon(
            self.forwarding.send,
            worker.workers.id,
            call,
            self.found.append,
            lambda error: self.errors.append(error.code),
        )

    def held_up(self) -> threading.Event:
        """Its loop does nothing until the event is set."""
        go_on = threading.Event()
        self.reactor.call_soon(go_on.wait, 30.0)
        return go_on

    def stop(self) -> None:
        super().stop()
        self.command_jobs.stop()


Two = tuple[Worker, Worker]


@pytest.fixture
def two() -> Iterator[Two]:
    store = MemoryStore(Options())
    here, there = Worker(store), Worker(store)
    eventually(lambda: len(store.reports()) == 2)
    yield here, there
    here.stop()
    there.stop()


def test_a_call_is_carried_out_there_and_its_answer_comes_back(two: Two) -> None:
    here, there = two
    for number in range(5):
        here.send(there, number)
    eventually(lambda: sorted(here.found) == [*range(5)])
    assert sorted(there.carried_out) == [*range(5)]
    assert (here.errors, here.carried_out) == ([], [])
    eventually(lambda: not here.forwarding.pending and not there.forwarding.offers)


def given_up(here: Worker, there: Worker, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A call is on its way, and nobody waits for it any more. Until the event is set, the other loop does nothing."""
    monkeypatch.setattr(forwarding, "TAKEN_SECONDS", 0.05)
    go_on = there.held_up()
    here.send(there, "late")
    eventually(lambda: here.errors == ["gone"])
    return go_on


def test_a_call_that_was_given_up_is_not_carried_out_late(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = two
    go_on = given_up(here, there, monkeypatch)
    monkeypatch.undo()
    go_on.set()
    here.send(there, "in time")
    eventually(lambda: here.found == ["in time"])
    assert there.carried_out == ["in time"]


def test_an_offer_that_nobody_waits_for_is_forgotten(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "ANSWER_SECONDS", 1.0)
    here, there = two
    go_on = given_up(here, there, monkeypatch)
    go_on.set()
    eventually(lambda: bool(there.forwarding.offers))
    eventually(lambda: not there.forwarding.offers)
    assert there.carried_out == []


def test_a_call_that_is_too_long_to_be_passed_on_is_refused(two: Two) -> None:
    here, there = two
    here.send(there, "x" * (MAX_ANNOUNCEMENT * MAX_PARTS))
    eventually(lambda: here.errors == ["too_large"])
    assert there.carried_out == []
