"""Every setting: its default, its unit, what its edge values mean and when to change it.

Settings come, the first that is given wins, from the command line of ``messagebus serve``, from ``Bus(...)`` or
``configure(...)``, from ``app.config["MESSAGEBUS_" + NAME]`` when the blueprint is registered, from the environment
variable of the same name (numbers, ``true``/``false``; a tuple is written comma-separated), and from the defaults
below. The URL's last resort before its default is ``REDIS_URL``.
"""

from __future__ import annotations

import dataclasses
import difflib
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

from .codecs import Codec
from .errors import InvalidOption

Environ = dict[str, Any]
"""A WSGI environ (PEP 3333)."""

PREFIX = "MESSAGEBUS_"
SCHEMES = ("memory", "redis", "rediss", "unix", "postgresql", "postgres")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of one bus. Frozen: ``Bus.configure`` replaces the whole."""

    url: str = field(default="memory://", repr=False)  # it may have a password in it
    """Where messages are kept: ``memory://`` (this process alone); ``redis://``, ``rediss://`` or ``unix://``;
    ``postgresql://`` or ``postgres://``."""

    # --- the store ---
    max_backlog_size: int = 1000
    """Messages kept for each channel. More means that clients can be away longer; ``publish`` can set its own."""
    max_backlog_age: int = 604_800
    """Seconds without a publish after which a channel's backlog is dropped (7 days)."""
    max_global_backlog_size: int = 2000
    """Messages kept over all channels, from which a process catches up when it lost the store's feed."""
    clear_every: int = 1
    """Trim backlogs on every n-th message only: less work per publish for a backlog that may be n-1 messages longer."""
    redis_pubsub_channel: str | None = None
    """Redis pub/sub channel; ``None``: ``_message_bus_`` and the database's number, which Ruby processes use as
    well."""
    publish_queue_size: int = 1000
    """Messages a process keeps while the store is gone; past it ``publish`` raises. 0: never keep any."""
    store_timeout: float = 5.0
    """Seconds to wait for the store to connect or to answer."""
    transport_codec: Codec | None = None
    """How envelopes are stored, see ``messagebus.codecs``; ``None``: as JSON, which other programs understand."""
    max_message_size: int = 16 * 1024 * 1024
    """Bytes of one message's JSON; ``publish`` refuses more."""

    # --- transports ---
    long_polling_enabled: bool = True
    """``False``: every poll is answered at once."""
    long_polling_interval: float = 25.0
    """Seconds a poll or a stream is held. Keep it below the proxy's idle timeout (nginx: 60 s)."""
    chunked_encoding_enabled: bool = True
    """``False``: a held poll always ends with its first batch."""
    heartbeat_interval: float = 25.0
    """Seconds between the heartbeats on EventSource and WebSocket. Keep it below the proxy's idle timeout."""
    max_active_clients: int = 20_000
    """Subscribers held by one process; further ones are answered as plain polling (WebSocket: 503). The process's limit
    of open files lowers it."""
    max_outbox: int = 4 * 1024 * 1024
    """Bytes that may wait for a slow reader, beyond the batch that it is catching up with; past it the connection is
    closed and the client resumes from its position."""

    max_outbox_total: int = 64 * 1024 * 1024
    """Bytes that may wait for slow readers over all connections of a process; what waits for many is counted once. Past
    it those that have taken nothing for the longest are closed."""
    max_catch_up_batch: int = 64 * 1024
    """Bytes after which a batch of what a client has missed ends, and the next one begins when it has been sent."""
    write_timeout: float = 30.0
    """Seconds after which a connection that takes nothing of what waits for it is closed."""

    # --- what a request may hold ---
    max_channels: int = 200
    """Channels of one subscriber; more are refused, and as many grants are read."""
    max_request_body: int = 256 * 1024
    """Bytes of a poll's body; more are refused with 413."""
    max_frame_size: int = 256 * 1024
    """Bytes of a message that a client may send over WebSocket; a larger one closes the connection with 1009."""
    max_commands: int = 50
    """WebSocket commands, and other frames, per second of one client, on average; more close the connection with
    1008."""
    allowed_origins: tuple[str | re.Pattern[str], ...] = ()
    """Other origins whose pages may connect: ``https://example.com``, ``https://*.example.com`` for its subdomains, a
    compiled regular expression that fits the whole origin, or ``*`` for all. The server's own is always allowed."""
    protected_channels: tuple[str, ...] = ()
    """Channels that take a grant, or the consent of an ``authorize`` hook, to subscribe to: names, or prefixes that
    end in ``*``. For servers that cannot see the app's session."""
    secret_key: str | None = field(default=None, repr=False)
    """What grants are signed with. A Flask app's ``SECRET_KEY`` where the app gives no other."""
    client_publish: tuple[str, ...] = ()
    """Channels that clients may publish to over WebSocket: names, or prefixes that end in ``*``. Empty: none."""

    # --- what a process remembers ---
    window_size: int = 1000
    """Newest messages kept in the process for each channel with subscribers, so that reconnects cost the store
    nothing. (Up to a quarter more, until they are trimmed.)"""
    window_bytes: int = 64 * 1024 * 1024
    """Bytes of all those windows together, as the memory holds them; divided among the channels. Older messages that
    clients catch up on are kept in what is left of it."""
    callback_queue_size: int = 10_000
    """Messages that may wait for a subscribed callback; past it they are read again from the backlog."""

    # --- who is asking; each is called in the request's context ---
    user_id_lookup: Callable[[Environ], Any] | None = None
    """WSGI environ -> the user's id (any JSON value) or ``None``."""
    group_ids_lookup: Callable[[Environ], Iterable[Any] | None] | None = None
    """WSGI environ -> the ids of the groups the user is in."""
    site_id_lookup: Callable[[Environ], str | None] | None = None
    """WSGI environ -> the site (tenant) of the request, or ``None``."""

    # --- hooks ---
    extra_response_headers_lookup: Callable[[Environ], Mapping[str, str] | None] | None = None
    """WSGI environ -> headers to add to the bus's answer, or to put in place of its own."""
    on_error: Callable[[Exception, str], object] | None = None
    """Called with what a callback or a filter raised, and with words for where; it is logged in any case."""

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            _check(option.name, getattr(self, option.name))
        scheme, separator, _ = self.url.partition("://")
        if not separator or scheme not in SCHEMES:
            # Without the URL itself, which may have a password in it.
            raise InvalidOption("url", f"expected one of {', '.join(f'{known}://' for known in SCHEMES)}")


