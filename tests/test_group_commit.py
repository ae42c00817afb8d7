"""Group commit: who leads, who follows, and what becomes of failures."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from messagebus.stores.group_commit import GroupCommit, Waiting
from tests.eventually import eventually


class Disk:
    """Writes numbers; waits at the gate while it is shut."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def write(self, batch: Sequence[Waiting[int]]) -> None:
        self.batches.append([each.job for each in batch])
        assert self.gate.wait(10)
        for each in batch:
            if each.job == 13:
                each.error = ValueError("13")
            if each.job == 99:
                raise OSError("full")
            each.result = each.job * 2


def run_together(disk: Disk, jobs: Sequence[int]) -> dict[int, object]:
    """The first job holds the gate; the others come meanwhile."""
    commits = GroupCommit(disk.write)
    outcomes: dict[int, object] = {}

    def work(job: int) -> None:
        try:
            outcomes[job] = commits.run(job)
        except (OSError, ValueError) as error:
            outcomes[job] = str(error)

    disk.gate.clear()
    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    threads[0].start()
    eventually(lambda: disk.batches)
    for count, thread in enumerate(threads[1:], 1):
        thread.start()
        eventually(lambda count=count: len(commits._queue) == count)  # type: ignore[misc]
    disk.gate.set()
    for thread in threads:
        thread.join(30)
    return outcomes


def test_what_comes_during_a_write_is_written_together_in_its_order() -> None:
    disk = Disk()
    assert run_together(disk, [1, 2, 3, 4]) == {1: 2, 2: 4, 3: 6, 4: 8}
    assert disk.batches == [[1], [2, 3, 4]]


def test_one_that_is_refused_does_not_disturb_the_others() -> None:
    assert run_together(Disk(), [1, 2, 13, 4]) == {1: 2, 2: 4, 13: "13", 4: 8}


def test_a_write_that_fails_fails_for_all_of_it_and_the_next_one_is_tried() -> None:
    disk = Disk()
    assert run_together(disk, [99, 2, 3]) == {99: "full", 2: 4, 3: 6}
    assert run_together(disk, [1, 2, 99]) == {1: 2, 2: "full", 99: "full"}


def test_a_write_within_a_write_of_the_same_thread_does_not_wait_for_itself() -> None:
    written: list[int] = []

    def write(batch: Sequence[Waiting[int]]) -> None:
        for each in batch:
            if each.job == 1:
                assert commits.run(2) == 2
            written.append(each.job)
            each.result = each.job

    commits = GroupCommit(write)
    assert commits.run(1) == 1
    assert written == [2, 1]


def test_a_thread_that_is_ended_while_it_writes_lets_the_next_one_write() -> None:
    def write(batch: Sequence[Waiting[int]]) -> None:
        if batch[0].job == 1:
            raise KeyboardInterrupt
        batch[0].result = 7

    commits = GroupCommit(write)
    with pytest.raises(KeyboardInterrupt):
        commits.run(1)
    assert commits.run(2) == 7
