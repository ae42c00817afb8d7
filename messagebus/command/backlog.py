"""``messagebus backlog``."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from ..message import Message
from .output import for_people, progress, write_json, write_message
from .subscribe import FORMAT, begin
from .url_option import open_place, with_place

MANY = 10_000
"""Messages from which on a bar shows how far it is."""


@click.command(context_settings={"max_content_width": 100})
@click.argument("channel")
@click.option("--last", type=click.IntRange(min=0), metavar="N", help="The last N messages alone.")
@click.option("--from", "first", type=click.IntRange(min=1), metavar="ID", help="Begin with message ID.")
@click.option(
    "--export",
    is_flag=True,
    help="A line of JSON for each message, with everything that is kept of it: from a store also whom it is for.",
)
@FORMAT
@with_place
def backlog(
    channel: str,
    last: int | None,
    first: int | None,
    export: bool,
    form: str | None,
    url: str | None,
    key: str | None,
) -> None:
    """Print the messages that are kept of a channel.

    From a store all of them; from a server those that are for everybody. Where --from is older than the oldest one, the
    standard error says what is gone.

    \b
      messagebus backlog /chat --last 20
      messagebus backlog /chat --export > chat.ndjson
      messagebus backlog /chat --format raw
      messagebus backlog /chat --export | jq -c .data | messagebus publish /copy --lines --json
    """
    if export and form is not None:
        raise click.UsageError("--export has its own form: leave --format out")
    position = begin(last, first, default=0)
    form = form or ("text" if for_people() else "json")
    with closing(open_place(url, key)) as place:
        newest, messages = place.backlog(channel, position)
        oldest = next(messages, None)
        if oldest is None:
            return
        if first is not None and oldest.message_id > first:
            click.echo(f"messages {first} to {oldest.message_id - 1} are not kept any more, or for others", err=True)
        _write(oldest, export, form)
        reached = oldest.message_id
        # Only who looks at the terminal, and sees none of the messages, wants to know how far it is.
        shows = newest - reached >= MANY and not for_people()
        with progress(channel, newest - reached, shows) as told:
            for message in messages:
                _write(message, export, form)
                told(message.message_id - reached)
                reached = message.message_id


def _write(message: Message, export: bool, form: str) -> None:
    if export:
        write_json(_everything(message), flush=False)
    else:
        write_message(message, form, flush=False)


def _everything(message: Message) -> dict[str, Any]:
    targets = ("user_ids", "group_ids", "client_ids", "exclude_client_ids", "sender", "site_id")
    return {
        "global_id": message.global_id,
        "message_id": message.message_id,
        "channel": message.channel,
        "data": message.data,
        **{name: value for name in targets if (value := getattr(message, name)) is not None},
    }
