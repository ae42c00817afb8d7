"""What only PostgreSQL has: URLs, NOTIFY and its limit, transactions, and how it waits under gevent."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from messagebus import Bus
from messagebus.errors import BackendUnavailable, InvalidData, InvalidOption, PublishRefused
from messagebus.message import Ids, encode_envelope
from messagebus.options import Options
from messagebus.stores import Publication, StoreState, open_store
from messagebus.stores.postgres import PostgresStore
from tests.eventually import eventually
from tests.postgres_server import PASSWORD, PostgresServer
from tests.recorder import Recorder
from tests.store_helpers import LIMITS, check_all, listen, publish

from .conftest import OpenPostgres

pytestmark = pytest.mark.postgres


# --- where it is ---


def test_a_unix_socket(postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres) -> None:
    check_all(open_postgres(postgres_server.unix_url))


def test_the_other_scheme_is_as_good(postgres_url: str) -> None:
    store = open_store(Options(url=postgres_url.replace("postgresql:", "postgres:")))
    assert isinstance(store, PostgresStore)
    assert store.state() == StoreState(0, None)
    store.close()


def test_two_schemas_of_a_database_are_two_buses(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    with postgres_server.client() as client:
        client.execute("CREATE SCHEMA other")
        try:
            store = open_postgres(postgres_url)
            recorder = listen(store)
            check_all(open_postgres(f"{postgres_url}?options=-csearch_path%3Dother"))
            publish(store, "/mine", 7)
            eventually(lambda: recorder.data == [7])
            assert recorder.ids == [1]
        finally:
            client.execute("SET client_min_messages = warning")
            client.execute("DROP SCHEMA other CASCADE")


def test_a_wrong_password_is_never_shown(
    postgres_server: PostgresServer, open_postgres: OpenPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = open_postgres(postgres_server.url_of(password="hunter3"))
    with pytest.raises(BackendUnavailable) as caught:
        wrong.state()
    recorder = Recorder()
    wrong.listen(recorder)
    eventually(lambda: recorder.told("healthy") == [False])
    shown = str(caught.value) + repr(caught.value.__cause__) + caplog.text
    assert "hunter" not in shown
    assert str(postgres_server.port) in str(caught.value)
    assert PASSWORD not in shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@localhost/database?colour=blue",
        "postgresql://u:secret@localhost/%zz",
        "postgresql://u:secret@[::1/database",
    ],
)
def test_a_malformed_url_is_refused_at_once_and_without_showing_the_password(url: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        open_store(Options(url=url))
    assert caught.value.option == "url"
    assert "secret" not in str(caught.value)


def test_without_psycopg_the_error_says_what_to_install() -> None:
    program = """if True:
        import sys
        sys.modules["psycopg"] = None
        from messagebus.stores import open_store
        from messagebus.errors import InvalidOption
        from messagebus.options import Options
        try:
            open_store(Options(url="postgresql://localhost/x"))
        except InvalidOption as error:
            assert "messagebus[postgresql]" in str(error), error
        else:
            raise SystemExit("no error")
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- tables and transactions ---


def test_processes_that_all_come_first_make_the_tables_together(postgres_url: str, open_postgres: OpenPostgres) -> None:
    stores = [open_postgres(postgres_url) for _ in range(8)]
    together = threading.Barrier(8)

    def work(store: PostgresStore) -> int:
        together.wait()
        return publish(store, "/a", 0).global_id

    with ThreadPoolExecutor(8) as executor:
        assert sorted(executor.map(work, stores)) == list(range(1, 9))


