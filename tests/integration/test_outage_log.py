"""What an operator reads of an outage in the log of ``messagebus serve``: that it began, and that it is over."""

from __future__ import annotations

import re

import pytest

from ..clients import WebSocket
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..redis_server import RedisServer
from .test_servers import publish

pytestmark = pytest.mark.redis


def test_an_outage_is_a_handful_of_lines_and_its_end_is_among_them(
    serve_app: ServeApp, mortal_redis: RedisServer
) -> None:
    server = serve_app("serve", env={"MESSAGEBUS_URL": mortal_redis.url, "MESSAGEBUS_STORE_TIMEOUT": "1"})
    with WebSocket.connect(server.url, {"/chat": 0}) as socket:
        publish(server, "/chat", 0)
        assert socket.data(1) == [0]
        for _ in range(2):
            before = len(server.output())

            def lines(pattern: str, begin: int = before) -> list[str]:
                return [line for line in server.output()[begin:].splitlines() if re.search(pattern, line)]

            mortal_redis.kill()
            for number in range(30):
                assert publish(server, "/chat", number) is None
            eventually(lambda: lines("no feed from Redis"))
            mortal_redis.start()
            eventually(lambda: lines("the feed from Redis .* is back"))
            eventually(lambda: lines("the store is back; wrote 30 messages"))
            assert len(lines("no feed from")) == len(lines("is gone, keeping messages")) == 1
            assert len(lines("(WARNING|ERROR)")) <= 6, server.output()[before:]
            publish(server, "/chat", "on")
    assert "Traceback" not in server.output()
