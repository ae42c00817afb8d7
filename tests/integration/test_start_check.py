"""A store that cannot be used as it is to be: it is said when a process begins, in words that say what to do."""

from __future__ import annotations

import contextlib
import time

import pytest

from messagebus import Bus
from messagebus.errors import PublishRefused
from messagebus.stores.advice import redis_rights
from tests.redis_server import RedisServer
from tests.serve_helpers import fail_to_serve

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("lacking", ["-zadd", "-subscribe", "-evalsha", "resetchannels"])
def test_a_user_who_may_not_do_what_is_needed_is_said_at_once_with_the_line_that_mends_it(
    redis_server: RedisServer, redis_url: str, lacking: str
) -> None:
    with redis_server.client() as client:
        rules = redis_rights("_message_bus_0").split()
        client.execute_command("ACL", "SETUSER", "bus", "reset", "on", ">s3cret", *rules, lacking)
        try:
            url = redis_url.replace("://", "://bus:s3cret@")
            began = time.monotonic()
            result = fail_to_serve("--url", url, "--store-wait", "60", "--workers", "2")
            assert time.monotonic() - began < 50
            assert result.returncode == 2
            (line,) = result.stderr.splitlines()
            assert "ACL SETUSER <user> ~__mb_*" in line
            assert "s3cret" not in line
            with contextlib.closing(Bus(url=url)) as bus, pytest.raises(PublishRefused, match="ACL SETUSER <user>"):
                bus.check_store()
            # What it only wishes for keeps nobody from starting.
            client.execute_command("ACL", "SETUSER", "bus", *rules, "-info")
            with contextlib.closing(Bus(url=url)) as bus:
                bus.check_store()
        finally:
            client.execute_command("ACL", "DELUSER", "bus")


def test_a_server_of_another_kind_is_said_at_once(redis_server: RedisServer) -> None:
    url = f"redis+sentinel://127.0.0.1:{redis_server.port}/bus/0"
    result = fail_to_serve("--url", url, "--store-wait", "60")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "was expected to be a sentinel, but is a server that keeps data" in line
