"""What workers tell and ask each other."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messagebus.hub.workers import Workers, tell
from messagebus.loop.reactor import Reactor
from messagebus.message import Message
from messagebus.options import Options
from messagebus.stores import Listener, StoreState
from messagebus.stores.base import MAX_ANNOUNCEMENT
from messagebus.stores.memory import MemoryStore
from messagebus.stores.parts import MAX_INCOMPLETE, MAX_PARTS, PART, Joining, cut

from .eventually import eventually


class Worker(Listener):
    """One worker of a store that several share here."""

    def __init__(self, store: MemoryStore) -> None:
        self.reactor = Reactor()
        self.workers = Workers(store, self.reactor)
        self.heard: list[Any] = []
        self.misses = 0
        """Announcements that its feed does not bring, from now on."""
        self.workers.on("note", self.heard.append)
        self.workers.on_question("double", lambda value: value * 2)
        self.workers.on_question("large", lambda value: "ü" * 100_000)
        self.workers.on_question("broken", lambda value: 1 // 0)
        self.reactor.start()
        store.listen(self)

    def started(self, state: StoreState) -> None:
        self.workers.start()

    def received(self, messages: Sequence[Message]) -> None: ...

    def resync(self, state: StoreState) -> None: ...

    def healthy(self, healthy: bool, partition: int = 0) -> None: ...

    def announced(self, texts: Sequence[str]) -> None:
        for text in texts:
            if self.misses > 0:
                self.misses -= 1
            else:
                self.workers.announced(text)

    def stop(self) -> None:
        self.workers.stop()
        self.reactor.stop()


MakeWorker = Callable[[], Worker]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(Options())


@pytest.fixture
def make(store: MemoryStore) -> Iterator[MakeWorker]:
    made: list[Worker] = []

    def make() -> Worker:
        worker = Worker(store)
        made.append(worker)
        eventually(lambda: worker.workers.id in store.reports())
        return worker

    yield make
    for worker in made:
        worker.stop()


def test_a_worker_alone_answers_itself(make: MakeWorker) -> None:
    worker = make()
    assert worker.workers.ask("double", 21) == [(worker.workers.id, 42)]


def test_every_worker_answers(make: MakeWorker) -> None:
    workers = [make() for _ in range(4)]
    answers = workers[0].workers.ask("double", 4)
    assert {*answers} == {(worker.workers.id, 8) for worker in workers}


def test_every_worker_hears_once_what_is_told(make: MakeWorker, store: MemoryStore) -> None:
    workers = [make() for _ in range(3)]
    tell(store, "note", {"n": 1})
    tell(store, "note", 2)
    tell(store, "unknown", 3)
    for worker in workers:
        eventually(lambda worker=worker: len(worker.heard) == 2)  # type: ignore[misc]
    assert all(worker.heard in ([{"n": 1}, 2], [2, {"n": 1}]) for worker in workers)


def test_an_answer_may_be_larger_than_an_announcement(make: MakeWorker) -> None:
    one, other = make(), make()
    answers = one.workers.ask("large", timeout=30)
    assert {*answers} == {(worker.workers.id, "ü" * 100_000) for worker in (one, other)}


def test_a_question_that_fails_in_a_worker_or_is_unknown_to_it_is_answered_with_nothing(make: MakeWorker) -> None:
    one, other = make(), make()
    for kind in ("broken", "of a newer version"):
        answers = one.workers.ask(kind, timeout=30)
        assert {*answers} == {(worker.workers.id, None) for worker in (one, other)}


def test_a_worker_that_has_died_is_waited_for_once(make: MakeWorker, store: MemoryStore) -> None:
    one = make()
    store.report("dead", "{}")
    assert one.workers.ask("double", 1, timeout=0.2) == [(one.workers.id, 2)]
    begun = time.monotonic()
    assert one.workers.ask("double", 1, timeout=60) == [(one.workers.id, 2)]
    assert time.monotonic() - begun < 30


def test_a_worker_that_has_just_begun_asks_when_it_can_hear_the_answers(make: MakeWorker) -> None:
    other, one = make(), make()
    one.misses = 3
    assert {*one.workers.ask("double", 4)} == {(each.workers.id, 8) for each in (one, other)}
    assert one.misses == 0


def test_who_hears_nothing_for_a_while_takes_nobody_for_dead(make: MakeWorker) -> None:
    one, other = make(), make()
    assert len(one.workers.ask("double", 1)) == 2
    one.misses = 1_000_000
    assert one.workers.ask("double", 2, timeout=0.2) == [(one.workers.id, 4)]
    assert one.workers.silent() == []
    one.misses = 0
    assert {*one.workers.ask("double", 4)} == {(each.workers.id, 8) for each in (one, other)}


def test_a_report_tells_of_the_process_and_what_else_is_asked_of_it(make: MakeWorker, store: MemoryStore) -> None:
    worker = make()
    facts = {"subscribers": 0}
    worker.workers.report_also(lambda: dict(facts))
    eventually(lambda: worker.workers.reports()[worker.workers.id].get("subscribers") == 0)
    facts["subscribers"] = 7
    eventually(lambda: worker.workers.reports()[worker.workers.id].get("subscribers") == 7)
    assert {"pid", "host", "since"} < {*worker.workers.reports()[worker.workers.id]}


def test_a_worker_that_stops_is_not_waited_for(make: MakeWorker, store: MemoryStore) -> None:
    one, other = make(), make()
    other.stop()
    assert {*store.reports()} == {one.workers.id}


def test_questions_may_be_asked_side_by_side(make: MakeWorker) -> None:
    one, other = make(), make()
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        found[number] = sorted(answer.value for answer in one.workers.ask("double", number, timeout=30))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [2 * number] * 2 for number in range(20)}
    assert other.workers.ask("double", 1) != []


def test_nonsense_from_another_program_is_ignored(make: MakeWorker, store: MemoryStore) -> None:
    worker = make()
    for text in ("", "x", "[]", "null", '{"part": 1}', '{"part": "x", "of": 2, "in": 1}', '{"answer": 1}', "{}"):
        store.announce(text)
    for text in ("[" * 100_000, '{"part": Infinity, "of": 2, "in": 1, "text": ""}', '{"tell": []}', '{"answer": {}}'):
        store.announce(text)
    tell(store, "note", 1)
    eventually(lambda: worker.heard == [1])


def test_a_worker_of_which_there_is_nothing_new_reports_no_more_than_it_must(
    make: MakeWorker, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.hub.workers.REPORT_SECONDS", 0.01)
    reports: list[str] = []
    report = store.report

    def count(name: str, text: str) -> None:
        reports.append(text)
        report(name, text)

    monkeypatch.setattr(store, "report", count)
    worker, looks, subscribers = make(), [0], [5]

    def facts() -> dict[str, Any]:
        looks[0] += 1
        return {"subscribers": subscribers[0], "store_seconds": looks[0] / 1e6}

    worker.workers.report_also(facts)
    eventually(lambda: looks[0] > 20)
    assert len(reports) == 2, "one without these facts, one with them"
    subscribers[0] = 6
    eventually(lambda: len(reports) == 3)
    assert json.loads(reports[-1])["subscribers"] == 6


def test_a_report_that_is_under_way_does_not_outlive_its_worker(
    make: MakeWorker, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make()
    eventually(lambda: worker.workers.id in store.reports())
    begun, may_end = threading.Event(), threading.Event()
    report = store.report

    def slow(name: str, text: str) -> None:
        begun.set()
        may_end.wait(30)
        report(name, text)

    monkeypatch.setattr(store, "report", slow)
    reporting = threading.Thread(target=worker.workers._report, args=("{}",))
    reporting.start()
    assert begun.wait(30)
    stopping = threading.Thread(target=worker.workers.stop)
    stopping.start()
    may_end.set()
    reporting.join()
    stopping.join()
    assert worker.workers.id not in store.reports()


# --- parts ---


@given(st.text(max_size=20_000), st.randoms())
def test_what_is_cut_comes_together_in_any_order(text: str, random: Any) -> None:
    parts = cut({"tell": "x", "value": text})
    assert all(len(part) <= MAX_ANNOUNCEMENT and part.isascii() for part in parts)
    random.shuffle(parts)
    joining = Joining()
    *before, last = [joining.add(part) for part in parts]
    assert before == [None] * len(before)
    assert last == {"tell": "x", "value": text}


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="characters are more than"):
        cut({"value": "x" * PART * MAX_PARTS})


def test_parts_whose_others_never_come_do_not_pile_up() -> None:
    joining = Joining()
    for number in range(10 * MAX_INCOMPLETE):
        joining.add(json.dumps({"part": 0, "of": 2, "in": str(number), "text": "x"}))
    assert len(joining._incomplete) <= MAX_INCOMPLETE + 1


def test_parts_of_a_telling_that_is_too_long_are_not_kept() -> None:
    joining = Joining()
    for number in range(2 * MAX_PARTS):
        joining.add(json.dumps({"part": number, "of": 10**9, "in": "endless", "text": "x"}))
    for number in range(2 * MAX_PARTS):
        joining.add(json.dumps({"part": -number, "of": 2, "in": "wrong", "text": "x"}))
    assert sum(map(len, joining._incomplete.values())) <= 2
