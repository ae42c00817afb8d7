"""A program that ``messagebus exec`` runs: its process, and how that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

from .ending import CannotDo

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAME = 1.0
"""Seconds within which several signals are one: some programs send theirs to the process and to its group."""


class Program:
    """A process, with all that it starts: in a session of its own, so that Ctrl-C is told it by us alone.

    :meth:`write` and :meth:`fail` are safe from any thread."""

    def __init__(
        self, command: tuple[str, ...], stop_wait: float, *, reads: bool, variables: Mapping[str, str] | None = None
    ) -> None:
        """``stop_wait``: seconds that it may take to end. ``reads``: whether it is written to. ``variables``: what its
        environment has beside this process's.

        Raises:
            CannotDo: It cannot be started.
        """
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, **(variables or {})},
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

    def wait(self) -> int:
        """Its exit code, as a shell has it. Call it when its output has ended."""
        code = self._process.wait()
        self._killer.cancel()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code if code >= 0 else 128 - code

    def close_input(self) -> None:
        """Nothing more is written to it. Not while :meth:`write` may still be running."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has gone, with what is still buffered
            self._process.stdin.close()


@contextmanager
def instead_of_ending(call: Callable[[], object]) -> Iterator[None]:
    """While this lasts, what would end this process calls ``call()``. For the main thread."""

    def told(number: int, frame: FrameType | None) -> None:
        call()

    before = {number: signal.signal(number, told) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
