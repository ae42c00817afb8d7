"""Clients that behave, beside those that do not: what they get, and how late."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

from ..clients import Client, Ended, EventSource, LongPolling, Polling, Streaming, WebSocket, request
from ..servers import Server

CHANNEL = "/healthy"
PERIOD = 0.1


class Healthy:
    """A message each tenth of a second, and one reader on each transport."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._quiet = threading.Event()  # later: a reader waits for the next message
        self.delays: list[float] = []
        self.late = 0.0
        """Seconds that this process itself was late at most, which is nobody's fault here."""
        self.failures: list[BaseException] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        kinds: list[type[Client]] = [Polling, LongPolling, Streaming, EventSource, WebSocket]
        readers = [threading.Thread(target=self._guarded, args=(self._read, kind)) for kind in kinds]
        others = [threading.Thread(target=self._guarded, args=(call,)) for call in (self._publish, self._watch)]
        for thread in (*readers, *others):
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in readers:
                thread.join()
            self._quiet.set()
            for thread in others:
                thread.join()

    def check(self, limit: float) -> None:
        """Everybody got everything, and soon."""
        assert not self.failures, self.failures
        assert len(self.delays) > 5
        assert max(self.delays) < limit + self.late, (max(self.delays), self.late)

    def _guarded(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            call(*arguments)
        except BaseException as failure:
            self.failures.append(failure)

    def _publish(self) -> None:
        while not self._quiet.wait(PERIOD):
            body = json.dumps({"channel": CHANNEL, "data": [time.monotonic()]})
            with request(self._server.url, "POST", "/publish", body, {"Content-Type": "application/json"}) as answer:
                assert answer.status == 200, answer.read()

    def _watch(self) -> None:
        while not self._quiet.is_set():
            before = time.monotonic()
            time.sleep(0.01)
            self.late = max(self.late, time.monotonic() - before - 0.01)

    def _read(self, kind: type[Client]) -> None:
        with kind.connect(self._server.url, {CHANNEL: 0}, client_id=f"healthy-{kind.transport}") as client:
            while not self._stop.is_set():
                seen = len(client.received)
                try:
                    client.next_batch()
                except Ended:
                    client.reconnect()
                now = time.monotonic()
                self.delays += [now - message["data"] for message in client.received[seen:]]
            ids = [message["message_id"] for message in client.received]
            assert ids == list(range(1, len(ids) + 1)), f"{kind.transport}: {ids}"
