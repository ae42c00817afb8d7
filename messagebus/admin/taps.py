"""What one client is sent, shown to who watches on this worker or another one. Costs nothing while nobody does.

A tap stands in front of the writer of each of the client's connections, and passes everything on. It ends when nobody
has asked for it for a while. In the reactor's loop only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..hub.hub import Hub
from ..hub.subscriber import Phase, Subscriber

TAP = "tap"
"""Told to every worker again and again while somebody watches, with the client's id."""
TAPPED = "tapped"
"""Told by the worker that has sent something."""
OWN_IDS = "admin:"
"""What the ids of admin pages begin with. They are not shown what they are shown. No client can call itself so, and
thereby hide from them: its ids have no colon."""
LASTS_SECONDS = 15.0
"""How long a tap stays after it was asked for last."""
FLUSH_SECONDS = 1.0
SHOWN = 50
"""Writes that are shown of each client and ``FLUSH_SECONDS``; the others are counted."""
SHOWN_CHARACTERS = 1000
"""Of one write."""
LOOKED_AT = 4 * SHOWN_CHARACTERS + 14
"""Bytes: a character has up to four, and the head of a frame fourteen."""
CLOSE_FRAME = 0x88
_CHUNK_HEAD = re.compile("^[0-9a-f]+\r\n")
MOST_TAPS = 20
"""Clients that a worker shows at a time."""


class Taps:
    """Those of one worker."""

    def __init__(self, hub: Hub, tell: Callable[[str, Any], object]) -> None:
        """``tell``: tells all workers something of a kind, without waiting."""
        self._hub = hub
        self._tell = tell
        self._taps: dict[str, _Tap] = {}
        self.tick = 0

    def ask(self, client_id: Any) -> None:
        """Somebody watches this client."""
        if not isinstance(client_id, str) or client_id.startswith(OWN_IDS):
            return
        tap = self._taps.get(client_id)
        if tap is None:
            if len(self._taps) >= MOST_TAPS:
                return
            tap = self._taps[client_id] = _Tap()
            # Once: later ones may write by one of these already, as the channels of one connection do.
            for subscriber in self._hub.membership.of_client(client_id):
                tap.put_before(subscriber)
        tap.until = self._hub.reactor.clock() + LASTS_SECONDS
        self._hub.added = self._added
        if not self.tick:
            self._hub.reactor.set_deadline(self, FLUSH_SECONDS)

    def _added(self, subscriber: Subscriber) -> None:
        tap = self._taps.get(subscriber.identity.client_id)
        if tap is not None:
            tap.put_before(subscriber)

    def on_deadline(self) -> None:
        now = self._hub.reactor.clock()
        for client_id, tap in [*self._taps.items()]:
            if tap.sent or tap.left_out:
                self._tell(TAPPED, {"client_id": client_id, "sent": tap.sent, "left_out": tap.left_out})
                tap.sent, tap.left_out = [], 0
            if now >= tap.until:
                tap.remove()
                del self._taps[client_id]
        if self._taps:
            self._hub.reactor.set_deadline(self, FLUSH_SECONDS)
        else:
            self._hub.added = None


class _Tap:
    """One client's."""

    def __init__(self) -> None:
        self.until = 0.0
        self.is_over = False
        self.sent: list[dict[str, Any]] = []
        self.left_out = 0
        self._tapped: dict[Subscriber, Any] = {}
        """Connection -> the writer that was there before."""

    def put_before(self, subscriber: Subscriber) -> None:
        if subscriber in self._tapped:
            return
        self._tapped = {each: writer for each, writer in self._tapped.items() if each.state is not Phase.CLOSED}
        self._tapped[subscriber] = subscriber.writer
        subscriber.writer = _TappedWriter(subscriber.writer, self, subscriber.transport.name)

    def note(self, transport: str, data: bytes, size: int) -> None:
        """``data``: the beginning of what was put, of ``size`` bytes."""
        if self.is_over:
            return
        if len(self.sent) >= SHOWN:
            self.left_out += 1
            return
        text = _text(transport, data)
        self.sent.append(
            {
                "at": time.time(),
                "transport": transport,
                "bytes": size,
                "text": text[:SHOWN_CHARACTERS],
                "is_cut": len(text) > SHOWN_CHARACTERS or size > len(data),
            }
        )

    def remove(self) -> None:
        self.is_over = True  # others may have taken a tapped writer for their own
        for subscriber, writer in self._tapped.items():
            subscriber.writer = writer
        self._tapped = {}


class _TappedWriter:
    """A writer that has nothing of its own: what is read, set or called goes to the one behind it. It equals that one,
    whom timers and outboxes know."""

    def __init__(self, writer: Any, tap: _Tap, transport: str) -> None:
        vars(self).update(_writer=writer, _tap=tap, _transport=transport)

    def put(self, data: bytes) -> None:
        self._tap.note(self._transport, data[:LOOKED_AT], len(data))
        self._writer.put(data)

    def put_piece(self, parts: Sequence[bytes]) -> None:
        beginning = b"".join([part[:LOOKED_AT] for part in parts[:SHOWN]])[:LOOKED_AT]
        self._tap.note(self._transport, beginning, sum(map(len, parts)))
        self._writer.put_piece(parts)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._writer

    def __hash__(self) -> int:
        return hash(self._writer)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_writer"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["_writer"], name, value)


def _text(transport: str, data: bytes) -> str:
    """What the client reads, without the frame or the chunk around it."""
    if data.startswith(b"HTTP/1.1 "):
        # Without its fields, which may set the cookie of a session.
        return data.partition(b"\r\n")[0].decode(errors="replace")
    if transport == "websocket" and len(data) > 1:
        if data[0] == CLOSE_FRAME:
            return f"close {int.from_bytes(data[2:4], 'big')} {data[4:].decode(errors='replace')}"
        data = data[{126: 4, 127: 10}.get(data[1], 2) :]
    text = _CHUNK_HEAD.sub("", data.decode(errors="replace"))
    return text.rstrip().removesuffix("|").rstrip() if transport == "streaming" else text.rstrip()
