"""The cases of the Autobahn test suite, the field's judge of RFC 6455, against our frames; kosoku runs them.

Not run: 12.* and 13.*, which are about compression, and those of 9.3 and 9.4 that send a message in more than a
thousand fragments, which is closed with 1009 here.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

from kosoku import run_fuzzingclient

from ..clients import request
from ..servers import Server

APP = "tests.apps.websocket_echo:app"
LEFT_OUT = ["12.*", "13.*", *(f"9.{number}.{case}" for number in (3, 4) for case in range(1, 5))]


def test_the_frames_pass_the_autobahn_cases() -> None:
    with contextlib.closing(Server("serve", APP)) as server:
        server.start()
        # Raises where one has failed, with all that there is to know of it.
        # In a thread: Playwright's loop may be running in this one.
        with ThreadPoolExecutor(1) as executor:
            cases = run_fuzzingclient(server.ws_url, exclude_cases=LEFT_OUT, concurrency=4)
            results = executor.submit(asyncio.run, cases).result()
        assert len(results) > 290
        assert all(result.passed for result in results)
        assert "Traceback" not in server.output(), server.output()[-5000:]


def test_an_extension_that_is_offered_is_not_taken() -> None:
    offer = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
    }
    with (
        contextlib.closing(Server("serve", "tests.apps.contract:app")) as server,
        server,
        request(server.url, "GET", "/message-bus/x/ws", headers=offer) as response,
    ):
        assert response.status == 101
        assert response.getheader("Sec-WebSocket-Extensions") is None
