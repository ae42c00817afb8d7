"""Transient messages, as processes tell them each other: live, not kept, without an id. No loop, no subscribers."""

from __future__ import annotations

from typing import Any

import msgspec

from ..stores.parts import cut

TRANSIENT = "transient"
"""What workers tell each other; with a :class:`Telling`."""


class Telling(msgspec.Struct, frozen=True):
    """A transient message."""

    name: str
    """The channel, as the store names it."""
    envelope: str
    """As a store would keep it: a text, so that the data is the same to the byte when it is delivered."""
    key: str | None = None
    """Of those with the same key, the newest matters alone."""

    @classmethod
    def read(cls, told: Any) -> Telling:
        """Raises ``msgspec.ValidationError``."""
        return msgspec.convert(told, cls)


def tellings(name: str, envelope: bytes, key: str | None) -> list[str]:
    """The announcements that tell it to every worker."""
    return cut({"tell": TRANSIENT, "value": {"name": name, "envelope": envelope.decode(), "key": key}})
