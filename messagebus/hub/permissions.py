"""Who may subscribe to what (hooks, signed grants, protected channels), and which messages clients may see (filters).
No HTTP."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from itsdangerous import BadSignature, URLSafeSerializer

from ..errors import InvalidOption
from ..message import Message
from ..option_kinds import check_pattern, matches, overlaps
from ..presence.rules import PresenceRules

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

Hook = Callable[["Request", str], bool]
"""Request and channel -> whether it may subscribe."""


class TransientPublishHook(Protocol):
    """A :data:`PublishHook` that wants to know whether the message is transient."""

    def __call__(self, request: Request, channel: str, data: Any, /, *, transient: bool) -> Any: ...


PublishHook = Callable[["Request", str, Any], Any] | TransientPublishHook
"""Request, channel and data of what a client publishes -> the data to publish; ``None``: it is refused."""
AskPublish = Callable[["Request", str, Any, bool], Any]
"""The same, and whether the message is transient."""
Filter = Callable[[Message], bool]
"""Message -> whether clients get it."""
ReportError = Callable[[Exception, str], object]

_SALT = "messagebus.grant"


class Access:
    """The hooks and filters of a bus. Register filters before serving: each message's verdict is cached."""

    def __init__(self) -> None:
        self.off = False
        """Whether the bus is switched off for clients."""
        self._hooks: list[tuple[str, Hook]] = []
        self._publish_hooks: list[tuple[str, AskPublish]] = []
        self._filters: list[tuple[str, Filter]] = []
        self.presence = PresenceRules()

    # --- subscriptions ---

    def add_hook(self, pattern: str, hook: Hook) -> None:
        self._hooks.append((pattern, hook))

    @property
    def hooks(self) -> bool:
        return bool(self._hooks)

    def may_subscribe(
        self, request: Request, channel: str, protected: Sequence[str], granted: Callable[[str], bool]
    ) -> bool:
        """Whether a request may subscribe to a channel, or to all that a pattern matches.

        A valid grant suffices. Otherwise every hook whose pattern matches has to agree, and a protected channel needs
        at least one. A hook's exception propagates."""
        hooks = [hook for pattern, hook in self._hooks if overlaps(pattern, channel)]
        closed = any(overlaps(pattern, channel) for pattern in protected)
        if not hooks and not closed:
            return True
        return granted(channel) or (bool(hooks) and all(hook(request, channel) for hook in hooks))

    # --- clients' publishes ---

    def add_publish_hook(self, pattern: str, hook: PublishHook) -> None:
        self._publish_hooks.append((pattern, _asking(hook)))

    @property
    def asks_publishers(self) -> bool:
        return bool(self._publish_hooks)

    def publish_hooks(self, channel: str) -> list[AskPublish]:
        """Those whose pattern matches, in the order in which they were added."""
        return [hook for pattern, hook in self._publish_hooks if matches(pattern, channel)]

    # --- messages ---

    def add_filter(self, prefix: str, keep: Filter) -> None:
        self._filters.append((prefix, keep))

    @property
    def filters(self) -> bool:
        return bool(self._filters)

    def lets_through(self, message: Message, report: ReportError) -> bool:
        """Whether all filters keep a message. Each filter is called once for a message, unless two threads come to it
        at the same moment. A filter that fails withholds it from everybody."""
        if message.kept is None:
            # Only the final word: another thread may be reading it meanwhile.
            message.kept = all(
                self._keeps(prefix, keep, message, report)
                for prefix, keep in self._filters
                if message.channel.startswith(prefix)
            )
        return message.kept

    def withholding(self, message: Message, report: ReportError) -> str | None:
        """The prefix of the first filter that withholds a message; ``None``: all of them keep it."""
        for prefix, keep in self._filters:
            if message.channel.startswith(prefix) and not self._keeps(prefix, keep, message, report):
                return prefix
        return None

    def _keeps(self, prefix: str, keep: Filter, message: Message, report: ReportError) -> bool:
        try:
            return bool(keep(message))
        except Exception as error:
            report(error, f"the filter of {prefix}, message {message.message_id} on {message.channel}")
            return False


def _asking(hook: PublishHook) -> AskPublish:
    """A hook that is told whether a message is transient, if one of its parameters has this name."""
    given: Callable[..., Any] = hook
    try:
        is_told = "transient" in inspect.signature(given).parameters
    except (TypeError, ValueError):  # some that are written in C have none
        is_told = False
    if is_told:
        return lambda request, channel, data, transient: given(request, channel, data, transient=transient)
    return lambda request, channel, data, transient: given(request, channel, data)


def make_grant(secret: str | None, channel: str, ttl: float, client_id: str | None, site_id: str | None) -> str:
    """Make a token that allows its bearer to subscribe to a channel, or to all that a pattern matches, for ``ttl``
    seconds.

    Raises:
        InvalidOption: There is no ``secret_key`` to sign it with.
    """
    check_pattern(channel)
    given: object = ttl
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < float("inf"):
        raise ValueError(f"ttl: expected a number of seconds above 0, not {ttl!r}")
    token: str = _signer(secret).dumps([channel, time.time() + ttl, client_id, site_id])
    return token


class Grants:
    """The tokens that a client has shown. Called with a channel, it says whether one of them allows it now."""

    def __init__(self, grants: Sequence[tuple[str, float]] = ()) -> None:
        """``grants``: patterns, and until when they are granted, in Unix time."""
        self._grants = grants

    def __call__(self, channel: str) -> bool:
        return self.until(channel) is not None

    def until(self, channel: str) -> float | None:
        """When the last of those ends that allow a channel now, in Unix time; ``None``: none does."""
        if not self._grants:
            return None
        now = time.time()
        return max((ends for pattern, ends in self._grants if now < ends and matches(pattern, channel)), default=None)


def read_grants(
    secret: str | None,
    tokens: Iterable[str],
    client_id: str,
    site_id: str | None,
    fallbacks: Sequence[str] = (),
) -> Grants:
    """What tokens allow. Those that are forged, expired or another client's allow nothing. Reading one takes about
    20 µs: the caller bounds their number. ``fallbacks``: former secrets."""
    if secret is None:
        return Grants()
    grants: list[tuple[str, float]] = []
    signer = _signer(secret, fallbacks)
    for token in tokens:
        try:
            pattern, expires, for_client, for_site = signer.loads(token)
        except (BadSignature, ValueError, TypeError):
            continue
        if not isinstance(pattern, str) or not isinstance(expires, (int, float)):
            continue  # of another program with the same secret
        if for_client in (None, client_id) and for_site == site_id:
            grants.append((pattern, expires))
    return Grants(grants)


def _signer(secret: str | None, fallbacks: Sequence[str] = ()) -> Any:
    if not secret:
        raise InvalidOption(
            "secret_key", "grants are signed with it: set MESSAGEBUS_SECRET_KEY, or the app's SECRET_KEY"
        )
    # It signs with the last of its keys, and takes what any of them has signed.
    return URLSafeSerializer([*fallbacks, secret], salt=_SALT)
