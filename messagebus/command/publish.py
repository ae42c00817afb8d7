"""``messagebus publish``."""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
from contextlib import closing
from typing import Any

import click

from ..errors import MessageBusError, NotDurable
from .ending import CannotDo, NotSafe, NotTaken, as_ending
from .lines import LineTooLong, read_lines
from .output import for_people, printable, progress, write_json
from .places import AT_ONCE, Place, Published
from .url_option import open_place, with_place

LONG = 1 << 20
"""Bytes of a file from which on a bar shows how far it is."""


@click.command(context_settings={"max_content_width": 100})
@click.argument("channel")
@click.argument("data", required=False, metavar="[DATA|-]")
@click.option("--json", "is_json", is_flag=True, help="DATA is JSON. Without it, it is a text, whatever it looks like.")
@click.option("--lines", is_flag=True, help="Each line of the standard input is a message; with --json: NDJSON.")
@click.option("--user-id", "user_ids", multiple=True, metavar="ID", help="For this user alone; may be repeated.")
@click.option("--group-id", "group_ids", multiple=True, metavar="ID", help="For this group alone; may be repeated.")
@click.option("--client-id", "client_ids", multiple=True, metavar="ID", help="For this client alone; may be repeated.")
@click.option("--exclude-client-id", "exclude_client_ids", multiple=True, metavar="ID", help="Not for this client.")
@click.option("--max-backlog-size", type=int, metavar="N", help="Messages that the channel keeps from now on.")
@click.option("--max-backlog-age", type=int, metavar="SECONDS", help="How long it keeps them after the last one.")
@click.option(
    "--durable",
    type=click.IntRange(0, 1000),
    metavar="N",
    help="Wait until N replicas of Redis have it. Exit code 1: it is stored, but they have not told so in time.",
)
@click.option("--idempotency-key", metavar="NAME", help="Published once, however often it is tried within 10 minutes.")
@with_place
def publish(
    channel: str, data: str | None, is_json: bool, lines: bool, url: str | None, key: str | None, **options: Any
) -> None:
    """Publish a message, or one for each line.

    DATA is a text, or with --json any JSON value. With - or without it the standard input is read, and the line break
    at its end is left out. An ID of a user or a group that is a number is a number: 7; a text in quotes is a text:
    '"7"'.

    \b
      messagebus publish /chat hello
      messagebus publish /chat --json '{"text": "hello"}' --user-id 7
      tail -F access.log | messagebus publish /log --lines
      messagebus publish /orders --lines --json < orders.ndjson
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in ("user_ids", "group_ids"):
        if name in given:
            given[name] = [_id(each) for each in given[name]]
    if lines and data not in (None, "-"):
        raise click.UsageError("--lines reads the standard input: leave DATA out")
    if lines and "idempotency_key" in given:
        raise click.UsageError("--idempotency-key is for one message, not for --lines")
    with closing(open_place(url, key)) as place:
        if lines:
            _publish_lines(place, channel, is_json, given)
            return
        text = os.fsencode(data) if data not in (None, "-") else _input()
        if data is None and not text:
            raise click.UsageError("no message: give DATA, or write one to the standard input; '' is an empty text")
        value = _value(text, is_json, "the message")
        published = place.publish(channel, [value], given)
    if for_people():
        click.echo(f"{click.style(printable(channel), fg='cyan')} {_outcome(published)}")
    else:
        write_json({name: each for name, each in published._asdict().items() if each is not None or "_id" in name})


def _publish_lines(place: Place, channel: str, is_json: bool, options: dict[str, Any]) -> None:
    count, number, published = 0, 0, None
    file = sys.stdin.fileno()
    info = os.fstat(file)
    length = info.st_size if stat.S_ISREG(info.st_mode) else 0
    with progress(channel, length, length >= LONG) as told:
        try:
            for found in read_lines(file, told):
                values = []
                for line in found:
                    number += 1
                    if line.strip() or not is_json:
                        values.append(_value(line, is_json, f"line {number}"))
                for begin in range(0, len(values), AT_ONCE):
                    some = values[begin : begin + AT_ONCE]
                    try:
                        published = _publish_some(place, channel, some, options)
                    except (NotDurable, NotSafe):
                        count += len(some)
                        raise
                    count += len(some)
        except LineTooLong:
            raise CannotDo(f"line {number + 1} has no end; {_so_far(count)}") from None
        except (click.ClickException, MessageBusError) as error:
            ending = as_ending(error) if isinstance(error, MessageBusError) else error
            raise type(ending)(f"{ending.message}; {_so_far(count)}") from None
    if for_people():
        click.echo(f"{click.style(printable(channel), fg='cyan')} {_so_far(count)}")
    else:
        write_json({"channel": channel, "published": count, "message_id": published and published.message_id})


def _publish_some(place: Place, channel: str, values: list[Any], options: dict[str, Any]) -> Published:
    try:
        return place.publish(channel, values, {**options, "idempotency_key": secrets.token_hex(16)})
    except NotTaken:
        if len(values) == 1:
            raise
    # Together they are more than the server takes at once.
    middle = len(values) // 2
    _publish_some(place, channel, values[:middle], options)
    return _publish_some(place, channel, values[middle:], options)


def _so_far(count: int) -> str:
    return f"{count} {'message was' if count == 1 else 'messages were'} published"


def _outcome(published: Published) -> str:
    if published.message_id is None:
        return "waits at the server for its store"
    listening = "" if published.subscribers is None else f", {published.subscribers} listening"
    return f"message {published.message_id}{listening}"


def _input() -> bytes:
    if sys.stdin.isatty():
        click.echo("The message, then Ctrl-D:", err=True)
    text = sys.stdin.buffer.read()
    return text.removesuffix(b"\n").removesuffix(b"\r")


def _value(text: bytes, is_json: bool, what: str) -> Any:
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        raise CannotDo(f"{what} is not UTF-8, at its byte {error.start + 1}") from None
    if not is_json:
        return decoded
    try:
        return json.loads(decoded)
    except ValueError as error:
        hint = "" if what != "the message" else "; without --json it is published as a text"
        raise CannotDo(f"{what} is not JSON: {error}{hint}") from None
    except RecursionError:
        raise CannotDo(f"{what} is nested too deeply") from None


def _id(text: str) -> str | int:
    """``7`` is a number, ``"7"`` and everything else is a text, as over HTTP."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, (str, int)) and not isinstance(value, bool) else text
