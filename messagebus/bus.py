"""The public ``Bus`` API: publish and subscribe. ``clients`` and ``reading`` hold the rest, ``lifecycle`` the start and
the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

from .app_import import is_only_importing
from .clients import Clients
from .members import Members
from .message import Ids
from .names import check_channel
from .reading import Reading

if TYPE_CHECKING:
    import re

    from flask import Blueprint, Flask, Response
    from typing_extensions import Unpack

    from .hub.callbacks import Callback, Subscription
    from .hub.node import Node
    from .option_values import OptionValues
    from .publishing.arguments import PublishOptions
    from .sockets.handlers import OnMessage, Talk
    from .stores import Store


class Bus(Clients, Reading):
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
        one. For all channels, and for every site, ``last_id`` is a global id; on a store with partitions that is one of
        its partition alone, and ``last_id`` is 0 or negative, and counts in each of them.

        What a Flask app subscribes while it is imported is called where the app is served. A ``flask`` command
        (``shell``, ``db``, one of the app's), gunicorn's master and the parent of a reloader call it only after
        :meth:`start`, or when they subscribe to something later.

        Raises:
            InvalidChannel, InvalidSite: It is not the name of one.
            ValueError: ``last_id`` is a global id, and the store has several partitions.
            BackendUnavailable: The store is unreachable, so the position to begin from is unknown.
        """
        if channel is not None:
            check_channel(channel)  # here already: a decorator without parentheses would go unnoticed
        if callback is None:
            return lambda function: self.subscribe(channel, function, last_id, site_id)
        if self._node is None and is_only_importing():
            callbacks, store = self._rest()
            for subscription in self._subscriptions(store, channel, callback, last_id, site_id):
                callbacks.add(subscription)
        else:
            self._subscribe(channel, callback, last_id, site_id)
        return callback

    def _subscribe(self, channel: str | None, callback: Callback, last_id: int, site_id: str | None) -> None:
        node = self._running_node()
        for subscription in self._subscriptions(node.store, channel, callback, last_id, site_id):
            node.callbacks.add(subscription)
        node.start_callbacks()

    def blocking_subscribe(
        self, channel: str | None, callback: Callback, last_id: int = -1, site_id: str | None = None
    ) -> None:
        """Like :meth:`subscribe`, but calls in this thread, and returns when the callback is unsubscribed or the bus is
        closed."""
        from .hub.callbacks import Worker

        node = self._running_node()
        subscriptions = self._subscriptions(node.store, channel, callback, last_id, site_id)
        worker = Worker(node.callbacks, node.store, node.report, subscriptions)
        for subscription in subscriptions:
            subscription.worker = worker
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

    def _subscriptions(
        self, store: Store, channel: str | None, callback: Callback, last_id: int, site_id: str | None
    ) -> list[Subscription]:
        from .hub.callbacks import Scope, Subscription

        if channel is not None:
            check_channel(channel)
        if not callable(callback):
            raise TypeError(f"callback: expected a function, not {callback!r}")
        if not isinstance(last_id, int):
            raise TypeError(f"last_id: expected an integer, not {last_id!r}")
        scope = Scope(channel, site_id)
        name, number = scope.name, store.partitions
        if name is not None:
            if last_id < 0:
                last_id = max(store.last_ids([name])[0] - (-last_id - 1), 0)
            return [Subscription(scope, callback, last_id, store.partition_of(name))]
        if last_id > 0 and number > 1:
            raise ValueError(
                f"last_id: expected 0 or a negative number, not {last_id}: the store has {number} partitions, and a "
                "global id is a position in one of them"
            )
        if last_id >= 0:
            return [Subscription(scope, callback, last_id, each) for each in range(number)]
        newest = [store.state(each).global_id for each in range(number)]
        back = (-last_id - 1) * number  # ids of a partition are so far from each other
        return [Subscription(scope, callback, position - back, each) for each, position in enumerate(newest)]


MessageBus = Bus()
"""A ready-made bus for the process."""
