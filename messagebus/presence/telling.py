"""What workers tell each other of the members that they hold: one stream of numbered tellings of each worker, which all
of them hear in the same order. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ..message import id_key
from .member import Key, Member

SIZE = 4000
"""Characters of a telling, about: an announcement has no more than 5,000."""

LEFT = 100
"""Ids of those who have left, in one group."""


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A member, as its worker tells of it."""

    id: Any
    info: Any
    stamp: int
    """Since when the worker holds it."""
    at: int
    """Since when with this info."""

    @property
    def key(self) -> Key:
        return id_key(self.id)

    @property
    def member(self) -> Member:
        return Member(self.id, self.info)


class Group(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a telling says of one room."""

    name: str
    joined: list[Entry]
    left: list[Any] = []
    """Ids."""
    piece: int = -1
    """Not negative: ``joined`` is that piece of all whom the worker holds there."""
    of: int = 0
    """The number of these pieces."""


class Told(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A telling. With ``rooms`` it is a step of the worker's stream; without, it says how far the stream is."""

    worker: str = msgspec.field(name="from")
    number: int = 0
    """Of the step, from 1; of the last one, if this is none."""
    stamp: int = 0
    rooms: list[Group] = []
    bye: bool = False
    """The worker ends in order."""
    seconds: float = 0.0
    """For which its members are kept then; 0: for the grace. Where another worker passes it on: since when nothing was
    heard of it."""
    gone: str = ""
    """Another worker, of which nothing was heard for too long."""

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def read(value: object) -> Told | None:
    """A telling as it was heard; ``None``: it is none of this version."""
    try:
        return msgspec.convert(value, Told)
    except msgspec.ValidationError:
        return None


def pack(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """As many groups together as one telling has room for."""
    packed: list[Group] = []
    size = 0
    for group in groups:
        more = _size(group)
        if packed and size + more > SIZE:
            yield packed
            packed, size = [], 0
        packed.append(group)
        size += more
    if packed:
        yield packed


def pieces(name: str, entries: Iterable[Entry]) -> list[Group]:
    """All whom a worker holds in a room, in as many groups as it takes."""
    chunks: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        more = _size(entry)
        if chunks[-1] and size + more > SIZE - len(name):
            chunks.append([])
            size = 0
        chunks[-1].append(entry)
        size += more
    return [Group(name, chunk, [], number, len(chunks)) for number, chunk in enumerate(chunks)]


def news(name: str, joined: Iterable[Entry], left: Iterable[Any]) -> Iterator[Group]:
    """What has changed in a room, in as many groups as it takes."""
    entries: list[Entry] = []
    size = 0
    for entry in joined:
        more = _size(entry)
        if entries and size + more > SIZE - len(name):
            yield Group(name, entries)
            entries, size = [], 0
        entries.append(entry)
        size += more
    ids = [*left]
    if entries or ids:
        yield Group(name, entries, ids[:LEFT])
    for begin in range(LEFT, len(ids), LEFT):
        yield Group(name, [], ids[begin : begin + LEFT])


def _size(part: Entry | Group) -> int:
    # As it will be written: with escapes, which take up to three times the bytes.
    return len(json.dumps(msgspec.to_builtins(part), separators=(",", ":")))
