"""The bus as programs use it: publish, subscribe, read. What it takes to begin and to end is in ``lifecycle``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, overload

from .errors import InvalidTargets
from .lifecycle import Lifecycle
from .message import Ids, Message, check_channel, store_name

if TYPE_CHECKING:
    from flask import Blueprint

    from .hub.callbacks import Callback, Subscription
    from .hub.node import Node
    from .hub.permissions import Filter, Hook
    from .stores import StoreState


class Bus(Lifecycle):
    """A message bus. Safe to use from any thread, from any greenlet and, without a word, in forked children.

    It may be made anywhere, also before ``gevent.monkey.patch_all()``: it connects when it is first used, and listens
    from when somebody wants to hear something. Keyword arguments are :class:`messagebus.Options`; what is not given
    comes from the environment, see there.
    """

    def __init__(self, **options: Any) -> None:
        """
        Raises:
            InvalidOption: A setting is unknown or out of range.
        """
        super().__init__(**options)
        self._blueprint: Blueprint | None = None
        self._publish_off = False

    # --- Flask ---

    @property
    def blueprint(self) -> Blueprint:
        """What makes a Flask app serve the bus: ``app.register_blueprint(MessageBus.blueprint)``."""
        if self._blueprint is None:
            from .integrations.flask.blueprint import make_blueprint

            self._blueprint = make_blueprint(self)
        return self._blueprint

    @property
    def has_blueprint(self) -> bool:
        """Whether an app has asked for the blueprint."""
        return self._blueprint is not None

    # --- publishing ---

    def publish(
        self,
        channel: str,
        data: Any,
        *,
        user_ids: Iterable[Any] | None = None,
        group_ids: Iterable[Any] | None = None,
        client_ids: Iterable[str] | None = None,
        site_id: str | None = None,
        max_backlog_size: int | None = None,
        max_backlog_age: int | None = None,
        queue_in_memory: bool = True,
    ) -> int | None:
        """Publish a message, and return its id on the channel.

        ``data`` is any JSON value. ``user_ids``, ``group_ids``: whom it is for (either suffices), ``client_ids``: on
        which connections; ``None`` is everybody. ``max_backlog_size`` (messages) and ``max_backlog_age`` (seconds)
        replace the options of the same name for this channel. While the store is gone the message is kept in memory,
        up to ``publish_queue_size`` of them, and ``None`` is returned: it has no id yet; it is written when the store
        is back.

        Raises:
            InvalidChannel, InvalidData, InvalidTargets: What was given cannot be published.
            BackendUnavailable: The store is gone, and ``queue_in_memory`` is ``False``.
            PublishQueueFull: The store is gone, and too many messages wait for it already.
        """
        ids = self.publish_ids(
            channel,
            data,
            user_ids=user_ids,
            group_ids=group_ids,
            client_ids=client_ids,
            site_id=site_id,
            max_backlog_size=max_backlog_size,
            max_backlog_age=max_backlog_age,
            queue_in_memory=queue_in_memory,
        )
        return None if ids is None else ids.message_id

    def publish_ids(
        self,
        channel: str,
        data: Any,
        *,
        user_ids: Iterable[Any] | None = None,
        group_ids: Iterable[Any] | None = None,
        client_ids: Iterable[str] | None = None,
        site_id: str | None = None,
        max_backlog_size: int | None = None,
        max_backlog_age: int | None = None,
        queue_in_memory: bool = True,
    ) -> Ids | None:
        """As :meth:`publish`, but returns the global id as well."""
        name = _published_name(channel, site_id, targeted=not (user_ids is group_ids is client_ids is None))
        if self._publish_off:
            return None
        targets = user_ids, group_ids, client_ids
        return self._publisher_now().publish(name, data, targets, max_backlog_size, max_backlog_age, queue_in_memory)

    def publish_many(
        self,
        messages: Iterable[tuple[str, Any]],
        *,
        user_ids: Iterable[Any] | None = None,
        group_ids: Iterable[Any] | None = None,
        client_ids: Iterable[str] | None = None,
        site_id: str | None = None,
        max_backlog_size: int | None = None,
        max_backlog_age: int | None = None,
        queue_in_memory: bool = True,
    ) -> list[int | None]:
        """Publish many messages, pairs of channel and data, in their order and with one round trip to the store (one
        for each thousand, if there are more). Returns their ids on their channels.

        The other arguments are those of :meth:`publish`, and hold for all of the messages. All are checked before the
        first is published. They are not one transaction: other processes' messages may come between them. Where the
        store goes in the middle of it, the first thousands may be stored already, and are stored again from memory.

        Raises:
            InvalidChannel, InvalidData, InvalidTargets: One of them cannot be published; none has been.
            TypeError: One of them is not a pair.
            BackendUnavailable: The store is gone, and ``queue_in_memory`` is ``False``.
            PublishQueueFull: The store is gone, and there is no room for all of them; none is kept.
        """
        targets = _listed(user_ids), _listed(group_ids), _listed(client_ids)
        names: dict[str, str] = {}
        pairs = []
        anything: Iterable[Any] = messages
        for message in anything:
            if not isinstance(message, (tuple, list)) or len(message) != 2:
                raise TypeError(f"messages: expected pairs of channel and data, not {message!r:.80}")
            channel, data = message
            if channel not in names:
                names[channel] = _published_name(channel, site_id, targeted=targets != (None, None, None))
            pairs.append((names[channel], data))
        if self._publish_off:
            return [None] * len(pairs)
        given = self._publisher_now().publish_many(pairs, targets, max_backlog_size, max_backlog_age, queue_in_memory)
        return [None if ids is None else ids.message_id for ids in given]

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
        """Have ``callback`` called with every :class:`Message` of a channel, in order; also as a decorator.

        It is called in a thread (under gevent: a greenlet) that all callbacks of the bus share, so it should not take
        long. What it raises is logged, and told to ``on_error``. Returns the callback.

        ``channel``: ``None`` for all channels. ``last_id``: the message to continue after; -1: new ones only; ``-k``:
        the last k-1 and new ones. ``site_id``: the site whose messages are meant; ``"*"`` for those of every site,
        and of none. For all channels, and for every site, ``last_id`` is a global id.

        Raises:
            InvalidChannel, InvalidSite: It is not the name of one.
            BackendUnavailable: The store is gone, and with it the position to begin from.
        """
        if channel is not None:
            check_channel(channel)  # here already: a decorator without parentheses would go unnoticed
        if callback is None:
            return lambda function: self.subscribe(channel, function, last_id, site_id)
        node = self._running_node()
        node.callbacks.add(self._subscription(node, channel, callback, last_id, site_id))
        node.start_callbacks()
        return callback

    def blocking_subscribe(
        self, channel: str | None, callback: Callback, last_id: int = -1, site_id: str | None = None
    ) -> None:
        """As :meth:`subscribe`, but calls in this thread, and returns when the callback is unsubscribed or the bus
        closed."""
        from .hub.callbacks import Worker

        node = self._running_node()
        subscription = self._subscription(node, channel, callback, last_id, site_id)
        worker = subscription.worker = Worker(node.callbacks, node.store, node.report, subscription)
        node.callbacks.add(subscription)
        worker.run()

    def unsubscribe(
        self, channel: str | None = None, callback: Callback | None = None, site_id: str | None = None
    ) -> bool:
        """End a callback's subscription to a channel, or all of the channel's. Returns whether there was one.

        The callback may still be running when this returns; it is not called again."""
        from .hub.callbacks import Scope

        if channel is not None:
            check_channel(channel)
        return self._callbacks is not None and self._callbacks.remove(Scope(channel, site_id), callback)

    def _subscription(
        self, node: Node, channel: str | None, callback: Callback, last_id: int, site_id: str | None
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
            newest = node.store.state().global_id if name is None else node.store.last_ids([name])[0]
            last_id = max(newest - (-last_id - 1), 0)
        return Subscription(scope, callback, last_id)

    # --- what clients may do ---

    def authorize(self, pattern: str) -> Callable[[Hook], Hook]:
        """Decorator for a function that decides who may subscribe: ``@bus.authorize("/private/*")``.

        ``pattern`` is a channel, or a prefix that ends in ``*``. The function is given the request (in a Flask app
        the Flask request, in its context) and the channel, and returns whether it may. All functions whose pattern
        fits have to agree. A refused channel is a 403 that names it, on an open WebSocket an error answer. What the
        function raises is raised in the request; ``flask.abort`` works. It may block.

        Raises:
            InvalidChannel: The pattern is not one.
        """

        check_channel(pattern)

        def add(hook: Hook) -> Hook:
            self._access.add_hook(pattern, hook)
            return hook

        return add

    def grant(
        self, channel: str, *, ttl: float = 3600.0, client_id: str | None = None, site_id: str | None = None
    ) -> str:
        """A signed token that allows whoever has it to subscribe to a channel for ``ttl`` seconds from now.

        For servers that cannot see the app's session: they need the same ``secret_key``, and ``protected_channels``.
        ``channel`` may be a prefix that ends in ``*``. ``client_id``: only that client may use it. A subscription that
        has begun does not end with its grant.

        Raises:
            InvalidOption: There is no ``secret_key``.
            InvalidChannel: It is not a channel's name.
        """
        from .hub.permissions import make_grant

        return make_grant(self.options.secret_key, channel, ttl, client_id, site_id)

    def register_client_message_filter(self, prefix: str, keep: Filter) -> None:
        """Have ``keep`` decide which messages of the channels that begin with ``prefix`` clients get.

        It is asked once for each message, in the loop that serves all connections: it must not block. A message that it
        does not keep, or on which it fails, reaches no client; Python subscribers get it all the same."""
        self._access.add_filter(prefix, keep)

    def off(self, *, disable_publish: bool = True) -> None:
        """Switch the bus off: clients are sent away and refused with 503, and publishing does nothing and returns
        ``None``, unless ``disable_publish`` is ``False``. Python subscribers hear what others publish."""
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
        """The id of the newest message on a channel; 0 where there has been none."""
        return self.last_ids(channel, site_id=site_id)[channel]

    def last_ids(self, *channels: str, site_id: str | None = None) -> dict[str, int]:
        """The ids of the newest messages on several channels, read as one."""
        names = [store_name(check_channel(channel), site_id) for channel in channels]
        return dict(zip(channels, self._publisher_now().store.last_ids(names), strict=True))

    def backlog(self, channel: str, last_id: int = 0, site_id: str | None = None) -> list[Message]:
        """The messages of a channel after ``last_id`` that the store still keeps."""
        return self._publisher_now().store.backlog(store_name(check_channel(channel), site_id), last_id).messages

    def global_backlog(self, last_id: int = 0, site_id: str | None = None) -> list[Message]:
        """The messages of all channels of a site after global id ``last_id`` that the store still keeps, by global id.

        With no ``site_id``: those of no site; with ``"*"``: those of every site, and of none."""
        from .hub.callbacks import Scope

        scope = Scope(None, site_id)
        return [message for message in self._publisher_now().store.global_backlog(last_id) if scope.holds(message)]

    def newest_global_id(self) -> int:
        """The number of the newest message over all channels and sites; 0 in an empty store."""
        return self._publisher_now().store.state().global_id

    def last_message(self, channel: str, site_id: str | None = None) -> Message | None:
        """The newest message of a channel, if the store still keeps it."""
        last_id = self.last_id(channel, site_id)
        messages = self.backlog(channel, last_id - 1, site_id) if last_id else []
        return messages[-1] if messages else None

    def seen(self) -> StoreState | None:
        """How far this process has heard its store: what a page that is being made now may continue from.

        Costs no question to the store. ``None`` where the store's feed does not stand; it is waited for once, for a
        second at most."""
        from .stores import StoreState

        if self._closed:
            return None
        node = self._running_node()
        return StoreState(node.seen_id, node.hub.epoch) if node.has_started() else None

    # --- deleting ---

    def expire_all_backlogs(self) -> None:
        """Delete all messages that the store keeps; ids go on, and clients that missed some are told so.

        Processes with subscribers still hold their channels' newest messages in memory, up to ``window_size``."""
        self._publisher_now().store.expire_all_backlogs()

    def reset(self) -> None:
        """Delete all messages and numbers in the store. For tests, and for those who mean it."""
        self._publisher_now().store.reset()


def _listed(ids: Iterable[Any] | None) -> Iterable[Any] | None:
    """Targets for many messages: an iterator would be at its end behind the first."""
    return list(ids) if isinstance(ids, Iterable) and not isinstance(ids, (str, bytes)) else ids


def _published_name(channel: str, site_id: str | None, targeted: bool) -> str:
    """The stored name of a channel that is published to, if it may be."""
    check_channel(channel)
    if targeted and channel.startswith("/global/"):
        raise InvalidTargets(f"{channel}: a /global/ channel is for everybody on every site; it takes no targets")
    return store_name(channel, site_id)


MessageBus = Bus()
"""The process's ready-made bus."""
