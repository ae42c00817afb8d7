"""The thread of a feed from a store on the network: connects, reconnects after every outage, ends when told to.

``redis_feed`` and ``postgres_feed`` implement what happens on the connection.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from .. import forks
from ..backoff import Backoff
from .base import Listener
from .sequencer import Gate, Sequencer, Source

logger = logging.getLogger("messagebus.stores")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two attempts to connect: the first is short, each next up to twice as long, as far as the longest."""


class FeedThread(ABC):
    """A running feed. Begins with ``start``; under gevent's monkey patching its thread is a greenlet."""

    OUTAGES: ClassVar[tuple[type[Exception], ...]]
    """The exceptions that mean that the store is unreachable."""

    def __init__(self, source: Source, listener: Listener, where: str) -> None:
        """``where``: the store as logs name it, without secrets."""
        self._gate = Gate(listener)
        self._sequencer = Sequencer(source, self._gate)
        self._where = where
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._down = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="messagebus-feed", daemon=True)

    @abstractmethod
    def _follow(self) -> Iterator[None]:
        """Run one connection. Yields after each successful step; ends only with an exception."""

    @abstractmethod
    def _interrupt(self) -> None:
        """Wake the thread where it waits for the store; from any thread."""

    @abstractmethod
    def _drop(self) -> None:
        """In a child process: drop the inherited connection without sending anything."""

    def start(self) -> None:
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._gate.is_shut

    def close(self) -> None:
        self._gate.shut()
        self._wake.set()
        self._interrupt()
        if self._thread is not threading.current_thread():
            # This times out only while the thread connects to a host that does not answer; then it may not call the
            # listener, either.
            self._thread.join(1.0)

    def hurry(self) -> None:
        """The store may be back, or elsewhere: try now, from any thread."""
        self._backoff.reset()
        self._wake.set()

    def abandon(self) -> None:
        """In a child process, where the thread does not exist; but a gevent greenlet does, and must do no more."""
        self._gate.shut_after_fork()
        self._wake = threading.Event()
        forks.leave_behind(self)
        self._drop()

    def _run(self) -> None:
        while not self.closed:
            try:
                for _ in self._follow():
                    self._backoff.reset()
            except self.OUTAGES as error:
                self._went_down(error)
            except Exception as error:
                if self.closed:
                    break
                # A bug in a listener, or in this package. The feed survives it, and continues after the message.
                logger.exception("the feed from %s failed, and starts again", self._where)
                self._went_down(error)
            self._wake.wait(self._backoff.next())
            self._wake.clear()
        if forks.was_left_behind(self):
            forks.rest()

    def _went_down(self, error: Exception) -> None:
        if self._down or self.closed:
            return
        self._down = True
        # Waiting does not help against a refusal; a person has to act.
        level = logging.ERROR if getattr(error, "reason", None) == "forbidden" else logging.WARNING
        logger.log(level, "no feed from %s, trying until it is back: %s", self._where, error)
        self._gate.healthy(False)

    def _came_up(self) -> None:
        if self._down:
            self._down = False
            # Wherever its beginning can be read, so can its end.
            logger.warning("the feed from %s is back", self._where)
            self._gate.healthy(True)
