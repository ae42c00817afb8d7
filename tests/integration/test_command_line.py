"""``messagebus publish``, ``subscribe`` and ``backlog``, at stores and at a server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..clients import WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..ports import free_port
from ..serve_helpers import alone
from ..shell import Shell

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-key-that-is-long-enough"


@pytest.fixture(params=["store", "server"])
def shell(request: pytest.FixtureRequest, tmp_path: Path, serve_app: ServeApp) -> Iterator[Shell]:
    sqlite = f"sqlite:///{tmp_path}/bus.db"
    if request.param == "store":
        yield Shell(sqlite)
    else:
        server = alone(serve_app, "--url", sqlite, env={"MESSAGEBUS_PUBLISHER_KEYS": KEY})
        yield Shell(server.url, KEY)


def test_what_is_published_is_in_the_backlog(shell: Shell) -> None:
    (published,) = shell.lines("publish", "/chat", "hello")
    assert (published["channel"], published["message_id"]) == ("/chat", 1)
    shell.lines("publish", "/chat", "--json", '{"text": "hällo"}')
    shell.lines("publish", "/chat", input="from a pipe\n")
    (summary,) = shell.lines("publish", "/chat", "--lines", input="7\n\nlast")
    assert summary == {"channel": "/chat", "published": 3, "message_id": 6}
    shell.lines("publish", "/chat", "--lines", "--json", input="[8]\n\n9\n")
    kept = ["hello", {"text": "hällo"}, "from a pipe", "7", "", "last", [8], 9]
    assert shell.data("backlog", "/chat") == kept
    assert shell.run("backlog", "/chat", "--format", "raw", "--last", "4").stdout == '""\nlast\n[8]\n9\n'
    assert shell.data("subscribe", "/chat", "--from", "6", "--count", "3") == kept[-3:]


def test_a_subscriber_gets_what_comes_and_ctrl_c_ends_it_without_a_traceback(shell: Shell) -> None:
    shell.lines("publish", "/chat", "before")
    shell.lines("publish", "/other", "before")
    process = shell.start("subscribe", "/chat", "/other", "--last", "1")
    assert process.stdout is not None
    first = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert sorted(message["channel"] for message in first) == ["/chat", "/other"]
    shell.lines("publish", "/chat", "now")
    assert json.loads(process.stdout.readline())["data"] == "now"
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (-signal.SIGINT, b"", b"")


def test_a_reader_who_goes_early_is_no_error(shell: Shell) -> None:
    lines = "\n".join(f'"{number:080}"' for number in range(2000))  # more than a pipe holds
    shell.lines("publish", "/n", "--lines", "--json", "--max-backlog-size", "2000", input=lines)
    with shell.start("backlog", "/n", "--export") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["message_id"] == 1
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == -signal.SIGPIPE


def test_an_export_says_whom_a_message_is_for_where_it_is_from_a_store(shell: Shell) -> None:
    shell.lines("publish", "/chat", "secret", "--user-id", "7", "--user-id", '"7"', "--group-id", "staff")
    shell.lines("publish", "/chat", "not for c1", "--exclude-client-id", "c1")
    found = shell.lines("backlog", "/chat", "--export")
    if shell.is_server:
        assert [message["data"] for message in found] == ["not for c1"]
    else:
        assert (found[0]["user_ids"], found[0]["group_ids"]) == ([7, "7"], ["staff"])
        assert found[1]["exclude_client_ids"] == ["c1"]


def test_a_line_that_is_wrong_is_named_and_so_is_what_was_published(shell: Shell) -> None:
    done = shell.run("publish", "/chat", "--lines", "--json", input="1\n{\n3\n")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: line 2 is not JSON")
    assert "0 messages were published" in done.stderr
    assert shell.data("backlog", "/chat") == []


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("publish /chat <&-", 2, "no message"),
        ("publish /chat </dev/null", 2, "no message"),
        ("publish /chat '' >&-", 0, ""),
        ("backlog /chat >/dev/full", 1, "No space left on device"),
    ],
)
def test_streams_that_are_closed_or_full_are_said_in_a_line(tmp_path: Path, command: str, code: int, says: str) -> None:
    shell = Shell(f"sqlite:///{tmp_path}/bus.db")
    shell.lines("publish", "/chat", "x")
    line = f"exec {shlex.quote(sys.executable)} -m messagebus {command}"
    done = subprocess.run(["sh", "-c", line], env=shell.environment, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_what_is_gone_is_said(shell: Shell) -> None:
    for text in ("a", "b", "c"):
        shell.lines("publish", "/chat", text, "--max-backlog-size", "1")
    done = shell.run("backlog", "/chat", "--from", "1")
    assert [json.loads(line)["data"] for line in done.stdout.splitlines()] == ["c"]
    assert "messages 1 to 2 are not kept any more" in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("cluster_url", marks=pytest.mark.redis),
        pytest.param("redis_url", marks=pytest.mark.redis),
        pytest.param("postgres_url", marks=pytest.mark.postgres),
    ],
)
def test_stores_of_the_network_are_places_as_well(request: pytest.FixtureRequest, url: str) -> None:
    shell = Shell(request.getfixturevalue(url))
    channels = [f"/chat/{number}" for number in range(3)]  # each of another partition, where there are some
    for channel in channels:
        shell.lines("publish", channel, "--lines", input="a\nb\n")
    assert shell.data("backlog", channels[0]) == ["a", "b"]
    last = shell.lines("subscribe", *channels, "--last", "1", "--count", "3")
    assert sorted((each["channel"], each["data"]) for each in last) == [(channel, "b") for channel in channels]
    listed = sorted(shell.lines("channels", "/chat/*"), key=str)
    assert listed == [{"channel": each, "stored_messages": 2, "published_messages": 2} for each in channels]
    assert shell.run("exec", channels[1], "--forget", "--", "echo", "c").returncode == 0
    assert shell.lines("backlog", channels[1])[0]["message_id"] == 3
    (stats,) = shell.lines("stats")
    assert (stats["channels"], stats["published_messages"]) == (3, 7)
    done = shell.run("why", "--channel", channels[2], "--id", "1", "--user", "7")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, "not_connected")


def test_the_channels_of_a_store_are_listed(tmp_path: Path) -> None:
    shell = Shell(f"sqlite:///{tmp_path}/bus.db")
    assert shell.lines("channels") == []
    for channel in ("/b", "/a/1", "/a/2", "/a/2"):
        shell.lines("publish", channel, "x", "--max-backlog-size", "1")
    found = sorted(shell.lines("channels", "/a/*"), key=str)
    assert found == [
        {"channel": "/a/1", "stored_messages": 1, "published_messages": 1},
        {"channel": "/a/2", "stored_messages": 1, "published_messages": 2},
    ]
    done = shell.run("channels", "--limit", "2")
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == "there are more than 2; --limit says how many to print\n"
    assert shell.run("channels", "/a*b").returncode == 2


@pytest.mark.parametrize("store", ["sqlite", pytest.param("cluster", marks=pytest.mark.redis)])
def test_a_pattern_follows_every_channel_that_matches_at_a_store(
    request: pytest.FixtureRequest, tmp_path: Path, store: str
) -> None:
    sqlite = f"sqlite:///{tmp_path}/bus.db"
    shell = Shell(sqlite if store == "sqlite" else request.getfixturevalue("cluster_url"))
    printed = tmp_path / "printed"
    with printed.open("wb") as file:
        process = shell.start("subscribe", "/room/*", "/room/1", "--count", "3", stdout=file.fileno())
        try:
            # It listens at some time, and does not say when.
            eventually(lambda: shell.lines("publish", "/room/0", "x") and printed.read_bytes(), timeout=30)
            for channel in ("/lobby", "/room/1", "/room/2", "/room/3"):
                shell.lines("publish", channel, "x")
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.communicate()
    seen = [json.loads(line)["channel"] for line in printed.read_text().splitlines()]
    assert "/lobby" not in seen
    assert seen[seen.count("/room/0") :] == ["/room/1", "/room/2", "/room/3"][: 3 - seen.count("/room/0")]


def test_statistics_have_the_processes_that_listen(serve_app: ServeApp, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"
    server = alone(serve_app, "--url", url)
    shell = Shell(url)
    shell.lines("publish", "/a", "x")
    pids = server.worker_pids()
    eventually(lambda: [worker["pid"] for worker in shell.lines("stats")[0]["by_worker"]] == pids)
    (found,) = shell.lines("top", "--count", "1", "--interval", "0.1")
    assert (found["published_messages"], found["published_per_second"]) == (1, 0.0)
    assert found["channels"] == [{"channel": "/a", "per_second": 0.0, "stored_messages": 1, "published_messages": 1}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_top_gives_the_terminal_back_as_it_was(tmp_path: Path, number: signal.Signals) -> None:
    shell = Shell(f"sqlite:///{tmp_path}/bus.db")
    shell.lines("publish", "/busy", "x")
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen:
        process = shell.start("top", stdout=theirs)
        os.close(theirs)
        shown = b""
        while b"/busy" not in shown:
            shown += screen.read(4096)
        process.send_signal(number)
        with contextlib.suppress(OSError):  # at the end of a terminal
            while more := screen.read(4096):
                shown += more
        assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == (-number if number == signal.SIGINT else 128 + number)
    assert shown.count(b"\x1b[?1049h") == 1
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")


# --- what only a server can do ---


def test_a_server_tells_the_same_and_how_many_listen(serve_app: ServeApp) -> None:
    server = alone(serve_app, "--allow-anonymous-publish", env={"MESSAGEBUS_ADMIN_KEYS": KEY})
    for channel in ("/a", "/a", "/b/1"):
        Shell(server.url).lines("publish", channel, "x")
    shell = Shell(server.url, KEY)
    a = {"channel": "/a", "stored_messages": 2, "published_messages": 2, "subscribers": 1}
    b = {"channel": "/b/1", "stored_messages": 1, "published_messages": 1, "subscribers": 0}
    with WebSocket.connect(server.url, {"/a": 0}) as client:
        client.next_batch()
        assert shell.lines("channels", "/a") == [a]
        assert shell.lines("channels", "/b/*") == [b]
        assert sorted(shell.lines("channels"), key=str) == [a, b]
        assert shell.lines("channels", "/nothing") == []
        (found,) = shell.lines("stats")
        assert (found["subscribers"], found["published_messages"], found["by_transport"]) == (1, 3, {"websocket": 1})
        (found,) = shell.lines("top", "--count", "1", "--interval", "0.1")
        assert found["channels"] == [{**a, "per_second": 0.0}, {**b, "per_second": 0.0}]


def test_statistics_without_their_key_fail(serve_app: ServeApp) -> None:
    server = alone(serve_app, "--allow-anonymous-publish", env={"MESSAGEBUS_ADMIN_KEYS": KEY})
    for arguments in (("channels",), ("stats",), ("top",)):
        done = Shell(server.url, "another-key-that-is-long").run(*arguments)
        assert done.returncode == 1
        assert "one of admin_keys" in done.stderr
    assert Shell(server.url).run("subscribe", "/a/*").returncode == 2


def test_a_server_tells_what_became_of_a_message(serve_app: ServeApp) -> None:
    server = alone(serve_app, "--allow-anonymous-publish", env={"MESSAGEBUS_ADMIN_KEYS": KEY})
    Shell(server.url).lines("publish", "/a", "x")
    asked = ("why", "--channel", "/a", "--id", "1")
    with WebSocket.connect(server.url, {"/a": 0}) as client:
        client.next_batch()
        (given, *_) = Shell(server.url, KEY).lines(*asked, "--client", client.client_id)
        assert given["code"] == "given_later"
    done = Shell(server.url, KEY).run(*asked, "--user", "7")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, "not_connected")
    assert Shell(server.url, KEY).run(*asked).returncode == 2


def test_a_wrong_key_fails_and_a_missing_bus_is_said(serve_app: ServeApp) -> None:
    server = alone(serve_app, env={"MESSAGEBUS_PUBLISHER_KEYS": KEY})
    done = Shell(server.url, "another-key-that-is-long").run("publish", "/chat", "hello")
    assert (done.returncode, done.stdout) == (1, "")
    assert "401 unauthorized" in done.stderr
    assert "another-key" not in done.stderr
    for arguments in (("publish", "/chat", "x"), ("backlog", "/chat"), ("subscribe", "/chat")):
        done = Shell(f"{server.url}/not/here").run(*arguments)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("scheme", "arguments"),
    [
        ("http", ("publish", "/chat", "x")),
        ("http", ("subscribe", "/chat")),
        ("redis", ("subscribe", "/chat")),
        ("redis", ("stats",)),
        ("postgresql", ("backlog", "/chat")),
    ],
)
def test_nobody_there_is_code_2(scheme: str, arguments: tuple[str, ...]) -> None:
    done = Shell(f"{scheme}://127.0.0.1:{free_port()}").run(*arguments)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_subscriber_comes_back_when_its_server_does(serve_app: ServeApp, tmp_path: Path) -> None:
    arguments = ("--url", f"sqlite:///{tmp_path}/bus.db", "--allow-anonymous-publish")
    server = alone(serve_app, *arguments)
    shell = Shell(server.url)
    shell.lines("publish", "/chat", "1")
    process = shell.start("subscribe", "/chat", "--from", "1", "--count", "2")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["data"] == "1"
    server.stop()
    Shell(f"sqlite:///{tmp_path}/bus.db").lines("publish", "/chat", "2")
    server.start()
    rest, errors = process.communicate(timeout=60)
    assert json.loads(rest)["data"] == "2"
    assert process.returncode == 0
    assert b"Traceback" not in errors
