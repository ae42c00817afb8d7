"""Backlogs are read for everybody at once, and a store that does not answer is asked by one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from messagebus.errors import BackendUnavailable
from messagebus.hub.backlog_reader import BacklogReader, OtherEpoch
from messagebus.hub.history import HistoryView
from messagebus.message import Message
from messagebus.options import Options
from messagebus.stores import BacklogPage, BacklogQuery
from messagebus.stores.memory import MemoryStore

from .eventually import eventually


class SlowStore(MemoryStore):
    """Answers when it is let, with as many messages as there are."""

    def __init__(self, last_id: int = 1000) -> None:
        super().__init__(Options())
        self.last_id = last_id
        self.asked: list[list[BacklogQuery]] = []
        self.may_answer = threading.Event()
        self.error: Exception | None = None

    def backlogs(self, queries: Sequence[BacklogQuery], max_bytes: int) -> list[BacklogPage]:
        self.asked.append(sorted(queries))
        self.may_answer.wait(60)
        if self.error is not None:
            raise self.error
        pages = []
        for name, position in queries:
            after = position if position >= 0 else max(self.last_id + position, 0)
            messages = [Message(n, n, name, b"1") for n in range(after + 1, self.last_id + 1)]
            pages.append(BacklogPage(messages, after, self.last_id, self.last_id, 1))
        return pages


class Readers:
    """Requests that read, each in a thread."""

    def __init__(self, store: SlowStore, timeout: float = 60.0) -> None:
        self.absorbed: list[tuple[str, HistoryView]] = []
        self.reader = BacklogReader(store, timeout, lambda name, page: self.absorbed.append((name, page)))
        self.results: list[Any] = []
        self.seconds: list[float] = []
        self._threads: list[threading.Thread] = []

    def start(self, *queries: tuple[str, int]) -> None:
        def read() -> None:
            began = time.monotonic()
            result: Any
            try:
                result = self.reader.read([BacklogQuery(*query) for query in queries])
            except BackendUnavailable as error:
                result = error
            self.seconds.append(time.monotonic() - began)
            self.results.append(result)

        thread = threading.Thread(target=read)
        thread.start()
        self._threads.append(thread)

    def join(self) -> list[Any]:
        for thread in self._threads:
            thread.join(30)
        return self.results


def test_all_who_wait_for_a_reading_of_another_epoch_are_told_so_and_nobody_keeps_it() -> None:
    store = SlowStore()
    readers = Readers(store)
    readers.reader._epoch = lambda: "old"
    pages = store.backlogs
    store.backlogs = lambda *given: [page._replace(epoch="new") for page in pages(*given)]  # type: ignore[method-assign]
    for _ in range(3):
        readers.start(("/a", 0))
    store.may_answer.set()
    assert [type(result) for result in readers.join()] == [OtherEpoch] * 3
    assert readers.absorbed == []
    readers.reader._epoch = lambda: "new"
    found = readers.reader.read([BacklogQuery("/a", 998)])["/a"]
    assert [message.message_id for message in found.messages] == [999, 1000]


def waiting(readers: Readers) -> Callable[[], bool]:
    return lambda: len(readers.results) < len(readers._threads)


def test_a_crowd_that_comes_while_one_reads_is_read_for_once() -> None:
    store = SlowStore()
    readers = Readers(store)
    readers.start(("/a", 0))
    eventually(lambda: store.asked != [])
    for number in range(30):
        readers.start(("/a", number % 7 * 10), ("/b", -2))
    time.sleep(0.3)
    store.may_answer.set()
    results = readers.join()
    assert all(isinstance(result, dict) for result in results)
    assert store.asked[0] == [BacklogQuery("/a", 0)]
    assert len(store.asked) == 2, "what began before they came is not theirs; one reading more is for all of them"
    for result in results[1:]:
        assert result["/b"].messages[0].message_id <= 999
    assert len(readers.absorbed) == 1 + len(store.asked[1])


def test_all_channels_of_a_request_are_read_in_one_round_trip() -> None:
    store = SlowStore(last_id=3)
    store.may_answer.set()
    readers = Readers(store)
    queries = [BacklogQuery(f"/c{number}", number % 3 - 1) for number in range(200)]
    found = readers.reader.read(queries)
    assert len(found) == 200
    assert len(store.asked) == 1


def test_everybody_is_given_what_reaches_from_the_own_position() -> None:
    store = SlowStore()
    readers = Readers(store)
    readers.start(("/a", 990))
    eventually(lambda: store.asked != [])
    for position in (5, 500, 999, 1000, 3):
        readers.start(("/a", position))
    store.may_answer.set()
    for result in readers.join():
        assert result["/a"].through == 1000


def test_a_store_that_does_not_answer_holds_one_request_and_the_others_are_told_soon() -> None:
    store = SlowStore()
    readers = Readers(store)
    store.error = BackendUnavailable("no answer")
    for number in range(8):
        readers.start((f"/c{number}", 0))
    eventually(lambda: len(readers.results) >= 7)
    assert max(readers.seconds) < 30
    began = time.monotonic()
    with pytest.raises(BackendUnavailable):
        readers.reader.read([BacklogQuery("/another", 0)])
    assert time.monotonic() - began < 1, "it is known by now"
    store.may_answer.set()
    assert all(isinstance(result, BackendUnavailable) for result in readers.join())
    assert len(store.asked) == 1


def test_a_store_whose_feed_is_down_is_tried_once_a_second_and_serves_again_when_it_answers() -> None:
    now = 100.0
    store = SlowStore()
    store.may_answer.set()
    store.error = BackendUnavailable("away")
    reader = BacklogReader(store, 5.0, lambda name, page: None, lambda: now)
    reader.set_away(True)
    for _ in range(10):
        with pytest.raises(BackendUnavailable):
            reader.read([BacklogQuery("/a", 0)])
    assert len(store.asked) == 1
    now += 1.5
    with pytest.raises(BackendUnavailable):
        reader.read([BacklogQuery("/a", 0)])
    assert len(store.asked) == 2
    store.error = None
    with pytest.raises(BackendUnavailable):
        reader.read([BacklogQuery("/a", 0)])
    now += 1.5
    for _ in range(3):
        assert reader.read([BacklogQuery("/a", 0)])


def test_what_one_mistake_breaks_the_next_reading_does_not_know_of() -> None:
    store = SlowStore()
    store.may_answer.set()
    store.error = ValueError("a mistake")
    reader = BacklogReader(store, 5.0, lambda name, page: None)
    with pytest.raises(ValueError, match="a mistake"):
        reader.read([BacklogQuery("/a", 0)])
    store.error = None
    assert reader.read([BacklogQuery("/a", 0)])
