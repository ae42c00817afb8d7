"""The SQLite store where there is no more room: on a real file system that is full, and where a file may not grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT

PROGRAM = """if True:
    import os
    import resource
    import sqlite3
    import sys
    from messagebus import Bus
    from messagebus.errors import BackendUnavailable
    from messagebus.options import Options
    from messagebus.stores import open_store
    from tests.eventually import eventually
    from tests.store_helpers import listen

    way, place = sys.argv[1:]
    url = f"sqlite:///{place}/bus.db"
    options = Options(url=url, store_timeout=1.0)
    store, other = open_store(options), open_store(options)

    def publish(number):
        envelope = b'{"data":"%d%s"}' % (number, b"x" * 5000)
        return store.publish("/a", envelope, max_backlog_size=10_000, max_backlog_age=99)

    recorder = listen(other)
    first = publish(1)
    if way == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    given = [first]
    refused = None
    while refused is None and len(given) < 1000:
        try:
            given.append(publish(len(given) + 1))
        except BackendUnavailable as error:
            refused = error
    print("refused after", len(given), "messages:", refused.reason, refused)
    assert refused.reason == ("full" if way == "disk" else "gone"), refused
    # What was refused is nowhere, what was not is there; others hear it, and read on.
    kept = [message.message_id for message in other.backlog("/a").messages]
    assert kept == [ids.message_id for ids in given] == list(range(1, len(given) + 1))
    eventually(lambda: recorder.ids == [ids.global_id for ids in given])
    # A new listener finds its way in, and a bus keeps what it is given.
    bus = Bus(url=url)
    late = listen(store)
    assert bus.publish("/a", "y" * 5000) is None
    # Room.
    if way == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        os.unlink(f"{place}/filler")
    eventually(lambda: late.messages, 30)
    assert late.messages[0].message_id == len(given) + 1, late.messages
    assert late.messages[0].data == "y" * 5000
    assert publish(0).message_id == len(given) + 2
    eventually(lambda: recorder.ids == list(range(1, len(given) + 3)))
    assert recorder.told("resync") == late.told("resync") == []
    for each in (store, other, bus):
        each.close()
    with sqlite3.connect(f"{place}/bus.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
"""
ON_A_SMALL_DISK = """
    mount -t tmpfs -o size=2m small "$1" && head -c 1200000 /dev/zero > "$1/filler" && exec "$2" -c "$3" disk "$1"
"""


def run(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_full_disk_refuses_publishes_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    # As root, or in a user namespace of its own, whichever this machine allows.
    ways = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
    allowed = [way for way in ways if not subprocess.run([*way, "true"], check=False, capture_output=True).returncode]
    if not allowed:
        pytest.skip("this machine lets nobody mount a small disk; the limit of a file's size is tried below")
    run(*allowed[0], "sh", "-c", ON_A_SMALL_DISK, "sh", str(tmp_path), sys.executable, PROGRAM)


def test_a_file_that_may_not_grow_refuses_publishes_loses_nothing_and_goes_on_when_it_may(tmp_path: Path) -> None:
    run(sys.executable, "-c", PROGRAM, "limit", str(tmp_path))
