"""A writer that writes down what it is given, for subscribers without sockets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


class RecordingWriter:
    """Keeps what a subscriber is sent, in ``sent``."""

    waiting = 0

    def __init__(self) -> None:
        self.tick = 0
        self.sent: list[bytes] = []

    is_behind = False

    def tell_when_sent(self) -> None: ...

    def put(self, data: bytes) -> None:
        self.sent.append(data)

    def put_piece(self, parts: Sequence[bytes]) -> None:
        self.sent.append(b"".join(parts))

    def finish(self) -> None: ...

    def abort(self) -> None: ...

    def abandon(self) -> None: ...

    def on_deadline(self) -> None: ...

    def messages(self) -> list[dict[str, Any]]:
        batches = [json.loads(line[6:]) for line in b"".join(self.sent).split(b"\n") if line.startswith(b"data: ")]
        return [message for batch in batches for message in batch if message["channel"] != "/__status"]
