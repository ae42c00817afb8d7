"""Transports for subscribers that know nothing of batches: each message by itself, in one of the formats.

There is one instance for each format that is in use on a kind of connection, so that a dispatch encodes once for all of
its subscribers. What has to be sent though there is no message for it (a heartbeat, a status) is something that these
subscribers never see as data.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

from ..errors import Close
from ..message import STATUS_CHANNEL
from ..names import is_presence
from ..option_kinds import matches
from ..templates import Values, compile_template
from ..wire import RECONNECT_KEY
from .base import Transport
from .event_ids import EventId, Spread
from .websocket import WEBSOCKET, ping_frame, text_frame

OWN = "/__"
"""How the bus's own channels begin: statuses, gaps, refusals."""


class Part(msgspec.Struct):
    """A message of a batch."""

    global_id: int
    message_id: int
    channel: str
    data: msgspec.Raw


_split_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_part = msgspec.json.Decoder(Part).decode


def split(batch: bytes) -> list[tuple[Part, bytes]]:
    """The messages of a batch, and the JSON of each."""
    try:
        wholes = _split_batch(batch)
    except msgspec.DecodeError:
        # Half of a character that UTF-16 writes in two, which other programs may store. It becomes a question mark.
        mended = json.dumps(json.loads(batch), ensure_ascii=False, separators=(",", ":"))
        wholes = _split_batch(mended.encode(errors="replace"))
    return [(_decode_part(whole), bytes(whole)) for whole in wholes]


Form = Callable[[Part, bytes], str]
"""A message, and its JSON -> its text."""


def text_of(data: bytes) -> str:
    """A text as it is, anything else as JSON."""
    if not data.startswith(b'"'):
        return _on_one_line(data)
    return msgspec.json.decode(data, type=str)


def _on_one_line(data: bytes) -> str:
    """JSON; where another program stored line breaks between its tokens, they become blanks."""
    return data.decode(errors="replace").replace("\r", " ").replace("\n", " ")


def _raw(part: Part, whole: bytes) -> str:
    return text_of(bytes(part.data))


def _json(part: Part, whole: bytes) -> str:
    return _on_one_line(whole)


FORMS: Mapping[str, Form] = {"raw": _raw, "data": _raw, "json": _json}
"""``data`` is another name of ``raw``."""
BY_CHANNEL = "template"
"""The format that each channel's rule says."""


def _from_template(template: str) -> Form:
    write = compile_template(template)

    def form(part: Part, whole: bytes) -> str:
        data = bytes(part.data)
        return write(Values(part.message_id, part.global_id, part.channel, text_of(data), _on_one_line(data)))

    return form


Patterns = tuple[tuple[str, str | None], ...]
"""Patterns of channels, in the order in which they are tried, and the template of each."""


def _by_channel(patterns: Patterns) -> Form:
    """Each message in the form of its channel: that of the first pattern that matches, JSON where it has none."""
    forms = [(pattern, _json if template is None else _from_template(template)) for pattern, template in patterns]

    def form(part: Part, whole: bytes) -> str:
        own = next((form for pattern, form in forms if matches(pattern, part.channel)), _json)
        # The bus's own notices, which named events have, are JSON.
        return (_json if part.channel.startswith(OWN) else own)(part, whole)

    return form


def _is_notice(channel: str) -> bool:
    """Whether a message is the bus's own. Of who is there one has asked to hear."""
    return channel.startswith(OWN) and not is_presence(channel)


class PlainTransport(Transport):
    """See the module. ``heartbeat`` is also what is sent where a batch has no message for such a subscriber."""

    begins = True

    def __init__(self, form: Form) -> None:
        self.form = form

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        found = []
        for part, whole in split(batch):
            if not _is_notice(part.channel):
                found.append(self.encode_text(self.form(part, whole)))
        return b"".join(found) or self.heartbeat

    @abstractmethod
    def encode_text(self, text: str) -> bytes:
        """One message on the wire."""


