"""A program that ``messagebus exec`` runs: its process, and how that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from .ending import CannotDo

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAME = 1.0
"""Seconds within which several signals are one: some programs send theirs to the process and to its group."""


class Program:
    """A process, with all that it starts: in a session of its own, so that Ctrl-C is told it by us alone.

    :meth:`write` and :meth:`fail` are safe from any thread."""

    def __init__(self, command: tuple[str, ...], stop_wait: float, *, reads: bool) -> None:
        """``stop_wait``: seconds that it may take to end. ``reads``: whether it is written to.

        Raises:
            CannotDo: It cannot be started.
        """
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise CannotDo(f"{command[0]} cannot be started: {getattr(error, 'strerror', None) or error}") from None
        assert self._process.stdout is not None
        self.output = self._process.stdout.fileno()
        """What it prints, as a descriptor."""
        self.stopping = threading.Event()
        self.failure: Exception | None = None
        """Why it had to end before its time."""
        self._stopped_at = 0.0
        self._killer = threading.Timer(stop_wait, self._signal, (signal.SIGKILL,))
        self._killer.daemon = True

    def write(self, line: bytes) -> bool:
        """Blocks while the program reads nothing. Returns whether it has taken the line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def fail(self, error: Exception) -> None:
        """End it, because of this."""
        self.failure = self.failure or error
        if not self.stopping.is_set():
            self.stop()

    def stop(self) -> None:
        """Have it end; the second time at once. Does not wait."""
        now = time.monotonic()
        if self.stopping.is_set():
            if now - self._stopped_at > SAME:
                self._signal(signal.SIGKILL)
            return
        self._stopped_at = now
        self.stopping.set()
        self._signal(signal.SIGTERM)
        self._killer.start()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    @contextmanager
    def ended_by_signals(self) -> Iterator[None]:
        """While this lasts, what would end this process ends the program. For the main thread."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, stop) for number in ENDING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def wait(self) -> int:
        """Its exit code, as a shell has it."""
        code = self._process.wait()
        self._killer.cancel()
        return code if code >= 0 else 128 - code
