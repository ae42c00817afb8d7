"""The settings of ``messagebus serve``, as its processes pass them on."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .limits import Limits

KILL_SECONDS = 5.0
"""Seconds beyond ``stop_timeout`` that a worker may take to close its buses and end, before the master kills it."""
RELOAD_DRAIN = 5.0
"""Seconds."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Each is an option of the command."""

    application: str | None = None
    """``None``: the bus alone."""
    from_flask_app: bool = False
    """Whether the application comes from the variable ``FLASK_APP``."""
    anonymous_publish: bool = False
    allowed_hosts: tuple[str, ...] = ()
    url: str | None = None
    config: Path | None = None
    """That file, which a reload reads again; absolute."""
    options: dict[str, Any] = field(default_factory=dict)
    """Those of every bus in the process, from the file of ``--config``."""
    workers: int = 1
    limits: Limits = field(default_factory=Limits)
    access_log: bool = False
    access_log_file: str | None = None
    log_format: str = "text"
    names: tuple[str, ...] = ()
    """The addresses, for people."""
    is_reached_by_browsers: bool = True
    """``False``: it listens on Unix sockets alone, behind a proxy that minds the hosts."""
    start_timeout: float = 60.0
    """Seconds that a worker may take to load the app."""
    stop_timeout: float = 5.0
    """Seconds that requests which are being answered may take when a worker ends."""
    drain: float | None = None
    """Seconds in which the subscribers of an ending worker may move to another one. ``None``: ``RELOAD_DRAIN`` where
    others have taken its place already, else none."""
    timeout: float = 30.0
    """Seconds without a sign of life after which a worker is killed and replaced."""
    store_wait: float = 10.0
    pid_file: str | None = None
    umask: int = 0
    reload: bool = False


class Flags:
    """What the workers tell the master, in memory that they share: which of them serve. Each has a number, the
    ``age`` that gunicorn gives it. And what the master tells the workers: that it lives, and which are replaced."""

    _SIZE = 4096  # far more than there are at a time
    _REPLACED = 2

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._SIZE + 1)
        self.end_of_master, self._held_by_master = os.pipe()
        """A descriptor that becomes readable when the master has ended, for whatever reason."""

    def leave_to_master(self) -> None:
        """In a worker: from now on the master alone keeps the pipe open."""
        os.close(self._held_by_master)

    @property
    def served(self) -> bool:
        """Whether a worker has ever come as far as to serve: the command has started, and ends no more because of a
        worker that cannot."""
        return self._memory[self._SIZE] == 1

    def serves(self, age: int) -> bool:
        return self._memory[age % self._SIZE] == 1

    def is_replaced(self, age: int) -> bool:
        """Whether others serve already in the place of a worker that is told to end."""
        return self._memory[age % self._SIZE] == self._REPLACED

    def set_replaced(self, age: int) -> None:
        self._memory[age % self._SIZE] = self._REPLACED

    def set_serves(self, age: int, serves: bool) -> None:
        self._memory[age % self._SIZE] = serves
        if serves:
            self._memory[self._SIZE] = 1
