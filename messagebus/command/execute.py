"""``messagebus exec``: a program whose lines are messages."""

from __future__ import annotations

import sys
import threading
from contextlib import closing
from typing import Any

import click

from ..errors import MessageBusError
from .each import Programs
from .ending import Failed
from .line_publisher import LinePublisher
from .lines import LineTooLong, read_lines
from .output import line_of
from .places import Place
from .program import Program, instead_of_ending
from .url_option import open_place, with_place


@click.command("exec", context_settings={"max_content_width": 100})
@click.argument("channel")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.option("--json", "is_json", is_flag=True, help="Its lines are JSON; one that is not is said, and left out.")
@click.option("--input", "source", metavar="CHANNEL", help="The messages of this channel are the lines that it reads.")
@click.option("--each", is_flag=True, help="A program for each client that follows the channel.")
@click.option(
    "--programs",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    metavar="N",
    help="With --each: programs at a time; who comes then waits until one ends.",
)
@click.option(
    "--leave-wait",
    type=click.FloatRange(min=0.0),
    default=5.0,
    show_default=True,
    help="With --each: seconds in which a client that has left may come back to its program.",
)
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
    each: bool,
    programs: int,
    leave_wait: float,
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

    With --each it runs once for each client that follows CHANNEL, and is ended when that one has left. Its lines go to
    this client alone, and with --input it reads what this client publishes, and nothing else. It finds the client's id
    in the variable MESSAGEBUS_CLIENT_ID. This needs the URL of a store.

    The exit code is the program's, 128 and the number of the signal that it ended by, 1 if its lines may not be
    published, and 2 if it cannot be started or the bus does not answer at the start. SIGTERM and Ctrl-C end the
    program, and wait for it; a second one kills it.

    \b
      messagebus exec /vmstat -- vmstat 1
      messagebus exec /build --forget --max-backlog-size 100000 -- make -j4
      messagebus exec /calc --input /calc/in -- bc -lq
      messagebus exec /calc --input /calc/in --each -- bc -lq
    """
    if source == channel:
        raise click.UsageError("--input: the program would read its own lines; name another channel")
    given = {name: value for name, value in options.items() if value is not None}
    with closing(open_place(url, key)) as place:
        place.check(channel)
        clients = place.watch(channel) if each else None
        if forget:
            place.forget(channel)
        # From before a program begins: what is published when it says that it does reaches it.
        newest = 0 if source is None else place.backlog(source, -1).newest
        if clients is None:
            sys.exit(_run_one(place, channel, command, given, is_json, stop_wait, source, newest))
        many = Programs(
            place,
            channel,
            command,
            given,
            is_json=is_json,
            reads=source is not None,
            stop_wait=stop_wait,
            leave_wait=leave_wait,
            most=programs,
        )
        with instead_of_ending(many.stop):
            if source is not None:
                threading.Thread(target=many.feed, args=(source, newest), daemon=True).start()
            many.run(clients)


def _run_one(
    place: Place,
    channel: str,
    command: tuple[str, ...],
    options: dict[str, Any],
    is_json: bool,
    stop_wait: float,
    source: str | None,
    last_id: int,
) -> int:
    """Run the program for everybody. Returns its exit code."""
    program = Program(command, stop_wait, reads=source is not None)
    with instead_of_ending(program.stop):
        if source is not None:
            threading.Thread(target=_feed, args=(program, place, source, last_id), daemon=True).start()
        lines = LinePublisher(place, channel, options, is_json, program)
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
    return code


def _feed(program: Program, place: Place, channel: str, last_id: int) -> None:
    """Write the messages of a channel to the program. In a thread of its own, which ends with the process."""
    try:
        for message in place.subscribe([channel], last_id):
            if not program.write(line_of(message)):
                return
    except (click.ClickException, MessageBusError) as error:
        program.fail(error)
