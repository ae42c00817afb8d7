"""The program of one viewer, with what it is still to read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import click

from ..errors import MessageBusError
from .line_publisher import LinePublisher
from .lines import LineTooLong, read_lines
from .program import Program

MOST_WAITING = 256 << 10
"""Bytes of lines that wait for a program to read them. One line may always wait, whatever its size."""
LONGEST_LINE = 1 << 20
"""Bytes of a line that a program writes: there may be many of them."""


class WaitingLines:
    """Lines that a program is to read. Safe from any thread."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, line: bytes) -> bool:
        """Returns whether there was room for it. Never blocks."""
        with self._changed:
            if self._lines and self._size + len(line) > MOST_WAITING:
                return False
            if not self._closed:
                self._lines.append(line)
                self._size += len(line)
                self._changed.notify()
            return True

    def take(self) -> bytes | None:
        """The next one, once there is one; ``None``: no more come."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
            if self._closed:
                return None
            line = self._lines.popleft()
            self._size -= len(line)
            return line

    def close(self) -> None:
        """Nobody reads any more; what waits is dropped."""
        with self._changed:
            self._closed = True
            self._lines.clear()
            self._changed.notify()


class ViewerProgram:
    """A program that runs, and two threads: one publishes its lines, the other writes to it what it is to read."""

    def __init__(
        self,
        client_id: str,
        program: Program,
        lines: LinePublisher,
        waiting: WaitingLines | None,
        over: Callable[[Exception | None], object],
    ) -> None:
        """``waiting``: what it is to read; ``None``: nothing. ``over``: called in another thread when it has ended and
        all that it has printed is published; with an error, if its lines may not be."""
        self._client_id = client_id
        self._program = program
        self._lines = lines
        self._waiting = waiting
        self._over = over
        self._has_said = False
        self.is_over = False
        self.was_stopped = False
        """Whether it did not end by itself."""

    def start(self) -> None:
        threading.Thread(target=self._publish, daemon=True).start()
        if self._waiting is not None:
            threading.Thread(target=self._write, args=(self._waiting,), daemon=True).start()

    def put(self, line: bytes) -> None:
        """Have the program read a line. Never blocks: what there is no room for is left out, and that is said once."""
        if self._waiting is not None and not self._waiting.put(line) and not self._has_said:
            self._has_said = True
            click.echo(f"{self._client_id}: its program does not read; lines for it are left out", err=True)

    def stop(self) -> None:
        """Have it end; the second time at once. Does not wait."""
        self.was_stopped = True
        self._program.stop()

    def _publish(self) -> None:
        failure: Exception | None = None
        try:
            for some in read_lines(self._program.output, most=LONGEST_LINE):
                self._lines.publish(some)
        except LineTooLong:
            click.echo(f"{self._client_id}: its program writes a line without an end, and is ended", err=True)
            self._program.stop()
        except (click.ClickException, MessageBusError) as error:
            failure = error
            self._program.stop()
        code = self._program.wait()
        if code and not self._program.stopping.is_set():
            click.echo(f"{self._client_id}: its program has ended with code {code}", err=True)
        if self._waiting is not None:
            self._waiting.close()
        self.is_over = True
        self._over(failure)

    def _write(self, waiting: WaitingLines) -> None:
        while (line := waiting.take()) is not None:
            if not self._program.write(line):
                break
        self._program.close_input()
