"""What only PostgreSQL has: URLs, schemas, tables, transactions and roles."""

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
from tests.store_helpers import check_all, listen, publish

from .conftest import OpenPostgres

pytestmark = pytest.mark.postgres


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
        assert client.execute(tables).fetchone() == (6,)


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
