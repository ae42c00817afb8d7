"""Cuts what workers tell each other into announcements, which are short, and puts it together again. Pure."""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from typing import Any

from .base import MAX_ANNOUNCEMENT

PART = MAX_ANNOUNCEMENT // 2 - 200
"""Characters of a part: as a JSON string within JSON it is twice as long at most."""
MAX_PARTS = 400
"""Of one telling: about a megabyte."""
MAX_INCOMPLETE = 100
"""Tellings that wait for further parts; of more, the oldest are dropped."""


def cut(telling: dict[str, Any]) -> list[str]:
    """The announcements that carry it.

    Raises:
        ValueError: It is too long.
    """
    text = json.dumps(telling, separators=(",", ":"))
    if len(text) <= MAX_ANNOUNCEMENT:
        return [text]
    pieces = [text[begin : begin + PART] for begin in range(0, len(text), PART)]
    if len(pieces) > MAX_PARTS:
        raise ValueError(f"{len(text)} characters are more than workers tell each other: {PART * MAX_PARTS}")
    name = secrets.token_hex(8)
    return [
        json.dumps({"part": number, "of": len(pieces), "in": name, "text": piece}, separators=(",", ":"))
        for number, piece in enumerate(pieces)
    ]


class Joining:
    """Puts the parts together. For one thread."""

    def __init__(self) -> None:
        self._incomplete: OrderedDict[str, dict[int, str]] = OrderedDict()

    def add(self, announcement: str) -> dict[str, Any] | None:
        """What is told, once it is complete; ``None`` before, and for what no worker of this kind has announced."""
        try:
            told = json.loads(announcement)
            if not isinstance(told, dict):
                return None
            if "part" not in told:
                return told
            name, of, number = str(told["in"]), int(told["of"]), int(told["part"])
            if not 0 <= number < of <= MAX_PARTS:
                return None
            parts = self._incomplete.setdefault(name, {})
            parts[number] = str(told["text"])
            if len(parts) < of:
                while len(self._incomplete) > MAX_INCOMPLETE:
                    self._incomplete.popitem(last=False)
                return None
            del self._incomplete[name]
            whole = json.loads("".join(parts[number] for number in range(of)))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return whole if isinstance(whole, dict) else None
