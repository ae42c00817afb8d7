"""``messagebus stats``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import click

from .output import for_people, printable, write_json, write_table
from .url_option import open_place, with_place


@click.command(context_settings={"max_content_width": 100})
@with_place
def stats(url: str | None, key: str | None) -> None:
    """Print what a bus counts, once.

    Summed over all processes that listen to its store, and for each of them. messagebus top shows it live.

    \b
      messagebus stats
      messagebus stats | jq '.by_worker | length'
    """
    with closing(open_place(url, key)) as place:
        found = place.stats()
    if not for_people():
        write_json(found)
        return
    tables = {name: value for name, value in found.items() if isinstance(value, list)}
    lines = list(_flat({name: value for name, value in found.items() if name not in tables}))
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        click.echo(f"{click.style(name.ljust(width), fg='cyan')}  {value}")
    for name, rows in tables.items():
        click.echo()
        click.secho(name.replace("_", " "), fg="cyan")
        heads = list(dict.fromkeys(each for row in rows for each in row))
        write_table(heads, [[row.get(head) for head in heads] for row in rows])


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values as people read them; what is within another has both names."""
    for name, value in values.items():
        words = before + printable(name.replace("_", " "))
        if isinstance(value, dict):
            yield from _flat(value, f"{words}: ")
        else:
            yield words, "-" if value is None else printable(str(value))