_AT_LEAST: dict[str, float] = {
    "max_backlog_size": 1,
    "max_backlog_age": 1,
    "max_global_backlog_size": 1,
    "clear_every": 1,
    "publish_queue_size": 0,
    "store_timeout": 0.01,
    "max_message_size": 1,
    "long_polling_interval": 0.01,
    "heartbeat_interval": 0.01,
    "max_active_clients": 0,
    "max_outbox": 1,
    "max_outbox_total": 1,
    "max_catch_up_batch": 1,
    "write_timeout": 0.1,
    "max_channels": 1,
    "max_request_body": 1,
    "max_frame_size": 1,
    "max_commands": 1,
    "window_size": 1,
    "window_bytes": 1,
    "callback_queue_size": 1,
}
_AT_MOST: dict[str, float] = {
    "max_backlog_age": 100 * 365 * 86_400,
    "store_timeout": 86_400,
    "long_polling_interval": 86_400,
    "heartbeat_interval": 86_400,
}
"""100 years, and a day. More is a mistake, and beyond what clocks and stores can add to the present time."""
_LARGEST = 2**31 - 1
"""Of every other number: what all stores and systems can count with."""
_NAMES = {option.name: option for option in dataclasses.fields(Options)}


def check_whole_number(name: str, value: object) -> int:
    """The value as an ``int``, of an option that is a whole number. Integers of other libraries (numpy) will do.

    Raises:
        InvalidOption: It is no whole number, or out of range.
    """
    if type(value) is not int:
        try:
            if isinstance(value, bool) or not isinstance(value, SupportsIndex):
                raise TypeError
            value = operator.index(value)
        except TypeError:
            raise InvalidOption(name, f"expected an integer, not {value!r:.80} ({type(value).__name__})") from None
    _check_range(name, value)
    return value


def _check_range(name: str, value: float) -> None:
    least, most = _AT_LEAST[name], _AT_MOST.get(name, _LARGEST)
    if not least <= value <= most:
        raise InvalidOption(name, f"expected at least {least:g} and at most {most}, not {value!r}")


def _check(name: str, value: object) -> None:
    kind = str(_NAMES[name].type)
    if kind == "bool":
        if not isinstance(value, bool):
            raise InvalidOption(name, f"expected True or False, not {value!r}")
    elif kind == "int":
        check_whole_number(name, value)
    elif kind == "float":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidOption(name, f"expected a number, not {value!r:.80} ({type(value).__name__})")
        _check_range(name, value)
    elif kind.startswith("tuple"):
        items = (str, re.Pattern) if "Pattern" in kind else str
        if not isinstance(value, tuple) or not all(isinstance(item, items) for item in value):
            raise InvalidOption(name, f"expected a tuple of strings, not {value!r}")
    elif kind.startswith("Codec"):
        if value is not None and not (hasattr(value, "encode") and hasattr(value, "decode")):
            raise InvalidOption(name, f"expected an object with encode and decode, or None, not {value!r}")
    elif kind.startswith("Callable"):
        if value is not None and not callable(value):
            raise InvalidOption(name, f"expected a function or None, not {value!r}")
    elif not isinstance(value, str) and not (value is None and "None" in kind):
        raise InvalidOption(name, f"expected a string, not one of type {type(value).__name__}")


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
        found.setdefault("secret_key", secret.decode("latin-1") if isinstance(secret, bytes) else secret)
    return found


def from_environment(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The settings among the environment variables, converted from text. Unknown names are left to others."""
    found: dict[str, Any] = {}
    if environ.get("REDIS_URL"):
        found["url"] = environ["REDIS_URL"]
    for name, option in _NAMES.items():
        text = environ.get(PREFIX + name.upper())
        if text and not str(option.type).startswith(("Callable", "Codec")):
            try:
                found[name] = _parse(name, str(option.type), text)
            except InvalidOption as error:
                raise InvalidOption(name, f"{error.reason} (the variable {PREFIX}{name.upper()})") from None
    return found


def _parse(name: str, kind: str, text: str) -> Any:
    if kind == "bool":
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off"):
            return False
        raise InvalidOption(name, f"expected true or false, not {text!r}")
    if kind in ("int", "float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            raise InvalidOption(name, f"expected a number, not {text!r}") from None
    if kind.startswith("tuple"):
        return tuple(item.strip() for item in text.split(",") if item.strip())
    return text
