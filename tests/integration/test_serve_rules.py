"""The rules of a file that ``messagebus serve --config`` reads, on a real server."""

from __future__ import annotations

import contextlib
import http.client
from pathlib import Path

from ..clients import EventSource, LongPolling, WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..serve_helpers import alone, fail_to_serve
from ..servers import Server

RULES = """
url = "memory://"
wildcard_subscriptions = ["/all/*"]

[channels."/cursors/*"]
stored = false
publish = "anyone"

[channels."/items"]
publish = "anyone"
template = "<li>~text~</li>"

[channels."/all/*"]
publish = "anyone"
"""


def publish(server: Server, channel: str, data: str) -> int:
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=30)) as connection:
        connection.request("POST", f"/message-bus/channels{channel}", data, {"Content-Type": "text/plain"})
        status = connection.getresponse().status
    assert status in (201, 202)
    return status


def test_what_a_file_says_of_channels_holds(serve_app: ServeApp, tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    path.write_text(RULES)
    server = alone(serve_app, "--config", str(path))
    publish(server, "/cursors/a", "before")
    with (
        WebSocket.connect(server.url, {"/cursors/a": 0}) as socket,
        EventSource.connect(server.url, {"/cursors/a": -5}) as events,
        LongPolling.connect(server.url, {"/cursors/a": -1}) as poller,
    ):
        for client in (socket, events, poller):
            client.next_batch()  # it is there, and knows where it stands
        for number in range(5):
            publish(server, "/cursors/a", str(number))
        live = ["0", "1", "2", "3", "4"]
        # A poll is away between two messages, and misses none of them all the same.
        assert socket.data(5) == events.data(5) == poller.data(5) == live
        assert socket.gaps == events.gaps == poller.gaps == []
    publish(server, "/items", "a < b")
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=30)) as connection:
        connection.request("GET", "/message-bus/any/stream?/items=0")
        response = connection.getresponse()
        lines = iter(response.readline, b"")
        assert next(line for line in lines if line.strip()) == b"<li>a &lt; b</li>\n"
        response.close()


def test_who_follows_a_pattern_is_counted_and_gets_lines_as_they_come(serve_app: ServeApp, tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    path.write_text(RULES)
    server = alone(serve_app, "--config", str(path))
    assert publish(server, "/all/a", "before") == 202
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=30)) as connection:
        connection.request("GET", "/message-bus/any/stream?/all/*=0&format=raw")
        response = connection.getresponse()
        lines = (line.strip() for line in iter(response.readline, b"") if line.strip())
        assert next(lines) == b"before"
        eventually(lambda: publish(server, "/all/b", "now") == 201)
        assert next(lines) == b"now"
        response.close()


def test_a_bad_rule_stops_the_start_with_its_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    path.write_text(f"{RULES}[channels.'/more']\nstored = 7\n")
    failed = fail_to_serve("--config", str(path))
    assert failed.returncode == 2
    assert failed.stderr == f"Error: {path}, line 16: channels: /more: stored: expected True or False, not 7\n"
