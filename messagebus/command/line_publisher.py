"""Publishes what a program prints, each line once and in order, also while the bus does not answer for a while."""

from __future__ import annotations

import json
import secrets
from typing import Any

import click

from ..backoff import Backoff
from ..errors import BackendUnavailable, InvalidData, NotDurable
from .ending import NoAnswer, NotSafe, NotTaken
from .output import printable
from .places import AT_ONCE, Place
from .program import Program

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two attempts to publish, while the bus does not answer."""


class LinePublisher:
    """See the module. What cannot be published yet is kept, and the program waits meanwhile."""

    def __init__(self, place: Place, channel: str, options: dict[str, Any], is_json: bool, program: Program) -> None:
        self._place = place
        self._channel = channel
        self._options = options
        self._is_json = is_json
        self._program = program

    def publish(self, lines: list[bytes]) -> None:
        """
        Raises:
            Failed, CannotDo, MessageBusError: They may not be published, now or later.
        """
        values = [value for line in lines for value in self._read(line)]
        for begin in range(0, len(values), AT_ONCE):
            self._publish(values[begin : begin + AT_ONCE])

    def _read(self, line: bytes) -> list[Any]:
        text = line.decode(errors="replace")
        if not self._is_json:
            return [text]
        try:
            return [json.loads(text)]
        except (ValueError, RecursionError):
            click.echo(f"not published, for it is not JSON: {printable(text[:200])}", err=True)
            return []

    def _publish(self, values: list[Any]) -> None:
        options = {**self._options, "idempotency_key": secrets.token_hex(16)}
        backoff, tells = Backoff(FIRST_PAUSE, LONGEST_PAUSE), True
        while True:
            try:
                self._place.publish(self._channel, values, options)
                return
            except (InvalidData, NotTaken) as error:
                if len(values) == 1:
                    click.echo(f"a line was not published: {error}", err=True)
                    return
                break  # only the one that is too large is left out
            except (BackendUnavailable, NoAnswer, NotDurable, NotSafe) as error:  # with its key it is stored once
                if tells:
                    click.echo(f"the program waits: {error}", err=True)
                    tells = False
                if self._program.stopping.wait(backoff.next()):
                    is_stored = isinstance(error, (NotDurable, NotSafe))
                    what = "are stored, but not safe yet" if is_stored else "were not published"
                    click.echo(f"{len(values)} lines {what}", err=True)
                    return
        middle = len(values) // 2
        self._publish(values[:middle])
        self._publish(values[middle:])
