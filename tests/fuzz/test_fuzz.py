"""Each kind of nonsense for ``FUZZ_SECONDS`` (3): ``make fuzz`` takes two minutes for each. ``FUZZ_SEED`` repeats a
run."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable

import pytest

from ..servers import Server
from . import frames, requests
from .healthy import Healthy
from .mutation import Mutation

SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))
SEED = int(os.environ.get("FUZZ_SEED", "0")) or secrets.randbits(32)
THREADS = 4
MOST_LATE = 0.5
"""Seconds that a message may take to a client that behaves."""
APP = "tests.apps.contract:app"

SendSome = Callable[[Server, Mutation], None]
KINDS: dict[str, tuple[SendSome, list[bytes]]] = {
    "requests": (requests.send_some, requests.HARD),
    "frames": (frames.send_some, []),
}


@pytest.mark.parametrize("kind", KINDS)
def test_nonsense_harms_nobody(kind: str) -> None:
    print(f"FUZZ_SEED={SEED}")
    send_some, hard = KINDS[kind]
    failures: list[BaseException] = []
    counts = [0] * THREADS
    env = {"MESSAGEBUS_CLIENT_PUBLISH": "/fuzz", "MESSAGEBUS_MAX_COMMANDS": "1000"}
    with contextlib.closing(Server("serve", APP, env=env)) as server:
        server.start()
        healthy = Healthy(server)
        until = time.monotonic() + SECONDS

        def work(number: int) -> None:
            mutation = Mutation(SEED + number, hard)
            try:
                while time.monotonic() < until and not failures:
                    send_some(server, mutation)
                    counts[number] += 1
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        with healthy.running():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not failures, failures[0]
        assert sum(counts) > 10 * SECONDS, "hardly anything was sent"
        healthy.check(MOST_LATE)
        assert "Traceback" not in server.output(), server.output()[-5000:]
        assert server.get("/hello") == (200, b"hello")
    print(f"{sum(counts)} connections, {max(healthy.delays):.3f} s at most")
