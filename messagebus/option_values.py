"""The keywords of ``Bus(...)`` and ``configure(...)``, for type checkers. They are the options of
:class:`~messagebus.options.Options`, which says what they mean; a test holds the two equal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from .codecs import Codec
from .option_kinds import Key
from .options import Environ


class OptionValues(TypedDict, total=False):
    """Any of the options. A list is as good as a tuple."""

    url: str
    max_backlog_size: int
    max_backlog_age: int
    max_global_backlog_size: int
    clear_every: int
    redis_pubsub_channel: str | None
    redis_announce: str
    publish_queue_size: int
    durable: int
    store_timeout: float
    transport_codec: Codec | None
    max_message_size: int
    channels: Mapping[str, Mapping[str, Any]]
    long_polling_enabled: bool
    long_polling_interval: float
    chunked_encoding_enabled: bool
    heartbeat_interval: float
    max_active_clients: int
    max_clients_per_address: int
    max_outbox: int
    max_outbox_total: int
    max_catch_up_batch: int
    write_timeout: float
    templates: Mapping[str, str] | None
    trusted_proxies: int
    max_channels: int
    max_request_body: int
    max_frame_size: int
    max_commands: int
    command_threads: int
    max_talks: int
    allowed_origins: Sequence[str | re.Pattern[str]]
    wildcard_subscriptions: Sequence[str]
    protected_channels: Sequence[str]
    recheck_interval: float
    secret_key: str | None
    secret_key_fallbacks: Sequence[str]
    client_publish: Sequence[str]
    cable_path: str
    http_publishing: bool
    publisher_keys: Sequence[str | Mapping[str, Any] | Key]
    anonymous_publish: bool
    max_publishes_per_key: int
    max_publishes_per_client: int
    max_publishes_per_address: int
    presence_grace: float
    presence_max_members: int
    admin: bool
    statistics: bool
    admin_keys: Sequence[str]
    tracing: bool
    trail_size: int
    window_size: int
    window_bytes: int
    callback_queue_size: int
    callbacks_after_fork: bool
    user_id_lookup: Callable[[Environ], Any] | None
    group_ids_lookup: Callable[[Environ], Iterable[Any] | None] | None
    site_id_lookup: Callable[[Environ], str | None] | None
    extra_response_headers_lookup: Callable[[Environ], Mapping[str, str] | None] | None
    on_error: Callable[[Exception, str], object] | None
