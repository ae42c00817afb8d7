"""Messages: bytes to values and back. The only place that knows the JSON of a message, and no I/O.

A message is stored as ``global_id|message_id|name|envelope``. ``data`` is kept as the JSON it came in: it is spliced
into what subscribers get, and only decoded when a program asks for it.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, SupportsIndex
from uuid import UUID

import msgspec

from .codecs import Codec
from .errors import InvalidData, InvalidTargets, MessageTooLarge
from .names import PIPE_ESCAPE, SITE_SEPARATOR, split_name
from .wire import CLIENT_ID

STATUS_CHANNEL = "/__status"
REFUSED_CHANNEL = "/__refused"
GAP_CHANNEL = "/__gap"
LARGE = 2048
"""Bytes of JSON. Up to this size a message's frame is made once and kept; of a larger message only the JSON is
shared."""
TRACE_FIELDS = ("traceparent", "tracestate")
"""What a message carries of the span of its publish, as W3C Trace Context names it. No baggage: it may hold anything,
and stores keep what they are given."""
MAX_TRACE = 512
"""Characters of one of these fields, as many as W3C Trace Context wants to be passed on."""
_OBJECTS = 300
"""Bytes of the Python objects that a message is made of."""
_TRACE = 500
"""Bytes of what it carries of a span."""
_TARGET = 80
"""Bytes of one of a message's targets."""
SURELY_FLAT = 200
"""Number of arrays and objects in a message below which they cannot be nested too deeply."""


class Message(msgspec.Struct, gc=False):  # the windows hold many, and nothing in one leads back to it
    """One publication on a channel. Treat it as frozen: every subscriber of the process shares it."""

    global_id: int
    """The id over all channels of the store, from 1; -1 in a status or a gap."""
    message_id: int
    """The id on the channel, from 1; -1 in a status or a gap."""
    channel: str
    raw: bytes
    """``data`` as JSON."""
    site_id: str | None = None
    user_ids: tuple[Any, ...] | None = None
    """Users that the message is for; ``None``: no restriction."""
    group_ids: tuple[Any, ...] | None = None
    client_ids: tuple[str, ...] | None = None
    kept: bool | None = None
    """Whether the client message filters let it through; ``None``: not asked yet."""
    exclude_client_ids: tuple[str, ...] | None = None
    """Clients that it is not for, whatever else it says; ``None``: no restriction."""
    trace: dict[str, str] | None = None
    """The span of its publish, as the envelope has it, see ``tracing``. Programs alone are told, no clients."""
    sender: str | None = None
    """The client that has published it, by the id that it has chosen; ``None``: a program has. Programs alone are told:
    who knows a client's id can speak for that client."""
    _data: Any = msgspec.UNSET
    _json: bytes = b""

    def __repr__(self) -> str:
        site = "" if self.site_id is None else f", site_id={self.site_id!r}"
        data = self.raw[:80].decode(errors="replace") + ("..." if len(self.raw) > 80 else "")
        return f"<Message {self.channel} {self.message_id} (global {self.global_id}{site}): {data}>"

    @property
    def name(self) -> str:
        """The channel as the store names it, see :func:`store_name`."""
        return self.channel if self.site_id is None else f"{self.channel}{SITE_SEPARATOR}{self.site_id}"

    @property
    def transient(self) -> bool:
        """Whether it is not kept, see ``PublishOptions``. Filters alone see such messages."""
        return False

    @property
    def data(self) -> Any:
        """``data`` as a Python value; decoded once, so do not change what you get."""
        if self._data is msgspec.UNSET:
            self._data = json.loads(self.raw)
        return self._data

    def forget_data(self) -> None:
        """Drop the decoded value; it is decoded again when somebody asks for it."""
        self._data = msgspec.UNSET

    @property
    def json(self) -> bytes:
        """The message as subscribers get it. Kept if it is small; a large one would be a second copy."""
        if self._json:
            return self._json
        json = b'{"global_id":%d,"message_id":%d,"channel":%b,"data":%b}' % (
            self.global_id,
            self.message_id,
            _encode_channel(self.channel),
            self.raw,
        )
        if len(self.raw) <= LARGE:
            self._json = json
        return json

    @property
    def parts(self) -> tuple[bytes, ...]:
        """The same in pieces, of which a large message's ``raw`` is one: shared, not copied."""
        if len(self.raw) <= LARGE:
            return (self.json,)
        numbers = self.global_id, self.message_id, _encode_channel(self.channel)
        return b'{"global_id":%d,"message_id":%d,"channel":%b,"data":' % numbers, self.raw, b"}"

    @property
    def targeted(self) -> bool:
        return not (self.user_ids is self.group_ids is self.client_ids is self.exclude_client_ids is None)


