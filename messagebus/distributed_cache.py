"""A dict that is the same in every process, synchronised over the bus.

Every change is a message on the cache's channel, and all processes apply the messages in the order of their ids. A
process that starts reads the channel's backlog; nobody has to send it anything, so twenty processes that start at once
cost twenty reads. The process that publishes each ``SNAPSHOT_EVERY``-th message also publishes a snapshot of
everything, so the backlog is always enough.
"""

from __future__ import annotations

import logging
import time
from _thread import allocate_lock
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

from . import forks
from .bus import Bus, MessageBus
from .errors import BackendUnavailable, InvalidData
from .message import Ids, Message
from .names import check_channel

CHANNEL = "/distributed-cache/"
BACKLOG_SIZE = 1000
BACKLOG_AGE = 365 * 24 * 3600
"""Seconds without a change after which a new process begins with an empty cache."""
SNAPSHOT_EVERY = 400
RETRY_SECONDS = 1.0
"""Between two attempts to read everything again where the store was away."""
NO_CLIENT = ("",)
"""No client's id is empty: web pages that subscribe to a cache's channel get none of its messages."""

logger = logging.getLogger("messagebus.distributed_cache")


class DistributedCache(MutableMapping[str, Any]):
    """A dict whose changes reach every process that has a cache of the same name on the same store.

    Guaranteed: a process sees its own changes at once, and others as soon as the message arrives. All processes apply
    changes to a key in the same order, the store's, so they agree when no more changes come. A process that missed
    messages reads everything again. Not guaranteed: transactions over several keys, or that others have seen a change
    when the assignment returns. While the store is unreachable, changes are queued like publishes, and only this
    process sees them.

    Values are JSON values, or sets of them; do not change a value in place, but assign it again. Safe from any thread,
    greenlet and in forked children. Connects on first use.
    """

    def __init__(
        self, name: str, *, bus: Bus = MessageBus, app_version: str | None = None, site_id: str | None = None
    ) -> None:
        """``app_version``: processes of different versions have different caches. ``site_id``: sites have different
        caches.

        Raises:
            InvalidChannel: ``name`` or ``app_version`` has characters that a channel cannot have.
        """
        self._bus = bus
        self._channel = check_channel(CHANNEL + name + (f"/{app_version}" if app_version is not None else ""))
        self._site_id = site_id
        self._values: dict[str, Any] = {}
        self._versions: dict[str, int] = {}
        self._position = 0
        self._cleared = 0  # the last message that emptied it
        self._early: dict[int, int] = {}  # own changes that were not heard yet: message id -> global id
        self._subscribed = False
        self._heard_count = 0
        self._stale = False
        """Whether everything has to be read again."""
        self._retry_at = 0.0
        self._warned = False
        self._lock = allocate_lock()  # native: held across nothing that waits
        forks.register(self)

    # --- reading ---

    def __getitem__(self, key: str) -> Any:
        self._subscribe()
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        self._subscribe()
        return iter(list(self._values))

    def __len__(self) -> int:
        self._subscribe()
        return len(self._values)

    # --- changing ---

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a key is a string, not {type(key).__name__}")
        self._change({"op": "set", "key": key, **_encode(value)})

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._change({"op": "delete", "key": key})

    def clear(self) -> None:
        """Remove everything, with one message."""
        self._change({"op": "clear"})

    def close(self) -> None:
        """Stop following the channel. The next use starts again."""
        self._bus.unsubscribe(self._channel, self._heard, self._site_id)
        self._subscribed = False

    # --- the channel ---

    def _publish(self, data: dict[str, Any]) -> Ids | None:
        return self._bus.publish_ids(
            self._channel,
            data,
            client_ids=NO_CLIENT,
            site_id=self._site_id,
            max_backlog_size=BACKLOG_SIZE,
            max_backlog_age=BACKLOG_AGE,
        )

    def _change(self, operation: dict[str, Any]) -> None:
        self._subscribe()
        ids = self._publish(operation)
        with self._lock:
            # Without an id the message waits for the store, behind all others; it is applied again, in its order, when
            # it arrives.
            self._apply(operation, ids.message_id if ids else max((self._position, *self._early)))
            if self._bus._publish_off:
                self._stale = True  # nobody else will hear of it
            if ids and ids.message_id > self._position:
                self._early[ids.message_id] = ids.global_id
        if ids and ids.message_id % SNAPSHOT_EVERY == 0:
            with self._lock:
                values = {key: _encode(value) for key, value in self._values.items()}
                as_of = self._position
            self._publish({"op": "snapshot", "as_of": as_of, "values": values})

    def _subscribe(self) -> None:
        if self._subscribed:
            if self._stale and not self._bus._publish_off and time.monotonic() >= self._retry_at:
                self._reload()
            return
        self._subscribed = True
        try:
            self._load()
            # Behind what was loaded: what came meanwhile is heard, what was loaded is not heard again.
            self._bus._subscribe(self._channel, self._heard, self._position, self._site_id)
        except Exception:  # the store is gone: the next use tries again
            self._subscribed = False
            raise

    def _reload(self) -> None:
        """Read everything again; where the store is away, the next use of the cache does."""
        try:
            self._load()
        except BackendUnavailable:
            self._stale, self._retry_at = True, time.monotonic() + RETRY_SECONDS

    def _load(self) -> None:
        """Make the state from the backlog."""
        while True:
            heard = self._heard_count
            messages = self._bus.backlog(self._channel, 0, self._site_id)
            with self._lock:
                if heard == self._heard_count:
                    self._take(messages)
                    return

    def _take(self, messages: Sequence[Message]) -> None:
        changes = [message for message in messages if self._understands(message)]
        snapshots = [message.data for message in changes if message.data["op"] == "snapshot"]
        as_of = 0
        self._values, self._versions, self._cleared, self._early, self._stale = {}, {}, 0, {}, False
        if snapshots:
            as_of = snapshots[-1]["as_of"]
            self._values = {key: _decode(value) for key, value in snapshots[-1]["values"].items()}
            self._versions = dict.fromkeys(self._values, as_of)
        for message in changes:
            if message.message_id > as_of:
                self._apply(message.data, message.message_id)
        if messages:
            self._position = messages[-1].message_id

    def _heard(self, message: Message) -> None:
        own = self._early.pop(message.message_id, None)
        # Another message has the id of an own change: the store was reset before that change arrived.
        replaced = own is not None and own != message.global_id
        if replaced or message.message_id != self._position + 1:
            self._reload()  # messages are missing, or the store was reset
            return
        with self._lock:
            if own is None and self._understands(message):  # one's own is applied
                self._apply(message.data, message.message_id)
            self._position = message.message_id
            self._heard_count += 1

    def _understands(self, message: Message) -> bool:
        """Whether a message is a change. Others may publish on the channel, too: they are left out."""
        if _is_change(message.data):
            return True
        if not self._warned:
            self._warned = True
            logger.warning("left out a message on %s that is no change of a cache: %r", self._channel, message)
        return False

    def _apply(self, operation: dict[str, Any], message_id: int) -> None:
        """Apply a change, unless a later one was already applied to the same key: this process applies its own changes
        early."""
        key = operation.get("key")
        if operation["op"] == "clear":
            self._cleared = max(self._cleared, message_id)
            for old in [k for k, version in self._versions.items() if version <= message_id]:
                self._values.pop(old, None)
                del self._versions[old]
        elif key is not None and message_id >= self._versions.get(key, self._cleared):
            self._versions[key] = message_id
            if operation["op"] == "set":
                self._values[key] = _decode(operation)
            else:
                self._values.pop(key, None)

    def _after_fork(self) -> None:
        self._lock = allocate_lock()


def _encode(value: Any) -> dict[str, Any]:
    if isinstance(value, (set, frozenset)):
        try:
            return {"set": sorted(value)}
        except TypeError:
            return {"set": list(value)}
    if isinstance(value, (bytes, bytearray)):
        raise InvalidData("a value is a JSON value, or a set of them, not bytes")
    return {"value": value}


def _decode(encoded: dict[str, Any]) -> Any:
    return set(encoded["set"]) if "set" in encoded else encoded["value"]


def _is_change(data: object) -> bool:
    if not isinstance(data, dict):
        return False
    match data.get("op"):
        case "set":
            return isinstance(data.get("key"), str) and _is_value(data)
        case "delete":
            return isinstance(data.get("key"), str)
        case "snapshot":
            values = data.get("values")
            return type(data.get("as_of")) is int and isinstance(values, dict) and all(map(_is_value, values.values()))
        case operation:
            return bool(operation == "clear")


def _is_value(encoded: object) -> bool:
    if not isinstance(encoded, dict):
        return False
    if "set" not in encoded:
        return "value" in encoded
    members = encoded["set"]
    return isinstance(members, list) and not any(isinstance(member, (dict, list)) for member in members)
