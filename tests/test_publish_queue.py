"""Publishing through an outage: in order, bounded, and never silently lost."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence

import pytest

from messagebus.errors import BackendUnavailable, BusClosed, PublishQueueFull
from messagebus.message import Ids
from messagebus.options import Options
from messagebus.publishing.publish_queue import PublishQueue
from messagebus.stores import Publication, PublicationId
from messagebus.stores.memory import MemoryStore
from tests.eventually import eventually
from tests.queued import publication, publish
from tests.threads import alive


class Flaky(MemoryStore):
    """The memory store, which can be gone."""

    def __init__(self, threads: list[threading.Thread]) -> None:
        super().__init__(Options())
        self._threads = threads
        self.available = True
        self.batches: list[int] = []
        self.before: Callable[[], object] = lambda: None

    def publish_many(self, messages: Sequence[Publication], publication_id: PublicationId | None = None) -> list[Ids]:
        self.before()
        if not self.available:
            raise BackendUnavailable("gone")
        self.batches.append(len(messages))
        return super().publish_many(messages, publication_id)

    def writers(self) -> list[threading.Thread]:
        """The queue's threads that run."""
        return [thread for thread in alive(self._threads) if thread.name == "messagebus-publish-queue"]

    def stored(self) -> list[object]:
        return [message.data for message in self.global_backlog()]


@pytest.fixture
def store(threads_of_test: list[threading.Thread]) -> Flaky:
    return Flaky(threads_of_test)


def publications(*numbers: int) -> list[Publication]:
    return [publication(number) for number in numbers]


def test_a_store_that_answers_is_written_at_once_and_no_thread_is_started(store: Flaky) -> None:
    queue = PublishQueue(store, 5)
    assert publish(queue, 1) == Ids(1, 1)
    assert len(queue) == 0
    assert store.writers() == []
    queue.close(1)


def test_messages_wait_in_order_and_the_thread_ends_when_all_are_written(
    store: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "messagebus")
    queue = PublishQueue(store, 5)
    store.available = False
    assert [publish(queue, number) for number in range(3)] == [None] * 3
    store.available = True
    eventually(lambda: not store.writers())
    assert store.stored() == [0, 1, 2]
    assert publish(queue, 3) == Ids(4, 4)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    queue.close(1)


def test_a_second_outage_is_survived_as_the_first(store: Flaky) -> None:
    queue = PublishQueue(store, 5)
    for number in range(2):
        store.available = False
        assert publish(queue, number) is None
        store.available = True
        eventually(lambda: not store.writers())
    assert store.stored() == [0, 1]
    queue.close(1)


def test_no_message_overtakes_those_that_wait(store: Flaky) -> None:
    queue = PublishQueue(store, 5)
    store.available = False
    publish(queue, 0)
    held, entered = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        held.wait(30)

    store.before = hold
    store.available = True
    eventually(entered.is_set)
    # The store is back and the first message on its way, but not yet stored.
    assert publish(queue, 1) is None
    with pytest.raises(BackendUnavailable, match="wait"):
        publish(queue, 2, queue_in_memory=False)
    held.set()
    eventually(lambda: not store.writers())
    assert store.stored() == [0, 1]
    queue.close(1)


def test_a_caller_may_refuse_the_queue_and_a_queue_of_size_0_keeps_nothing(store: Flaky) -> None:
    store.available = False
    with pytest.raises(BackendUnavailable, match="gone"):
        publish(PublishQueue(store, 5), 1, queue_in_memory=False)
    with pytest.raises(BackendUnavailable, match="gone"):
        publish(PublishQueue(store, 0), 1)
    assert store.writers() == []


def test_a_full_queue_refuses_more_and_keeps_what_it_has(store: Flaky) -> None:
    queue = PublishQueue(store, 2)
    store.available = False
    publish(queue, 0)
    publish(queue, 1)
    with pytest.raises(PublishQueueFull, match="2 messages"):
        publish(queue, 2)
    store.available = True
    eventually(lambda: not store.writers())
    assert store.stored() == [0, 1]
    queue.close(1)


def test_many_messages_are_written_in_one_go_or_wait_in_order_behind_the_others(store: Flaky) -> None:
    queue = PublishQueue(store, 5)
    assert queue.publish_many(publications(0, 1)) == [Ids(1, 1), Ids(2, 2)]
    assert queue.publish_many([]) == []
    store.available = False
    assert publish(queue, 2) is None
    assert queue.publish_many(publications(3, 4, 5)) == [None] * 3
    store.available = True
    eventually(lambda: not store.writers())
    assert store.stored() == [0, 1, 2, 3, 4, 5]
    queue.close(1)


def test_many_messages_wait_all_or_none(store: Flaky) -> None:
    queue = PublishQueue(store, 3)
    store.available = False
    with pytest.raises(PublishQueueFull):
        queue.publish_many(publications(0, 1, 2, 3))
    assert len(queue) == 0
    assert store.writers() == []
    with pytest.raises(BackendUnavailable, match="gone"):
        queue.publish_many(publications(0, 1), queue_in_memory=False)
    queue.publish_many(publications(0, 1))
    with pytest.raises(PublishQueueFull, match="2 messages"):
        queue.publish_many(publications(2, 3))
    store.available = True
    eventually(lambda: not store.writers())
    assert store.stored() == [0, 1]
    queue.close(1)


def test_what_was_sent_before_is_sent_again_as_it_was_and_what_waits_behind_it_in_batches(store: Flaky) -> None:
    queue = PublishQueue(store, 1000)
    store.available = False
    queue.publish_many(publications(*range(200)))
    for number in range(200, 500):
        publish(queue, number)
    store.available = True
    eventually(lambda: not store.writers())
    assert store.batches == [200, 128, 128, 44]
    assert store.stored() == list(range(500))
    queue.close(1)


def test_closing_writes_what_waits_if_the_store_is_back_in_time(store: Flaky) -> None:
    queue = PublishQueue(store, 5)
    store.available = False
    publish(queue, 0)
    store.available = True
    queue.close(30)
    assert store.stored() == [0]
    with pytest.raises(BusClosed):
        publish(queue, 1)


def test_a_close_that_times_out_says_how_many_messages_were_lost(
    store: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    queue = PublishQueue(store, 5)
    store.available = False
    publish(queue, 0)
    publish(queue, 1)
    queue.close(0.05)
    queue.close(0.05)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["2 messages were lost: the store did not come back in time"]
    eventually(lambda: not store.writers())


def test_a_message_that_can_never_be_written_does_not_hold_up_the_others(
    store: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    queue = PublishQueue(store, 5)
    store.available = False
    queue.publish_many([Publication("/a", b"no envelope", 1, 1)])
    publish(queue, 1)
    store.available = True
    eventually(lambda: not store.writers())
    assert store.stored() == [1]
    assert "was lost" in caplog.text
    queue.close(1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_begins_with_an_empty_queue_and_the_parent_keeps_its_own(store: Flaky) -> None:
    queue = PublishQueue(store, 5)
    store.available = False
    publish(queue, 0)
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not see the child
        status = 1
        try:
            store.after_fork()
            queue.after_fork()
            assert len(queue) == 0
            assert publish(queue, 1) is None
            store.available = True
            eventually(lambda: store.stored() == [1])
            status = 0
        finally:
            os._exit(status)
    _, result = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(result) == 0
    store.available = True
    eventually(lambda: store.stored() == [0])
    queue.close(1)
