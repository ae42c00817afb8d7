"""``messagebus subscribe``."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import click

from .output import for_people, write_message
from .url_option import open_place, with_place

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "raw"]),
    help="text: for people. json: a line for each message, with its ids. raw: its data alone, as the text it is, or as "
    "JSON.  [default: text on a terminal, else json]",
)


@click.command(context_settings={"max_content_width": 100})
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("--last", type=click.IntRange(min=0), metavar="N", help="Begin with the last N messages of each channel.")
@click.option("--from", "first", type=click.IntRange(min=1), metavar="ID", help="Begin with message ID. 1: with all.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@FORMAT
@with_place
def subscribe(
    channels: tuple[str, ...],
    last: int | None,
    first: int | None,
    count: int | None,
    form: str | None,
    url: str | None,
    key: str | None,
) -> None:
    """Print the messages of channels as they come.

    Until Ctrl-C. Where the connection breaks, it comes back and goes on where it was. From a store come all messages,
    also of every channel that begins as a CHANNEL with a * at its end; from a server those that are for everybody.

    \b
      messagebus subscribe /chat
      messagebus subscribe /chat /orders --last 10
      messagebus subscribe /orders --from 1 --format json | jq .data.total
      messagebus subscribe '/room/*'
      messagebus subscribe /done --count 1 && echo it is done
    """
    position = begin(last, first)
    form = form or ("text" if for_people() else "json")
    with closing(open_place(url, key)) as place:
        for message in islice(place.subscribe(channels, position), count):
            write_message(message, form)


def begin(last: int | None, first: int | None, default: int = -1) -> int:
    """The position that is asked for."""
    if last is not None and first is not None:
        raise click.UsageError("--last and --from say the same thing; give one of them")
    if last is not None:
        return -last - 1
    return default if first is None else first - 1
