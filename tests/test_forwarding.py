"""A call that another worker is to carry out is carried out once there, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from messagebus.cable import forwarding
from messagebus.cable.forwarding import Answer, Call, Fail, Forwarding
from messagebus.hub.workers import Workers
from messagebus.loop.jobs import Jobs
from messagebus.loop.reactor import Reactor
from messagebus.message import Message
from messagebus.options import Options
from messagebus.stores import Listener, StoreState
from messagebus.stores.base import MAX_ANNOUNCEMENT
from messagebus.stores.memory import MemoryStore
from messagebus.stores.parts import MAX_PARTS

from .eventually import eventually


class Worker(Listener):
    """One worker of a store that two share here; a call is carried out by noting it and answering with its value."""

    def __init__(self, store: MemoryStore) -> None:
        self.reactor = Reactor()
        self.workers = Workers(store, self.reactor)
        self.command_jobs = Jobs(2, "test-command")
        self.store = store
        self.carried_out: list[Any] = []
        self.found: list[Any] = []
        self.errors: list[str] = []
        node: Any = SimpleNamespace(
            workers=self.workers, reactor=self.reactor, command_jobs=self.command_jobs, store=store
        )
        self.forwarding = Forwarding(node, self._carry_out)
        self.reactor.start()
        store.listen(self)

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

    def started(self, state: StoreState) -> None:
        self.workers.start()

    def received(self, messages: Sequence[Message]) -> None: ...

    def resync(self, state: StoreState) -> None: ...

    def healthy(self, healthy: bool, partition: int = 0) -> None: ...

    def announced(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.workers.announced(text)

    def stop(self) -> None:
        self.workers.stop()
        self.command_jobs.stop()
        self.reactor.stop()


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


def test_a_call_that_was_given_up_is_not_carried_out_late(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "TAKEN_SECONDS", 0.05)
    here, there = two
    go_on = there.held_up()
    here.send(there, "late")
    eventually(lambda: here.errors == ["gone"])
    monkeypatch.undo()
    go_on.set()
    here.send(there, "in time")
    eventually(lambda: here.found == ["in time"])
    assert there.carried_out == ["in time"]


def test_an_offer_that_nobody_waits_for_is_forgotten(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "TAKEN_SECONDS", 0.05)
    monkeypatch.setattr(forwarding, "ANSWER_SECONDS", 1.0)
    here, there = two
    go_on = there.held_up()
    here.send(there, "late")
    eventually(lambda: here.errors == ["gone"])
    go_on.set()
    eventually(lambda: bool(there.forwarding.offers))
    eventually(lambda: not there.forwarding.offers)
    assert there.carried_out == []


def test_a_call_that_is_too_long_to_be_passed_on_is_refused(two: Two) -> None:
    here, there = two
    here.send(there, "x" * (MAX_ANNOUNCEMENT * MAX_PARTS))
    eventually(lambda: here.errors == ["too_large"])
    assert there.carried_out == []
