"""How the reactor waits (epoll on Linux, ``selectors`` elsewhere), and how it is woken."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Protocol

READABLE = 0x001
WRITABLE = 0x004
PEER_CLOSED = 0x2000
"""Events, with epoll's numbers. They are spelled out because gevent's patching takes the names away with
``select.epoll``."""


class Poller(Protocol):
    """The part of ``select.epoll`` that is used."""

    def register(self, fd: int, events: int, /) -> None: ...
    def modify(self, fd: int, events: int, /) -> None: ...
    def unregister(self, fd: int, /) -> None: ...
    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def open_poller() -> Poller:
    poller: Poller = _original("select", "epoll")() if sys.platform == "linux" else SelectorPoller()
    return poller


class SelectorPoller:
    """A selector with epoll's interface."""

    def __init__(self) -> None:
        self._selector = _original("selectors", "DefaultSelector")()

    def register(self, fd: int, events: int) -> None:
        self._selector.register(fd, _to_selector(events))

    def modify(self, fd: int, events: int) -> None:
        wanted, known = _to_selector(events), fd in self._selector.get_map()
        if wanted and known:
            self._selector.modify(fd, wanted)
        elif wanted:
            self._selector.register(fd, wanted)
        elif known:  # a selector has no events that come unasked
            self._selector.unregister(fd)

    def unregister(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        ready = self._selector.select(None if timeout < 0 else timeout)
        return [(key.fd, _from_selector(events)) for key, events in ready[:maxevents]]

    def fileno(self) -> int:
        descriptor: int = self._selector.fileno()  # kqueue has one
        return descriptor

    def close(self) -> None:
        self._selector.close()


def _to_selector(events: int) -> int:
    return (1 if events & READABLE else 0) | (2 if events & WRITABLE else 0)


def _from_selector(events: int) -> int:
    return (READABLE if events & 1 else 0) | (WRITABLE if events & 2 else 0)


class Waker:
    """Makes a poller that waits return. :meth:`wake` may be called from any thread; never blocks."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)

    def fileno(self) -> int:
        return self._read_fd

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: nobody waits any more
            os.write(self._write_fd, b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_fd, 4096)

    def close(self) -> None:
        read_fd, write_fd = self._read_fd, self._write_fd
        # First: somebody may still wake us, and the numbers may be other files' a moment later.
        self._read_fd = self._write_fd = -1
        os.close(read_fd)
        os.close(write_fd)


def gevent_is_in_charge() -> bool:
    """Whether this process's threads are greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def refuse_eventlet() -> None:
    """The loop waits with ``epoll``, in a thread or in gevent's loop; eventlet's patching leaves neither.

    Raises:
        RuntimeError: eventlet has patched the process.
    """
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and (patcher.is_monkey_patched("select") or patcher.is_monkey_patched("thread")):
        raise RuntimeError(
            "messagebus does not run on eventlet, which has patched this process: with gunicorn, use -k gevent, "
            "-k gthread or -k sync instead of -k eventlet; or use messagebus serve"
        )


def _original(module: str, name: str) -> Any:
    """The standard library's original, even if gevent has replaced it or, like ``select.epoll``, removed it."""
    if gevent_is_in_charge():
        from gevent import monkey

        return monkey.get_original(module, name)
    return getattr(__import__(module), name)
