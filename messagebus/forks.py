"""What a fork leaves behind in the child: locks that nobody will release, greenlets whose threads are gone.

A child has one thread. Greenlets of the others were copied with the memory, and gevent goes on running them: each of
those has to notice that it is in a child, do nothing more, and never end."""

from __future__ import annotations

import os
import threading
import weakref
from typing import NoReturn, Protocol

_forkable: weakref.WeakValueDictionary[int, Forkable] = weakref.WeakValueDictionary()
_left_behind: list[object] = []


class Forkable(Protocol):
    def _after_fork(self) -> None:
        """In a child: let go of what is the parent's. Closes nothing but descriptors, sends nothing."""


def register(thing: Forkable) -> None:
    """Call its ``_after_fork`` in every child, as long as it lives. What was registered later comes first, for it may
    be used by what was there before."""
    _forkable[id(thing)] = thing


def leave_behind(thing: object) -> None:
    """In a child: never finalize what is the parent's."""
    _left_behind.append(thing)


def was_left_behind(thing: object) -> bool:
    """Whether this was the parent's. Asked by what runs in a greenlet that was copied."""
    return any(other is thing for other in _left_behind)


def rest() -> NoReturn:
    """Never return. ``threading`` has forgotten this thread at the fork, and would print a traceback if it ended."""
    while True:
        threading.Event().wait()


def _after_fork_in_child() -> None:
    for thing in reversed(list(_forkable.values())):
        thing._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
