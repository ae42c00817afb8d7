"""Whom a targeted message is for: this process's subscribers by client, user and group. No channels, no sockets."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from .message import Message
from .subscriber import Identity, Subscriber, id_key


class Audience:
    """In the reactor's loop only."""

    def __init__(self) -> None:
        self._by_client: dict[str, set[Subscriber]] = {}
        self._by_user: dict[bytes, set[Subscriber]] = {}
        self._by_group: dict[bytes, set[Subscriber]] = {}

    def add(self, subscriber: Subscriber) -> None:
        for index, key in self._places(subscriber.identity):
            index.setdefault(key, set()).add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """May be repeated."""
        for index, key in self._places(subscriber.identity):
            members = index.get(key)
            if members is not None:
                members.discard(subscriber)
                if not members:
                    del index[key]

    def of_client(self, client_id: str) -> list[Subscriber]:
        return list(self._by_client.get(client_id, _NOBODY))

    def find(self, message: Message) -> Collection[Subscriber]:
        """Exactly those of whom :meth:`Identity.may_see` says that they may see a targeted message, found without
        asking anybody. A collection of its own, for subscribers may leave while they are served."""
        users, groups, clients = message.user_ids, message.group_ids, message.client_ids
        if users is None and groups is None:
            found = [self._by_client.get(client_id, _NOBODY) for client_id in clients or ()]
            clients = None
        else:
            found = [self._by_user.get(id_key(user_id), _NOBODY) for user_id in users or ()]
            found += [self._by_group.get(id_key(group_id), _NOBODY) for group_id in groups or ()]
        # Nearly always it is for one client or user, and then nobody can be found twice.
        everybody = list(found[0]) if len(found) == 1 else set[Subscriber]().union(*found)
        if clients is None:
            return everybody
        return [subscriber for subscriber in everybody if subscriber.identity.client_id in clients]

    def _places(self, identity: Identity) -> Iterable[tuple[dict[Any, set[Subscriber]], str | bytes]]:
        yield self._by_client, identity.client_id
        if identity.user_id is not None:
            yield self._by_user, identity.user_id
        for key in identity.group_ids:
            yield self._by_group, key


_NOBODY: frozenset[Subscriber] = frozenset()
