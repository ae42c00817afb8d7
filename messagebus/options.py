"""Every setting: its default, its unit, what its edge values mean and when to change it.

Each setting is taken from the first of these that sets it: the command line of ``messagebus serve``; ``Bus(...)`` or
``configure(...)``; ``app.config["MESSAGEBUS_" + NAME]``, when the blueprint is registered; the environment variable of
the same name (numbers, ``true``/``false``, tuples separated by commas); the default below. For the URL, ``REDIS_URL``
comes before the default.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .channel_rules import ChannelRule, ChannelRules, RuleError, check_key_names
from .codecs import Codec
from .errors import InvalidOption
from .option_kinds import (
    AdminKeys,
    Coding,
    Flag,
    Function,
    Key,
    Keys,
    Kind,
    Number,
    OneOf,
    Origins,
    Path,
    Patterns,
    Secrets,
    Templates,
    Text,
    Wildcards,
)

Environ = dict[str, Any]
"""A WSGI environ (PEP 3333)."""

PREFIX = "MESSAGEBUS_"
DAY, YEAR = 86_400, 365 * 86_400
"""Seconds. Higher values are mistakes, and clocks and stores cannot add them to the present time."""
SCHEMES = (
    *("memory", "sqlite", "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"),
    *("redis+cluster", "rediss+cluster", "postgresql", "postgres"),
)


NO_REPLICAS = (
    "only a store in Redis can wait for its replicas; in PostgreSQL synchronous_standby_names makes all publishes "
    "wait; "
    "memory and SQLite have no replicas"
)


def check_replicas(durable: int, url: str) -> None:
    """
    Raises:
        InvalidOption: The store has no replicas to wait for.
    """
    if durable and not url.startswith(("redis", "unix:")):
        raise InvalidOption("durable", NO_REPLICAS)


def _option(kind: Kind, default: Any, *, repr: bool = True) -> Any:
    return field(default=default, repr=repr, metadata={"kind": kind})


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of one bus. Frozen: ``Bus.configure`` replaces the whole."""

    url: str = _option(Text(), "memory://", repr=False)  # it may have a password in it
    """Where messages are kept: ``memory://`` (this process alone); ``sqlite:///relative.db`` or
    ``sqlite:////absolute/path.db`` (all processes of one host); ``redis://``, ``rediss://`` or ``unix://``;
    ``redis+sentinel://`` or ``rediss+sentinel://`` (the primary that sentinels name); ``redis+cluster://`` or
    ``rediss+cluster://`` (a Redis Cluster); ``postgresql://`` or ``postgres://``."""

    # --- the store ---
    max_backlog_size: int = _option(Number(1), 1000)
    """Messages kept for each channel. Raise it if clients are away for longer; ``publish`` can set another size."""
    max_backlog_age: int = _option(Number(1, 100 * YEAR), 604_800)
    """Seconds without a publish after which a channel's backlog is dropped (7 days). Lower it for many short-lived
    channels."""
    max_global_backlog_size: int = _option(Number(1), 2000)
    """Messages kept over all channels, from which a process catches up after it lost the store's feed. Raise it if more
    is published within an outage of some seconds."""
    clear_every: int = _option(Number(1), 1)
    """Trim backlogs on every n-th message only. That is less work for each publish; backlogs may be n-1 messages
    longer."""
    redis_pubsub_channel: str | None = _option(Text(optional=True), None)
    """Redis pub/sub channel. ``None``: ``_message_bus_`` and the database's number, as Ruby processes use it. Set it
    when sharing with a Ruby process that has its database in the URL."""
    redis_announce: str = _option(OneOf(("together", "by_channel")), "together")
    """On which pub/sub channels messages are announced in Redis. ``"together"``: all on one, which every process
    hears; the Ruby gem knows no other. ``"by_channel"``: also each on its own channel's, so that a process hears, and
    pays for, only what its own readers follow. Every process of the bus should have the same."""
    publish_queue_size: int = _option(Number(0), 1000)
    """Messages that a process keeps while the store is unreachable; beyond that ``publish`` raises. 0: keep none."""
    durable: int = _option(Number(0, 1000), 0)
    """Replicas of Redis that must have each message before its ``publish`` returns; 0: none. It holds for every publish
    of the bus, also those of pages and over HTTP; a ``publish`` can set another number. Nothing waits in memory then.
    Other stores cannot wait, and refuse it at the start."""
    store_timeout: float = _option(Number(0.01, DAY, whole=False), 5.0)
    """Seconds to wait for the store to connect or to answer. Raise it for a distant store."""
    transport_codec: Codec | None = _option(Coding(), None)
    """How envelopes are stored, see ``messagebus.codecs``. ``None``: as JSON. Leave it if other programs share the
    store."""
    max_message_size: int = _option(Number(1), 16 * 1024 * 1024)
    """Bytes (16 MiB) of one message's JSON; ``publish`` refuses more. A lower limit is almost always wiser."""

    channels: tuple[ChannelRule, ...] = _option(ChannelRules(), ())
    """What holds for some channels in place of the options for all: ``{"/chat/*": {"max_backlog_size": 100}}``, see
    [channel rules](channel-rules.md). The first pattern that matches a channel counts."""

    # --- transports ---
    long_polling_enabled: bool = _option(Flag(), True)
    """``False``: every poll is answered at once. For a server with few threads."""
    long_polling_interval: float = _option(Number(0.01, DAY, whole=False), 25.0)
    """Seconds a poll or a stream is held. Keep it below the proxy's idle timeout (nginx: 60 s)."""
    chunked_encoding_enabled: bool = _option(Flag(), True)
    """``False``: a held poll always ends with its first batch. For networks where streams are known to fail."""
    heartbeat_interval: float = _option(Number(0.01, DAY, whole=False), 25.0)
    """Seconds between the heartbeats on EventSource and WebSocket. Keep it below the proxy's idle timeout."""
    max_active_clients: int = _option(Number(0), 20_000)
    """Subscribers held by one process. Beyond that polls are answered at once, and EventSource and WebSocket get 503.
    The process's limit of open files lowers it. On a server that keeps its sockets, set it below the number of
    threads."""
    max_clients_per_address: int = _option(Number(0), 1000)
    """Of them from one address (of IPv6: from one /64 network); more are refused with 429. Addresses of private
    networks do not count, as a proxy may be behind them, unless ``trusted_proxies`` is set. 0: no limit. Raise it where
    many people share an address."""
    max_outbox: int = _option(Number(1), 4 * 1024 * 1024)
    """Bytes (4 MiB) that may wait for a slow reader, beyond the batch that it is catching up with. Beyond that the
    connection is closed, and the client resumes from its position. Raise it for large messages."""

    max_outbox_total: int = _option(Number(1), 64 * 1024 * 1024)
    """Bytes (64 MiB) that may wait for slow readers over all connections of a process; what waits for many is counted
    once. Beyond that, the connections that have taken nothing for the longest are closed."""
    max_catch_up_batch: int = _option(Number(1), 64 * 1024)
    """Bytes (64 KiB) after which a batch of missed messages ends. The next one begins when it has been sent."""
    write_timeout: float = _option(Number(0.1, DAY, whole=False), 30.0)
    """Seconds after which a connection is closed that takes nothing of what waits for it."""

    templates: Mapping[str, str] | None = _option(Templates(), None)
    """Further formats for subscribers without our clients, by the name that they ask for with ``?format=``; for
    example ``{"short": '{"id":~id~,"text":"~text~"}'}``. In the environment: a JSON object."""

    # --- what a request may hold ---
    trusted_proxies: int = _option(Number(0, 100), 0)
    """Proxies in front, each of which adds its client's address to ``X-Forwarded-For``: so many from its end, the
    header has the client's address, for the limits by address. 0: the connection's address, and the header counts for
    nothing. With more than there are, clients choose their address. 0 is right below ``ProxyFix``, too."""
    max_channels: int = _option(Number(1), 200)
    """Channels of one subscriber; the ones beyond are refused. As many grants are read. Also subscriptions to channel
    classes, and the streams of each."""
    max_request_body: int = _option(Number(1), 256 * 1024)
    """Bytes of a poll's body; more are refused with 413."""
    max_frame_size: int = _option(Number(1), 256 * 1024)
    """Bytes of a message that a client may send over WebSocket, sockets of your own included; a larger one closes the
    connection with 1009."""
    max_commands: int = _option(Number(1), 50)
    """WebSocket commands, and other frames, per second of one client, on average; more close the connection with
    1008."""
    command_threads: int = _option(Number(1, 1000), 32)
    """Threads in which WebSocket commands wait, for ``authorize`` hooks and for the store, and in which functions of
    your own sockets are called; each client has one command or call in them at a time, of channel classes
    four. More where these are slow. Under gevent greenlets do it, without a limit."""
    max_talks: int = _option(Number(0), 1000)
    """Sockets of your own that are served by a ``talk``, which takes a thread of the process (under gevent a greenlet);
    more are refused with 503. Those with ``on_message`` take none."""
    allowed_origins: tuple[str | re.Pattern[str], ...] = _option(Origins(), ())
    """Other origins whose pages may connect: ``https://example.com``, ``https://*.example.com`` for its subdomains, a
    compiled regular expression that fits the whole origin, or ``*`` for all. The server's own is always allowed."""
    wildcard_subscriptions: tuple[str, ...] = _option(Wildcards(), ())
    """Patterns that clients may subscribe to as they stand here, for the messages of all channels that begin so:
    ``/news/*``. Whatever rules, grants and hooks say of any of these channels holds for the whole. Empty: none."""
    protected_channels: tuple[str, ...] = _option(Patterns(), ())
    """Channels that need a grant, or an ``authorize`` hook that agrees: names, or prefixes that end in ``*``. For
    servers that cannot see the app's session."""
    recheck_interval: float = _option(Number(0, DAY, whole=False), 0.0)
    """Seconds within which it is asked again who a connected client is, and what it may follow; after half of them at
    least, when chance says. Keeps the text of each client's request in memory, some 2 KB. 0: only when it subscribes,
    and when a grant expires."""
    secret_key: str | None = _option(Text(optional=True), None, repr=False)
    """The secret that signs grants. By default a Flask app's ``SECRET_KEY``."""
    secret_key_fallbacks: tuple[str, ...] = _option(Secrets(), (), repr=False)
    """Former secrets: they sign no new grants, but their grants stay valid. By default a Flask app's
    ``SECRET_KEY_FALLBACKS``."""
    client_publish: tuple[str, ...] = _option(Patterns(), ())
    """Channels that clients may publish to: names, or prefixes that end in ``*``. Empty: none."""

    # --- channel classes ---
    cable_path: str = _option(Path(), "/cable")
    """The path of ActionCable's and AnyCable's wire, below the blueprint's prefix, where a channel class is registered.
    It is read when the blueprint is registered."""

    # --- publishing over HTTP ---
    http_publishing: bool = _option(Flag(), False)
    """Whether ``/message-bus/channels/CHANNEL`` and ``/message-bus/publish`` are served. ``messagebus serve`` without
    an app always serves them."""
    publisher_keys: tuple[Key, ...] = _option(Keys(), (), repr=False)
    """Who may publish over HTTP: keys, shown as ``Authorization: Bearer KEY``. Each is a string, or ``{"key": ...,
    "channels": ["/chat/*"]}`` for a key that is for some channels only. Several make a rotation possible."""
    anonymous_publish: bool = _option(Flag(), False)
    """Whether anybody may publish over HTTP to any channel, without a key. For trusted networks only."""
    max_publishes_per_key: int = _option(Number(1), 1000)
    """Messages per second that one key may publish over HTTP to this process, on average; more are refused with 429."""
    max_publishes_per_client: int = _option(Number(1), 1000)
    """The same for one client that publishes from a page or a program; over HTTP for one address that shows no key."""
    max_publishes_per_address: int = _option(Number(1), 5000)
    """The same for all clients of one address, whatever ids they take. Behind a proxy, set ``trusted_proxies``: an
    address of a private network is not limited without it."""

    # --- who is there ---
    presence_grace: float = _option(Number(0, DAY, whole=False), 5.0)
    """Seconds for which one who has gone stays a member of a room, so that a reload or a change of transport is no
    leaving. Raise it for networks that break for longer."""
    presence_max_members: int = _option(Number(0), 500)
    """Members of a room of whom its watchers are told one by one; of a larger room they are told the count alone."""

    # --- statistics ---
    admin: bool = _option(Flag(), False)
    """Whether ``/message-bus/admin`` is served: a page for those with one of ``admin_keys``. ``messagebus serve``
    without an app always serves it. No client may have the id ``admin`` then."""
    statistics: bool = _option(Flag(), False)
    """Whether ``/message-bus/stats``, ``/message-bus/channels-stats`` and ``/message-bus/metrics`` are served, to those
    who show one of ``admin_keys``. ``messagebus serve`` without an app always serves them."""
    admin_keys: tuple[str, ...] = _option(AdminKeys(), (), repr=False)
    """Who may see the numbers of the bus: keys, shown as ``Authorization: Bearer KEY``. Several make a rotation
    possible. Empty: nobody."""

    tracing: bool = _option(Flag(), True)
    """Whether publishes, deliveries and calls of callbacks are OpenTelemetry spans in programs that have set
    OpenTelemetry up. ``False``: they are not, and messages carry no trace."""

    # --- what a process remembers ---
    trail_size: int = _option(Number(0), 1000)
    """Connections that a process remembers, with ten times as many runs of messages, so that ``why`` can tell
    afterwards who got what: some 3 MB when full. 0: none, and ``why`` knows little."""
    window_size: int = _option(Number(1), 1000)
    """Newest messages that the process keeps for each channel with subscribers, so that reconnects cost the store
    nothing. (Up to a quarter more, until they are trimmed.) Set it like ``max_backlog_size``."""
    window_bytes: int = _option(Number(1), 64 * 1024 * 1024)
    """Bytes of memory (64 MiB) for all those windows together, divided among the channels. What is left of it keeps
    older messages that clients catch up on."""
    callback_queue_size: int = _option(Number(1), 10_000)
    """Messages that may wait for a subscribed callback; beyond that they are read again from the backlog."""
    callbacks_after_fork: bool = _option(Flag(), False)
    """Whether callbacks that were subscribed before a fork are called in the child at once. Otherwise the child calls
    them when it begins to listen itself: with its first request, its first subscription or ``start()``, and not when it
    only publishes, as a process of ``multiprocessing`` may."""

    # --- who is asking; each is called in the request's context ---
    user_id_lookup: Callable[[Environ], Any] | None = _option(Function(), None)
    """WSGI environ -> the user's id (any JSON value) or ``None``."""
    group_ids_lookup: Callable[[Environ], Iterable[Any] | None] | None = _option(Function(), None)
    """WSGI environ -> the ids of the groups the user is in."""
    site_id_lookup: Callable[[Environ], str | None] | None = _option(Function(), None)
    """WSGI environ -> the site (tenant) of the request, or ``None``."""

    # --- hooks ---
    extra_response_headers_lookup: Callable[[Environ], Mapping[str, str] | None] | None = _option(Function(), None)
    """WSGI environ -> headers that are added to the bus's answer, or replace its own."""
    on_error: Callable[[Exception, str], object] | None = _option(Function(), None)
    """Called with the exception of a callback or a filter, and with a description of where. It is logged as well.
    Called in the loop, a callback's thread or a request's thread: it must not block."""

    def __post_init__(self) -> None:
        for option in dataclasses.fields(self):
            object.__setattr__(self, option.name, check_option(option.name, getattr(self, option.name)))
        try:
            check_key_names(self.channels, self.publisher_keys)
        except RuleError as error:
            raise InvalidOption("channels", str(error)) from None
        scheme, separator, _ = self.url.partition("://")
        if not separator or scheme not in SCHEMES:
            # Without the URL itself, which may have a password in it.
            raise InvalidOption("url", f"expected one of {', '.join(f'{known}://' for known in SCHEMES)}")
        if scheme.endswith(("+sentinel", "+cluster")):
            return  # several hosts; the store reads them
        try:
            urlsplit(self.url).port  # noqa: B018 - it raises; the stores read the rest
        except ValueError:
            raise InvalidOption("url", "malformed: its host or port is none") from None


_NAMES = {option.name: option for option in dataclasses.fields(Options)}


def check_option(name: str, value: object) -> Any:
    """The checked value of an option.

    Raises:
        InvalidOption: The value has the wrong type or is out of range.
    """
    kind: Kind = _NAMES[name].metadata["kind"]
    try:
        return kind.check(value)
    except ValueError as error:
        raise InvalidOption(name, str(error)) from None


_command: dict[str, Any] = {}


def set_from_command(**values: Any) -> None:
    """Impose settings on every bus of this process, above the program's own. For the command line, before the program
    is imported.

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
        InvalidOption: A name is unknown.
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
    """The settings among the environment variables, converted from text. Unknown names are ignored."""
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
