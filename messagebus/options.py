"""Every setting: its default, its unit, what its edge values mean and when to change it.

Settings come, the first that is given wins, from the command line of ``messagebus serve``, from ``Bus(...)`` or
``configure(...)``, from ``app.config["MESSAGEBUS_" + NAME]`` when the blueprint is registered, from the environment
variable of the same name (numbers, ``true``/``false``; a tuple is written comma-separated), and from the defaults
below. The URL's last resort before its default is ``REDIS_URL``.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .codecs import Codec
from .errors import InvalidOption
from .option_kinds import Coding, Flag, Function, Kind, Number, Origins, Patterns, Secrets, Text

Environ = dict[str, Any]
"""A WSGI environ (PEP 3333)."""

PREFIX = "MESSAGEBUS_"
DAY, YEAR = 86_400, 365 * 86_400
"""Seconds. More is a mistake, and beyond what clocks and stores can add to the present time."""
SCHEMES = ("memory", "redis", "rediss", "unix", "postgresql", "postgres")


def _option(kind: Kind, default: Any, *, repr: bool = True) -> Any:
    return field(default=default, repr=repr, metadata={"kind": kind})


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of one bus. Frozen: ``Bus.configure`` replaces the whole."""

    url: str = _option(Text(), "memory://", repr=False)  # it may have a password in it
    """Where messages are kept: ``memory://`` (this process alone); ``redis://``, ``rediss://`` or ``unix://``;
    ``postgresql://`` or ``postgres://``."""

    # --- the store ---
    max_backlog_size: int = _option(Number(1), 1000)
    """Messages kept for each channel. More means that clients can be away longer; ``publish`` can set its own."""
    max_backlog_age: int = _option(Number(1, 100 * YEAR), 604_800)
    """Seconds without a publish after which a channel's backlog is dropped (7 days)."""
    max_global_backlog_size: int = _option(Number(1), 2000)
    """Messages kept over all channels, from which a process catches up when it lost the store's feed."""
    clear_every: int = _option(Number(1), 1)
    """Trim backlogs on every n-th message only: less work per publish for a backlog that may be n-1 messages longer."""
    redis_pubsub_channel: str | None = _option(Text(optional=True), None)
    """Redis pub/sub channel; ``None``: ``_message_bus_`` and the database's number, which Ruby processes use as
    well."""
    publish_queue_size: int = _option(Number(0), 1000)
    """Messages a process keeps while the store is gone; past it ``publish`` raises. 0: never keep any."""
    store_timeout: float = _option(Number(0.01, DAY, whole=False), 5.0)
    """Seconds to wait for the store to connect or to answer."""
    transport_codec: Codec | None = _option(Coding(), None)
    """How envelopes are stored, see ``messagebus.codecs``; ``None``: as JSON, which other programs understand."""
    max_message_size: int = _option(Number(1), 16 * 1024 * 1024)
    """Bytes of one message's JSON; ``publish`` refuses more."""

    # --- transports ---
    long_polling_enabled: bool = _option(Flag(), True)
    """``False``: every poll is answered at once."""
    long_polling_interval: float = _option(Number(0.01, DAY, whole=False), 25.0)
    """Seconds a poll or a stream is held. Keep it below the proxy's idle timeout (nginx: 60 s)."""
    chunked_encoding_enabled: bool = _option(Flag(), True)
    """``False``: a held poll always ends with its first batch."""
    heartbeat_interval: float = _option(Number(0.01, DAY, whole=False), 25.0)
    """Seconds between the heartbeats on EventSource and WebSocket. Keep it below the proxy's idle timeout."""
    max_active_clients: int = _option(Number(0), 20_000)
    """Subscribers held by one process; further ones are answered as plain polling (WebSocket: 503). The process's limit
    of open files lowers it."""
    max_outbox: int = _option(Number(1), 4 * 1024 * 1024)
    """Bytes that may wait for a slow reader, beyond the batch that it is catching up with; past it the connection is
    closed and the client resumes from its position."""

    max_outbox_total: int = _option(Number(1), 64 * 1024 * 1024)
    """Bytes that may wait for slow readers over all connections of a process; what waits for many is counted once. Past
    it those that have taken nothing for the longest are closed."""
    max_catch_up_batch: int = _option(Number(1), 64 * 1024)
    """Bytes after which a batch of what a client has missed ends, and the next one begins when it has been sent."""
    write_timeout: float = _option(Number(0.1, DAY, whole=False), 30.0)
    """Seconds after which a connection that takes nothing of what waits for it is closed."""

    # --- what a request may hold ---
    max_channels: int = _option(Number(1), 200)
    """Channels of one subscriber; more are refused, and as many grants are read."""
    max_request_body: int = _option(Number(1), 256 * 1024)
    """Bytes of a poll's body; more are refused with 413."""
    max_frame_size: int = _option(Number(1), 256 * 1024)
    """Bytes of a message that a client may send over WebSocket; a larger one closes the connection with 1009."""
    max_commands: int = _option(Number(1), 50)
    """WebSocket commands, and other frames, per second of one client, on average; more close the connection with
    1008."""
    command_threads: int = _option(Number(1, 1000), 32)
    """Threads in which WebSocket commands wait, for ``authorize`` hooks and for the store; each client has one command
    in them at a time. More where hooks are slow. Under gevent greenlets do it, without a limit."""
    allowed_origins: tuple[str | re.Pattern[str], ...] = _option(Origins(), ())
    """Other origins whose pages may connect: ``https://example.com``, ``https://*.example.com`` for its subdomains, a
    compiled regular expression that fits the whole origin, or ``*`` for all. The server's own is always allowed."""
    protected_channels: tuple[str, ...] = _option(Patterns(), ())
    """Channels that take a grant, or the consent of an ``authorize`` hook, to subscribe to: names, or prefixes that
    end in ``*``. For servers that cannot see the app's session."""
    secret_key: str | None = _option(Text(optional=True), None, repr=False)
    """What grants are signed with. A Flask app's ``SECRET_KEY`` where the app gives no other."""
    secret_key_fallbacks: tuple[str, ...] = _option(Secrets(), (), repr=False)
    """Secrets of before, with which no grants are signed any more, and whose grants are still valid. A Flask app's
    ``SECRET_KEY_FALLBACKS`` where it gives no others."""
    client_publish: tuple[str, ...] = _option(Patterns(), ())
    """Channels that clients may publish to over WebSocket: names, or prefixes that end in ``*``. Empty: none."""

    # --- what a process remembers ---
    window_size: int = _option(Number(1), 1000)
    """Newest messages kept in the process for each channel with subscribers, so that reconnects cost the store
    nothing. (Up to a quarter more, until they are trimmed.)"""
    window_bytes: int = _option(Number(1), 64 * 1024 * 1024)
    """Bytes of all those windows together, as the memory holds them; divided among the channels. Older messages that
    clients catch up on are kept in what is left of it."""
    callback_queue_size: int = _option(Number(1), 10_000)
    """Messages that may wait for a subscribed callback; past it they are read again from the backlog."""

    # --- who is asking; each is called in the request's context ---
    user_id_lookup: Callable[[Environ], Any] | None = _option(Function(), None)
    """WSGI environ -> the user's id (any JSON value) or ``None``."""
    group_ids_lookup: Callable[[Environ], Iterable[Any] | None] | None = _option(Function(), None)
    """WSGI environ -> the ids of the groups the user is in."""
    site_id_lookup: Callable[[Environ], str | None] | None = _option(Function(), None)
    """WSGI environ -> the site (tenant) of the request, or ``None``."""

    # --- hooks ---
    extra_response_headers_lookup: Callable[[Environ], Mapping[str, str] | None] | None = _option(Function(), None)
    """WSGI environ -> headers to add to the bus's answer, or to put in place of its own."""
    on_error: Callable[[Exception, str], object] | None = _option(Function(), None)
    """Called with what a callback or a filter raised, and with words for where; it is logged in any case."""

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            object.__setattr__(self, option.name, check_option(option.name, getattr(self, option.name)))
        scheme, separator, _ = self.url.partition("://")
        if not separator or scheme not in SCHEMES:
            # Without the URL itself, which may have a password in it.
            raise InvalidOption("url", f"expected one of {', '.join(f'{known}://' for known in SCHEMES)}")


