"""What a bus lets its clients do, and whom it sends away: the part of ``Bus`` that is about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from .cable.channel import Channel
from .cable.classes import ChannelClasses, Connect
from .lifecycle import Lifecycle
from .option_kinds import check_pattern

if TYPE_CHECKING:
    from typing_extensions import Unpack
    from werkzeug.wrappers import Request

    from .hub.orders import Order
    from .hub.permissions import Filter, Hook, PublishHook
    from .option_values import OptionValues

ChannelT = TypeVar("ChannelT", bound=Channel)
HookT = TypeVar("HookT", bound=Callable[..., Any])


class Clients(Lifecycle):
    """Base of ``Bus``. Safe from any thread and greenlet."""

    def __init__(self, **options: Unpack[OptionValues]) -> None:
        super().__init__(**options)
        self._channel_classes = ChannelClasses()
        self._publish_off = False

    def authorize(self, pattern: str) -> Callable[[Hook], Hook]:
        """Decorator for a function that decides who may subscribe: ``@bus.authorize("/private/*")``.

        ``pattern`` is a channel, or a prefix that ends in ``*``. The function gets the request (in a Flask app the
        Flask request, in its context) and the channel, and returns whether the client may subscribe. Every function
        whose pattern matches has to agree. Our clients learn which channel was refused; others get a 403 that names it.
        An exception propagates in the request, so ``flask.abort`` works. The function may block. It is called in the
        request's thread, and for later subscriptions of a WebSocket in a thread of a pool.

        Raises:
            InvalidChannel: The pattern is malformed.
        """
        return _decorator(pattern, self._access.add_hook)

    def allow_publish(self, pattern: str) -> Callable[[PublishHook], PublishHook]:
        """Decorator for a function that decides what clients publish: ``@bus.allow_publish("/chat/*")``.

        ``pattern`` is a channel, or a prefix that ends in ``*``. The function gets the request (in a Flask app the
        Flask request, in its context), the channel and the data that the client has sent, any JSON value; it returns
        the data to publish. It refuses with ``flask.abort(403, "the reason")``, which reaches the client, or by
        returning ``None``. Another exception is logged, passed to ``on_error``, and tells the client nothing but its
        type. One that has a parameter ``transient`` is told by it whether the message is not to be kept: ``def
        take(request, channel, data, *, transient)``. The function may block: it is called in the request's thread, and
        for what comes over a WebSocket in a thread of a pool, with the request that has opened it.

        Where several patterns match, all functions are called in the order in which they were added, each with the data
        that the one before has returned; one that refuses is the last. They are also called for channels that
        ``client_publish`` or a rule opens to everybody. Where a channel's rule has another ``publish``, nothing of
        clients is taken. A publish that a client repeats, because its answer was lost, is asked about again, and stored
        once, as it was at first.

        Raises:
            InvalidChannel: The pattern is malformed.
        """
        return _decorator(pattern, self._access.add_publish_hook)

    def client_id(self, request: Request | None = None) -> str | None:
        """The id of the client (the page) that a request comes from; ``None`` where it shows none. With it a view tells
        everybody but the one who has posted to it: ``publish(..., exclude_client_ids=[MessageBus.client_id()])``.

        In an ``authorize`` or ``allow_publish`` hook it is the client that asks. In a view it is what the page sends:
        the header ``X-MessageBus-Client-Id``, or the field ``messagebus_client_id`` of the query or of the form.
        ``request``: Flask's current one by default. The client has chosen its id, so it proves nothing.

        Raises:
            RuntimeError: There is no current request.
        """
        from .http.client_ids import client_id_of

        if request is None:
            from flask import request as current

            request = current
        return client_id_of(request)

    def channel(self, class_: type[ChannelT]) -> type[ChannelT]:
        """Decorator that registers a subclass of :class:`messagebus.Channel` under its name. Clients subscribe to it,
        with ActionCable's and AnyCable's clients on ``/cable``. To be used before serving.

        Raises:
            TypeError: It is no such class, or one of its public methods takes more than one argument.
            ValueError: Another class has its name.
        """
        self._channel_classes.add(class_)
        if self._node is not None:
            self._made(self._node)
        return class_

    def connect(self, hook: Connect) -> Connect:
        """Decorator for the function that says who opens a connection on ``/cable``, before it is accepted.

        It gets the request (in a Flask app the Flask request, in its context), and returns by what the connection is
        identified, a dict: the ``user`` of ``{"user_id": 7, "user": user}`` is ``self.connection.user`` in the
        channels, and ``user_id`` takes the place of what ``user_id_lookup`` returns. ``True`` or ``None``: by nothing
        more. ``False``: it is refused with 403; ``flask.abort`` works, too. Without a hook everybody may connect whose
        page's origin may.
        """
        self._channel_classes.connect = hook
        return hook

    def grant(
        self, channel: str, *, ttl: float = 3600.0, client_id: str | None = None, site_id: str | None = None
    ) -> str:
        """A signed token that allows its bearer to subscribe to a channel for ``ttl`` seconds from now.

        It is for servers that cannot see the app's session; they need the same ``secret_key``, and
        ``protected_channels``. ``channel`` may be a prefix that ends in ``*``. ``client_id``: only that client may use
        the token. When a grant expires the subscription ends, unless another grant or a hook allows it: the client is
        told with a refusal that says when to ask again, with a newer token if it has one.

        Raises:
            InvalidOption: There is no ``secret_key``.
            InvalidChannel: ``channel`` is not a channel's name.
        """
        from .hub.permissions import make_grant

        return make_grant(self.options.secret_key, channel, ttl, client_id, site_id)

    def register_client_message_filter(self, prefix: str, keep: Filter) -> None:
        """Let ``keep`` decide which messages of the channels that begin with ``prefix`` clients get.

        ``keep`` is called once for each message, in the loop that serves all connections: it must not block. If it
        returns false, or raises, the message reaches no client; Python subscribers get it all the same. It sees in
        ``message.transient`` whether the message is not kept; such a one has no ids of its own. Register filters before
        serving: each message's verdict is cached."""
        self._access.add_filter(prefix, keep)

    def disconnect(
        self,
        *,
        user_ids: Iterable[Any] | None = None,
        client_ids: Iterable[Any] | None = None,
        reason: str = "",
        reconnect: bool = False,
        site_id: str | None = None,
    ) -> None:
        """End the connections of these users, and of these clients, on every worker: for a logout, or a ban. It takes
        well under a second.

        Our clients are told ``reason`` (up to 123 bytes), as of channels that are refused, and stay away until the page
        subscribes again, calls ``retry()`` or is loaded again. ``reconnect``: they come back at once, and are
        identified and authorized again. Other programs may come back in either case: whether they get anything is up to
        :meth:`authorize`. So end the session, or withdraw the permission, first. Workers remember this for 5 s, for
        requests that were allowed before and connect after it, and for clients of ours between two polls.

        ``user_ids``: as ``user_id_lookup`` gives them; 10,000 ids at most. ``site_id``: of clients of this site;
        ``None``: of those without one; ``"*"``: of every site.

        Raises:
            InvalidTargets: There are no ids, too many, or something that is none.
            InvalidSite, InvalidOption: One of the others is wrong.
            BackendUnavailable: The store gave no answer; some workers may have heard it.
        """
        from .hub.orders import DISCONNECT, Order

        self._tell(DISCONNECT, Order.of(user_ids, client_ids, reason, site_id, reconnect))

    def _tell(self, kind: str, order: Order) -> None:
        from .hub.orders import tellings

        texts = tellings(kind, order)
        store = self._publisher_now().store
        for text in texts:
            store.announce(text)

    def off(self, *, disable_publish: bool = True) -> None:
        """Switch the bus off: disconnect clients, and answer 503. Publishing does nothing and returns ``None``, unless
        ``disable_publish`` is ``False``. Python subscribers still get what other processes publish."""
        self._access.off, self._publish_off = True, disable_publish
        if self._node is not None:
            self._node.turn_away()

    def on(self) -> None:
        """Switch the bus on again."""
        self._access.off = self._publish_off = False

    @property
    def is_off(self) -> bool:
        return self._access.off


def _decorator(pattern: str, add: Callable[[str, HookT], object]) -> Callable[[HookT], HookT]:
    """Adds what it decorates for the channels of a pattern, which is checked now."""
    check_pattern(pattern)

    def decorate(hook: HookT) -> HookT:
        add(pattern, hook)
        return hook

    return decorate
