"""``messagebus exec``: a program whose lines are messages."""

from __future__ import annotations

import json
import secrets
import sys
import threading
from contextlib import closing
from typing import Any

import click

from ..backoff import Backoff
from ..errors import BackendUnavailable, InvalidData, MessageBusError
from .ending import Failed, NoAnswer, NotTaken
from .lines import LineTooLong, read_lines
from .output import line_of, printable
from .places import AT_ONCE, Place
from .program import Program
from .url_option import open_place, with_place

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two attempts to publish, while the bus does not answer."""


@click.command("exec", context_settings={"max_content_width": 100})
@click.argument("channel")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("--json", "is_json", is_flag=True, help="Its lines are JSON; one that is not is said, and left out.")
@click.option("--input", "source", metavar="CHANNEL", help="The messages of this channel are the lines that it reads.")
@click.option("--forget", is_flag=True, help="Delete what the channel has of an earlier run.")
@click.option("--max-backlog-size", type=int, metavar="N", help="Lines that late viewers can read: the last N.")
@click.option("--max-backlog-age", type=int, metavar="SECONDS", help="How long they can, after the last line.")
@click.option(
    "--stop-wait",
    type=click.FloatRange(min=0.0),
    default=10.0,
    show_default=True,
    help="Seconds that the program may take to end, when this command is told to.",
)
@with_place
def execute(
    channel: str,
    command: tuple[str, ...],
    is_json: bool,
    source: str | None,
    forget: bool,
    stop_wait: float,
    url: str | None,
    key: str | None,
    **options: Any,
) -> None:
    """Run a program, and publish each line that it prints.

    One program for everybody: late viewers read its last lines from the backlog. What it writes to the standard error
    stays here. While the bus does not answer, the program waits.

    With --input it reads the messages of another channel, a line for each. Anybody who may publish there can say
    something to the program: see client_publish and publisher_keys of the server.

    The exit code is the program's, 128 and the number of the signal that it ended by, 1 if its lines may not be
    published, and 2 if it cannot be started or the bus does not answer at the start. SIGTERM and Ctrl-C end the
    program, and wait for it; a second one kills it.

    \b
      messagebus exec /vmstat -- vmstat 1
      messagebus exec /build --forget --max-backlog-size 100000 -- make -j4
      messagebus exec /calc --input /calc/in -- bc -lq
    """
    if source == channel:
        raise click.UsageError("--input: the program would read its own lines; name another channel")
    given = {name: value for name, value in options.items() if value is not None}
    with closing(open_place(url, key)) as place:
        place.check(channel)
        if forget:
            place.forget(channel)
        # From before the program begins: what is published when it says that it does reaches it.
        newest = 0 if source is None else place.backlog(source, -1).newest
        program = Program(command, stop_wait, reads=source is not None)
        with program.ended_by_signals():
            if source is not None:
                threading.Thread(target=_feed, args=(program, place, source, newest), daemon=True).start()
            lines = Lines(place, channel, given, is_json, program)
            try:
                for some in read_lines(program.output):
                    lines.publish(some)
            except LineTooLong:
                program.fail(Failed("the program writes a line without an end"))
            except (click.ClickException, MessageBusError) as error:
                program.fail(error)
            code = program.wait()
    if program.failure is not None:
        raise program.failure
    sys.exit(code)


class Lines:
    """Publishes what a program prints. What cannot be published yet is kept, and the program waits meanwhile."""

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
            except (BackendUnavailable, NoAnswer) as error:
                if tells:
                    click.echo(f"the program waits: {error}", err=True)
                    tells = False
                if self._program.stopping.wait(backoff.next()):
                    click.echo(f"{len(values)} lines were not published", err=True)
                    return
        middle = len(values) // 2
        self._publish(values[:middle])
        self._publish(values[middle:])


def _feed(program: Program, place: Place, channel: str, last_id: int) -> None:
    """Write the messages of a channel to the program. In a thread of its own, which ends with the process."""
    try:
        for message in place.subscribe([channel], last_id):
            if not program.write(line_of(message)):
                return
    except (click.ClickException, MessageBusError) as error:
        program.fail(error)
