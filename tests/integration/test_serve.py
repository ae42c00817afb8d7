"""``messagebus serve``: how it starts, how it ends, and how much of a crowd it carries."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import time
from pathlib import Path
from statistics import median

import pytest

from messagebus import Bus

from ..clients import Client, Ended, EventSource, LongPolling, Streaming, WebSocket, request
from ..crowd import Crowd, message_ids
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..redis_server import RedisServer
from ..serve_helpers import alone, fail_to_serve, publish
from ..servers import ROOT


def test_one_line_says_where_it_listens(serve_app: ServeApp) -> None:
    server = serve_app("serve")
    lines = server.output().splitlines()
    assert len(lines) == 1
    assert server.url in lines[0]
    assert "memory://" in lines[0]


def test_the_password_of_the_store_is_not_shown(serve_app: ServeApp) -> None:
    with contextlib.ExitStack() as stack:
        redis = RedisServer(password="secret")
        stack.callback(redis.stop)
        redis.start()
        server = serve_app("serve", args=("--url", redis.url))
        assert "redis://" in server.output()
        assert "secret" not in server.output()


def test_several_workers_without_a_shared_store_are_refused() -> None:
    result = fail_to_serve("--workers", "2")
    assert result.returncode != 0
    assert "need a store that they share" in result.stderr
    assert "--url sqlite:////" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--url", "mysql://x"), "option url"),
        (("tests.apps.nothing:app",), "cannot import"),
        (("tests.apps.basic:nothing",), "cannot import"),
        (("tests.apps.basic:app", "--allow-anonymous-publish"), "serving the bus alone"),
        (("--bind", "nowhere"), "expected HOST:PORT"),
        (("--bind", "127.0.0.1:1:2:x"), "expected HOST:PORT"),
        (("--workers", "0"), "--workers"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(args: tuple[str, ...], message: str) -> None:
    result = fail_to_serve(*args)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_that_is_taken_is_said(serve_app: ServeApp) -> None:
    server = serve_app("serve")
    result = fail_to_serve("--bind", server.address)
    assert result.returncode == 2
    assert "cannot listen" in result.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_ends_every_connection_in_order_within_seconds(
    serve_app: ServeApp, redis_url: str, workers: int
) -> None:
    server = serve_app("serve", args=("--url", redis_url, "--stop-timeout", "60"), workers=workers)
    kinds: list[type[Client]] = [LongPolling, Streaming, EventSource, WebSocket]
    clients = [kind.connect(server.url, {"/a": 0}) for kind in kinds * 2]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
            if not isinstance(client, LongPolling):
                client.next_batch()
        eventually(lambda: sum(server.open_sockets(pid) for pid in server.worker_pids()) >= len(clients))
        # The polls have no answer yet that would tell that they are held.
        assert server.get("/hello")[0] == 200
        assert server.stop() == 0
        for client in clients:
            if isinstance(client, WebSocket):
                assert client.closed() == 1001
            else:
                client.next_batch()
            assert len(client.waits) == 1, "it is told when to come back"
            # A whole response: for the stream the last chunk.
            if isinstance(client, EventSource):
                with pytest.raises(Ended):
                    client.next_batch()
            elif isinstance(client, Streaming):
                assert client._part(b"\r\n|\r\n") is None
    assert "Traceback" not in server.output()


def test_clients_of_a_restarted_server_go_on_where_they_were(serve_app: ServeApp, redis_url: str) -> None:
    server = alone(serve_app, "--url", redis_url, "--allow-anonymous-publish")
    clients: list[Client] = [kind.connect(server.url, {"/a": 0}) for kind in (Streaming, EventSource, WebSocket)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
        publish(server, "/a", "before")
        for client in clients:
            assert client.data(1) == ["before"]
        server.restart()
        publish(server, "/a", "after")
        for client in clients:
            client.reconnect()
            assert client.data(1) == ["after"]
            assert client.gaps == []


def test_anonymous_publish_is_answered_with_201_and_the_ids(serve_app: ServeApp) -> None:
    server = alone(serve_app, "--allow-anonymous-publish")
    with EventSource.connect(server.url, {"/chat/ü": 0}) as client:
        client.next_batch()
        status, answer = publish(server, "/chat/ü", "hello, 世界")
        assert status == 201
        assert (answer["message_id"], answer["global_id"]) == (1, 1)
        assert client.data(1) == ["hello, 世界"]
    status, answer = publish(server, "no channel", "x")
    assert status == 400
    with request(server.url, "POST", "/message-bus/publish?channel=/a", b"\xff") as response:
        assert response.status == 400


def test_without_being_allowed_nobody_publishes(serve_app: ServeApp) -> None:
    server = alone(serve_app)
    with request(server.url, "POST", "/message-bus/publish?channel=/a", b"x") as response:
        assert response.status == 403
        assert "--allow-anonymous-publish" in json.load(response)["error"]["message"]


def test_it_listens_on_a_unix_socket(serve_app: ServeApp, tmp_path: Path) -> None:
    path = tmp_path / "bus.sock"
    server = serve_app("serve", unix=path)
    assert server.get("/hello") == (200, b"hello")
    with Crowd(server.connect, "websocket", "/a", 2) as crowd:
        crowd.read_until(lambda received: received.startswith(b"HTTP/1.1 101 "))
        body = json.dumps({"channel": "/a", "data": 1})
        connection = http.client.HTTPConnection("x")
        connection.sock = server.connect()
        with contextlib.closing(connection):
            connection.request("POST", "/publish", body, {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                assert response.status == 200
        crowd.read_until(lambda received: message_ids(received) == [1])


def test_small_answers_on_one_connection_do_not_wait_for_each_other(serve_app: ServeApp) -> None:
    server = serve_app("serve")
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    with contextlib.closing(connection):
        seconds = []
        for _ in range(100):
            began = time.monotonic()
            connection.request("GET", "/hello")
            assert connection.getresponse().read() == b"hello"
            seconds.append(time.monotonic() - began)
    assert median(seconds) < 0.035, "without TCP_NODELAY each takes 40 ms"


def test_what_stands_when_it_starts_is_kept_from_the_garbage_collector(serve_app: ServeApp, tmp_path: Path) -> None:
    tmp_path.joinpath("frozen.py").write_text(
        "import gc\nfrom flask import Flask\napp = Flask(__name__)\napp.get('/')(lambda: str(gc.get_freeze_count()))\n"
    )
    server = serve_app("serve", "frozen:app", cwd=tmp_path, ready="/")
    assert int(server.get("/")[1]) > 10_000


def test_a_thousand_websockets_get_four_hundred_messages_each_from_a_small_process(
    serve_app: ServeApp, redis_url: str
) -> None:
    server = alone(serve_app, "--url", redis_url)
    with Crowd(server.connect, "websocket", "/a", 1000) as crowd, contextlib.closing(Bus(url=redis_url)) as bus:
        crowd.read_until(lambda received: received.startswith(b"HTTP/1.1 101 "))
        peak = server.rss_kb()
        for start in range(0, 400, 50):
            for number in range(start, start + 50):
                bus.publish("/a", f"message number {number}, of a usual length")
            last = b'"message_id":%d,' % (start + 50)
            crowd.read_until(lambda received, last=last: last in received[-300:] or last in received)  # type: ignore[misc]
            peak = max(peak, server.rss_kb())
        expected = list(range(1, 401))
        assert all(message_ids(received) == expected for received in crowd.received)
        assert len(re.findall(rb'"data":"message number 399,', crowd.received[-1])) == 1
    print(f"{peak / 1024:.1f} MB")
    assert peak < 60 * 1024, f"{peak / 1024:.1f} MB"


def test_the_commands_of_the_page_on_publishing_work_as_written(serve_app: ServeApp) -> None:
    page = (ROOT / "docs/publishing-over-http.md").read_text()
    commands = [line for line in page.splitlines() if "curl " in line and "$URL" in line]
    assert len(commands) > 5
    key = "a-key-of-enough-letters"
    server = alone(serve_app, env={"MESSAGEBUS_PUBLISHER_KEYS": key})
    answers = []
    for command in commands:
        ran = subprocess.run(
            ["sh", "-c", command.replace("curl ", "curl -sS --fail-with-body ")],
            env={**os.environ, "KEY": key, "URL": server.url},
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
        answers.append(ran.stdout)
    with EventSource.connect(server.url, {"/chat": 0}) as client:
        # Of the others it is not the user, nor in the group.
        assert client.data(4) == ["hello", {"text": "hi"}, 1, 2]
    assert json.loads(answers[0])["message_id"] == 1
    assert answers[-1].startswith("queued messages: 6\n")


def test_a_bad_line_in_the_config_file_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    path.write_text('[channels."/chat/*"]\nmax_backlog_size = 0\n')
    result = fail_to_serve("--config", str(path))
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert f"{path}, line 2: " in line


def test_the_config_file_counts_for_the_bus_that_is_served(serve_app: ServeApp, tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    path.write_text('anonymous_publish = true\n[channels."/chat/*"]\nmax_backlog_size = 2\n')
    server = alone(serve_app, "--config", str(path))
    reports = [publish(server, "/chat/a", text)[1] for text in ("1", "2", "3")]
    assert [report["stored_messages"] for report in reports] == [1, 2, 2]
