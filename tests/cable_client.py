"""A client of ``/cable`` that sees every frame, and a server for it in the test's own process."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from flask import Flask
from websockets.sync.client import connect
from websockets.typing import Subprotocol
from werkzeug.serving import make_server

from messagebus import Bus

JSON, EXTENDED = "actioncable-v1-json", "actioncable-v1-ext-json"


class CableClient:
    """One socket. Pings are read over."""

    def __init__(self, url: str, protocol: str = JSON, *, path: str = "/cable", **headers: str) -> None:
        origin = headers.pop("Origin", None)
        self._opened = contextlib.ExitStack()
        opening = connect(
            url.replace("http", "ws", 1) + path,
            subprotocols=[Subprotocol(protocol)],
            additional_headers={name.replace("_", "-"): value for name, value in headers.items()},
            origin=origin,  # type: ignore[arg-type]
            max_size=None,
            max_queue=None,
        )
        self._socket = self._opened.enter_context(opening)
        self.pings = 0
        self.seen: list[dict[str, Any]] = []

    def __enter__(self) -> CableClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def close_code(self) -> int | None:
        return self._socket.close_code

    def next(self, timeout: float = 20.0) -> dict[str, Any]:
        """The next frame that is no ping. Raises ``websockets.exceptions.ConnectionClosed`` at the end."""
        deadline = time.monotonic() + timeout
        while True:
            told: dict[str, Any] = json.loads(self._socket.recv(max(0.0, deadline - time.monotonic())))
            if told.get("type") != "ping":
                self.seen.append(told)
                return told
            self.pings += 1

    def until(self, **wanted: Any) -> dict[str, Any]:
        """The first frame, from the next one on, that has all of this."""
        while True:
            told = self.next()
            if wanted.items() <= told.items():
                return told

    def say(self, **command: Any) -> None:
        self._socket.send(json.dumps(command))

    def send(self, text: str | bytes) -> None:
        self._socket.send(text)

    def subscribe(self, channel: str, **params: Any) -> str:
        """Ask for a subscription; returns its identifier."""
        identifier = identifier_of(channel, **params)
        self.say(command="subscribe", identifier=identifier)
        return identifier

    def confirmed(self, channel: str, **params: Any) -> str:
        identifier = self.subscribe(channel, **params)
        self.until(type="confirm_subscription", identifier=identifier)
        return identifier

    def perform(self, identifier: str, action: str, **data: Any) -> None:
        self.say(command="message", identifier=identifier, data=json.dumps({"action": action, **data}))


def identifier_of(channel: str, **params: Any) -> str:
    return json.dumps({"channel": channel, **params})


@contextlib.contextmanager
def served(bus: Bus, app: Flask | None = None) -> Iterator[str]:
    """The URL of a server in this process, for an app with the bus."""
    if app is None:
        app = Flask(__name__)
        app.secret_key = "of the tests"
    app.register_blueprint(bus.blueprint)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        bus.close()
        server.shutdown()
        thread.join()
        server.server_close()
