"""``messagebus stats``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import click

from .ending import Incomplete
from .output import for_people, printable, write_json, write_table
from .url_option import open_place, with_place

SHOWN = ("hostname", "pid", "uptime", "subscribers", "delivered", "bytes", "catch_ups", "gaps", "slow")
"""Of each worker, for people; a program gets all."""


@click.command(context_settings={"max_content_width": 100})
@with_place
def stats(url: str | None, key: str | None) -> None:
    """Print what a bus counts, once.

    Summed over all processes that listen, and for each of them. messagebus top shows it live. A server wants one of its
    admin_keys. Where partitions of a Redis Cluster give no answer, the others are counted, partitions_away names those
    that are away, and the exit code is 1.

    \b
      messagebus stats
      messagebus stats | jq '.by_worker | length'
    """
    with closing(open_place(url, key)) as place:
        found = place.stats()
    if for_people():
        _show(found)
    else:
        write_json(found)
    if "partitions_away" in found:
        raise Incomplete(found["partitions_away"])


def _show(found: Mapping[str, Any]) -> None:
    lines = list(_flat({name: value for name, value in found.items() if name != "by_worker"}))
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        click.echo(f"{click.style(name.ljust(width), fg='cyan')}  {value}")
    workers = found.get("by_worker", [])
    if workers:
        click.echo()
        write_table(
            [name.replace("_", " ") for name in SHOWN], [[worker.get(name) for name in SHOWN] for worker in workers]
        )


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values as people read them; what is within another has both names."""
    for name, value in values.items():
        words = before + printable(name.replace("_", " "))
        if isinstance(value, dict):
            yield from _flat(value, f"{words}: ")
        elif isinstance(value, float):
            yield words, f"{value:.6f}".rstrip("0").rstrip(".")
        else:
            yield words, "-" if value is None else printable(str(value))
