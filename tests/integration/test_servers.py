"""Every server that runs Flask apps: what many waiting subscribers cost it, and what happens around its forks."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..clients import TRANSPORTS, Client, EventSource, LongPolling, Polling, Refused, Streaming, WebSocket, request
from ..crowd import TRANSPORTS as HELD
from ..crowd import Crowd
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..servers import SERVERS, Server

COUNT = 200
TAKING = [kind for kind in SERVERS if kind != "waitress"]
SINGLE_THREADED = {"gunicorn-sync", "gunicorn-gevent", "pywsgi", "geventwebsocket", "gunicorn-geventwebsocket", "serve"}
_numbers = itertools.count()


def publish(server: Server, channel: str, data: object) -> int | None:
    body = json.dumps({"channel": channel, "data": data})
    with request(server.url, "POST", "/publish", body, {"Content-Type": "application/json"}) as response:
        assert response.status == 200, response.read()
        number: int | None = json.load(response)["message_id"]
        return number


@pytest.fixture(scope="module", params=TAKING)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One worker, with the store in memory, that has served requests of every kind before."""
    with contextlib.closing(Server(request.param)) as server:
        server.start()
        for transport in (Streaming, EventSource, WebSocket):
            with transport.connect(server.url, {"/warm": -1}) as client:
                client.status()
        for _ in range(4):
            assert server.get("/hello")[0] == 200
        yield server
        assert "Traceback" not in server.output(), server.output()[-5000:]


@pytest.mark.parametrize("transport", HELD)
def test_many_subscribers_cost_no_thread_and_leave_no_descriptor(server: Server, transport: str) -> None:
    channel = f"/crowd-{next(_numbers)}"
    settled = eventually(lambda: _settled(server), message="the server does not come to rest")
    assert settled is not None
    with Crowd(server.connect, transport, channel, COUNT) as crowd:
        if transport == "long-polling":
            eventually(lambda: server.open_sockets() >= COUNT)
        else:
            crowd.read_until(lambda received: b"\r\n\r\n" in received and len(received.partition(b"\r\n\r\n")[2]) > 0)
        for _ in range(5):
            assert server.get("/hello") == (200, b"hello")
        # Threads that the server keeps for other requests come and go; a pool of two may have started only one so far.
        most = settled[0] + (server.kind == "gunicorn-gthread")
        eventually(lambda: server.threads() <= most, message="more threads than without subscribers")
        if server.kind in SINGLE_THREADED:
            assert server.threads() <= 2
        publish(server, channel, "to all of you")
        crowd.read_until(lambda received: b'"to all of you"' in received)
    eventually(lambda: len(server.open_fds()) <= settled[1], message="a descriptor is left open")


def _settled(server: Server) -> tuple[int, int] | None:
    """Threads and descriptors without subscribers, once the last requests are over."""
    before = (server.threads(), len(server.open_fds()))
    server.get("/hello")
    after = (server.threads(), len(server.open_fds()))
    return after if before == after else None


def test_a_server_that_keeps_its_sockets_serves_polls_and_streams_and_says_so_of_websocket(
    serve_app: ServeApp,
) -> None:
    server = serve_app("waitress")
    for transport in (Polling, LongPolling, Streaming, EventSource):
        channel = f"/waitress/{transport.transport}"
        with transport.connect(server.url, {channel: -1}) as client:
            client.status()
            publish(server, channel, "a")
            assert client.data(1) == ["a"]
    with pytest.raises(Refused) as refused, WebSocket.connect(server.url, {"/a": 0}):
        pass
    assert refused.value.status == 501
    assert refused.value.error["code"] == "no_websocket"
    assert server.get("/hello") == (200, b"hello")
    assert "Traceback" not in server.output()


@pytest.fixture(params=["redis", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """A store that processes can share."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("kind", ["gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent"])
def test_a_bus_that_was_used_before_the_fork_works_in_every_worker(
    serve_app: ServeApp, store_url: str, kind: str, preload: bool
) -> None:
    server = serve_app(kind, "tests.apps.forked:app", env={"MESSAGEBUS_URL": store_url}, workers=2, preload=preload)
    published = 1 if preload else 2
    with EventSource.connect(server.url, {"/import": 0}) as reader:
        assert len(reader.messages(published)) == published
    publish(server, "/heard", "by every worker")

    def heard() -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for _ in range(8):
            status, body = server.get("/heard")
            assert status == 200
            worker = json.loads(body)
            found[worker["pid"]] = worker["heard"]
        return found

    workers = set(server.worker_pids())
    seen: dict[int, list[str]] = {}

    def all_have_heard() -> bool:
        seen.update(heard())
        return set(seen) == workers and all(heard == ["by every worker"] for heard in seen.values())

    eventually(all_have_heard, message="a worker's callback was not called")
    assert "Traceback" not in server.output()


@pytest.mark.parametrize("transport", [Streaming, EventSource, WebSocket], ids=lambda client: client.transport)
def test_subscribers_in_different_workers_hear_what_any_of_them_publishes(
    serve_app: ServeApp, store_url: str, transport: type[Client]
) -> None:
    server = serve_app("serve", env={"MESSAGEBUS_URL": store_url}, workers=2)
    clients = [transport.connect(server.url, {"/all": 0}) for _ in range(8)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
            client.next_batch()
        for number in range(8):
            publish(server, "/all", number)
        for client in clients:
            assert client.data(8) == list(range(8))


def test_the_bus_goes_on_after_the_reloader_has_restarted_the_app(serve_app: ServeApp, tmp_path: Path) -> None:
    module = tmp_path / "reloaded.py"
    source = "from tests.apps.basic import app\n\n@app.get('/version')\ndef version():\n    return '1'\n"
    module.write_text(source)
    # The reloader looks at files by itself: watchdog, which building the documentation brings along, would watch all of
    # the clone, and drown in it.
    (tmp_path / "watchdog.py").write_text("raise ImportError")
    server = serve_app("flask", "reloaded:app", args=("--debug",), cwd=tmp_path)
    for version in ("1", "2"):
        eventually(lambda version=version: _get(server, "/version") == version.encode())  # type: ignore[misc]
        for transport in TRANSPORTS:
            channel = f"/{transport.transport}/{version}"
            with transport.connect(server.url, {channel: -1}) as client:
                client.status()
                publish(server, channel, version)
                assert client.data(1) == [version]
        module.write_text(source.replace("'1'", "'2'"))


def _get(server: Server, path: str) -> bytes | None:
    try:
        return server.get(path)[1]
    except OSError:
        return None
