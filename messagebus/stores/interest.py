"""What a listener wants to hear: told by any thread, read by a feed's. No I/O.

A feed is not told "follow" and "unfollow", which could overtake each other on their way from several threads. It is
told which names have changed, and asks what holds now. Each partition of a store is fed for itself, and so has its own
part of the interest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from .partitions import partition_of

Find = Callable[[str], object | None]
"""A name -> for what it is wanted at this moment; ``None``: it is not. What a feed is given here it gives back in
``Listener.caught_up``."""


class Interest:
    """See the module. Safe from any thread; never blocks."""

    def __init__(self, find: Find, names: Callable[[], Iterable[str]], partitions: int = 1) -> None:
        """``names``: all that are wanted."""
        self.find = find
        self.names = names
        self.everything = False
        """Whether the listener hears all names, wanted or not. It stays so. (Of several partitions: see the parts.)"""
        self.parts: Sequence[Interest] = (self,)
        """What is wanted of each partition; of a store with one, this interest itself."""
        if partitions > 1:
            self.parts = [Interest(find, _Part(names, number, partitions)) for number in range(partitions)]
        self._changed: deque[str] = deque()
        self._asked: deque[Callable[[], object]] = deque()
        self._wake: Callable[[], object] = lambda: None
        self._is_awake = False
        """Whether the feed has been woken, and not yet come to :meth:`take`."""

    # --- for the listener ---

    def changed(self, name: str) -> None:
        """A name has come to be wanted, is wanted for something else, or is not wanted any more."""
        part = self.parts[partition_of(name, len(self.parts))]
        part._changed.append(name)
        part._wake_once()

    def want_everything(self) -> None:
        """From now on all names are wanted; the feed calls ``resync`` when it brings them."""
        for part in self.parts:
            part.everything = True
            part._wake_once()

    def ask(self, call: Callable[[], object], partition: int = 0) -> None:
        """Have the feed call ``caught_up`` and then ``call``, when the listener has got all that was wanted and
        published before in that partition. ``call`` is not called if the connection breaks before."""
        part = self.parts[partition]
        part._asked.append(call)
        part._wake_once()

    def _wake_once(self) -> None:
        # Once for many, as thousands may be let go in a turn of the loop.
        if not self._is_awake:
            self._is_awake = True
            self._wake()

    # --- for the feed; of a store with several partitions, of each part by itself ---

    def attach(self, wake: Callable[[], object]) -> None:
        """``wake``: called, from any thread, when there is something to :meth:`take`."""
        self._wake, self._is_awake = wake, False

    def take(self) -> tuple[Sequence[str], Sequence[Callable[[], object]]]:
        """The names that have changed, each once, and what is asked, since the last call."""
        self._is_awake = False  # first: whoever comes from now on wakes again
        changed, asked = self._changed, self._asked
        names = dict.fromkeys([changed.popleft() for _ in range(len(changed))])
        return list(names), [asked.popleft() for _ in range(len(asked))]


class _Part:
    """The wanted names of one partition."""

    def __init__(self, names: Callable[[], Iterable[str]], number: int, partitions: int) -> None:
        self._names = names
        self._number = number
        self._partitions = partitions

    def __call__(self) -> list[str]:
        return [name for name in self._names() if partition_of(name, self._partitions) == self._number]


LOOKED_AT = 200
"""Followed names that a feed compares with the store at once, every few seconds."""


class HearAll(Exception):
    """From now on the feed has to hear everything. The text says why, where it is not the listener's wish."""


class Changes(NamedTuple):
    """What is to be done about what is wanted."""

    wanted: Sequence[tuple[str, object]] = ()
    """Names that the listener is to be told of, each with what it is wanted for."""
    more: Sequence[str] = ()
    """Those of them that were not followed before."""
    less: Sequence[str] = ()
    """Names that are followed no more."""
    calls: Sequence[Callable[[], object]] = ()
    """What is to be called when all that was published before has been handed over."""

    @property
    def any(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.wanted or self.less or self.calls)


class Followed:
    """The names that a feed follows. For one thread, the feed's."""

    def __init__(self, interest: Interest) -> None:
        self._interest = interest
        self.names: dict[str, None] = {}
        self._knows_all = False
        self._looked_at = 0

    def begin(self) -> Changes:
        """Follow, on another connection, all that is wanted, and nothing else.

        Raises:
            HearAll: It is everything.
        """
        changed, calls = self._interest.take()
        # To ask for all names takes time for each, in every partition; but their changes have told them.
        names = dict.fromkeys([*self.names, *changed] if self._knows_all else self._interest.names())
        self.names, self._knows_all = {}, True
        return self._follow(names, calls)

    def take(self) -> Changes:
        """Follow what has come to be wanted since, and leave what is not.

        Raises:
            HearAll: It is everything.
        """
        return self._follow(*self._interest.take())

    def _follow(self, changed: Iterable[str], calls: Sequence[Callable[[], object]]) -> Changes:
        if self._interest.everything:
            raise HearAll
        names = self.names
        wanted, more, less = [], [], []
        for name in changed:
            why = self._interest.find(name)
            if why is not None:
                wanted.append((name, why))
                if name not in names:
                    names[name] = None
                    more.append(name)
            elif name in names:
                del names[name]
                less.append(name)
        return Changes(wanted, more, less, calls)

    def next_to_look_at(self) -> list[str]:
        """Some of the names, others each time, until it begins with the first ones again."""
        begin = self._looked_at if self._looked_at < len(self.names) else 0
        self._looked_at = begin + LOOKED_AT
        return list(islice(self.names, begin, self._looked_at))
