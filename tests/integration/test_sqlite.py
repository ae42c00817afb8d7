"""The SQLite store: processes that share a file, die at any moment, and files that are none of ours."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from messagebus.errors import BackendUnavailable, InvalidOption, PublishRefused
from messagebus.options import Options
from messagebus.stores import BacklogQuery, Store, open_store
from messagebus.stores.sqlite_file import VERSION, check_file
from tests.eventually import eventually
from tests.servers import ROOT
from tests.store_helpers import listen, publish

PUBLISHER = """if True:
    import sys
    from messagebus.options import Options
    from messagebus.stores import open_store
    from tests.store_helpers import publish
    store = open_store(Options(url=sys.argv[1]))
    for number in range(int(sys.argv[3])):
        ids = publish(store, sys.argv[2], number)
        print(ids.message_id, ids.global_id, number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with contextlib.closing(make(path)) as store:
        yield store


def make(path: Path, timeout: float = 5.0) -> Store:
    return open_store(Options(url=f"sqlite:///{path}", store_timeout=timeout, max_global_backlog_size=100_000))


def publisher(path: Path, channel: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUBLISHER, f"sqlite:///{path}", channel, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_programs_that_begin_a_file_at_the_same_time_share_its_ids_without_a_hole(path: Path, store: Store) -> None:
    processes = [publisher(path, "/a", 100) for _ in range(4)]
    given = [line.split() for process in processes for line in process.communicate(timeout=60)[0].splitlines()]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(int(ids[0]) for ids in given) == sorted(int(ids[1]) for ids in given) == list(range(1, 401))
    recorder = listen(store)
    process = publisher(path, "/a", 100)
    process.communicate(timeout=60)
    eventually(lambda: len(recorder.messages) == 100)
    assert recorder.ids == list(range(401, 501))


def test_publishers_that_are_killed_at_any_moment_leave_no_hole_and_lose_nothing_acknowledged(
    path: Path, store: Store
) -> None:
    recorder = listen(store)
    acknowledged: dict[int, tuple[str, int]] = {}
    for turn in range(8):
        processes = {f"/{turn}-{number}": publisher(path, f"/{turn}-{number}", 10_000) for number in range(2)}
        for process in processes.values():
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(random.uniform(0, 0.05))  # the moment to die at, and not a wait
            process.send_signal(signal.SIGKILL)
            with process:
                rest = process.stdout.read()
            lines = [line for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]
            channel = next(name for name, each in processes.items() if each is process)
            for message_id, global_id, _ in map(str.split, lines):
                assert int(global_id) not in acknowledged, "an id was given twice"
                acknowledged[int(global_id)] = channel, int(message_id)
    last = publish(store, "/end", 0).global_id
    eventually(lambda: recorder.messages and recorder.messages[-1].global_id == last)
    assert [message.global_id for message in recorder.messages] == list(range(1, last + 1))
    assert recorder.told("resync") == []
    heard = {message.global_id: (message.name, message.message_id) for message in recorder.messages}
    assert acknowledged.items() <= heard.items()
    assert len(acknowledged) > 16


def test_a_listener_that_was_killed_leaves_a_socket_that_the_next_publish_removes(path: Path, store: Store) -> None:
    recorder = listen(store)
    program = (
        "import sys, time; from tests.integration.test_sqlite import *; listen(make(Path(sys.argv[1]))); "
        "print(1, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            sockets = Path(f"{path}-listeners")
            assert len(list(sockets.iterdir())) == 2
        finally:
            process.kill()
    publish(store, "/a", 1)
    assert len(list(sockets.iterdir())) == 1
    eventually(lambda: recorder.data == [1])
    store.close()
    assert list(sockets.iterdir()) == []


def test_what_was_published_survives_the_end_of_all_processes(path: Path) -> None:
    publisher(path, "/a", 3).communicate(timeout=30)
    with contextlib.closing(make(path)) as store:
        assert [message.data for message in store.backlog("/a").messages] == [0, 1, 2]
        assert publish(store, "/a", 3).message_id == 4


def test_a_second_store_in_a_process_leaves_the_locks_of_the_first_one(path: Path, store: Store) -> None:
    publish(store, "/a", 0)
    make(path).close()
    # The other process closes the file, and must not take itself for the last one that has it open.
    publisher(path, "/a", 1).communicate(timeout=30)
    assert publish(store, "/a", 2).message_id == 3
    assert [message.data for message in store.backlog("/a").messages] == [0, 0, 2]
    publisher(path, "/a", 1).communicate(timeout=30)
    assert [message.data for message in store.backlog("/a").messages] == [0, 0, 2, 0]


def test_a_wake_up_that_is_lost_costs_a_second_and_no_message(path: Path, store: Store) -> None:
    recorder = listen(store)
    for each in Path(f"{path}-listeners").iterdir():
        each.unlink()
    publish(store, "/a", 1)
    eventually(lambda: recorder.data == [1])


def test_announcements_whose_time_is_over_go_with_the_next_ones_a_few_at_a_time(path: Path, store: Store) -> None:
    for number in range(25):
        store.announce(str(number))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE announcements SET announced_at = 0")
    for kept in (16, 7, 3):
        store.announce("new")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM announcements").fetchone() == (kept,)


def test_a_long_path_is_listened_at_as_well(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    with contextlib.closing(make(directory / "bus.db")) as store:
        recorder = listen(store)
        publish(store, "/a", 1)
        eventually(lambda: recorder.data == [1])
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.bind(str(directory / "too long for an address"))
            pytest.fail("the path is not long enough for this test")


def test_a_file_that_went_back_to_an_older_copy_gets_another_epoch(path: Path, store: Store) -> None:
    publish(store, "/a", 1)
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(f"{path}.old")) as old:
        source.backup(old)
    recorder = listen(store)
    publish(store, "/a", 2)
    eventually(lambda: recorder.data == [2])
    before = store.state().epoch
    for ending in ("-wal", "-shm"):
        os.unlink(f"{path}{ending}")
    os.replace(f"{path}.old", path)
    eventually(lambda: recorder.told("resync"))
    assert store.state().epoch != before
    publish(store, "/a", 3)
    eventually(lambda: recorder.data[-1] == 3)


def test_a_locked_file_is_waited_for_and_then_unavailable(path: Path) -> None:
    with contextlib.closing(make(path, timeout=0.3)) as store:
        publish(store, "/a", 1)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(BackendUnavailable, match="another process holds its lock") as caught:
                publish(store, "/a", 2)
            assert caught.value.reason == "busy"
            assert time.monotonic() - began >= 0.3
            assert [message.data for message in store.backlog("/a").messages] == [1], "reads go on"
            other.execute("ROLLBACK")
        assert publish(store, "/a", 3).message_id == 2


def test_a_full_file_takes_nothing_and_can_be_read(path: Path, store: Store) -> None:
    publish(store, "/a", 1)

    def limit(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    store._file.run(limit)  # type: ignore[attr-defined]
    envelope = b'{"data":"' + b"x" * 100_000 + b'"}'
    with pytest.raises(BackendUnavailable) as caught:
        store.publish("/a", envelope, max_backlog_size=10, max_backlog_age=10)
    assert caught.value.reason == "full"
    [page] = store.backlogs([BacklogQuery("/a", 0)], 1 << 20)
    assert page.messages[0].data == 1
    assert (len(page.messages), page.last_id) == (1, 1)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://host/bus.db", "has no host"),
        ("sqlite://", "has no host"),
        ("sqlite:///", "needs the path of a file"),
        ("sqlite:///bus.db?timeout=3", "no parameters"),
        ("sqlite:///bus.db#x", "no parameters"),
        ("sqlite:////nowhere/at/all/bus.db", "there is no directory /nowhere/at/all"),
        ("sqlite:////tmp", "is a directory"),
    ],
)
def test_a_url_that_names_no_file_is_refused(url: str, words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        open_store(Options(url=url))


def test_a_file_that_is_none_of_ours_is_refused_and_stays_as_it_is(path: Path) -> None:
    path.write_text("my diary, which is longer than a header is, " * 10)
    before = path.read_bytes()
    with pytest.raises(InvalidOption, match="no SQLite database; expected the bus's file"):
        make(path)
    assert path.read_bytes() == before
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(InvalidOption, match="another program's database"):
        make(path)
    assert path.read_bytes() == before


def test_a_file_of_a_newer_version_is_refused_also_by_a_process_that_has_begun(path: Path, store: Store) -> None:
    with contextlib.closing(make(path)) as earlier:
        publish(store, "/a", 1)
        store.close()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as newer:
            newer.execute(f"PRAGMA user_version = {VERSION + 1}")
        words = f"tables of version {VERSION + 1}; this messagebus knows versions up to {VERSION}"
        with pytest.raises(PublishRefused, match=words):
            publish(earlier, "/a", 2)
        with pytest.raises(BackendUnavailable, match=words):
            earlier.backlog("/a")
    with pytest.raises(InvalidOption, match=words):
        make(path)


def test_a_file_system_of_another_machine_is_refused(path: Path, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"disk / ext4 rw 0 0\nserver:/export {path.parent} nfs4 rw 0 0\n")
    with pytest.raises(InvalidOption, match=r"is on nfs4, .* expected a local disk"):
        check_file(str(path), str(mounts))
    mounts.write_text(f"server:/ / nfs rw 0 0\ndisk {path.parent} ext4 rw 0 0\n")
    check_file(str(path), str(mounts))
