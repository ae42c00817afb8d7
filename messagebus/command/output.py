"""What commands print: colours and tables for people, a line of JSON for each thing where another program reads.

click, which Flask brings, has the colours and the bar; the rest are columns of one width."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from ..message import Message
from ..transports.plain import text_of

_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
"""Characters that turn the direction of what follows, or begin a line."""


def for_people() -> bool:
    """Whether the output goes to a terminal."""
    return sys.stdout.isatty()


def write_json(value: Any, *, flush: bool = True) -> None:
    """One line."""
    write_line(json.dumps(value, ensure_ascii=False).encode(errors="replace"), flush=flush)


def write_line(line: bytes, *, flush: bool = True) -> None:
    """UTF-8, whatever the locale is. ``flush``: whether the reader is to have it now."""
    stream = sys.stdout.buffer
    stream.write(line + b"\n")
    if flush:
        stream.flush()


def write_message(message: Message, form: str, *, flush: bool = True) -> None:
    """``form``: ``json``; ``raw``, its data alone; ``text``, for people."""
    if form == "json":
        write_line(message.json.replace(b"\r", b" ").replace(b"\n", b" "), flush=flush)
        return
    if form == "raw":
        line = line_of(message)
        write_line(printable(line.decode()).encode() if for_people() else line, flush=flush)
        return
    channel = click.style(printable(message.channel), fg="cyan")
    number = click.style(str(message.message_id), dim=True)
    click.echo(f"{channel} {number}  {printable(text_of(message.raw))}")


def line_of(message: Message) -> bytes:
    """A message's data on one line, as a stream of the format ``raw`` has it: a text, or JSON."""
    text = text_of(message.raw).replace("\r", "\\r").replace("\n", "\\n")
    return (text or '""').encode(errors="replace")


@contextmanager
def progress(label: str, length: int, shows: bool) -> Iterator[Callable[[int], object]]:
    """Gives a function that is told how many more of ``length`` are done. ``shows``: whether somebody looks on."""
    if not shows or not sys.stderr.isatty():
        yield lambda more: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update


def write_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    lines = table_lines(head, rows)
    click.secho(lines[0], bold=True)
    for line in lines[1:]:
        click.echo(line)


def table_lines(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Columns of one width, the head first. What begins with a digit stands to the right; ``None`` is a dash."""
    cells = [["-" if each is None else printable(str(each)) for each in row] for row in rows]
    numbers = [all(row[column][:1].isdigit() or row[column] == "-" for row in cells) for column in range(len(head))]
    widths = [max(len(name), *(len(row[column]) for row in cells), 0) for column, name in enumerate(head)]
    return [
        "  ".join(
            each.rjust(width) if number else each.ljust(width)
            for each, width, number in zip(row, widths, numbers, strict=True)
        ).rstrip()
        for row in [list(head), *cells]
    ]


def printable(text: str) -> str:
    """A text of a stranger for a terminal: what could move the cursor, or the text itself, becomes an escape."""
    return "".join(
        each.encode("unicode_escape").decode() if each in _TURNS or unicodedata.category(each) in ("Cc", "Cs") else each
        for each in text
    )
