"""The arguments of ``publish``. Each is checked here, alike for every store, before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypedDict

from ..channel_rules import TRANSIT_SECONDS, find_rule, is_stored
from ..errors import InvalidOption, InvalidTargets, MessageTooLarge
from ..message import check_id, encode_data, encode_envelope
from ..names import check_channel, check_site, store_name
from ..options import Options, check_option, check_replicas
from ..stores.base import Publication
from ..tracing import PublishSpan
from ..wire import CLIENT_ID

if TYPE_CHECKING:
    from typing_extensions import Unpack

Dumps = Callable[[Any], str]
"""Encodes values that are no JSON values."""


class PublishOptions(TypedDict, total=False):
    """The keyword arguments of :meth:`messagebus.Bus.publish`, ``publish_ids`` and ``publish_many``.

    Ids of users and groups are strings or numbers, see :func:`messagebus.message.check_id`."""

    user_ids: Iterable[Any] | None
    """The users that the message is for; ``None``, the default: no restriction. With ``group_ids`` as well, either
    suffices."""
    group_ids: Iterable[Any] | None
    """The groups that the message is for."""
    client_ids: Iterable[Any] | None
    """The clients (connections) that the message is for, among those that the other two allow. ``[""]``: no client,
    only Python subscribers."""
    exclude_client_ids: Iterable[Any] | None
    """The clients that the message is not for, whatever the other three say: everybody but the one who caused it."""
    sender: str | None
    """The client that says it, for a view that a page's form posts to: see ``Bus.client_id``. Python subscribers read
    it as ``Message.sender``; clients are not told."""
    site_id: str | None
    """The site (tenant) of the message. A ``/global/`` channel is the same on all sites."""
    max_backlog_size: int | None
    """Messages kept on the channel from now on, 1 to 2,147,483,647; ``None``: the option of this name."""
    max_backlog_age: int | None
    """Seconds without a publish after which the backlog is dropped, 1 to 3,153,600,000 (100 years); ``None``: the
    option."""
    queue_in_memory: bool
    """Whether the message may wait in memory while the store is unreachable (default). ``False``: raise instead."""
    transient: bool
    """Whether it is told to those who are connected now, and not kept: it has no id, nobody who was away gets it, and a
    reader that is behind is not given it. For typing marks, cursors, numbers that change all the time. Up to
    ``MAX_TRANSIENT`` bytes; it takes no ``max_backlog_size``, ``max_backlog_age`` or ``idempotency_key``."""
    key: str | None
    """Of a transient message, 1 to 255 characters: of those with the same key on a channel, a reader that is behind is
    given the newest."""
    durable: int
    """How many of the store's replicas must have the message before ``publish`` returns, 0 to 1000; by default as many
    as the option of this name says. For Redis alone. Such a message never waits in memory: while the store is
    unreachable the publish raises."""
    idempotency_key: str | None
    """A name for this publish, 1 to 255 characters. A publish with the same key within 10 minutes, on the same channel
    and site, by this process or another, returns the first ids and stores nothing. It is not needed against lost
    answers of the store: every publish is safe from those."""


MAX_TRANSIENT = 16_384
"""Bytes of a transient message's data."""
MAX_TRANSIENT_ENVELOPE = 65_536
"""Bytes of the same, with those whom it is for."""
_CLIENT = "1 to 128 letters, digits, or any of _ . ~ -"
_KNOWN = frozenset(PublishOptions.__annotations__)
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class CheckedPublish:
    """A checked call of ``publish`` or ``publish_many``."""

    __slots__ = ("durable", "idempotency_key", "key", "publications", "queue_in_memory", "span", "transient")

    def __init__(
        self,
        messages: Iterable[Any],
        options: Options,
        dumps: Dumps | None = None,
        span: PublishSpan | None = None,
        **given: Unpack[PublishOptions],
    ) -> None:
        """``messages``: pairs of channel and data. ``dumps``: for data that is no JSON value; ``None``: it is refused.
        ``span``: the publish's own, which its messages carry.

        Raises:
            InvalidChannel, InvalidSite, InvalidData, InvalidTargets, InvalidOption: One of the arguments is wrong.
            TypeError: One of the messages is not a pair, or an argument is unknown.
        """
        if not _KNOWN.issuperset(given):
            unknown = ", ".join(sorted(given.keys() - _KNOWN))
            raise TypeError(
                f"publish got an unexpected keyword argument: {unknown}; it takes {', '.join(sorted(_KNOWN))}"
            )
        self.span = span
        trace = None if span is None else span.trace
        own_size = own_age = None
        site_id = self.idempotency_key = self.key = None
        self.queue_in_memory = True
        self.transient = False
        user_ids = group_ids = client_ids = excluded = sender = None
        if given:
            site_id = given.get("site_id")
            if site_id is not None:
                check_site(site_id)
            user_ids = check_ids("user_ids", given.get("user_ids"))
            group_ids = check_ids("group_ids", given.get("group_ids"))
            client_ids = check_client_ids("client_ids", given.get("client_ids"))
            excluded = check_client_ids("exclude_client_ids", given.get("exclude_client_ids")) or None
            sender = _sender(given.get("sender"))
            own_size = _whole_number("max_backlog_size", given.get("max_backlog_size"))
            own_age = _whole_number("max_backlog_age", given.get("max_backlog_age"))
            self.queue_in_memory = _yes_or_no("queue_in_memory", given.get("queue_in_memory", True))
            self.idempotency_key = _key("idempotency_key", given.get("idempotency_key"))
            self.transient = _yes_or_no("transient", given.get("transient", False))
            self.key = _key("key", given.get("key"))
            if self.transient or self.key is not None:
                self._check_transient(own_size, own_age)
        self.durable = _durable(given, options) if given else options.durable
        if self.durable:
            self.queue_in_memory = False
        targeted = not (user_ids is group_ids is client_ids is excluded is None)
        names: dict[str, tuple[str, int, int, int]] = {}
        self.publications: list[Publication] = []
        for message in messages:
            if not isinstance(message, (tuple, list)) or len(message) != 2:
                raise TypeError(f"messages: expected pairs of channel and data, not {message!r:.80}")
            channel, data = message
            known = names.get(channel) if isinstance(channel, str) else None
            if known is None:
                check_channel(channel)
                if targeted and channel.startswith("/global/"):
                    raise InvalidTargets(
                        f"{channel}: a /global/ channel is for everybody on every site; it takes no targets"
                    )
                if (own_size or own_age) and not is_stored(options.channels, channel):
                    field = "max_backlog_size" if own_size else "max_backlog_age"
                    raise InvalidOption(field, f"{channel} is not stored, so it has no backlog")
                most, size, age = _limits_of(channel, options)
                known = (store_name(channel, site_id), most, own_size or size, own_age or age)
                names[channel] = known
            name, most, size, age = known
            if self.transient:
                raw = encode_data(data, most, dumps)
                envelope = encode_envelope(raw, user_ids, group_ids, client_ids, None, excluded, None, sender)
                for size_now, limit in ((len(raw), MAX_TRANSIENT), (len(envelope), MAX_TRANSIENT_ENVELOPE)):
                    if size_now > limit:
                        raise MessageTooLarge(size_now, limit, "transient", "a transient message has up to")
            else:
                raw = encode_data(data, most, dumps)
                codec = options.transport_codec
                envelope = encode_envelope(raw, user_ids, group_ids, client_ids, codec, excluded, trace, sender)
            self.publications.append(Publication(name, envelope, size, age))

    def _check_transient(self, own_size: int | None, own_age: int | None) -> None:
        if not self.transient:
            raise InvalidOption("key", "only a transient message has one; see idempotency_key")
        unkept = {"max_backlog_size": own_size, "max_backlog_age": own_age, "idempotency_key": self.idempotency_key}
        for field, value in unkept.items():
            if value is not None:
                raise InvalidOption(field, "a transient message is not kept, so it takes none")