class PlainWebSocket(PlainTransport):
    """A text frame for each message. Heartbeats are pings, which a page never sees."""

    name = "websocket"
    heartbeat = ping_frame()

    def fields(self, size: int) -> bytes:
        return b""

    def encode_text(self, text: str) -> bytes:
        return text_frame(text.encode())

    def end(self, close: Close, last: bytes = b"") -> bytes:
        return WEBSOCKET.end(close, last)


class PlainStream(PlainTransport):
    """A line for each message. A heartbeat is an empty line, which no message is."""

    name = "streaming"
    heartbeat = b"\n"

    def encode_text(self, text: str) -> bytes:
        return (text.replace("\r", "\\r").replace("\n", "\\n") or '""').encode() + b"\n"


class PlainEvents(PlainTransport):
    """An event for each message. Heartbeats are comments."""

    name = "eventsource"
    has_event_ids = True
    heartbeat = b":\n\n"

    def __init__(self, form: Form, named: bool, spread: Spread | None = None) -> None:
        """``named``: the events are named after their channels; gaps and refusals are events then, too."""
        super().__init__(form)
        self._named = named
        self._spread = spread

    def spread(self, spread: Spread) -> Transport:
        return PlainEvents(self.form, self._named, spread)

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        identify = _number if self._spread is None else self._spread.each(event_id)
        events = b"".join([self._event(part, whole, identify) for part, whole in split(batch)])
        if event_id is None:
            return events or self.heartbeat
        # An id without data is no event: it moves the position that the browser comes back with.
        if self._spread is not None:
            return b"%bid: %b\n\n" % (events, self._spread.last(event_id))
        assert isinstance(event_id, int)
        return b"%bid: %d\n\n" % (events, event_id)

    def _event(self, part: Part, whole: bytes, identify: Callable[[int], bytes]) -> bytes:
        if part.channel == STATUS_CHANNEL:
            return _encode_status(part.data)
        if not self._named and _is_notice(part.channel):
            return b""
        identity = b"id: %b\n" % identify(part.global_id) if part.global_id > 0 else b""
        name = b"event: %b\n" % part.channel.encode() if self._named else b""
        return name + identity + self.encode_text(self.form(part, whole))

    def encode_text(self, text: str) -> bytes:
        lines = text.encode().replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return b"%b\n" % b"".join([b"data: %b\n" % line for line in lines])


def _number(global_id: int) -> bytes:
    return b"%d" % global_id


def _encode_status(data: msgspec.Raw) -> bytes:
    """Positions are the ids' business; when to come back is what ``retry`` is for."""
    wait = msgspec.json.decode(data, type=dict[str, object]).get(RECONNECT_KEY)
    return b"retry: %d\n\n" % wait if isinstance(wait, int) else b""


_MAKE: Mapping[str, Callable[[Form], PlainTransport]] = {
    "ws": PlainWebSocket,
    "stream": PlainStream,
    "sse": lambda form: PlainEvents(form, False),
    "events": lambda form: PlainEvents(form, True),
}


@lru_cache(maxsize=1000)
def _instance(kind: str, name: str, template: str | None, patterns: Patterns) -> PlainTransport:
    if name == BY_CHANNEL:
        return _MAKE[kind](_by_channel(patterns))
    return _MAKE[kind](FORMS[name] if template is None else _from_template(template))


def plain_transport(kind: str, name: str, templates: Mapping[str, str], patterns: Patterns = ()) -> PlainTransport:
    """The transport of a kind (``ws``, ``stream``, ``sse``, ``events``: SSE with named events) and a format: one of
    ``FORMS``, of the server's templates, or ``template``, with which each channel has its own of ``patterns``. Raises
    KeyError if there is no such format. Safe from any thread."""
    name = "raw" if name == "data" else name
    if name == BY_CHANNEL:
        return _instance(kind, name, None, patterns)
    return _instance(kind, name, None if name in FORMS else templates[name], ())


NAMED_EVENTS = plain_transport("events", "data", {})
