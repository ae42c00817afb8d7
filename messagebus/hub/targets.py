"""Whom a targeted message is for: this process's subscribers by client, user and group. No channels, no sockets."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from ..message import Message, id_key
from .subscriber import Identity, Subscriber


class TargetIndex:
    """In the reactor's loop only."""

    def __init__(self) -> None:
        # Nearly always one for each client: a tuple of one takes a quarter of a set's memory, and is found sooner.
        self._by_client: dict[str, tuple[Subscriber, ...]] = {}
        self._by_user: dict[bytes, set[Subscriber]] = {}
        self._by_group: dict[bytes, set[Subscriber]] = {}

    def add(self, subscriber: Subscriber) -> None:
        client_id = subscriber.identity.client_id
        self._by_client[client_id] = (*self.of_client(client_id), subscriber)
        for index, key in self._shared(subscriber.identity):
            index.setdefault(key, set()).add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """May be repeated."""
        client_id = subscriber.identity.client_id
        others = tuple([other for other in self.of_client(client_id) if other is not subscriber])
        if others:
            self._by_client[client_id] = others
        else:
            self._by_client.pop(client_id, None)
        for index, key in self._shared(subscriber.identity):
            members = index.get(key)
            if members is not None:
                members.discard(subscriber)
                if not members:
                    del index[key]

    def of_client(self, client_id: str) -> tuple[Subscriber, ...]:
        return self._by_client.get(client_id, ())

    def of_user(self, user_id: Any) -> Collection[Subscriber]:
        return self._by_user.get(id_key(user_id), _NOBODY)

    def find(self, message: Message) -> Collection[Subscriber]:
        """The subscribers that may see a message for certain users, groups or clients, exactly as
        :meth:`Identity.may_see` decides, found through the indexes. The result does not change when some of them leave
        while they are served."""
        found = self._find(message)
        excluded = message.exclude_client_ids
        if excluded is None:
            return found
        return [subscriber for subscriber in found if subscriber.identity.client_id not in excluded]

    def _find(self, message: Message) -> Collection[Subscriber]:
        users, groups, clients = message.user_ids, message.group_ids, message.client_ids
        if users is None and groups is None:
            # Nearly always it is for one client, and then nobody can be found twice.
            if clients is not None and len(clients) == 1:
                return self.of_client(clients[0])
            return set[Subscriber]().union(*[self.of_client(client_id) for client_id in clients or ()])
        found = set[Subscriber]().union(
            *[self._by_user.get(id_key(user_id), _NOBODY) for user_id in users or ()],
            *[self._by_group.get(id_key(group_id), _NOBODY) for group_id in groups or ()],
        )
        if clients is None:
            return found
        return [subscriber for subscriber in found if subscriber.identity.client_id in clients]

    def _shared(self, identity: Identity) -> Iterable[tuple[dict[bytes, set[Subscriber]], bytes]]:
        if identity.user_id is not None:
            yield self._by_user, identity.user_id
        for key in identity.group_ids:
            yield self._by_group, key


_NOBODY: frozenset[Subscriber] = frozenset()
