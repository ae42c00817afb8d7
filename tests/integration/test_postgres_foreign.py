"""Databases that are none for the bus: refused with what was found and what was expected, and left as they were."""

from __future__ import annotations

import contextlib

import psycopg
import pytest

from messagebus.errors import InvalidOption, PublishRefused
from messagebus.options import Options
from messagebus.stores import open_store
from tests.eventually import eventually
from tests.postgres_server import PostgresServer
from tests.recorder import Recorder
from tests.store_helpers import publish

pytestmark = pytest.mark.postgres
TABLES = "SELECT relname FROM pg_class WHERE relname LIKE 'messagebus%' AND relnamespace = 'public'::regnamespace"


def refuse(url: str, words: str) -> None:
    """A publisher is told why; a listener waits, and says so."""
    with contextlib.closing(open_store(Options(url=url))) as store:
        with pytest.raises(PublishRefused, match=words):
            publish(store, "/a", 1)
        recorder = Recorder()
        store.listen(recorder)
        eventually(lambda: recorder.told("healthy") == [False])
        assert recorder.told("started") == []


def test_a_table_of_another_program_is_refused_and_left_alone(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE messagebus_state (bus text, state text)")
        connection.execute("INSERT INTO messagebus_state VALUES ('line 7', 'late')")
        refuse(postgres_url, "messagebus_state in schema public is the table of another program; expected the bus's")
        assert connection.execute("SELECT * FROM messagebus_state").fetchall() == [("line 7", "late")]
        assert connection.execute(TABLES).fetchall() == [("messagebus_state",)]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_is_refused_before_anything_is_written(
    postgres_url: str, postgres_server: PostgresServer, encoding: str
) -> None:
    name = f"foreign_{encoding.lower()}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        try:
            url = postgres_url.rpartition("/")[0] + f"/{name}"
            refuse(url, f"the encoding of database {name} is {encoding}; the bus needs UTF8")
            with psycopg.connect(url) as other:
                assert other.execute(TABLES).fetchall() == []
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("scheme", ["mysql", "sqlite3", "postgresql+psycopg", "http", ""])
def test_an_unknown_scheme_is_refused_with_those_that_are_known(scheme: str) -> None:
    with pytest.raises(InvalidOption, match=r"(?s)(scheme|url).*sqlite.*postgresql"):
        open_store(Options(url=f"{scheme}://user:hunter2@127.0.0.1/bus"))