def memory_of(messages: Iterable[Message]) -> int:
    """About how many bytes of memory messages hold, their JSON and their targets included."""
    held = 0
    for message in messages:
        size = len(message.raw)
        held += _OBJECTS + (2 * size if size <= LARGE else size)
        # Two comparisons for nearly all: this is asked for each message that is dispatched.
        if message.targeted:
            targets = (message.user_ids, message.group_ids, message.client_ids, message.exclude_client_ids)
            held += _TARGET * sum([len(ids) for ids in targets if ids is not None])
        if message.trace is not None:
            held += _TRACE
        if message.sender is not None:
            held += _TARGET
    return held


class Ids(NamedTuple):
    """The ids that a publish was given."""

    message_id: int
    global_id: int


class _Envelope(msgspec.Struct, gc=False):
    data: msgspec.Raw = msgspec.Raw(b"null")
    user_ids: tuple[Any, ...] | None = None
    group_ids: tuple[Any, ...] | None = None
    client_ids: tuple[str, ...] | None = None
    exclude_client_ids: tuple[str, ...] | None = None
    trace: Any = None  # whatever another program has there: no message is refused for it, or for the next one
    sender: Any = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_encode_text = msgspec.json.Encoder().encode
# The standard library's encoder, not msgspec's: it refuses what JSON cannot express (sets, bytes, NaN), where msgspec
# would publish something else than it was given.
_encode_data = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def encode_json(value: Any) -> bytes:
    """JSON of a value made by the bus itself."""
    return _encode_text(value)


_encode_channel = lru_cache(maxsize=4096)(encode_json)


def encode_data(data: Any, max_size: int, dumps: Callable[[Any], str] | None = None) -> bytes:
    """Encode a published value as JSON. ``dumps`` encodes values that are no JSON values.

    Raises:
        InvalidData: ``data`` contains something that JSON cannot express.
        MessageTooLarge: The JSON has more than ``max_size`` bytes.
    """
    try:
        raw = _encode_data(data).encode()
    except (TypeError, ValueError, RecursionError) as error:
        if dumps is None:
            raise _no_json(error) from error
        try:
            # Parse it again: another encoder's JSON may contain NaN.
            raw = _encode_data(json.loads(dumps(data))).encode()
        except Exception as other:  # what it may raise is another's affair
            raise _no_json(other) from other
    if len(raw) > max_size:
        raise MessageTooLarge(len(raw), max_size)
    if raw.count(b"[") + raw.count(b"{") > SURELY_FLAT:
        try:
            msgspec.json.decode(raw)
        except RecursionError:
            raise InvalidData("data is nested too deeply for its readers") from None
    return raw


def _no_json(error: Exception) -> InvalidData:
    return InvalidData(f"data cannot be published as JSON, turn it into a JSON value first: {error}")


def check_id(field: str, value: Any) -> str | int | float:
    """The id of a user or a group, as it is stored and compared: a string, or a number.

    What a database or a library hands out for one of these is taken as such: an integral ``float`` or ``Decimal``, an
    ``IntEnum``, numpy's integers are the integer, a ``UUID`` is its text in the usual form. So 7, 7.0 and
    ``Decimal(7)`` are one id, and "7" is another.

    Raises:
        InvalidTargets: The id has another type; ``bool`` too, which equals 1 and 0 in Python but not in JSON.
    """
    if type(value) is str or type(value) is int:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, UUID):
        return str(value)
    with suppress(TypeError):  # of what only seems to be an integer
        if isinstance(value, SupportsIndex) and not isinstance(value, bool):
            return operator.index(value)
    is_finite = value.is_finite() if isinstance(value, Decimal) else isinstance(value, float) and math.isfinite(value)
    if is_finite and abs(value) < 2**63:
        if value == int(value):
            return int(value)
        if isinstance(value, float):
            return float(value)
    raise InvalidTargets(
        f"{field}: an id is a string or a number (or a UUID, which counts as its text), "
        f"not {value!r:.80} ({type(value).__name__})"
    )


