"""``messagebus why``."""

from __future__ import annotations

from contextlib import closing

import click

from .ending import CannotDo
from .output import for_people, printable, write_json
from .url_option import open_place, with_place

GOOD = {"sent", "acknowledged", "given_later"}


@click.command(context_settings={"max_content_width": 100})
@click.option("--channel", required=True, metavar="CHANNEL", help="Where the message was published.")
@click.option("--id", "message_id", required=True, type=click.IntRange(1), help="Its id on the channel.")
@click.option("--user", metavar="ID", help='Who missed it. 7 is a number; "7", with its quotes, and anna are texts.')
@click.option("--client", metavar="ID", help="Or which client: MessageBus.clientId in the page.")
@with_place
def why(channel: str, message_id: int, user: str | None, client: str | None, url: str | None, key: str | None) -> None:
    """Tell why somebody did not get a message.

    Asks the store, and every process that listens to it: each remembers its newest connections (see trail_size). Ends
    with 0 where they got it, with 1 where not.

    \b
      messagebus why --user 7 --channel /orders --id 812
      messagebus why --client 1f0c --channel /chat --id 3 --url https://example.org
    """
    if (user is None) is (client is None):
        raise CannotDo("who missed it? Give --user or --client")
    with closing(open_place(url, key)) as place:
        findings = place.why(channel, message_id, user, client)
    if for_people():
        for each in findings:
            click.secho(printable(each.text), fg="green" if each.code in GOOD else "yellow")
    else:
        for each in findings:
            write_json(each._asdict())
    if not any(each.code in GOOD for each in findings):
        click.get_current_context().exit(1)