def test_reading_makes_no_tables_and_the_first_publish_does(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'messagebus%'"
    assert store.backlog("/a") == ([], 0, 1)
    store.expire_all_backlogs()
    store.reset()
    with postgres_server.client() as client:
        assert client.execute(tables).fetchone() == (0,)
        publish(store, "/a", 1)
        assert client.execute(tables).fetchone() == (5,)


def test_a_message_that_fails_leaves_no_hole_in_the_ids_and_none_of_its_batch(
    postgres_url: str, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    publish(store, "/a", 1)
    good = Publication("/a", encode_envelope(b"2"), 1000, 1000)
    with pytest.raises(InvalidData):
        store.publish_many([good, good._replace(envelope=b"\x00")])
    assert publish(store, "/a", 2) == Ids(2, 2)
    eventually(lambda: recorder.data == [1, 2])
    assert recorder.ids == [1, 2]


def test_two_processes_with_four_publishers_each_give_ids_without_holes(
    postgres_url: str, open_postgres: OpenPostgres
) -> None:
    program = """if True:
        import sys, threading
        from messagebus.stores import open_store
        from messagebus.message import encode_envelope
        from messagebus.options import Options
        store = open_store(Options(url=sys.argv[1]))
        def work(publisher):
            for number in range(50):
                envelope = encode_envelope(b"%d" % (publisher * 1000 + number))
                store.publish(f"/{publisher % 2}", envelope, max_backlog_size=1000, max_backlog_age=1000)
        threads = [threading.Thread(target=work, args=(int(sys.argv[2]) + n,)) for n in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        store.close()
    """
    store = open_postgres(postgres_url)
    recorder = listen(store)
    processes = [subprocess.Popen([sys.executable, "-c", program, postgres_url, first]) for first in ("0", "4")]
    assert [process.wait(60) for process in processes] == [0, 0]
    eventually(lambda: len(recorder.messages) == 400)
    assert recorder.ids == list(range(1, 401))
    for name in ("/0", "/1"):
        assert [message.message_id for message in store.backlog(name).messages] == list(range(1, 201))
    numbers = [int(str(data)) for data in recorder.data]
    for publisher in range(8):
        mine = [number for number in numbers if number // 1000 == publisher]
        assert mine == [publisher * 1000 + number for number in range(50)]


def test_channels_that_nobody_publishes_to_any_more_are_swept_away(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    for number in range(20):
        store.publish(f"/{number}", encode_envelope(b"1"), max_backlog_size=10, max_backlog_age=10)
    with postgres_server.client() as client:

        def age(seconds: int) -> None:
            older = f"- interval '{seconds} s'"
            client.execute(f"UPDATE messagebus_state SET sweep_at = sweep_at {older}")
            client.execute(
                f"UPDATE messagebus_channels SET backlog_until = backlog_until {older}, ids_until = ids_until {older}"
            )

        age(11)
        publish(store, "/live", 1)
        assert client.execute("SELECT count(*) FROM messagebus_messages").fetchone() == (21,)
        age(24 * 3600)  # the sweep is due
        client.execute("UPDATE messagebus_channels SET ids_until = now() + interval '1 h' WHERE name = '/0'")
        publish(store, "/live", 2)
        assert client.execute("SELECT name FROM messagebus_messages").fetchall() == [("/live",)] * 2
        assert client.execute("SELECT name FROM messagebus_channels ORDER BY 1").fetchall() == [("/0",), ("/live",)]
    assert store.backlog("/0") == ([], 1, 2)


# --- the feed ---


@pytest.mark.parametrize("size", [7_880, 7_890, 7_900, 7_910, 7_920, 8_000, 1_000_000])
def test_messages_around_and_over_the_limit_of_notify_arrive(
    postgres_url: str, open_postgres: OpenPostgres, size: int
) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    text = "é" + "x" * size
    for number in range(3):
        publish(store, "/a", number)
        store.publish("/a", encode_envelope(f'"{text}"'.encode()), **LIMITS)
    eventually(lambda: len(recorder.messages) == 6)
    assert recorder.data == [0, text, 1, text, 2, text]
    assert recorder.told("healthy") == recorder.told("resync") == []


def test_every_size_on_either_side_of_the_limit_is_announced(postgres_url: str, open_postgres: OpenPostgres) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    sizes = range(7_900, 8_010)
    store.publish_many([Publication("/a", encode_envelope(b'"' + b"x" * size + b'"'), 1000, 1000) for size in sizes])
    eventually(lambda: len(recorder.messages) == len(sizes))
    assert [len(str(data)) for data in recorder.data] == list(sizes)


def test_a_large_message_that_its_channel_no_longer_keeps_is_said_to_be_lost(
    postgres_url: str, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    large, small = encode_envelope(b'"' + b"x" * 10_000 + b'"'), encode_envelope(b"1")
    # One transaction: the first is gone when the feed hears of it.
    store.publish_many([Publication("/a", envelope, 1, 1000) for envelope in (large, small)])
    eventually(lambda: recorder.told("resync") == [StoreState(2, store.state().epoch)])
    publish(store, "/a", 2)
    eventually(lambda: recorder.data == [2])
    assert recorder.told("healthy") == []


def test_a_listener_that_the_server_ends_comes_back_and_misses_nothing(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    recorder = listen(store)
    with postgres_server.client() as client:
        for number in range(60):
            if number % 20 == 10:
                client.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            publish(store, "/a", number)
    eventually(lambda: len(recorder.messages) == 60)
    assert recorder.data == list(range(60))
    assert recorder.told("resync") == []
    eventually(lambda: recorder.told("healthy")[-1:] == [True])


def test_connections_that_the_server_ended_while_idle_are_not_used_again(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    publish(store, "/a", 1)
    with postgres_server.client() as client:
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'messagebus'"
        assert client.execute(ended).fetchall() == [(True,)]
    assert publish(store, "/a", 2) == Ids(2, 2)


def test_a_quiet_feed_stays_up_by_asking_now_and_then(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messagebus.stores.postgres_feed.QUIET", 0.02)
    store = open_postgres(postgres_url)
    recorder = listen(store)
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT 1' AND application_name = 'messagebus'"
    with postgres_server.client() as client:
        eventually(lambda: client.execute(asked).fetchone() == (1,))
    for number in range(20):
        publish(store, "/a", number)
    eventually(lambda: len(recorder.messages) == 20)
    assert recorder.data == list(range(20))
    assert recorder.told("healthy") == []


def test_many_threads_share_a_bounded_number_of_connections(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    store = open_postgres(postgres_url)
    with ThreadPoolExecutor(40) as executor:
        list(executor.map(lambda number: publish(store, "/a", number), range(200)))
    assert store.state().global_id == 200
    with postgres_server.client() as client:
        count = client.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'messagebus'").fetchone()
    assert count is not None
    assert 1 <= count[0] <= 8


# --- gevent ---

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
    assert longest < 0.5, f"the hub was blocked for {longest} s"
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


# --- refusals ---


def test_a_role_that_may_not_write_is_refused_stores_nothing_and_goes_on_after_the_grant(
    postgres_url: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    publish(open_postgres(postgres_url), "/a", 0)
    with postgres_server.client() as client:
        client.execute("DROP ROLE IF EXISTS guest")
        client.execute("CREATE ROLE guest LOGIN PASSWORD 'pw'")
        try:
            client.execute("GRANT USAGE ON SCHEMA public TO guest")
            client.execute("GRANT SELECT, UPDATE ON messagebus_state, messagebus_channels TO guest")
            client.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest")
            guest = Bus(url=postgres_url.replace("messagebus:hunter2", "guest:pw"))
            for number in range(5):
                with pytest.raises(PublishRefused, match="permission denied") as caught:
                    guest.publish("/a", number)
            assert caught.value.reason == "forbidden"
            assert [message.data for message in guest.backlog("/a")] == [0]
            assert guest.newest_global_id() == 1
            client.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO guest")
            assert guest.publish("/a", 1) == 2
            guest.close()
        finally:
            client.execute("DROP OWNED BY guest")
            client.execute("DROP ROLE guest")


def test_a_wrong_password_is_a_refusal(postgres_server: PostgresServer) -> None:
    bus = Bus(url=postgres_server.url_of(password="hunter3"))
    with pytest.raises(PublishRefused, match="authentication failed") as caught:
        bus.publish("/a", 1)
    assert caught.value.reason == "unauthenticated"
    assert "hunter" not in str(caught.value)
    bus.close()