def id_key(value: Any) -> bytes:
    """A key for the id of a user or a group: two keys are equal exactly if the ids are. Also for ids that other
    programs published, which may be any JSON value."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value)


def encode_envelope(
    raw: bytes,
    user_ids: Iterable[Any] | None = None,
    group_ids: Iterable[Any] | None = None,
    client_ids: Iterable[str] | None = None,
    codec: Codec | None = None,
    exclude_client_ids: Iterable[str] | None = None,
    trace: dict[str, str] | None = None,
    sender: str | None = None,
) -> bytes:
    """The envelope a store keeps: the data's JSON and whom it is for, or not for. Other programs that read it expect
    the first four fields; the last three are there only where they say something.

    Raises:
        InvalidTargets: A list of targets is empty (it would reach nobody), is a string, or contains a value that is not
            JSON.
    """
    envelope = b'{"data":%b,"user_ids":%b,"group_ids":%b,"client_ids":%b}' % (
        raw,
        _encode_targets("user_ids", user_ids),
        _encode_targets("group_ids", group_ids),
        _encode_targets("client_ids", client_ids),
    )
    if exclude_client_ids is not None:
        excluded = _encode_targets("exclude_client_ids", exclude_client_ids)
        envelope = b'%b,"exclude_client_ids":%b}' % (envelope[:-1], excluded)
    if trace is not None:
        envelope = b'%b,"trace":%b}' % (envelope[:-1], encode_json(trace))
    if sender is not None:
        envelope = b'%b,"sender":%b}' % (envelope[:-1], encode_json(sender))
    return envelope if codec is None else codec.encode(json.loads(envelope))


def _encode_targets(name: str, targets: Iterable[Any] | None) -> bytes:
    if targets is None:
        return b"null"
    if isinstance(targets, (str, bytes)) or not isinstance(targets, Iterable):
        raise InvalidTargets(f"{name}: expected a list of ids, not {targets!r}")
    ids = list(targets)
    if not ids:
        raise InvalidTargets(f"{name}: an empty list reaches nobody; leave it out (None) to reach everybody")
    try:
        return _encode_data(ids).encode()
    except (TypeError, ValueError) as error:
        raise InvalidTargets(f"{name}: {error}") from error


def encode_stored(ids: Ids, name: str, envelope: bytes) -> bytes:
    """A message as a store keeps and announces it."""
    return b"%d|%d|%b|%b" % (ids.global_id, ids.message_id, name.replace("|", PIPE_ESCAPE).encode(), envelope)


def decode_stored(stored: bytes, codec: Codec | None = None) -> Message:
    """The counterpart of :func:`encode_stored`, also for messages of other programs.

    Raises:
        ValueError: The bytes are not a stored message.
    """
    global_id, message_id, name, envelope = stored.split(b"|", 3)
    return decode_message(int(global_id), int(message_id), _decode_name(name), envelope, codec)


# Cached for the time, and so that the messages that a process keeps of a channel share one string.
@lru_cache(maxsize=4096)
def _decode_name(name: bytes) -> str:
    return name.decode().replace(PIPE_ESCAPE, "|")


def decode_message(global_id: int, message_id: int, name: str, envelope: bytes, codec: Codec | None = None) -> Message:
    """A message from its parts.

    Raises:
        ValueError: The envelope is not one.
    """
    if codec is not None:
        try:
            envelope = _encode_data(codec.decode(envelope)).encode()
        except Exception as error:  # a codec may raise what it likes
            raise ValueError(f"message {message_id} on {name}: the codec failed: {error!r}") from error
    try:
        parts = _decode_envelope(envelope)
    except (msgspec.DecodeError, RecursionError) as error:  # the latter: nested too deeply
        raise ValueError(f"message {message_id} on {name}: not an envelope: {error}") from error
    data = bytes(parts.data)
    if not data.isascii():
        _check_text(data, message_id, name)
    channel, site_id = split_name(name)
    return Message(
        global_id,
        message_id,
        channel,
        data,
        site_id,
        parts.user_ids,
        parts.group_ids,
        parts.client_ids,
        exclude_client_ids=parts.exclude_client_ids,
        trace=None if parts.trace is None else _trace_of(parts.trace),
        sender=None if parts.sender is None else _sender_of(parts.sender),
    )


def _trace_of(found: Any) -> dict[str, str] | None:
    if not isinstance(found, dict):
        return None
    fields = {field: found.get(field) for field in TRACE_FIELDS}
    return {
        field: value for field, value in fields.items() if isinstance(value, str) and len(value) <= MAX_TRACE
    } or None


def _sender_of(found: Any) -> str | None:
    return found if isinstance(found, str) and CLIENT_ID.fullmatch(found) else None


def _check_text(data: bytes, message_id: int, name: str) -> None:
    # What is passed on as it is must be text: a browser ends a WebSocket that brings anything else.
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"message {message_id} on {name}: not UTF-8: {error}") from None


def status_message(positions: dict[str, int], epoch: str | None) -> Message:
    """A status: the positions that a client continues from, and the epoch, if there is one, under ``__epoch``."""
    data: dict[str, Any] = dict(positions)
    if epoch is not None:
        data["__epoch"] = epoch
    return Message(-1, -1, STATUS_CHANNEL, encode_json(data))


def before_status(batch: Sequence[Message], more: Sequence[Message]) -> list[Message]:
    """A batch with more messages in it; its status stays the last."""
    end = len(batch) - 1 if batch and batch[-1].channel == STATUS_CHANNEL else len(batch)
    return [*batch[:end], *more, *batch[end:]]


def gap_message(gaps: dict[str, tuple[int | None, int]]) -> Message:
    """A gap: channel -> (after, before); the ids in between are gone. ``after`` is ``None``: the store was reset."""
    data = {channel: {"after": after, "before": before} for channel, (after, before) in gaps.items()}
    return Message(-1, -1, GAP_CHANNEL, encode_json(data))


def refused_message(refused: dict[str, dict[str, Any]]) -> Message:
    """A notice of refused channels, with the reasons."""
    return Message(-1, -1, REFUSED_CHANNEL, encode_json(refused))
