"""How PostgreSQL is waited for under gevent."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.postgres


TICKER = """if True:
    EARLY
    from gevent import monkey
    monkey.patch_all()
    import gevent, json, sys, time
    from messagebus.stores import open_store
    from messagebus.message import encode_envelope
    from messagebus.options import Options
    from tests.eventually import eventually
    from tests.recorder import Recorder

    longest = 0.0
    def tick():
        global longest
        while True:
            began = time.monotonic()
            gevent.sleep(0.01)
            longest = max(longest, time.monotonic() - began)

    store = open_store(Options(url=sys.argv[1], store_timeout=30.0))
    ticker = gevent.spawn(tick)
    recorder = Recorder()
    store.listen(recorder)
    eventually(lambda: recorder.told("started"))
    def work():
        for number in range(10):
            store.publish("/a", encode_envelope(b"%d" % number), max_backlog_size=1000, max_backlog_age=1000)
    gevent.joinall([gevent.spawn(work) for _ in range(20)], raise_error=True)
    eventually(lambda: len(recorder.messages) == 200)
    # Somebody holds the lock that every publish needs.
    print("lock", flush=True)
    sys.stdin.readline()
    waiting = gevent.spawn(work)
    gevent.sleep(1.0)
    assert not waiting.ready()
    assert len(store.backlog("/a").messages) == 200
    print("release", flush=True)
    waiting.get(timeout=30)
    eventually(lambda: len(recorder.messages) == 210)
    assert recorder.ids == list(range(1, 211))
    assert longest < 5, f"the hub was blocked for {longest} s"
    store.close()
"""


@pytest.mark.parametrize("early", ["", "import psycopg"], ids=["patched-first", "psycopg-imported-first"])
def test_neither_the_feed_nor_a_publish_that_waits_blocks_geventʼs_hub(
    postgres_url: str, postgres_server: PostgresServer, early: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", TICKER.replace("EARLY", early), postgres_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, postgres_server.client() as client:
        assert process.stdout.readline() == "lock\n"
        with client.transaction():
            client.execute("SELECT FROM messagebus_state FOR UPDATE")
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "release\n"
        assert process.wait(60) == 0


def test_a_child_forked_under_gevent_lets_go_of_the_parentʼs_connections(postgres_url: str) -> None:
    program = """if True:
        from gevent import monkey
        monkey.patch_all()
        import gevent, os, sys
        from messagebus.stores import open_store
        from messagebus.message import encode_envelope
        from messagebus.options import Options
        from tests.eventually import eventually
        from tests.recorder import Recorder

        def publish(data):
            store.publish("/a", encode_envelope(b"%d" % data), max_backlog_size=1000, max_backlog_age=1000)

        store = open_store(Options(url=sys.argv[1]))
        recorder = Recorder()
        store.listen(recorder)
        eventually(lambda: recorder.told("started"))
        publish(1)
        eventually(lambda: recorder.data == [1])
        child = os.fork()
        if not child:
            store.after_fork()
            heard = Recorder()
            store.listen(heard)
            eventually(lambda: heard.told("started"))
            publish(2)
            eventually(lambda: heard.data == [2])
            assert recorder.data == [1]
            store.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        publish(3)
        eventually(lambda: recorder.data == [1, 2, 3])
        assert recorder.told("healthy") == []
        store.close()
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, postgres_url], check=True, timeout=60)
