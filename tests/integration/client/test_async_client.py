"""The client for asyncio: the same promises as the client for threads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import Callable

import pytest

from messagebus.client import AsyncClient, ClientMessage, PublishError
from messagebus.client.types import Transport
from tests import processes
from tests.event_loops import run
from tests.eventually import eventually as eventually_in_this_thread
from tests.middlebox import Middlebox
from tests.servers import Server
from tests.stub_servers import PollsOnly, StubServer

from .conftest import QUICK, TRANSPORTS, publish


async def eventually(condition: Callable[[], object], timeout: float = 30.0) -> None:
    async with asyncio.timeout(timeout) if hasattr(asyncio, "timeout") else contextlib.AsyncExitStack():
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_messages_arrive_once_and_in_order_on_every_transport(
    transport: Transport, server: Server, channel: str
) -> None:
    async def main() -> None:
        got: list[int] = []

        async def callback(message: ClientMessage) -> None:
            await asyncio.sleep(0)
            got.append(message.message_id)

        publish(server, channel, *range(5))
        async with AsyncClient(server.url, transports=(transport,), **QUICK) as client:
            client.subscribe(channel, callback, 0)
            await eventually(lambda: len(got) == 5)
            assert await client.wait_connected(30.0)
            await asyncio.to_thread(publish, server, channel, 5)
            await eventually(lambda: len(got) == 6)
            assert client.stats.transport == transport
        assert client.stats.state == "stopped"
        assert got == [1, 2, 3, 4, 5, 6]

    run(main())


def test_a_loop_over_messages_waits_without_holding_up_others(server: Server, channel: str) -> None:
    async def main() -> None:
        publish(server, channel, *range(3))
        client = AsyncClient(server.url, **QUICK)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        got = []
        async with contextlib.aclosing(client.listen(channel, last_id=0, timeout=30.0)) as messages:  # type: ignore[type-var]
            async for message in messages:
                got.append(message.data)
                if len(got) == 2:
                    assert client.positions == {channel: 1}, "the loop may not have dealt with the second"
                if len(got) == 3:
                    break
        assert got == [0, 1, 2]
        assert client.stats.state == "stopped"
        before = ticks
        assert [message async for message in client.listen(channel, timeout=0.2)] == []
        assert ticks > before + 20
        ticking.cancel()
        assert client.stats.state == "stopped"

    run(main())


def test_publishing_waits_for_the_answer_in_a_callback_as_well(server: Server, channel: str) -> None:
    async def main() -> None:
        answers: list[int | None] = []

        async def reply(message: ClientMessage) -> None:
            answers.append(await client.publish("/open-of-asyncio", message.data))

        async with AsyncClient(server.url, **QUICK) as client:
            client.subscribe(channel, reply, 0)
            await client.wait_connected()
            first = await client.publish("/open-of-asyncio", "from a task")
            await asyncio.to_thread(publish, server, channel, 1, 2)
            await eventually(lambda: len(answers) == 2)
            assert first is not None
            assert answers == [first + 1, first + 2]
            with pytest.raises(PublishError) as failed:
                await client.publish("/closed", 1)
            assert failed.value.code == "forbidden"

    run(main())


def test_publishes_by_requests_keep_the_order_of_the_calls(server: Server) -> None:
    async def main() -> None:
        client = AsyncClient(server.url)
        answers = await asyncio.gather(*[client.publish("/open-gathered", number) for number in range(10)])
        assert answers == [*range(1, 11)]
        with pytest.raises(PublishError) as failed:
            await client.publish("/closed", 1)
        assert failed.value.code == "forbidden"

    run(main())


def test_headers_may_come_from_a_coroutine() -> None:
    async def main() -> None:
        async def headers() -> dict[str, str]:
            await asyncio.sleep(0)
            return {"Authorization": "Bearer fresh"}

        async with AsyncClient(server.url, transports=("polling",), headers=headers, **QUICK) as client:
            client.subscribe("/chat", print)
            await eventually(lambda: server.requests)
        assert server.requests[0].headers["Authorization"] == "Bearer fresh"

    with StubServer(PollsOnly(lenient=False).serve) as server:
        run(main())


def test_a_mute_websocket_is_left_and_nothing_stays_open(server: Server, channel: str) -> None:
    async def main() -> None:
        got: list[object] = []
        async with AsyncClient(box.url, first_chunk_timeout=2.0, **QUICK) as client:
            client.subscribe(channel, lambda message: got.append(message.data), 0)
            await asyncio.to_thread(publish, server, channel, 1)
            await eventually(lambda: got == [1])
            await eventually(lambda: client.stats.transport == "eventsource")

    with Middlebox(server.port) as box:
        box.mute = True
        gc.collect()
        before = len(processes.open_fds(os.getpid()))
        run(main())
        # The box's own are closed a moment later.
        eventually_in_this_thread(lambda: len(processes.open_fds(os.getpid())) <= before)
