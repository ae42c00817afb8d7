"""What clients publish: where they may, what the app makes of it, and how often. No frames, no sockets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, cast

from werkzeug.exceptions import HTTPException

from ..channel_rules import find_rule
from ..errors import BackendUnavailable
from ..hub.addresses import source_of
from ..hub.node import Node
from ..hub.subscriber import Identity
from ..names import check_channel
from ..option_kinds import matches
from ..options import Options
from ..publishing.arguments import PublishOptions
from .addresses import is_clients
from .command import Caller, Command, CommandError

_KEY = re.compile(r"[A-Za-z0-9_.~-]{1,64}")


class Publish(Command):
    verb = "publish"

    def __init__(self, caller: Caller, value: Any, command: Mapping[str, Any]) -> None:
        if not isinstance(value, dict) or {"channel", "data"} != value.keys() - {"key", "transient"}:
            reason = "publish: expected an object of channel and data, and perhaps a key and transient"
            raise CommandError("bad_request", reason)
        transient = value.get("transient", False)
        if not isinstance(transient, bool):
            raise CommandError("bad_request", "transient: expected true or false", field="transient")
        key = value.get("key")
        if key is not None and not (isinstance(key, str) and _KEY.fullmatch(key)):
            raise CommandError("bad_request", "key: expected 1 to 64 letters, digits, or any of _ . ~ -", field="key")
        channel = check_channel(value["channel"])
        self._hooks = caller.node.access.publish_hooks(channel)
        if not _is_open(caller.node.options, channel, bool(self._hooks)):
            reason = f"{channel}: the server lets no client publish to it"
            raise CommandError("forbidden", reason, field="channel")
        self._caller = caller
        self._channel = channel
        self._data = value["data"]
        self._transient = transient
        own_key = None if key is None else _own(caller.identity, key)
        options: dict[str, Any]
        if transient:
            options = {"transient": True, "key": own_key}
        else:
            # Requests of one client reach any worker. If each kept what the store does not take, the order would be
            # lost: the client keeps it, and sends it again under its key. A connection has one worker, and its order.
            waits = own_key is None or caller.subscriber is not None
            options = {"idempotency_key": own_key, "queue_in_memory": waits}
        own = {"site_id": caller.site_id, "sender": caller.identity.client_id}
        self._options = cast(PublishOptions, {**options, **own})

    def perform_at_once(self) -> dict[str, Any] | None:
        return None if self._hooks or self._caller.node.store.shared else self.perform()

    def perform(self) -> dict[str, Any]:
        caller = self._caller
        # Before the hooks, which may cost more than the message.
        take_from_rate(caller.node, caller.identity.client_id, caller.address)
        data = self._asked() if self._hooks else self._data
        ids = caller.node.publish(self._channel, data, **self._options)
        return {"message_id": ids and ids.message_id}

    def _asked(self) -> Any:
        """What the app's hooks make of the data: each gets what the one before has returned."""
        caller, channel, data = self._caller, self._channel, self._data
        try:
            with caller.hook_request() as request:
                for hook in self._hooks:
                    data = hook(request, channel, data, self._transient)
                    if data is None:
                        raise CommandError("forbidden", f"{channel}: the server does not take this message")
        except (CommandError, HTTPException, BackendUnavailable):
            raise
        except Exception as error:
            caller.node.report(error, f"the allow_publish hook of {channel!r}")
            raise CommandError("internal", f"{channel}: {type(error).__name__}") from None
        return data


def take_from_rate(node: Node, client_id: str, address: str) -> None:
    """Count a message of a client against what it and its address may publish.

    Raises:
        CommandError: It is too much.
    """
    options = node.options
    _take(node, "max_publishes_per_client", options.max_publishes_per_client, f"id {client_id}")
    # A client may take another id for each message. Where a proxy may be behind the address, it is everybody's.
    if is_clients(options, address):
        _take(node, "max_publishes_per_address", options.max_publishes_per_address, f"clients of {source_of(address)}")


def _take(node: Node, name: str, limit: int, publisher: str) -> None:
    wait = node.publish_limits.take(publisher, 1, limit)
    if wait:
        reason = f"{name} allows {limit} messages a second; try again in {wait} s"
        raise CommandError("too_many_publishes", reason, name, field=name, retry_after=wait)


def _own(identity: Identity, key: str) -> str:
    """What the store knows a publish by, of a key that its client has made. Nobody else's key is the same: neither
    another client's or user's, nor one that a program gives."""
    words = b"\0".join((identity.client_id.encode(), key.encode(), identity.user_id or b""))
    return f"client {hashlib.blake2b(words, digest_size=16).hexdigest()}"


def _is_open(options: Options, channel: str, has_hooks: bool) -> bool:
    """Whether clients may publish to a channel at all. A rule that says who may comes first."""
    rule = find_rule(options.channels, channel)
    if rule is not None and rule.publish is not None:
        return rule.publish == "anyone"
    return has_hooks or any(matches(pattern, channel) for pattern in options.client_publish)
