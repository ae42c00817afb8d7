"""Loops over messages, publishing, and that a client leaves nothing behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from messagebus import Client
from messagebus.client import ClientMessage, PublishError
from messagebus.client.types import Transport
from messagebus.errors import InvalidChannel, InvalidData
from tests import processes
from tests.bad_network import BadNetwork
from tests.eventually import eventually
from tests.fixtures_servers import ServeApp
from tests.servers import ROOT, Server
from tests.threads import alive, started_threads

from .conftest import APP, QUICK, TRANSPORTS, follows, publish

# --- loops ---


def test_a_loop_gets_the_messages_of_several_channels(server: Server, channel: str) -> None:
    publish(server, channel, 1, 2)
    publish(server, f"{channel}/b", 3)
    client = Client(server.url)
    seen = []
    for message in client.listen(channel, f"{channel}/b", last_id=0):
        seen.append(message.data)
        if len(seen) == 3:
            publish(server, channel, 4)
        if len(seen) == 4:
            break
    assert sorted(seen) == [1, 2, 3, 4]
    assert client.stats.state == "stopped"
    assert client.positions == {}


def test_a_loop_ends_when_nothing_comes_for_a_while(server: Server, channel: str) -> None:
    publish(server, channel, 1)
    assert [message.data for message in Client(server.url).listen(channel, last_id=0, timeout=0.2)] == [1]


def test_a_loop_ends_when_the_client_is_stopped(server: Server, channel: str) -> None:
    publish(server, channel, *range(100))
    client = Client(server.url)
    seen = 0
    for _ in client.listen(channel, last_id=0, max_waiting=10):
        seen += 1
        if seen == 5:
            client.stop()
    assert 5 <= seen <= 16


def test_a_loop_over_a_client_that_runs_leaves_it_running(
    server: Server, channel: str, got: list[ClientMessage]
) -> None:
    with Client(server.url) as client:
        client.subscribe(f"{channel}/b", got.append, 0)
        publish(server, channel, 1)
        for _ in client.listen(channel, last_id=0):
            break
        publish(server, f"{channel}/b", 1)
        eventually(lambda: got)
        assert set(client.positions) == {f"{channel}/b"}


def test_a_slow_loop_makes_the_reading_stop_and_loses_nothing(serve_app: ServeApp, channel: str) -> None:
    server = serve_app("serve", APP, env={"MESSAGEBUS_MAX_OUTBOX": "100000"})
    client = Client(server.url)
    publish(server, channel, "first")
    messages = client.listen(channel, last_id=0, max_waiting=5)
    assert next(messages).data == "first"
    for number in range(200):
        publish(server, channel, [number, "x" * 50_000])
    # Between the first and what has been read by now lie megabytes that wait elsewhere.
    eventually(lambda: client.stats.messages > 5)
    assert client.stats.messages < 100
    assert [message.data[0] for _, message in zip(range(200), messages, strict=False)] == list(range(200))


def test_a_wrong_channel_is_an_error_before_the_loop(server: Server) -> None:
    with pytest.raises(InvalidChannel):
        Client(server.url).listen("chat")
    with pytest.raises(TypeError):
        Client(server.url).listen()


# --- publishing ---


def test_a_client_publishes_where_it_may(server: Server, got: list[ClientMessage]) -> None:
    with Client(server.url) as client:
        client.subscribe("/open-1", got.append, 0)
        eventually(lambda: client.stats.state == "connected")
        assert client.publish("/open-1", {"from": "python"}) == 1
        eventually(lambda: [one.data for one in got] == [{"from": "python"}])
        with pytest.raises(PublishError, match="/closed") as refused:
            client.publish("/closed", 1)
        assert refused.value.code == "forbidden"
        with pytest.raises(InvalidData):
            client.publish("/open-1", {1, 2})
        with pytest.raises(InvalidChannel):
            client.publish("open", 1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_client_publishes_on_every_transport_in_order(server: Server, transport: Transport) -> None:
    channel = f"/open-over-{transport}"
    got: list[Any] = []
    with Client(server.url, transports=(transport,), **QUICK) as client:
        client.subscribe(channel, lambda message: got.append(message.data), 0)
        eventually(lambda: client.stats.state == "connected")
        assert [client.publish(channel, number) for number in range(5)] == [1, 2, 3, 4, 5]
        eventually(lambda: got == [0, 1, 2, 3, 4])
        with pytest.raises(PublishError, match="/closed") as refused:
            client.publish("/closed", 1)
        assert (refused.value.code, refused.value.field) == ("forbidden", "channel")


def test_a_client_that_is_not_started_publishes_as_well(server: Server) -> None:
    client = Client(server.url)
    assert client.publish("/open-not-started", 1) == 1
    assert client.publish("/open-not-started", "typing", transient=True, key="me") is None
    with pytest.raises(ValueError, match="only a transient message"):
        client.publish("/open-not-started", 1, key="me")
    assert client.publish("/open-not-started", 2) == 2


def test_a_transient_message_reaches_those_who_are_there(server: Server, got: list[ClientMessage]) -> None:
    channel = "/open-transient"
    with Client(server.url) as client:
        client.subscribe(channel, got.append)
        eventually(follows(client, channel))
        assert client.publish(channel, "typing", transient=True, key="me") is None
        assert client.publish(channel, "kept") == 1
        eventually(lambda: len(got) == 2)
        assert {(message.data, message.transient) for message in got} == {("typing", True), ("kept", False)}
        assert client.positions == {channel: 1}


def test_a_publish_whose_answer_is_lost_is_sent_again_and_stored_once(server: Server, channel: str) -> None:
    with BadNetwork(server.port) as network, Client(network.url) as client:
        client.subscribe(channel, print)
        eventually(follows(client, channel))
        network.vanish()
        answers: list[int | None] = []
        thread = threading.Thread(target=lambda: answers.append(client.publish("/open-lost", 1, 30)))
        thread.start()
        eventually(lambda: client._runner and client._runner._commands._unanswered)
        network.come_back()
        network.cut()
        thread.join(30)
        assert answers == [1]
        assert client.publish("/open-lost", 2) == 2


def test_where_nobody_answers_that_is_an_error_in_time(server: Server) -> None:
    with BadNetwork(server.port) as network:
        network.refuse()
        with pytest.raises(PublishError, match="no answer") as failed:
            Client(network.url).publish("/open-refused", 1, timeout=1)
        assert failed.value.code in ("disconnected", "timeout")
        with pytest.raises(PublishError) as failed:
            Client(network.url).publish("/open-refused", 1, timeout=30, transient=True)
        assert failed.value.code == "disconnected"
        network.refuse(False)
        assert Client(network.url).publish("/open-refused", 1) == 1


def test_a_callback_publishes_and_what_comes_meanwhile_is_delivered_afterwards(server: Server, channel: str) -> None:
    answers: list[int | None] = []
    got: list[object] = []
    target = "/open-of-a-callback"

    def callback(message: ClientMessage) -> None:
        got.append(("begin", message.data))
        answers.append(client.publish(target, {"answer": message.data}))
        got.append(("end", message.data))

    publish(server, channel, 1)
    publish(server, channel, 2)
    with Client(server.url) as client:
        client.subscribe(target, lambda message: got.append(message.data["answer"]), 0)
        client.subscribe(channel, callback, 0)
        eventually(lambda: len(answers) == 2)
        eventually(lambda: 2 in got)
    assert answers == [1, 2]
    assert [one for one in got if isinstance(one, tuple)] == [("begin", 1), ("end", 1), ("begin", 2), ("end", 2)]
    assert [one for one in got if isinstance(one, int)] == [1, 2]


# --- nothing is left behind ---


def test_a_client_leaves_neither_thread_nor_descriptor(server: Server, channel: str) -> None:
    publish(server, channel, 1)
    gc.collect()
    descriptors = len(processes.open_fds(os.getpid()))
    with started_threads() as threads:
        for number, transport in enumerate(TRANSPORTS, 1):
            got: list[ClientMessage] = []
            client = Client(server.url, transports=(transport,))
            client.subscribe(channel, got.append, 0)
            client.start()
            eventually(lambda: got)  # noqa: B023
            assert len(threads) == number
            client.stop()
            assert not alive(threads)
        for _ in Client(server.url).listen(channel, last_id=0):
            break
        assert not alive(threads)
    eventually(lambda: len(processes.open_fds(os.getpid())) <= descriptors)


@pytest.mark.parametrize("patched", [True, False], ids=["greenlets", "threads"])
def test_a_program_may_run_on_greenlets_or_end_without_a_stop(patched: bool, server: Server, channel: str) -> None:
    program = f"""
if {patched}:
    from gevent import monkey
    monkey.patch_all()
import threading, time
import messagebus
seen = []
for transport in {TRANSPORTS}:
    with messagebus.Client("{server.url}", transports=(transport,), callback_interval=0.05) as client:
        client.subscribe("{channel}", seen.append, 0)
        deadline = time.monotonic() + 30
        while not seen and time.monotonic() < deadline:
            time.sleep(0.01)
        client.subscribe("{channel}/b", seen.append, 0)
        while len(seen) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        print(transport, [message.data for message in seen], client.stats.transport)
    seen.clear()
if {patched}:
    # One, in which the hub looks up names.
    import gevent, os
    assert len(os.listdir("/proc/self/task")) <= 1 + gevent.get_hub().threadpool.size
for message in messagebus.Client("{server.url}").listen("{channel}", last_id=0):
    print("loop", message.data)
    break
left = messagebus.Client("{server.url}")
left.subscribe("{channel}", print)
left.start()
"""
    publish(server, channel, "hello")
    publish(server, f"{channel}/b", "you")
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    expected = [f"{transport} ['hello', 'you'] {transport}" for transport in TRANSPORTS]
    assert result.stdout.splitlines()[:6] == [*expected, "loop hello"]
