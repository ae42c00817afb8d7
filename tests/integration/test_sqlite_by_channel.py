"""Feeds of the SQLite store that hear only some channels: whom a publish wakes, and what nothing can keep from them."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from messagebus.message import Message
from messagebus.options import Options
from messagebus.stores import Publication, Store, open_store
from messagebus.stores.sqlite_marks import ENDING, Marks, bits_of, has_any, open_marks
from messagebus.stores.sqlite_publishing import group_of
from messagebus.stores.sqlite_waking import Alarm, Bells
from tests.eventually import eventually
from tests.interested import Interested
from tests.servers import ROOT
from tests.store_helpers import publish

KILLED = """if True:
    import sys, time
    from messagebus.options import Options
    from messagebus.stores import open_store
    from tests.interested import Interested
    Interested(open_store(Options(url=sys.argv[1])), "/a")
    print("listens", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with contextlib.closing(open_store(Options(url=f"sqlite:///{path}"))) as store:
        yield store


def listeners(path: Path) -> list[str]:
    return sorted(os.listdir(f"{path}-listeners"))


def test_only_those_are_woken_who_marked_one_of_the_channels_or_mark_none(path: Path) -> None:
    bells = Bells(str(path))
    with contextlib.ExitStack() as stack:
        a, b, all_of_them = (Alarm(str(path), by_channel=each) for each in (True, True, False))
        for each in (a, b, all_of_them):
            stack.callback(each.close)
        a.mark(["/a", "/common"])
        b.mark(["/b", "/common"])
        for each in (a, b, all_of_them):
            each.wait(0.0)  # each that begins wakes the others
        for names, woken in ((["/a"], (True, False)), (["/x", "/b"], (False, True)), (["/x"], (False, False))):
            bells.ring(names)
            assert [each.wait(0.0) for each in (a, b, all_of_them)] == [*woken, True]
        for common in (["/common"], None):
            bells.ring(common)
            assert [each.wait(0.0) for each in (a, b, all_of_them)] == [True, True, True]
        a.mark([], ["/common"])
        bells.ring(["/common"])
        assert [each.wait(0.0) for each in (a, b, all_of_them)] == [False, True, True]
    assert listeners(path) == []


def test_a_bit_that_two_names_share_is_set_until_both_are_gone(tmp_path: Path) -> None:
    marks = Marks(str(tmp_path / "marks"))
    seen = open_marks(str(tmp_path / "marks"))
    assert seen is not None
    same = next(name for name in map("/{}".format, range(10_000_000)) if bits_of([name]) == bits_of(["/a"]))
    marks.add(["/a", same])
    marks.remove(["/a"])
    assert has_any(seen, bits_of(["/a"]))
    marks.remove([same])
    assert not has_any(seen, bits_of(["/a"]))
    marks.close()
    assert list(tmp_path.iterdir()) == []


def test_marks_that_are_cut_or_away_count_as_all_set(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(b"0" * 100)
    assert open_marks(str(tmp_path / "cut")) is None
    assert open_marks(str(tmp_path / "away")) is None


def test_wake_ups_and_marks_that_are_lost_cost_a_second_and_no_message(path: Path, store: Store) -> None:
    recorder = Interested(store, "/a")
    for each in Path(f"{path}-listeners").iterdir():
        if each.name.endswith(ENDING):
            each.write_bytes(bytes(each.stat().st_size))  # none is set
    publish(store, "/a", 1)
    eventually(lambda: recorder.data == [1])
    for each in Path(f"{path}-listeners").iterdir():
        each.unlink()
    publish(store, "/a", 2)
    eventually(lambda: recorder.data == [1, 2])
    assert recorder.told("healthy") == []


def test_what_a_killed_process_has_left_goes_when_another_begins(path: Path, store: Store) -> None:
    publish(store, "/a", 0)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, f"sqlite:///{path}"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listens\n"
        assert len(listeners(path)) == 2
        process.send_signal(signal.SIGKILL)
    publish(store, "/stranger", 1)
    assert len(listeners(path)) == 2  # nobody had a word for it
    recorder = Interested(store, "/a")
    assert len(listeners(path)) == 2
    publish(store, "/a", 2)
    eventually(lambda: recorder.data == [2])
    store.close()
    assert listeners(path) == []


def test_a_file_that_is_replaced_by_an_older_copy_is_noticed(path: Path, store: Store) -> None:
    publish(store, "/a", 1)
    with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(f"{path}.old")) as old:
        source.backup(old)
    recorder = Interested(store, "/a", "/b")
    publish(store, "/b", 2)
    eventually(lambda: recorder.data == [2])
    before = store.state().epoch
    for ending in ("-wal", "-shm"):
        os.unlink(f"{path}{ending}")
    os.replace(f"{path}.old", path)
    eventually(lambda: recorder.told("resync"))
    assert store.state().epoch != before
    publish(store, "/b", 3)
    eventually(lambda: recorder.data[-1] == 3)


def test_a_channel_that_was_forgotten_goes_on_and_nobody_is_sent_back(path: Path, store: Store) -> None:
    recorder = Interested(store, "/a")
    for number in range(3):
        publish(store, "/a", number)
    publish(store, "/later", 0)
    eventually(lambda: recorder.data == [0, 1, 2])
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE channels SET backlog_until = 0, ids_until = 0")
        connection.execute("UPDATE state SET sweep_at = 0")
        # As of another channel of its group: ids go on where the group's highest was.
        connection.execute("INSERT INTO forgotten VALUES (?, 50)", (group_of("/a"),))
    publish(store, "/stranger", 0)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM channels ORDER BY name")]
    assert names == ["/stranger"]
    assert publish(store, "/a", 3).message_id == 51
    eventually(lambda: recorder.data == [0, 1, 2, 3])
    assert recorder.told("resync") == []


class Held(Interested):
    """Holds the feed's thread at the first message until it is let go."""

    def __init__(self, store: Store, *names: str) -> None:
        self.let_go_on = threading.Event()
        super().__init__(store, *names)

    def received(self, messages: Sequence[Message]) -> None:
        super().received(messages)
        assert self.let_go_on.wait(30)


def test_what_is_more_than_one_read_takes_comes_in_order_whether_the_strangers_are_few_or_many(store: Store) -> None:
    for strangers in (1, 40):
        recorder = Held(store, "/a", "/b")
        begin = store.state().global_id
        names = ["/a", "/b", *["/stranger"] * strangers]
        batch = [names[number % len(names)] for number in range(1500 * len(names))]
        for first in range(0, len(batch), 1000):
            store.publish_many([Publication(name, b'{"data":1}', 5000, 1000) for name in batch[first : first + 1000]])
        recorder.let_go_on.set()
        recorder.catch_up()
        wanted = [begin + 1 + number for number, name in enumerate(batch) if name != "/stranger"]
        assert recorder.ids == wanted
        assert recorder.reached == begin + len(batch)
        assert recorder.told("resync") == []
