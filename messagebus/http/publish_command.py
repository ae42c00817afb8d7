"""What clients publish: where they may, what the app makes of it, and how often. No frames, no sockets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from werkzeug.exceptions import HTTPException

from ..channel_rules import find_rule
from ..errors import BackendUnavailable
from ..hub.addresses import source_of
from ..message import check_channel
from ..option_kinds import matches
from ..options import Options
from .addresses import is_clients
from .command import Caller, Command, CommandError

_KEY = re.compile(r"[A-Za-z0-9_.~-]{1,64}")


class Publish(Command):
    verb = "publish"

    def __init__(self, caller: Caller, value: Any, command: Mapping[str, Any]) -> None:
        if not isinstance(value, dict) or {"channel", "data"} != value.keys() - {"key"}:
            raise CommandError("bad_request", "publish: expected an object of channel and data, and perhaps a key")
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
        # Of this client: nobody else's publish is taken for it.
        self._key = None if key is None else f"client {caller.identity.client_id} {key}"

    def perform_at_once(self) -> dict[str, Any] | None:
        return None if self._hooks or self._caller.node.store.shared else self.perform()

    def perform(self) -> dict[str, Any]:
        self._take_from_rate()  # before the hooks, which may cost more than the message
        data = self._asked() if self._hooks else self._data
        caller = self._caller
        ids = caller.node.publish(self._channel, data, site_id=caller.site_id, idempotency_key=self._key)
        return {"message_id": ids and ids.message_id}

    def _asked(self) -> Any:
        """What the app's hooks make of the data: each gets what the one before has returned."""
        caller, channel, data = self._caller, self._channel, self._data
        try:
            with caller.hook_request() as request:
                for hook in self._hooks:
                    data = hook(request, channel, data)
                    if data is None:
                        raise CommandError("forbidden", f"{channel}: the server does not take this message")
        except (CommandError, HTTPException, BackendUnavailable):
            raise
        except Exception as error:
            caller.node.report(error, f"the allow_publish hook of {channel!r}")
            raise CommandError("internal", f"{channel}: {type(error).__name__}") from None
        return data

    def _take_from_rate(self) -> None:
        node, client_id = self._caller.node, self._caller.identity.client_id
        address = self._caller.address
        name, limit = "max_publishes_per_client", node.options.max_publishes_per_client
        # Where a proxy may be behind the address, all its clients would share what one of them may.
        publisher = f"address {source_of(address)}" if is_clients(node.options, address) else f"client {client_id}"
        wait = node.publish_limits.take(publisher, 1, limit)
        if wait:
            reason = f"{name} allows {limit} messages a second; wait {wait} s"
            raise CommandError("too_many_publishes", reason, name, field=name, retry_after=wait)


def _is_open(options: Options, channel: str, has_hooks: bool) -> bool:
    """Whether clients may publish to a channel at all. A rule that says who may comes first."""
    rule = find_rule(options.channels, channel)
    if rule is not None and rule.publish is not None:
        return rule.publish == "anyone"
    return has_hooks or any(matches(pattern, channel) for pattern in options.client_publish)
