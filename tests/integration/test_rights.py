"""Users who may do less than the bus needs: what is missing is said, with the line that mends it."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from messagebus import Bus
from messagebus.errors import BackendUnavailable, PublishRefused
from messagebus.stores.advice import redis_rights
from tests.eventually import eventually
from tests.postgres_server import PostgresServer
from tests.recorder import Recorder
from tests.redis_server import RedisServer
from tests.store_helpers import check_all, publish

from .conftest import OpenPostgres, OpenRedis

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def user_url(redis_server: RedisServer, redis_url: str) -> Iterator[Callable[[str], str]]:
    """Makes a Redis user with some rules; the URL with its name."""
    with redis_server.client() as client:

        def make(rules: str) -> str:
            client.execute_command("ACL", "SETUSER", "bus", "reset", "on", ">pw", *rules.split())
            return redis_url.replace("://", "://bus:pw@")

        yield make
        client.execute_command("ACL", "DELUSER", "bus")


@pytest.mark.redis
def test_the_line_of_the_documentation_suffices(
    user_url: Callable[[str], str], open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
) -> None:
    found = re.search(r"ACL SETUSER bus on >\S+ (.+?)\n```", (DOCS / "redis.md").read_text().replace("\\\n", ""), re.S)
    assert found
    rules = " ".join(found[1].split())
    assert rules == redis_rights("_message_bus_0")
    store = open_redis(user_url(rules))
    check_all(store)
    store.renew_epoch(store.state().epoch)
    assert store.last_ids(["/a", "/none"]) == [1, 0]
    assert len(store.global_backlog()) == 1
    store.announce("x")
    store.report("w", "x")
    assert store.reports() == {"w": "x"}
    store.withdraw("w")
    store.forget("/none")
    assert store.channels().names == ["/a"]
    store.expire_all_backlogs()
    store.reset()
    assert "may not" not in caplog.text


@pytest.mark.redis
@pytest.mark.parametrize(
    ("lacking", "missing"),
    [("-publish", "publish"), ("-subscribe", "subscribe"), ("-setbit", "setbit"), ("resetchannels", "publish")],
)
def test_a_user_with_too_few_rights_is_told_at_the_start_and_the_line_that_it_is_given_mends_it(
    user_url: Callable[[str], str],
    redis_server: RedisServer,
    open_redis: OpenRedis,
    caplog: pytest.LogCaptureFixture,
    lacking: str,
    missing: str,
) -> None:
    store = open_redis(user_url(f"{redis_rights('_message_bus_0')} {lacking}"))
    recorder = Recorder()
    store.listen(recorder)
    error = eventually(lambda: [record for record in caplog.records if "may not run" in record.message])[0]
    assert error.levelname == "ERROR"
    assert re.search(rf"may not run [^;]*\b{missing}\b", error.message)
    assert "pw" not in caplog.text
    line = re.search(r"ACL SETUSER <user> (.*)", error.message)
    assert line
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "bus", *line[1].split())
    eventually(lambda: recorder.told("started"))
    publish(store, "/a", 1)
    eventually(lambda: recorder.data == [1])


@pytest.mark.redis
def test_a_publish_without_the_right_is_refused_with_the_line_that_mends_it(user_url: Callable[[str], str]) -> None:
    with (
        closing(Bus(url=user_url("~* +@all"))) as bus,
        pytest.raises(PublishRefused, match=r"ACL SETUSER <user> .*&_m"),
    ):
        bus.publish("/a", 1)


@pytest.mark.redis
def test_a_policy_that_deletes_backlogs_is_called_wrong_at_the_start(
    mortal_redis: RedisServer, open_redis: OpenRedis, caplog: pytest.LogCaptureFixture
) -> None:
    with mortal_redis.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    recorder = Recorder()
    open_redis(mortal_redis.url).listen(recorder)
    eventually(lambda: recorder.told("started"))
    assert "maxmemory-policy is allkeys-lru" in caplog.text


@pytest.fixture(scope="module")
def foreign_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Path]]:
    """A Redis whose certificate is its own and for another host; and that."""
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=redis.example", "-addext", "subjectAltName=DNS:redis.example", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    server = RedisServer(tls=(certificate, key), password="hunter2")
    try:
        yield server.start(), certificate
    finally:
        server.stop()


@pytest.mark.redis
@pytest.mark.parametrize(
    "parameters",
    ["ssl_cert_reqs=none", "ssl_cert_reqs=none&ssl_check_hostname=false", "ssl_ca_certs=CA&ssl_check_hostname=false"],
)
def test_a_certificate_of_ones_own_is_taken_where_the_url_says_so(
    foreign_tls: tuple[RedisServer, Path], open_redis: OpenRedis, parameters: str
) -> None:
    server, certificate = foreign_tls
    with server.client() as client:
        client.flushall()
    url = f"rediss://:hunter2@127.0.0.1:{server.tls_port}/0?{parameters.replace('CA', str(certificate))}"
    check_all(open_redis(url))


@pytest.mark.redis
@pytest.mark.parametrize(
    ("parameters", "advice"), [("", "ssl_ca_certs="), ("?ssl_ca_certs=CA", "ssl_check_hostname=false")]
)
def test_a_certificate_that_does_not_fit_is_explained_with_the_parameter_that_is_meant(
    foreign_tls: tuple[RedisServer, Path],
    open_redis: OpenRedis,
    caplog: pytest.LogCaptureFixture,
    parameters: str,
    advice: str,
) -> None:
    server, certificate = foreign_tls
    store = open_redis(f"rediss://:hunter2@127.0.0.1:{server.tls_port}/0{parameters.replace('CA', str(certificate))}")
    with pytest.raises(BackendUnavailable, match=advice) as caught:
        store.state()
    recorder = Recorder()
    store.listen(recorder)
    eventually(lambda: recorder.told("healthy") == [False])
    assert advice in caplog.text
    assert "hunter2" not in caplog.text + str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def role(postgres_url: str, postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an ordinary role, which may connect."""
    with postgres_server.client() as client:
        client.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        client.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        client.execute("CREATE ROLE bus LOGIN PASSWORD 'pw'")
        yield postgres_server.url.replace("messagebus:hunter2", "bus:pw")
        client.execute("DROP OWNED BY bus")
        client.execute("DROP SCHEMA IF EXISTS own")
        client.execute("DROP ROLE bus")


