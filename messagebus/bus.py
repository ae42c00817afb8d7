"""The public ``Bus`` API: publish, subscribe, read. Startup and shutdown are in ``lifecycle``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .app_import import is_only_importing
from .cable.channel import Channel
from .cable.classes import ChannelClasses, Connect
from .channel_rules import is_stored
from .lifecycle import Lifecycle
from .members import Members
from .message import Ids, Message, check_channel, store_name
from .option_kinds import check_pattern

if TYPE_CHECKING:
    import re

    from flask import Blueprint, Flask, Response
    from typing_extensions import Unpack
    from werkzeug.wrappers import Request

    from .hub.callbacks import Callback, Subscription
    from .hub.node import Node
    from .hub.orders import Order
    from .hub.permissions import Filter, Hook, PublishHook
    from .option_values import OptionValues
    from .publishing.arguments import PublishOptions
    from .sockets.handlers import OnMessage, Talk
    from .statistics.bus import ChannelStats
    from .statistics.why import Finding
    from .stores import Store, StoreState

ChannelT = TypeVar("ChannelT", bound=Channel)
SEEN_SECONDS = 0.25
"""Seconds that a page waits at most for the position that it is rendered at."""


class Bus(Lifecycle):
    """A message bus. Safe to use from any thread, any greenlet and in forked children; no further call is needed.

    It may be made anywhere, also before ``gevent.monkey.patch_all()``: it connects when it is first used, and listens
    from the first subscription, request or page. The keyword arguments are :class:`messagebus.Options`; what is not
    given comes from the app's config, the environment or the defaults.
    """

    def __init__(self, **options: Unpack[OptionValues]) -> None:
        """
        Raises:
            InvalidOption: A setting is unknown or out of range.
        """
        super().__init__(**options)
        self._blueprint: Blueprint | None = None
        self.presence = Members(self, self._access.presence)
        """Who is there: members of channels, and what is called when they come and go."""
        self._channel_classes = ChannelClasses()
        self._publish_off = False

    # --- Flask ---

    @property
    def blueprint(self) -> Blueprint:
        """The blueprint that makes a Flask app serve the bus: ``app.register_blueprint(MessageBus.blueprint)``."""
        if self._blueprint is None:
            from .integrations.flask.blueprint import make_blueprint

            self._blueprint = make_blueprint(self)
        return self._blueprint

    @property
    def has_blueprint(self) -> bool:
        """Whether an app has asked for the blueprint."""
        return self._blueprint is not None

    def init_app(self, app: Flask, *, url_prefix: str | None = None) -> None:
        """Flask's usual name for ``app.register_blueprint(bus.blueprint, url_prefix=url_prefix)``. Afterwards
        ``app.extensions["messagebus"]`` is the bus.

        Raises:
            InvalidOption: A setting of the app is unknown or out of range.
        """
        app.register_blueprint(self.blueprint, url_prefix=url_prefix)

    def _made(self, node: Node) -> None:
        if self._channel_classes:
            from .cable.own import serve_channels

            serve_channels(node, self._channel_classes, self.publish)

    @overload
    def websocket(
        self,
        talk: Talk,
        *,
        allowed_origins: Sequence[str | re.Pattern[str]] | None = ...,
        subprotocols: Sequence[str] = ...,
    ) -> Response: ...

    @overload
    def websocket(
        self,
        *,
        on_message: OnMessage,
        on_open: Talk | None = ...,
        on_close: Talk | None = ...,
        allowed_origins: Sequence[str | re.Pattern[str]] | None = ...,
        subprotocols: Sequence[str] = ...,
    ) -> Response: ...

    def websocket(
        self,
        talk: Talk | None = None,
        *,
        on_open: Talk | None = None,
        on_message: OnMessage | None = None,
        on_close: Talk | None = None,
        allowed_origins: Sequence[str | re.Pattern[str]] | None = None,
        subprotocols: Sequence[str] = (),
    ) -> Response:
        """What a Flask view returns to speak with its client on a WebSocket: ``return MessageBus.websocket(talk)``.

        The view's rule needs ``websocket=True``. The view runs before the handshake is answered, so that it may refuse.
        ``talk(ws)`` gets a :class:`WebSocket`, in a thread of its own (under gevent a greenlet; ``max_talks`` bounds
        them). When it returns the connection is closed with 1000; when it raises, with 1011, and the error is logged
        and passed to ``on_error``.

        Or the functions ``on_open(ws)``, ``on_message(ws, message)`` and ``on_close(ws)``: they take no thread while
        nothing happens. They are called in ``command_threads``, one at a time and in order for each connection;
        ``on_close`` once, in any case.

        All are called outside of the request, in the app's context: a ``talk`` in one for its whole life, the functions
        in one for each call. ``allowed_origins``: whose pages may connect beside the server's own, in place of the
        option. ``subprotocols``: of those that the client offers, it gets its first that is among these.

        Raises:
            TypeError: There is neither ``talk`` nor ``on_message``, or one is no plain function.
            InvalidOption: ``allowed_origins`` has something that is no origin.
        """
        from .integrations.flask.own_sockets import websocket

        return websocket(self, talk, on_open, on_message, on_close, allowed_origins, subprotocols)

    # --- publishing ---

    def publish(self, channel: str, data: Any, **options: Unpack[PublishOptions]) -> int | None:
        """Publish a message, and return its id on the channel.

        ``data`` is any JSON value; in a Flask app whatever its ``jsonify`` takes. The keyword arguments are
        :class:`messagebus.PublishOptions`: ``user_ids``, ``group_ids`` and ``client_ids`` (whom it is for),
        ``exclude_client_ids`` (whom it is not for), ``site_id``, ``max_backlog_size`` and ``max_backlog_age`` (what is
        kept of the channel), ``queue_in_memory``, ``durable`` (how many replicas must have it), ``idempotency_key``.

        While the store is unreachable the message is kept in memory, up to ``publish_queue_size`` of them, and written
        when the store is back. ``None`` is returned, because the message has no id yet. A lost answer never stores a
        message twice: the store remembers each publish for 10 minutes.

        Raises:
            InvalidChannel, InvalidSite, InvalidData, InvalidTargets, InvalidOption: The arguments cannot be published;
                nothing has changed.
            PublishRefused: The store refuses the message for good; nothing has changed.
            NotDurable: It is stored, but fewer replicas than ``durable`` have it.
            BackendUnavailable: The store is gone, and ``queue_in_memory`` is ``False``, or the publish is ``durable``.
            PublishQueueFull: The store is unreachable, and too many messages wait for it already.
        """
        ids = self.publish_ids(channel, data, **options)
        return None if ids is None else ids.message_id

    def publish_ids(self, channel: str, data: Any, **options: Unpack[PublishOptions]) -> Ids | None:
        """Like :meth:`publish`, but also returns the global id."""
        return self._publish(((channel, data),), options)[0]

    def publish_many(self, messages: Iterable[tuple[str, Any]], **options: Unpack[PublishOptions]) -> list[int | None]:
        """Publish many messages, pairs of channel and data, in their order, with one round trip to the store for each
        thousand. Returns their ids on their channels.

        The keyword arguments are those of :meth:`publish`, and apply to all messages; an ``idempotency_key`` covers all
        of them. All are checked before the first is published. Each thousand is stored as one step, all or none; other
        processes' messages may come between two thousands. If the store fails part-way, the first thousands are stored,
        and the others wait.

        Raises:
            InvalidChannel, InvalidSite, InvalidData, InvalidTargets, InvalidOption: One of the messages cannot be
                published; none was.
            TypeError: One of them is not a pair.
            NotDurable: All are stored, but fewer replicas than ``durable`` have them.
            PublishRefused: The store refuses one of the messages; of more than a thousand, the first thousands may be
                stored.
            BackendUnavailable: The store is gone, and ``queue_in_memory`` is ``False``.
            PublishQueueFull: The store is unreachable, and there is no room for all that are left; none of those is
                kept.
        """
        return [None if ids is None else ids.message_id for ids in self._publish(messages, options)]

    def _publish(self, messages: Iterable[Any], options: PublishOptions) -> list[Ids | None]:
        publisher = self._publisher_now()
        request = publisher.check(messages, **options)
        return [None] * len(request.publications) if self._publish_off else publisher.publish(request)

    # --- subscribing ---

    @overload
    def subscribe(
        self, channel: str | None = ..., *, last_id: int = ..., site_id: str | None = ...
    ) -> Callable[[Callback], Callback]: ...

    @overload
    def subscribe(
        self, channel: str | None, callback: Callback, last_id: int = ..., site_id: str | None = ...
    ) -> Callback: ...

    def subscribe(
        self,
        channel: str | None = None,
        callback: Callback | None = None,
        last_id: int = -1,
        site_id: str | None = None,
    ) -> Callback | Callable[[Callback], Callback]:
        """Call ``callback`` with every :class:`Message` of a channel, in order. Also a decorator.

        All callbacks of the bus share one thread (under gevent: one greenlet), so a callback should not take long. An
        exception is logged, and passed to ``on_error``. Returns the callback.

        ``channel``: ``None`` for all channels. ``last_id``: the id to continue after; -1: new messages only; ``-k``:
        the last k-1 and new ones. ``site_id``: the site to subscribe to; ``"*"`` for every site, and messages without
        one. For all channels, and for every site, ``last_id`` is a global id.

        What a Flask app subscribes while it is imported is called where the app is served. A ``flask`` command
        (``shell``, ``db``, one of the app's), gunicorn's master and the parent of a reloader call it only after
        :meth:`start`, or when they subscribe to something later.

        Raises:
            InvalidChannel, InvalidSite: It is not the name of one.
            BackendUnavailable: The store is unreachable, so the position to begin from is unknown.
        """
        if channel is not None:
            check_channel(channel)  # here already: a decorator without parentheses would go unnoticed
        if callback is None:
            return lambda function: self.subscribe(channel, function, last_id, site_id)
        if self._node is None and is_only_importing():
            callbacks, store = self._rest()
            callbacks.add(self._subscription(store, channel, callback, last_id, site_id))
        else:
            self._subscribe(channel, callback, last_id, site_id)
        return callback

    def _subscribe(self, channel: str | None, callback: Callback, last_id: int, site_id: str | None) -> None:
        node = self._running_node()
        node.callbacks.add(self._subscription(node.store, channel, callback, last_id, site_id))
        node.start_callbacks()

    def blocking_subscribe(
        self, channel: str | None, callback: Callback, last_id: int = -1, site_id: str | None = None
    ) -> None:
        """Like :meth:`subscribe`, but calls in this thread, and returns when the callback is unsubscribed or the bus is
        closed."""
        from .hub.callbacks import Worker

        node = self._running_node()
        subscription = self._subscription(node.store, channel, callback, last_id, site_id)
        worker = subscription.worker = Worker(node.callbacks, node.store, node.report, subscription)
        node.callbacks.add(subscription)
        worker.run()

    @overload
    def unsubscribe(
        self, channel: str | None = ..., callback: Callback | None = ..., site_id: str | None = ...
    ) -> bool: ...

    @overload
    def unsubscribe(
        self,
        channel: str,
        *,
        user_ids: Iterable[Any],
        client_ids: Iterable[Any] = ...,
        reason: str = ...,
        site_id: str | None = ...,
    ) -> None: ...

    @overload
    def unsubscribe(
        self, channel: str, *, client_ids: Iterable[Any], reason: str = ..., site_id: str | None = ...
    ) -> None: ...

    def unsubscribe(
        self,
        channel: str | None = None,
        callback: Callback | None = None,
        site_id: str | None = None,
        **clients: Any,
    ) -> bool | None:
        """End a callback's subscription to a channel, or all of the channel's. Returns whether there was one.

        The callback may still be running when this returns; it is not called again.

        With ``user_ids`` or ``client_ids`` it ends the subscriptions of these users and clients instead, on every
        worker, and returns ``None``: ``unsubscribe("/rooms/7", user_ids=[5])``. Their other channels go on. ``channel``
        may be a prefix that ends in ``*``; a subscription to a pattern that has the channel ends as well. Our clients
        are told with ``reason`` (up to 123 bytes), as of a channel that is refused, and do not ask for it again by
        themselves. Whether a client gets the channel when it asks again is up to :meth:`authorize`, so withdraw the
        permission first. For the rest see :meth:`disconnect`.
        """
        if clients:
            from .hub.orders import UNSUBSCRIBE, unsubscribe_order

            if callback is not None:
                raise TypeError("unsubscribe: expected a callback, or user_ids and client_ids; not both")
            self._tell(UNSUBSCRIBE, unsubscribe_order(channel, site_id=site_id, **clients))
            return None
        from .hub.callbacks import Scope

        if channel is not None:
            check_channel(channel)
        return self._callbacks is not None and self._callbacks.remove(Scope(channel, site_id), callback)

    def _subscription(
        self, store: Store, channel: str | None, callback: Callback, last_id: int, site_id: str | None
    ) -> Subscription:
        from .hub.callbacks import Scope, Subscription

        if channel is not None:
            check_channel(channel)
        if not callable(callback):
            raise TypeError(f"callback: expected a function, not {callback!r}")
        if not isinstance(last_id, int):
            raise TypeError(f"last_id: expected an integer, not {last_id!r}")
        scope = Scope(channel, site_id)
        if last_id < 0:
            name = scope.name
            newest = store.state().global_id if name is None else store.last_ids([name])[0]
            last_id = max(newest - (-last_id - 1), 0)
        return Subscription(scope, callback, last_id)

    # --- what clients may do ---

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

        check_pattern(pattern)

        def add(hook: Hook) -> Hook:
            self._access.add_hook(pattern, hook)
            return hook

        return add

    def allow_publish(self, pattern: str) -> Callable[[PublishHook], PublishHook]:
        """Decorator for a function that decides what clients publish: ``@bus.allow_publish("/chat/*")``.

        ``pattern`` is a channel, or a prefix that ends in ``*``. The function gets the request (in a Flask app the
        Flask request, in its context), the channel and the data that the client has sent, any JSON value; it returns
        the data to publish. It refuses with ``flask.abort(403, "the reason")``, which reaches the client, or by
        returning ``None``. Another exception is logged, passed to ``on_error``, and tells the client nothing but its
        type. The function may block: it is called in the request's thread, and for what comes over a WebSocket in a
        thread of a pool, with the request that has opened it.

        Where several patterns match, all functions are called in the order in which they were added, each with the data
        that the one before has returned; one that refuses is the last. They are also called for channels that
        ``client_publish`` or a rule opens to everybody. Where a channel's rule has another ``publish``, nothing of
        clients is taken. A publish that a client repeats, because its answer was lost, is asked about again, and stored
        once, as it was at first.

        Raises:
            InvalidChannel: The pattern is malformed.
        """
        check_pattern(pattern)

        def add(hook: PublishHook) -> PublishHook:
            self._access.add_publish_hook(pattern, hook)
            return hook

        return add

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
        returns false, or raises, the message reaches no client; Python subscribers get it all the same. Register
        filters before serving: each message's verdict is cached."""
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

    # --- reading ---

    def last_id(self, channel: str, site_id: str | None = None) -> int:
        """The id of the newest message on a channel; 0 if there has been none."""
        return self.last_ids(channel, site_id=site_id)[channel]

    def last_ids(self, *channels: str, site_id: str | None = None) -> dict[str, int]:
        """The ids of the newest messages on several channels, read in one step."""
        names = [store_name(check_channel(channel), site_id) for channel in channels]
        return dict(zip(channels, self._publisher_now().store.last_ids(names), strict=True))

    def backlog(self, channel: str, last_id: int = 0, site_id: str | None = None) -> list[Message]:
        """The messages of a channel after ``last_id`` that the store still keeps; none where its rule has it not
        stored."""
        name = store_name(check_channel(channel), site_id)
        publisher = self._publisher_now()
        if not is_stored(publisher.options.channels, channel):
            return []
        return publisher.store.backlog(name, last_id).messages

    def global_backlog(self, last_id: int = 0, site_id: str | None = None) -> list[Message]:
        """The messages of all channels of a site after global id ``last_id`` that the store still keeps, by global id.

        Without ``site_id``: messages without a site; with ``"*"``: those of every site, and those without one."""
        from .hub.callbacks import Scope

        scope = Scope(None, site_id)
        return [message for message in self._publisher_now().store.global_backlog(last_id) if scope.holds(message)]

    def stats(self) -> dict[str, Any]:
        """The numbers of the whole bus, summed over all processes that listen, and of each: docs/statistics.md explains
        them. Asks the store, and not the other processes, whose last report counts.

        Raises:
            BackendUnavailable: The store gave no answer.
        """
        from .statistics.bus import bus_stats

        return bus_stats(self._running_node())

    def channel_stats(self, *channels: str, site_id: str | None = None) -> list[ChannelStats]:
        """The numbers of some channels, in their order: published and stored messages, and the subscribers of all
        processes.

        Raises:
            InvalidChannel, InvalidSite: One is not the name of a channel.
            BackendUnavailable: The store gave no answer.
        """
        from .statistics.bus import channel_stats

        return channel_stats(self._running_node(), [store_name(check_channel(name), site_id) for name in channels])

    def why(
        self,
        channel: str,
        message_id: int,
        *,
        user_id: str | int | None = None,
        client_id: str | None = None,
        site_id: str | None = None,
    ) -> list[Finding]:
        """Why a user or a client did not get a message, or when and over what they did: what the store and all
        processes know of it, the most telling first. ``user_id`` as ``user_id_lookup`` returns it: ``7`` is not
        ``"7"``.

        Each process remembers its newest connections (``trail_size``). Waits for a second at most for those that do not
        answer.

        Raises:
            InvalidChannel, InvalidSite: It is not the name of one.
            ValueError: Neither a user nor a client is given, or both are; or the id is below 1.
            BackendUnavailable: The store gave no answer.
        """
        from .statistics.why import why

        return why(self._running_node(), channel, message_id, user_id, client_id, site_id)

    def newest_global_id(self) -> int:
        """The newest global id, over all channels and sites; 0 in an empty store."""
        return self._publisher_now().store.state().global_id

    def last_message(self, channel: str, site_id: str | None = None) -> Message | None:
        """The newest message of a channel, if the store still keeps it."""
        last_id = self.last_id(channel, site_id)
        messages = self.backlog(channel, last_id - 1, site_id) if last_id else []
        return messages[-1] if messages else None

    def seen(self) -> StoreState | None:
        """How far this process has received the store's messages: the position that a page rendered now continues from.

        Asks the store only with ``redis_announce="by_channel"``, where the process does not hear of all messages.
        ``None`` if the store's feed is not connected; the first call waits for it, for a second
        at most."""
        from .stores import StoreState

        if self._closed:
            return None
        node = self._running_node()
        if not node.has_started():
            return None
        if node.is_healthy:
            node.following.catch_up(SEEN_SECONDS)
        return StoreState(node.seen_id, node.hub.epoch)

    # --- deleting ---

    def forget(self, channel: str, site_id: str | None = None) -> None:
        """Delete the messages of a channel. Its ids continue, and clients that missed messages get a gap.

        Every process forgets what it remembers of them. Clients that are connected keep what they have.

        Raises:
            InvalidChannel, InvalidSite: It is not the name of one.
            BackendUnavailable: The store gave no answer; it may have deleted them.
        """
        from .hub.workers import forget

        forget(self._publisher_now().store, store_name(check_channel(channel), site_id))

    def expire_all_backlogs(self) -> None:
        """Delete all messages in the store. Ids continue, and clients that missed messages get a gap.

        Processes with subscribers still hold their channels' newest messages in memory, up to ``window_size``."""
        self._publisher_now().store.expire_all_backlogs()

    def reset(self) -> None:
        """Delete all messages and ids in the store. Clients start from nothing. Mostly for tests."""
        self._publisher_now().store.reset()


MessageBus = Bus()
"""A ready-made bus for the process."""
