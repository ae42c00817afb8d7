"""``messagebus top``."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count as counted
from itertools import islice
from typing import Any, NamedTuple

import click

from ..errors import BackendUnavailable
from ..statistics.reachable import with_away
from .ending import NoAnswer
from .output import for_people, printable, table_lines, write_json
from .places import Channel, Place
from .url_option import open_place, with_place

ROWS = 20
MOST_CHANNELS = 10_000
"""That are looked at; of more, the others are not shown."""
ALONE, BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""To a screen of one's own without a cursor, and back to what was there."""
HOME, END_OF_LINE, END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class Look(NamedTuple):
    """What there is at one moment."""

    at: float
    """Of the monotonic clock."""
    stats: dict[str, Any]
    channels: dict[tuple[str, str | None], Channel]
    """By name and site."""
    complete: bool
    """Whether these are all."""


class Row(NamedTuple):
    """A channel, and how busy it is."""

    channel: str
    per_second: float
    stored_messages: int
    published_messages: int
    subscribers: int | None
    site: str | None

    def as_json(self) -> dict[str, Any]:
        found = {**self._asdict(), "per_second": round(self.per_second, 2)}
        return {name: value for name, value in found.items() if value is not None}


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two looks.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N looks.")
@click.option(
    "--rows", type=click.IntRange(min=1), metavar="N", help="Channels to show.  [default: what fits, or 20 in a pipe]"
)
@with_place
def top(interval: float, count: int | None, rows: int | None, url: str | None, key: str | None) -> None:
    """Show the busiest channels, live.

    With each channel stand its messages per second since the last look, and the numbers of those that are kept and that
    were ever published. A server also tells how many listen; the key is one of its admin_keys. Until Ctrl-C. In a pipe
    each look is a line of JSON.

    \b
      messagebus top
      messagebus top --interval 10 | jq .published_per_second
    """
    with closing(open_place(url, key)) as place:
        before = _look(place)
        people = for_people()
        with _screen(people):
            if people:
                _draw(before, before, rows)
            looked_at = before.at
            for _ in counted() if count is None else range(count):
                time.sleep(max(0.0, looked_at + interval - time.monotonic()))
                looked_at = time.monotonic()
                try:
                    now = _look(place)
                except (BackendUnavailable, NoAnswer) as error:
                    click.echo(str(error), err=True)
                    continue
                if people:
                    _draw(before, now, rows)
                else:
                    write_json(_as_json(before, now, rows or ROWS))
                before = now


def _look(place: Place) -> Look:
    some, away = place.channels()
    found = list(islice(some, MOST_CHANNELS))
    channels = {(each.channel, each.site): each for each in found}
    stats = place.stats()
    stats |= with_away([*away, *stats.get("partitions_away", ())])
    return Look(time.monotonic(), stats, channels, len(found) < MOST_CHANNELS and not stats.get("partitions_away"))


def busiest(before: Look, now: Look) -> list[Row]:
    """All channels, the busiest first."""
    seconds = max(now.at - before.at, 0.001)
    rows = []
    for name, channel in now.channels.items():
        earlier = before.channels.get(name)
        # A channel that was not there before has got all its messages since.
        published = channel.published_messages
        known = earlier.published_messages if earlier is not None else 0 if before.complete else published
        per_second = max(published - known, 0) / seconds
        rows.append(
            Row(channel.channel, per_second, channel.stored_messages, published, channel.subscribers, channel.site)
        )
    return sorted(rows, key=lambda row: (-row.per_second, -row.published_messages, row.channel))


def rate(before: Look, now: Look, name: str) -> float:
    """What a number grows by in a second. It begins with 0 again where a store was reset, or a process has ended."""
    if before.stats.get("partitions_away") != now.stats.get("partitions_away"):
        return 0.0  # of other partitions
    new: int = now.stats.get(name, 0) - before.stats.get(name, 0)
    return max(new, 0) / max(now.at - before.at, 0.001)


def _as_json(before: Look, now: Look, rows: int) -> dict[str, Any]:
    return {
        "published_per_second": round(rate(before, now, "published_messages"), 2),
        "delivered_per_second": round(rate(before, now, "delivered"), 2),
        **now.stats,
        "channels": [row.as_json() for row in busiest(before, now)[:rows]],
    }


# --- on a terminal ---


@contextmanager
def _screen(people: bool) -> Iterator[None]:
    """A screen of our own; what was on the terminal is there again afterwards."""
    if not people:
        yield
        return
    earlier = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.stdout.write(ALONE)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
        sys.stdout.write(BACK)
        sys.stdout.flush()


def _draw(before: Look, now: Look, rows: int | None) -> None:
    """Over what was drawn before, so that nothing flickers."""
    width, height = shutil.get_terminal_size()
    stats = now.stats
    head = (
        f"{time.strftime('%H:%M:%S')}   {rate(before, now, 'published_messages'):.1f} published/s   "
        f"{rate(before, now, 'delivered'):.1f} delivered/s"
    )
    counts = (
        f"{len(now.channels)}{'' if now.complete else '+'} channels   {stats['subscribers']} subscribers   "
        f"{stats['workers']} processes"
    )
    if "partitions_away" in stats:
        counts += f"   partitions away: {', '.join(map(str, stats['partitions_away']))}"
    shown = busiest(before, now)[: min(rows or height, max(height - 4, 1))]
    heads = ["channel", "per second", "kept", "published"]
    cells: list[list[Any]] = [
        [_name(row), f"{row.per_second:.1f}", row.stored_messages, row.published_messages] for row in shown
    ]
    if any(row.subscribers is not None for row in shown):
        heads.append("subscribers")
        cells = [[*line, row.subscribers] for line, row in zip(cells, shown, strict=True)]
    table = table_lines(heads, cells)
    # Colours come last: they take no place.
    lines = [
        click.style(printable(head)[:width], bold=True),
        printable(counts)[:width],
        "",
        click.style(table[0][:width], fg="cyan"),
    ]
    lines += [line[:width] for line in table[1:]]
    sys.stdout.write(HOME + "\n".join(f"{line}{END_OF_LINE}" for line in lines[:height]) + END_OF_SCREEN)
    sys.stdout.flush()


def _name(row: Row) -> str:
    return row.channel if row.site is None else f"{row.channel} ({row.site})"
