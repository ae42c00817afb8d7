"""What ``messagebus serve`` logs of requests, and how."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

from ..clients import WebSocket, request
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..raw_http import exchange, head
from ..serve_helpers import write


def test_the_access_log_goes_to_a_file_that_may_be_rotated(serve_app: ServeApp, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = serve_app("serve", args=("--access-log-file", str(log)))
    server.get("/hello?first")
    eventually(lambda: "first" in log.read_text())
    log.rename(tmp_path / "access.log.1")
    os.kill(server.pid, signal.SIGUSR1)
    server.get("/hello?second")
    line = eventually(lambda: log.exists() and log.read_text())
    pattern = r'127\.0\.0\.1 - - \[[^]]+\] "GET /hello\?second HTTP/1\.1" 200 5 0\.\d+\n'
    assert re.fullmatch(pattern, str(line))
    assert "first" in (tmp_path / "access.log.1").read_text()
    assert "GET" not in server.output()


def test_what_clients_send_cannot_pass_for_something_else_in_the_access_log(serve_app: ServeApp) -> None:
    server = serve_app("serve", args=("--access-log",))
    before = len(server.output())
    for path in ('/a"b', "/a\\b", "/\x9b31m", "/\xe9", "/%1b[31m"):
        exchange(server, head(f"GET {path} HTTP/1.1", "Host: x", "Connection: close"))
    eventually(lambda: "%1b" in server.output())
    lines = server.output()[before:].splitlines()[-5:]
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert '"GET /a\\"b HTTP/1.1"' in lines[0]


def test_what_a_query_has_for_values_stays_out_of_the_access_log(serve_app: ServeApp) -> None:
    server = serve_app("serve", args=("--access-log",))
    server.get("/hello?token=secret-1&__grants=secret-2;x=secret-3&flag")
    eventually(lambda: '"GET /hello?token=***&__grants=***;x=***&flag HTTP/1.1" 200' in server.output())
    assert "secret" not in server.output()


def test_logs_are_lines_of_json_where_asked(serve_app: ServeApp, tmp_path: Path) -> None:
    write(tmp_path, fails="from views import *\napp = make()\napp.get('/fails')(lambda: 1 / 0)\n")
    server = serve_app("serve", "fails:app", args=("--log-format", "json", "--access-log"), cwd=tmp_path)
    with request(server.url, "GET", "/hello?a=b") as response:
        assert response.status == 200
    said = eventually(lambda: [json.loads(line) for line in server.output().splitlines() if "a=***" in line])
    known = {"logger": "messagebus.serve.access", "address": "127.0.0.1", "method": "GET", "target": "/hello?a=***"}
    assert said[0].items() >= {**known, "status": 200, "protocol": "HTTP/1.1"}.items()
    assert said[0]["seconds"] > 0
    first = json.loads(server.output().splitlines()[0])
    assert first["message"].startswith("messagebus listening on ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])


def test_a_held_connection_has_a_line_when_it_ends(serve_app: ServeApp) -> None:
    server = serve_app("serve", "tests.apps.contract:app", args=("--access-log",))

    def publish(data: list[int]) -> None:
        body = json.dumps({"channel": "/a", "data": data})
        with request(server.url, "POST", "/publish", body, {"Content-Type": "application/json"}) as response:
            assert response.status == 200

    publish([0])
    with WebSocket.connect(server.url, {"/a": 0}, client_id="somebody") as sock:
        assert sock.data(1) == [0]
        publish([1, 2])
        assert sock.data(2) == [1, 2]
    pattern = r'127\.0\.0\.1 - - \[[^]]+\] "END somebody websocket" \S+ (\d+) \d+\.\d{3} 3 "([^"]+)"'
    [(size, reason)] = eventually(lambda: re.findall(pattern, server.output()))
    assert int(size) > 3 * len('{"global_id":1,"message_id":1,"channel":"/a","data":0}')
    assert "client" in reason


def test_the_line_of_a_held_connection_says_why_the_server_has_ended_it(serve_app: ServeApp) -> None:
    server = serve_app("serve", args=("--access-log", "--log-format", "json"))
    with WebSocket.connect(server.url, {"/a": 0}, client_id="somebody") as sock:
        sock.next_batch()
        server.stop()
    ends = [json.loads(line) for line in server.output().splitlines() if '"reason"' in line]
    known = {"client": "somebody", "transport": "websocket", "code": 1001, "reason": "server shutdown", "messages": 0}
    assert len(ends) == 1
    assert ends[0].items() >= {**known, "address": "127.0.0.1", "logger": "messagebus.serve.access"}.items()
    assert ends[0]["seconds"] > 0
    assert ends[0]["bytes"] == 0, "its first batch has a status alone"
