"""Jobs run side by side up to a number; the others wait for their turn, and a stop forgets those."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from messagebus.loop import jobs
from messagebus.loop.jobs import Jobs

from .eventually import eventually
from .threads import alive, started_threads

THREADS = 3


class Held:
    """Calls that wait until they are let go, and what is known of them."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.begun: list[int] = []
        self.ended: list[int] = []

    def call(self, number: int) -> None:
        self.begun.append(number)
        assert self.go.acquire(timeout=30)
        self.ended.append(number)

    def start(self, of: Jobs, count: int) -> None:
        for number in range(count):
            of.start(lambda number=number: self.call(number))  # type: ignore[misc]

    def have_begun(self, count: int) -> None:
        eventually(lambda: len(self.begun) == count, message=f"{count} calls have begun")


@pytest.fixture
def some() -> Iterator[Jobs]:
    some = Jobs(THREADS, "test-jobs")
    yield some
    some.stop()


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go.release(1000)


def test_so_many_run_at_a_time_and_the_others_follow_in_their_order(some: Jobs, held: Held) -> None:
    with started_threads() as threads:
        held.start(some, 10)
    held.have_begun(THREADS)
    held.go.release(1)
    held.have_begun(THREADS + 1)
    assert sorted(held.begun) == [0, 1, 2, 3]
    held.go.release(9)
    eventually(lambda: len(held.ended) == 10)
    assert len(threads) == THREADS


def test_one_that_holds_its_thread_keeps_none_of_the_others_waiting(some: Jobs, held: Held) -> None:
    held.start(some, 1)
    held.have_begun(1)
    for _ in range(50):
        done = threading.Event()
        some.start(done.set)
        assert done.wait(30)


def test_calls_one_after_the_other_have_one_thread(some: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LINGER_SECONDS", 30.0)
    names = []
    for _ in range(50):
        done = threading.Event()
        some.start(lambda: names.append(threading.current_thread().name))
        some.start(done.set)
        assert done.wait(30)
        eventually(lambda: len(some._lingering) == some._running)
    assert len(set(names)) <= 2


def test_threads_that_nobody_needs_return_and_come_again(
    some: Jobs, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LINGER_SECONDS", 0.01)
    held.go.release(100)
    for round_ in range(1, 5):
        held.start(some, 10)
        eventually(lambda so_many=10 * round_: len(held.ended) == so_many)  # type: ignore[misc]
        eventually(lambda: some._running == 0)
        assert not some._lingering


def test_many_that_start_from_many_threads_all_run(some: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LINGER_SECONDS", 0.0001)  # they leave all the time
    ran: list[int] = []

    def start() -> None:
        for number in range(500):
            some.start(lambda: ran.append(number))  # noqa: B023 - only their count matters

    starters = [threading.Thread(target=start) for _ in range(4)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    eventually(lambda: len(ran) == 2000, message="all have run")
    eventually(lambda: some._running == 0)


def test_a_stop_forgets_those_that_wait_and_lets_the_running_ones_end(some: Jobs, held: Held) -> None:
    with started_threads() as threads:
        held.start(some, 10)
        held.have_begun(THREADS)
    some.stop()
    with pytest.raises(RuntimeError, match="test-jobs"):
        some.start(lambda: None)
    held.go.release(10)
    eventually(lambda: not alive(threads))
    assert sorted(held.begun) == sorted(held.ended) == [0, 1, 2]


def test_a_call_that_fails_is_logged_and_costs_no_thread(some: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise SystemExit("it cannot go on")

    for _ in range(2 * THREADS):
        some.start(fail)
    done = threading.Event()
    some.start(done.set)
    assert done.wait(30)
    eventually(lambda: len(caplog.records) == 2 * THREADS)
    eventually(lambda: some._running == 0)


def test_where_the_system_gives_no_more_threads_those_that_are_there_run_all_calls(
    some: Jobs, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.start(some, 1)
    held.have_begun(1)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        held.start(some, 3)
    assert len(held.begun) == 1
    held.go.release(4)
    eventually(lambda: len(held.ended) == 4)
    eventually(lambda: some._running == 0)
    held.start(some, THREADS + 1)
    held.have_begun(4 + THREADS)
    held.go.release(100)
    eventually(lambda: len(held.ended) == 5 + THREADS)
    eventually(lambda: some._running == 0)
    assert sorted(held.begun) == sorted(held.ended)


def test_where_there_is_no_thread_at_all_the_caller_is_told(some: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ran: list[bool] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            some.start(lambda: ran.append(True))
    done = threading.Event()
    some.start(done.set)
    assert done.wait(30)
    eventually(lambda: some._running == 0)
    assert ran == [], "the caller may have had it run in another way"


def test_a_program_ends_when_its_running_job_has_and_begins_none_then() -> None:
    program = """
import threading, time
from messagebus.loop.jobs import Jobs
jobs, others, begun = Jobs(1, "jobs"), Jobs(1, "others"), threading.Event()
def job():
    begun.set()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            others.start(lambda: None)
        except RuntimeError:
            print("no more", flush=True)
            return
        time.sleep(0.3)  # longer than a thread waits for one more call
jobs.start(lambda: None)
jobs.start(job)
begun.wait()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("no more\n", "", 0)