def check_ids(field: str, ids: Iterable[Any] | None) -> list[Any] | None:
    if ids is None:
        return None
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InvalidTargets(f"{field}: expected a list of ids, not {ids!r:.80}")
    return [check_id(field, each) for each in ids]


def check_client_ids(field: str, ids: Iterable[Any] | None) -> list[Any] | None:
    checked = check_ids(field, ids)
    for each in checked or ():
        if each != "" and not (isinstance(each, str) and CLIENT_ID.fullmatch(each)):
            raise InvalidTargets(f"{field}: a client has {_CLIENT}; not {each!r:.80}")
    return checked


def _sender(client_id: str | None) -> str | None:
    if client_id is None:
        return None
    given: object = client_id
    if not isinstance(given, str) or not CLIENT_ID.fullmatch(given):
        raise InvalidTargets(f"sender: a client has {_CLIENT}; not {given!r:.80}")
    return given


def _limits_of(channel: str, options: Options) -> tuple[int, int, int]:
    """Bytes of a message, messages and seconds of the backlog, as the channel's rule or the options say."""
    general = (options.max_message_size, options.max_backlog_size, options.max_backlog_age)
    rule = find_rule(options.channels, channel) if options.channels else None
    if rule is None:
        return general
    own = (rule.max_message_size, rule.max_backlog_size, rule.max_backlog_age if rule.stored else TRANSIT_SECONDS)
    return tuple(each or default for each, default in zip(own, general, strict=True))  # type: ignore[return-value]


def _whole_number(field: str, value: int | None) -> int | None:
    if value is None:
        return None
    checked: int = check_option(field, value)
    return checked


def _durable(given: PublishOptions, options: Options) -> int:
    """The publish's own number of replicas, or the option's, which is not for what is not stored."""
    replicas: object = given.get("durable")
    is_own = replicas is not None
    if replicas is None:
        replicas = 0 if given.get("transient") else options.durable
    if isinstance(replicas, bool) or not isinstance(replicas, int) or not 0 <= replicas <= 1000:
        raise InvalidOption("durable", f"expected a number of replicas, 0 to 1000, not {replicas!r:.80}")
    if replicas:
        check_replicas(replicas, options.url)
        if given.get("queue_in_memory"):
            instead = "leave out queue_in_memory=True" if is_own else "give durable=0 with queue_in_memory=True"
            raise InvalidOption("durable", f"what waits in memory is in no replica: {instead}")
        if given.get("transient"):
            raise InvalidOption("durable", "a transient message is not stored, so no replica has it")
    return replicas


def _yes_or_no(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidOption(field, f"expected True or False, not {value!r:.80}")
    return value


def _key(field: str, key: str | None) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str):
        raise InvalidOption(field, f"expected a string, not {key!r:.80} ({type(key).__name__})")
    if not 0 < len(key) <= 255 or _CONTROL.search(key):
        raise InvalidOption(field, "expected 1 to 255 characters, no control characters")
    return key
