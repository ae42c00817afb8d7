"""What load balancers ask: whether a process lives, and whether it can serve."""

from __future__ import annotations

import json

import pytest

from ..client_base import request
from ..eventually import eventually
from ..fixtures_servers import ServeApp
from ..redis_server import RedisServer
from ..servers import Server


def ask(server: Server, what: str) -> tuple[int, dict[str, object]]:
    status, body = server.get(f"/message-bus/health/{what}")
    return status, json.loads(body)


@pytest.mark.parametrize("kind", ["serve", "gunicorn-gthread"])
def test_a_server_without_its_store_lives_but_is_not_ready(
    kind: str, serve_app: ServeApp, mortal_redis: RedisServer
) -> None:
    server = serve_app(kind, env={"MESSAGEBUS_URL": mortal_redis.url, "MESSAGEBUS_STORE_TIMEOUT": "1"})
    eventually(lambda: ask(server, "ready") == (200, {"ready": True}))
    assert ask(server, "live") == (200, {"live": True})
    mortal_redis.kill()
    eventually(lambda: ask(server, "ready")[0] == 503)
    status, refusal = ask(server, "ready")
    assert status == 503
    assert "store" in json.dumps(refusal["error"])
    assert ask(server, "live") == (200, {"live": True})
    mortal_redis.start()
    eventually(lambda: ask(server, "ready") == (200, {"ready": True}), 30)


def test_only_get_and_head_are_answered(serve_app: ServeApp) -> None:
    server = serve_app("serve")
    with request(server.url, "POST", "/message-bus/health/live") as response:
        assert (response.status, response.getheader("Allow")) == (405, "GET, HEAD")
    with request(server.url, "HEAD", "/message-bus/health/live") as response:
        assert (response.status, response.read()) == (200, b"")
    with request(server.url, "GET", "/message-bus/health/other") as response:
        assert response.status == 404
