"""What a bus knows of its channels and its workers, and how that is deleted: the part of ``Bus`` that reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .channel_rules import is_stored
from .lifecycle import Lifecycle
from .message import Message
from .names import check_channel, store_name

if TYPE_CHECKING:
    from .hub.seen import Seen
    from .statistics.bus import ChannelStats
    from .statistics.why import Finding

SEEN_SECONDS = 0.25
"""Seconds that a page waits at most for the position that it is rendered at."""


class Reading(Lifecycle):
    """Base of ``Bus``. Safe from any thread and greenlet."""

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
        On a store with partitions 0 asks for those of all partitions, one after the other; another ``last_id`` for
        those of its own.

        Without ``site_id``: messages without a site; with ``"*"``: those of every site, and those without one."""
        from .hub.callbacks import Scope

        scope = Scope(None, site_id)
        store = self._publisher_now().store
        begins = [last_id] if last_id > 0 else range(store.partitions)
        return [message for begin in begins for message in store.global_backlog(begin) if scope.holds(message)]

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

    def check_store(self) -> None:
        """Find out whether the store can be used, for a program that wants to fail when it begins, and not later.
        Writes nothing. ``messagebus serve`` does this.

        Raises:
            BackendUnavailable: The store gave no answer: it may be there in a moment.
            InvalidOption: The URL is wrong, or leads to a server of another kind.
            PublishRefused: The store's user may not do all that the bus needs; the text says what, and what mends it.
        """
        self._publisher_now().store.check()

    def newest_global_id(self) -> int:
        """The newest global id, over all channels and sites; 0 in an empty store.

        Raises:
            ValueError: The store has several partitions, whose global ids say nothing of each other.
        """
        store = self._publisher_now().store
        if store.partitions > 1:
            raise ValueError(f"the store has {store.partitions} partitions, each of which has its own global ids")
        return store.state().global_id

    def last_message(self, channel: str, site_id: str | None = None) -> Message | None:
        """The newest message of a channel, if the store still keeps it."""
        last_id = self.last_id(channel, site_id)
        messages = self.backlog(channel, last_id - 1, site_id) if last_id else []
        return messages[-1] if messages else None

    def seen(self) -> Seen | None:
        """How far this process has received the store's messages: the position that a page rendered now continues from.

        Asks the store where the process does not hear of all messages: in SQLite, PostgreSQL, a cluster (each partition
        that can be reached), and with ``redis_announce="by_channel"``. ``None`` if the store's feed is not connected;
        the first call waits for it, for a second at most."""
        from .hub.seen import Seen

        if self._closed:
            return None
        node = self._running_node()
        if not node.has_started():
            return None
        node.following.catch_up({*range(node.store.partitions)} - node.away, SEEN_SECONDS)
        return Seen(node.seen, node.hub.epochs)

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
