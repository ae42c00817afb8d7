"""A program for each client that follows a channel: started when one is there, ended when it has left."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

import click

from ..errors import MessageBusError
from ..message import Message
from .ending import CannotDo
from .line_publisher import LinePublisher
from .output import line_of
from .places import Place
from .program import Program
from .viewer_program import ViewerProgram, WaitingLines

CLIENT_VARIABLE = "MESSAGEBUS_CLIENT_ID"
"""Where a program finds whose it is."""
LOOK_SECONDS = 0.2
"""Between two looks at who is there."""
HOLD_SECONDS = 5.0
"""How long lines are held for a client that is not known to be there yet."""
MOST_HELD = 100
"""Clients for which lines are held at a time."""


class Programs:
    """See the module. Its methods are for the main thread, except :meth:`hear` and :meth:`fail`."""

    def __init__(
        self,
        place: Place,
        channel: str,
        command: tuple[str, ...],
        options: dict[str, Any],
        *,
        is_json: bool,
        reads: bool,
        stop_wait: float,
        leave_wait: float,
        most: int,
    ) -> None:
        """``options``: of each publish. ``reads``: whether the programs are written to. ``stop_wait``: seconds that one
        may take to end. ``leave_wait``: seconds for which a client that has gone may come back to its program.
        ``most``: programs at a time."""
        self._place = place
        self._channel = channel
        self._command = command
        self._options = options
        self._is_json = is_json
        self._reads = reads
        self._stop_wait = stop_wait
        self._leave_wait = leave_wait
        self._most = most
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}
        """Client -> when it was there last, in the order in which they have come."""
        self._running: dict[str, ViewerProgram] = {}
        self._done: set[str] = set()
        """Clients that are there, and whose program has ended by itself."""
        self._held: dict[str, tuple[WaitingLines, float]] = {}
        """Client whose program has not begun -> its lines, and until when they are held."""
        self._failure: Exception | None = None
        self._signals = 0
        self._wake = threading.Event()
        self._says_full = True

    def run(self, clients: Callable[[], Collection[str]]) -> None:
        """Work until :meth:`stop`. ``clients``: tells who is there.

        Raises:
            CannotDo: There is no such program.
            ClickException, MessageBusError: What the programs print may not be published.
        """
        if shutil.which(self._command[0]) is None:
            raise CannotDo(f"{self._command[0]} cannot be started: there is no such program")
        while not self._signals and self._failure is None:
            self.look(clients(), time.monotonic())
            self._wait()
        self._end()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End all programs; the second time at once. For a handler of signals: takes no lock."""
        self._signals += 1

    def fail(self, error: Exception) -> None:
        """End them because of this."""
        self._failure = self._failure or error
        self._wake.set()

    # --- who is there ---

    def look(self, present: Collection[str], now: float) -> None:
        """Start and end programs. ``now``: seconds of one clock."""
        self._seen |= dict.fromkeys(present, now)
        for client in [client for client, seen in self._seen.items() if now - seen > self._leave_wait]:
            del self._seen[client]
            self._done.discard(client)
            if client in self._running:
                self._running[client].stop()
        self._clear(now)
        for client in self._seen:
            if client in self._done or client in self._running:
                continue
            if len(self._running) >= self._most:
                self._say_full()
                break
            if not self._start(client):
                break
        else:
            self._says_full = True

    def _clear(self, now: float) -> None:
        with self._lock:
            for client, program in [*self._running.items()]:
                if program.is_over:
                    del self._running[client]
                    if not program.was_stopped:
                        self._done.add(client)
            kept = {client: held for client, held in self._held.items() if client in self._seen or now < held[1]}
            self._held = kept

    def _say_full(self) -> None:
        if self._says_full:
            self._says_full = False
            click.echo(f"{self._most} programs run (--programs): who comes now waits until one ends", err=True)

    def _start(self, client: str) -> bool:
        try:
            program = Program(self._command, self._stop_wait, reads=self._reads, variables={CLIENT_VARIABLE: client})
        except CannotDo as error:
            if not self._running:
                self.fail(error)
            elif self._says_full:
                self._says_full = False
                click.echo(f"{error.message}; it is tried again", err=True)
            return False
        lines = LinePublisher(
            self._place, self._channel, {**self._options, "client_ids": [client]}, self._is_json, program
        )
        with self._lock:
            waiting = self._held.pop(client, (WaitingLines(), 0.0))[0] if self._reads else None
            started = self._running[client] = ViewerProgram(client, program, lines, waiting, self._over)
        started.start()
        return True

    def _over(self, failure: Exception | None) -> None:
        if failure is not None:
            self.fail(failure)
        self._wake.set()

    # --- what they read ---

    def feed(self, source: str, last_id: int) -> None:
        """Give the messages of a channel to the programs of those who have sent them, without end. In a thread of its
        own."""
        try:
            for message in self._place.subscribe([source], last_id):
                self.hear(message)
        except (click.ClickException, MessageBusError) as error:
            self.fail(error)

    def hear(self, message: Message) -> None:
        """A message is a line for the program of the client that has sent it; one that a program has published, for
        those of the clients that it is for, and for nobody where it is for everybody. From any thread."""
        line = line_of(message)
        for client in [message.sender] if message.sender is not None else message.client_ids or ():
            with self._lock:
                program = self._running.get(client)
                if program is None or program.was_stopped:
                    self._hold(client, line)
                    continue
            program.put(line)

    def _hold(self, client: str, line: bytes) -> None:
        held = self._held.get(client)
        if held is None:
            if client in self._done or len(self._held) >= MOST_HELD:
                return
            held = self._held[client] = (WaitingLines(), time.monotonic() + HOLD_SECONDS)
        held[0].put(line)

    # --- the end ---

    def _end(self) -> None:
        heeded = -1
        while self._running:
            if self._signals > heeded:
                heeded = self._signals
                for program in self._running.values():
                    program.stop()
            self._clear(time.monotonic())
            self._wait()

    def _wait(self) -> None:
        self._wake.wait(LOOK_SECONDS)
        self._wake.clear()