@pytest.mark.postgres
def test_a_role_that_may_not_make_tables_is_told_how_and_goes_on_when_it_may(
    role: str, postgres_server: PostgresServer, open_postgres: OpenPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "messagebus")
    store = open_postgres(role)
    with pytest.raises(PublishRefused, match=r"GRANT USAGE, CREATE ON SCHEMA public TO .*search_path"):
        publish(store, "/a", 0)
    recorder = Recorder()
    store.listen(recorder)
    eventually(lambda: recorder.told("healthy") == [False])
    [error] = [record for record in caplog.records if "no feed" in record.message]
    assert error.levelname == "ERROR"
    assert "GRANT USAGE, CREATE ON SCHEMA public TO" in error.message
    with postgres_server.client() as client:
        client.execute("GRANT USAGE, CREATE ON SCHEMA public TO bus")
    eventually(lambda: recorder.told("started"))
    publish(store, "/a", 1)
    eventually(lambda: recorder.data == [1])
    store.close()


@pytest.mark.postgres
def test_a_schema_of_its_own_is_enough_for_a_role(
    role: str, postgres_server: PostgresServer, open_postgres: OpenPostgres
) -> None:
    url = f"{role}?options=-csearch_path%3Down"
    with pytest.raises(PublishRefused, match="CREATE SCHEMA"):
        publish(open_postgres(url), "/a", 0)
    with postgres_server.client() as client:
        client.execute("CREATE SCHEMA own AUTHORIZATION bus")
    store = open_postgres(url)
    check_all(store)
    store.close()
