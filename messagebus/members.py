"""Who is there, as programs ask: ``bus.presence``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import PresenceFull
from .lifecycle import Lifecycle
from .message import id_key
from .option_kinds import check_pattern
from .presence.member import Member, check_member, room_name

if TYPE_CHECKING:
    from .hub.presence import Presence
    from .presence.rules import Hook, PresenceRules, Rule


class Members:
    """The members of rooms. A channel is a room where a :meth:`member` rule says who its clients are. Safe from any
    thread or greenlet.

    Everything holds over all processes of the bus. ``site_id``: that of the channel's site; each site has rooms of its
    own."""

    def __init__(self, bus: Lifecycle, rules: PresenceRules) -> None:
        self._bus = bus
        self._rules = rules

    # --- rules; to be registered before serving ---

    def member(self, pattern: str) -> Callable[[Rule], Rule]:
        """Decorator for a function that says who a client is to the others of a channel:
        ``@bus.presence.member("/rooms/*")``.

        ``pattern`` is a channel, or a prefix that ends in ``*``; the first one that matches counts. The function gets
        the request (in a Flask app the Flask request, in its context) and the channel, whenever a client that may
        subscribe to it does, with each poll too. It returns a :class:`messagebus.Member`, or ``None`` for a client that
        follows unseen. What is in the member, everybody may see who may subscribe to the channel.

        Connections with the same id are one member. Who goes is a member for ``presence_grace`` seconds more.

        Raises:
            InvalidChannel: The pattern is malformed.
        """
        return self._register(pattern, self._rules.add)

    def on_join(self, pattern: str) -> Callable[[Hook], Hook]:
        """Decorator for a function that is called with the channel and the member when somebody has come who was not
        there, in one process of the bus.

        Register it in all processes that serve. One call comes after the other, in a thread of its own (under gevent a
        greenlet), outside of any request. An exception is logged, and passed to ``on_error``. With such a function each
        process keeps all members of these channels in memory.

        Raises:
            InvalidChannel: The pattern is malformed.
        """
        return self._register(pattern, lambda known, hook: self._rules.on_join.append((known, hook)))

    def on_leave(self, pattern: str) -> Callable[[Hook], Hook]:
        """The same for when somebody has gone: after the grace, and after the end of a process that was killed."""
        return self._register(pattern, lambda known, hook: self._rules.on_leave.append((known, hook)))

    def _register(self, pattern: str, add: Callable[[str, Any], object]) -> Callable[[Any], Any]:
        check_pattern(pattern)

        def register(function: Any) -> Any:
            add(pattern, function)
            return function

        return register

    # --- who is there ---

    def members(self, channel: str, site_id: str | None = None) -> list[Member]:
        """The members of a channel, in no order. Asks the other processes where this one does not know them yet; waits
        for a second and a half at most, and goes without those that do not answer.

        Raises:
            InvalidChannel, InvalidSite: It is not the name of one.
        """
        name = room_name(channel, site_id)
        return self._presence().members(name)

    def count(self, channel: str, site_id: str | None = None) -> int:
        """The number of members of a channel, as :meth:`members`."""
        name = room_name(channel, site_id)
        return self._presence().count(name)

    def join(
        self, channel: str, id: Any, info: Any = None, *, ttl: float | None = None, site_id: str | None = None
    ) -> None:
        """Have somebody be a member of a channel who has no connection to it: a worker, a robot, a phone call.

        Until :meth:`leave` is called in any process, this process ends, or ``ttl`` seconds have passed. May be
        repeated: the newest info and ``ttl`` count.

        Raises:
            InvalidChannel, InvalidSite: It is not the name of one.
            InvalidMember: The id or the info cannot be told to others.
            ValueError: ``ttl`` is no number of seconds above 0.
            PresenceFull: This process holds too many members.
        """
        name, member = room_name(channel, site_id), check_member(Member(id, info))
        given: object = ttl
        is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
        if ttl is not None and not (is_number and 0 < ttl < 10**9):
            raise ValueError(f"ttl: expected a number of seconds above 0, not {ttl!r:.80}")
        if not self._presence().keep(name, member, ttl):
            raise PresenceFull("this process holds as many members as it can")

    def leave(self, channel: str, id: Any, *, site_id: str | None = None) -> None:
        """End what :meth:`join` began, in whichever process that was. Who has a connection to the channel stays a
        member.

        Raises:
            InvalidChannel, InvalidSite: It is not the name of one.
            InvalidMember: It is no id.
            BackendUnavailable: The store gave no answer; some processes may have heard it.
        """
        from .hub.presence import RELEASE
        from .hub.workers import tell

        name, member = room_name(channel, site_id), check_member(Member(id))
        told = {"room": name, "key": id_key(member.id).decode()}
        tell(self._bus._running_node().store, RELEASE, told)

    def _presence(self) -> Presence:
        return self._bus._running_node().presence