_NAMES = {option.name: option for option in dataclasses.fields(Options)}


def check_option(name: str, value: object) -> Any:
    """The value of an option as it is kept.

    Raises:
        InvalidOption: It is none, or out of range.
    """
    kind: Kind = _NAMES[name].metadata["kind"]
    try:
        return kind.check(value)
    except ValueError as error:
        raise InvalidOption(name, str(error)) from None


_command: dict[str, Any] = {}


def set_from_command(**values: Any) -> None:
    """Make settings those of every bus of this process, whatever the program gives them; for a command that was told
    so. Before the program is imported.

    Raises:
        InvalidOption: A setting is unknown or out of range.
    """
    Options(**from_values(values))
    _command.update(values)


def from_command() -> dict[str, Any]:
    """The settings of :func:`set_from_command`."""
    return _command


def from_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Checks names given by a program, and makes lists into tuples.

    Raises:
        InvalidOption: A name is none of the settings.
    """
    for name in values:
        if name not in _NAMES:
            raise InvalidOption(name, f"there is no such option{_perhaps(name)}; see messagebus.Options")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _perhaps(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), _NAMES, n=1)
    return f" (do you mean {close[0]}?)" if close else ""


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among a Flask app's ``config``: every key that starts with ``MESSAGEBUS_``, and its
    ``SECRET_KEY``."""
    found = from_values({key[len(PREFIX) :].lower(): config[key] for key in config if key.startswith(PREFIX)})
    secret = config.get("SECRET_KEY")
    if secret:
        found.setdefault("secret_key", _as_text(secret))
    fallbacks = config.get("SECRET_KEY_FALLBACKS")
    if fallbacks:
        found.setdefault("secret_key_fallbacks", tuple(map(_as_text, fallbacks)))
    return found


def _as_text(secret: str | bytes) -> str:
    return secret.decode("latin-1") if isinstance(secret, bytes) else secret


def from_environment(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The settings among the environment variables, converted from text. Unknown names are left to others."""
    found: dict[str, Any] = {}
    if environ.get("REDIS_URL"):
        found["url"] = environ["REDIS_URL"]
    for name, option in _NAMES.items():
        kind: Kind = option.metadata["kind"]
        text = environ.get(PREFIX + name.upper())
        if text and kind.from_text:
            try:
                found[name] = kind.parse(text)
            except ValueError as error:
                raise InvalidOption(name, f"{error} (the variable {PREFIX}{name.upper()})") from None
    return found
