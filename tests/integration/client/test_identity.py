"""Who a Python client is, and what it is told: headers, grants, refusals, login pages, loops, forks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from messagebus import Client
from messagebus.client import ClientMessage, Refusal, StateInfo
from messagebus.client.types import Transport
from messagebus.errors import InvalidOption
from tests.eventually import eventually
from tests.servers import Server
from tests.stub_servers import PollsOnly, Request, StubServer

from .conftest import QUICK, TRANSPORTS, follows, publish


def refused(channel: str, code: str, *, retry: bool) -> dict[str, Any]:
    data = {channel: {"code": code, "message": f"{channel}: no", "retry": retry}}
    return {"global_id": -1, "message_id": -1, "channel": "/__refused", "data": data}


# --- what is sent ---


def test_headers_and_grants_may_be_functions_that_are_asked_before_each_connection(got: list[ClientMessage]) -> None:
    ruby, tokens = PollsOnly(lenient=False), iter(range(100))
    with (
        StubServer(ruby.serve) as server,
        Client(
            server.url,
            transports=("polling",),
            headers=lambda: {"Authorization": f"Bearer {next(tokens)}"},
            grants=lambda: [f"grant-{next(tokens)}"],
            **QUICK,
        ) as client,
    ):
        client.subscribe("/chat", got.append)
        eventually(lambda: len(server.requests) == 3)
        sent = [request.headers["Authorization"] for request in server.requests[:3]]
        assert sent == ["Bearer 0", "Bearer 2", "Bearer 4"]
        assert [request.form["__grants"] for request in server.requests[:3]] == ["grant-1", "grant-3", "grant-5"]


def test_a_function_that_fails_is_logged_and_asked_again(
    got: list[ClientMessage], caplog: pytest.LogCaptureFixture
) -> None:
    ruby, failures = PollsOnly(lenient=False), [ValueError("no token yet")]

    def headers() -> dict[str, str]:
        if failures:
            raise failures.pop()
        return {}

    with StubServer(ruby.serve) as server, Client(server.url, transports=("polling",), headers=headers) as client:
        client.subscribe("/chat", got.append)
        assert client.wait_connected(30.0)
        assert "headers or grants: ValueError: no token yet" in str(client.stats.last_error)
    assert "no token yet" in caplog.text


@pytest.mark.parametrize("grants", ["token", b"token", 7, [""], ["a,b"], [None]])
def test_grants_that_are_no_list_of_tokens_are_refused_and_do_not_show(grants: Any) -> None:
    with pytest.raises(InvalidOption, match="expected a list of tokens") as failed:
        Client("http://localhost", grants=grants)
    assert "a,b" not in str(failed.value)


# --- what is refused ---


@pytest.mark.parametrize("transport", ["streaming", "long-polling", "polling"])
def test_a_refused_channel_is_told_and_the_others_go_on(transport: Transport, got: list[ClientMessage]) -> None:
    told: list[Refusal] = []

    def serve(request: Request) -> None:
        batch = []
        assert request.form["__refusals"] == "t"
        if "/private" in request.form:
            batch.append(refused("/private", "forbidden", retry=False))
        if request.form["/chat"] == "0":
            batch.append({"global_id": 1, "message_id": 1, "channel": "/chat", "data": "hello"})
        request.batch(*batch)

    with (
        StubServer(serve) as server,
        Client(server.url, transports=(transport,), on_refused=told.append, **QUICK) as client,
    ):
        client.subscribe("/chat", got.append, 0)
        client.subscribe("/private", got.append, 0)
        eventually(lambda: len(server.requests) >= 3)
        assert [one.data for one in got] == ["hello"]
        assert told == [Refusal("/private", "forbidden", "/private: no", False)]
        assert client.stats.state == "connected"
        assert "/private" not in server.requests[-1].form
        asked = len(server.requests)
        client.retry()
        eventually(lambda: any("/private" in request.form for request in server.requests[asked:]))


@pytest.mark.parametrize("status", [401, 403])
def test_what_needs_a_person_is_told_so_and_retry_goes_on_at_once(status: int, got: list[ClientMessage]) -> None:
    told: list[StateInfo] = []
    closed = True

    def serve(request: Request) -> None:
        if closed:
            request.answer(status, json.dumps({"error": {"code": "forbidden", "message": "no"}}).encode())
        else:
            ruby.serve(request)

    ruby = PollsOnly(lenient=False)
    with (
        StubServer(serve) as server,
        Client(
            server.url, transports=("polling",), on_state_change=lambda _, info: told.append(info), **QUICK
        ) as client,
    ):
        client.subscribe("/chat", got.append)
        info = eventually(lambda: [info for info in told if info.status == status])[0]
        assert (info.code, info.retry, info.delay) == ("forbidden", False, 180.0)
        closed = False
        client.start()
        assert client.wait_connected(30.0)


@pytest.mark.parametrize(
    ("answer", "code", "url"),
    [
        (lambda request: request.answer(302, b"", Location="/login"), "redirected", "/login"),
        (lambda request: request.answer(200, b"<html>", Content_Type="text/html"), "not_a_batch", None),
    ],
    ids=["redirect", "page"],
)
def test_a_login_page_is_told_as_what_it_is(
    answer: Callable[[Request], None], code: str, url: str | None, got: list[ClientMessage]
) -> None:
    told: list[StateInfo] = []
    with (
        StubServer(answer) as server,
        Client(server.url, transports=("polling",), on_state_change=lambda _, info: told.append(info)) as client,
    ):
        client.subscribe("/chat", got.append)
        info = eventually(lambda: [info for info in told if info.code])[0]
        assert (info.code, info.url, info.retry) == (code, url, False)


def test_a_poll_that_the_server_ended_early_is_asked_again_when_it_said(got: list[ClientMessage]) -> None:
    times: list[float] = []

    def serve(request: Request) -> None:
        times.append(time.monotonic())
        request.batch({"global_id": -1, "message_id": -1, "channel": "/__status", "data": {"__reconnect": 300}})

    with StubServer(serve) as server, Client(server.url, transports=("polling",)) as client:
        client.subscribe("/chat", got.append, 5)
        eventually(lambda: len(server.requests) >= 3)
        assert client.positions == {"/chat": 5}
    assert times[1] - times[0] >= 0.3
    assert times[2] - times[0] < 20, "two of its own intervals are 30 s"


# --- several at once ---


def test_two_loops_on_one_client_do_not_end_each_other(server: Server, channel: str) -> None:
    other = f"{channel}-other"
    client = Client(server.url, **QUICK)
    with (
        client.listen(channel, last_id=0, timeout=30.0) as first,
        client.listen(other, last_id=0, timeout=30.0) as second,
    ):
        publish(server, channel, 1)
        publish(server, other, 1)
        assert next(first).data == 1
        first.close()
        assert next(second).data == 1
        publish(server, other, 2)
        assert next(second).data == 2
    assert client.stats.state == "stopped"


def test_positions_are_a_checkpoint_of_a_loop(server: Server, channel: str) -> None:
    publish(server, channel, *range(10))
    client = Client(server.url, **QUICK)
    with client.listen(channel, last_id=0, timeout=30.0) as messages:
        for message in messages:
            if message.message_id == 4:
                break
        checkpoint = client.positions
        assert checkpoint == {channel: 3}, "the loop may not have dealt with the fourth"
    with Client(server.url, **QUICK).listen(channel, last_id=checkpoint[channel], timeout=30.0) as messages:
        assert [next(messages).message_id for _ in range(7)] == list(range(4, 11))


def test_a_further_callback_gets_what_it_asks_for_and_the_first_nothing_twice(
    server: Server, channel: str, got: list[ClientMessage]
) -> None:
    publish(server, channel, *range(5))
    late: list[ClientMessage] = []
    with Client(server.url, **QUICK) as client:
        client.subscribe(channel, got.append, 0)
        eventually(lambda: len(got) == 5)
        client.subscribe(channel, late.append, 2)
        publish(server, channel, 5)
        eventually(lambda: len(late) == 4)
        eventually(lambda: len(got) == 6)
    assert [one.message_id for one in got] == [1, 2, 3, 4, 5, 6]
    assert [one.message_id for one in late] == [3, 4, 5, 6]


# --- forks ---


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_fork_leaves_the_parents_connection_alone_and_a_child_may_start_its_own(
    transport: Transport, server: Server, channel: str, got: list[ClientMessage]
) -> None:
    client = Client(server.url, transports=(transport,), **QUICK)
    client.subscribe(channel, got.append)
    client.start()
    try:
        eventually(follows(client, channel))
        requests = client.stats.requests
        reader, writer = os.pipe()
        children = []
        acts_of_children: list[Callable[[], None]] = [lambda: None, client.stop, lambda: _follow(client, writer)]
        for acts in acts_of_children:
            pid = os.fork()
            if pid == 0:
                try:
                    acts()
                finally:
                    os._exit(0)
            children.append(pid)
        os.close(writer)
        with os.fdopen(reader) as lines:
            assert lines.readline() == "ready\n"
            publish(server, channel, "hello")
            assert lines.readline() == "hello\n"
            eventually(lambda: [one.data for one in got] == ["hello"])
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        publish(server, channel, "again")
        eventually(lambda: [one.data for one in got] == ["hello", "again"])
        if transport in ("websocket", "eventsource"):
            assert client.stats.requests == requests
    finally:
        client.stop()


def _follow(client: Client, writer: int) -> None:
    with os.fdopen(writer, "w") as out:
        heard: list[ClientMessage] = []
        channel = next(iter(client.positions))
        client.subscribe(channel, heard.append)
        client.start()
        client.wait_connected(30.0)
        print("ready", file=out, flush=True)
        eventually(lambda: heard)
        print(heard[0].data, file=out, flush=True)
        client.stop()
