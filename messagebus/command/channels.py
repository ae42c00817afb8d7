"""``messagebus channels``."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import click

from ..option_kinds import check_pattern
from .ending import Incomplete
from .output import for_people, write_json, write_table
from .url_option import open_place, with_place

MOST = 10_000


@click.command(context_settings={"max_content_width": 100})
@click.argument("pattern", required=False, default="/*")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=MOST,
    show_default=True,
    metavar="N",
    help="The most to print; the standard error says if there are more.",
)
@with_place
def channels(pattern: str, limit: int, url: str | None, key: str | None) -> None:
    """List the channels that have messages.

    PATTERN is a channel, or its beginning and a *. With each channel stand the number of its messages that are kept and
    the number of those that were ever published, which is the newest one's id. A server also tells how many listen; the
    key is one of its admin_keys. Where partitions of a Redis Cluster give no answer, the channels of the others are
    listed, the standard error names those that are away, and the exit code is 1.

    \b
      messagebus channels
      messagebus channels '/room/*'
      messagebus channels /chat --url http://localhost:8000
      messagebus channels | jq -r 'select(.stored_messages > 500).channel'
    """
    check_pattern(pattern)
    with closing(open_place(url, key)) as place:
        found, away = place.channels(pattern)
        if for_people():
            # Of the order of the store nobody can make anything.
            listed = sorted(islice(found, limit), key=lambda each: (each.channel, each.site or ""))
            heads = ("channel", "kept", "published", "subscribers", "site")
            known = [n for n in range(len(heads)) if n < 3 or any(each[n] is not None for each in listed)]
            write_table([heads[n] for n in known], [[each[n] for n in known] for each in listed])
        else:
            for each in islice(found, limit):
                write_json({name: value for name, value in each._asdict().items() if value is not None})
        if next(found, None) is not None:
            click.echo(f"there are more than {limit}; --limit says how many to print", err=True)
        if away:
            raise Incomplete(away)
