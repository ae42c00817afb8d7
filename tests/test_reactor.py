"""The loop: calls in order, deadlines in time, and a mistake in one handler is nobody else's; with both pollers."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from messagebus.loop.poller import READABLE, WRITABLE, Poller, SelectorPoller, Waker
from messagebus.loop.reactor import TICK, Reactor
from tests.eventually import eventually
from tests.threads import alive, started_threads


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Timer:
    """Something with a deadline."""

    def __init__(self, call: Callable[[], object] = lambda: None) -> None:
        self.tick = 0
        self.count = 0
        self._call = call

    def on_deadline(self) -> None:
        self.count += 1
        self._call()


class Pipe:
    """A handler of one end of a pipe."""

    def __init__(self) -> None:
        self.tick = 0
        self.read_fd, self.write_fd = os.pipe()
        self.events: list[int] = []
        self.flushed = 0

    def on_events(self, events: int) -> None:
        self.events.append(events)

    def on_deadline(self) -> None: ...

    def flush(self) -> None:
        self.flushed += 1

    def abandon(self) -> None: ...

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


def _epoll() -> Poller:
    poller: Poller = select.epoll() if sys.platform == "linux" else SelectorPoller()
    return poller


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[_epoll, SelectorPoller], ids=["epoll", "selector"])
def reactor(request: pytest.FixtureRequest, clock: Clock) -> Iterator[Reactor]:
    """A loop that turns when the test says so, at the time that it says."""
    reactor = Reactor(clock, request.param())
    yield reactor
    reactor.abandon()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_calls_are_run_in_the_order_they_were_handed_over(reactor: Reactor) -> None:
    done: list[int] = []
    for number in range(100):
        reactor.call_soon(done.append, number)
    reactor.turn(0)
    assert done == list(range(100))


def test_a_call_made_by_a_call_is_run_in_the_next_turn(reactor: Reactor) -> None:
    done: list[str] = []

    def first() -> None:
        done.append("first")
        reactor.call_soon(done.append, "second")

    reactor.call_soon(first)
    reactor.turn(0)
    assert done == ["first"]
    reactor.turn(5)  # and it does not wait for anything
    assert done == ["first", "second"]


def test_a_call_from_another_thread_wakes_a_loop_that_waits(reactor: Reactor) -> None:
    done = threading.Event()
    threading.Timer(0.05, reactor.call_soon, (done.set,)).start()
    assert eventually(lambda: reactor.turn(5) and done.is_set())


def test_a_call_that_fails_is_logged_and_stops_nothing(reactor: Reactor, caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    reactor.call_soon(int, "not a number")
    reactor.call_soon(done.append, 1)
    with caplog.at_level(logging.ERROR):
        reactor.turn(0)
    assert done == [1]
    assert len(caplog.records) == 1


def test_a_deadline_comes_when_it_is_due_and_once(reactor: Reactor, clock: Clock) -> None:
    timer = Timer()
    reactor.set_deadline(timer, 5)
    clock.now += 4.9
    reactor.turn(0)
    assert timer.count == 0
    assert 0 < reactor.seconds_to_next() <= 0.1 + 2 * TICK
    clock.now += 0.1 + TICK
    reactor.turn(0)
    reactor.turn(0)
    assert timer.count == 1
    assert reactor.seconds_to_next() == -1


def test_a_deadline_is_never_early(reactor: Reactor, clock: Clock) -> None:
    for step in range(30):
        timer = Timer()
        clock.now += 0.037
        seconds = 0.01 + step * 0.013
        reactor.set_deadline(timer, seconds)
        clock.now += seconds - 0.001
        reactor.turn(0)
        assert timer.count == 0
        clock.now += 0.001 + TICK
        reactor.turn(0)
        assert timer.count == 1


def test_a_new_deadline_replaces_the_earlier_one(reactor: Reactor, clock: Clock) -> None:
    timer = Timer()
    reactor.set_deadline(timer, 1)
    reactor.set_deadline(timer, 10)
    clock.now += 5
    reactor.turn(0)
    assert timer.count == 0
    clock.now += 6
    reactor.turn(0)
    assert timer.count == 1


def test_a_deadline_that_is_cleared_does_not_come(reactor: Reactor, clock: Clock) -> None:
    timer = Timer()
    reactor.set_deadline(timer, 1)
    reactor.clear_deadline(timer)
    reactor.clear_deadline(timer)
    clock.now += 5
    reactor.turn(0)
    assert timer.count == 0


def test_a_deadline_may_set_the_next_one(reactor: Reactor, clock: Clock) -> None:
    timer = Timer(lambda: reactor.set_deadline(timer, 1))
    reactor.set_deadline(timer, 1)
    for _ in range(5):
        clock.now += 1 + TICK
        reactor.turn(0)
    assert timer.count == 5


def test_a_deadline_may_clear_another_that_is_due_in_the_same_turn(reactor: Reactor, clock: Clock) -> None:
    timers = [Timer(), Timer()]
    for timer, other in (timers, timers[::-1]):
        timer._call = lambda other=other: reactor.clear_deadline(other)  # type: ignore[misc]
        reactor.set_deadline(timer, 1)
    clock.now += 2
    reactor.turn(0)
    assert sum(timer.count for timer in timers) == 1


def test_a_descriptor_that_can_be_read_is_reported(reactor: Reactor, pipe: Pipe) -> None:
    reactor.add(pipe.read_fd, pipe)
    reactor.turn(0)
    assert pipe.events == []
    os.write(pipe.write_fd, b"x")
    reactor.turn(1)
    assert [events & READABLE for events in pipe.events] == [READABLE]


def test_a_descriptor_that_was_removed_is_not_reported(reactor: Reactor, pipe: Pipe) -> None:
    reactor.add(pipe.read_fd, pipe)
    os.write(pipe.write_fd, b"x")
    reactor.remove(pipe.read_fd)
    reactor.remove(pipe.read_fd)
    reactor.turn(0)
    assert pipe.events == []


def test_writability_is_reported_while_it_is_asked_for(reactor: Reactor, pipe: Pipe) -> None:
    reactor.add(pipe.write_fd, pipe)
    reactor.turn(0)
    reactor.watch(pipe.write_fd, readable=True, writable=True)
    reactor.turn(1)
    reactor.watch(pipe.write_fd, readable=True, writable=False)
    reactor.turn(0)
    assert [events & WRITABLE for events in pipe.events] == [WRITABLE]


def test_what_is_dirty_is_flushed_once_the_turn_is_over(reactor: Reactor, pipe: Pipe) -> None:
    reactor.call_soon(reactor.mark_dirty, pipe)
    assert pipe.flushed == 0
    reactor.turn(0)
    reactor.turn(0)
    assert pipe.flushed == 1


def test_a_flush_that_fails_is_logged_and_keeps_nobody_from_theirs(
    reactor: Reactor, pipe: Pipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Pipe()
    monkeypatch.setattr(broken, "flush", lambda: 1 / 0)
    reactor.mark_dirty(broken)
    reactor.mark_dirty(pipe)
    reactor.turn(0)
    assert pipe.flushed == 1
    assert "failed in the loop" in caplog.text
    broken.close()


def test_a_wakeup_that_comes_behind_its_call_does_not_keep_the_loop_from_waiting(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake = reactor._waker.wake
    monkeypatch.setattr(reactor._waker, "wake", lambda: None)
    reactor.call_soon(lambda: None)
    reactor.turn(0)  # something else has woken it
    wake()
    reactor.turn(0)
    assert reactor._poller.poll(0, 10) == []


def test_nobody_is_woken_through_a_number_that_may_be_another_files_by_now() -> None:
    waker = Waker()
    waker.close()
    other = Pipe()  # whose numbers are the lowest that are free
    os.set_blocking(other.read_fd, False)
    waker.wake()
    with pytest.raises(BlockingIOError):
        os.read(other.read_fd, 1)
    other.close()


def test_the_loop_ends_when_it_is_stopped_and_has_done_what_was_handed_over() -> None:
    reactor = Reactor()
    done: list[int] = []
    with started_threads() as threads:
        reactor.start()
    reactor.call_soon(done.append, 1)
    reactor.call_soon(lambda: reactor.call_soon(done.append, 2))
    reactor.stop()
    eventually(lambda: not alive(threads))
    assert done == [1, 2]


def test_spawned_work_that_no_thread_could_be_had_for_is_done_as_soon_as_there_is_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("messagebus.loop.reactor.AGAIN_SECONDS", 0.1)
    reactor = Reactor()
    reactor.start()
    refused, done = threading.Semaphore(0), threading.Semaphore(0)

    def refuse(thread: threading.Thread) -> None:
        refused.release()
        raise RuntimeError("can't start new thread")

    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(2):
                reactor.spawn(done.release)
            for _ in range(4):
                assert refused.acquire(timeout=30)
            assert not done.acquire(blocking=False)
        for _ in range(2):
            assert done.acquire(timeout=30)
        assert not done.acquire(timeout=0.3), "each once"
    finally:
        reactor.stop()
    assert caplog.text.count("can't start new thread") == 1


def test_spawned_work_is_done_elsewhere_at_the_same_time() -> None:
    reactor = Reactor()
    reactor.start()
    meeting = threading.Barrier(3)
    for _ in range(2):
        reactor.spawn(lambda: meeting.wait(30))
    meeting.wait(30)
    reactor.stop()
