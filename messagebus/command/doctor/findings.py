"""What a check found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Result = Literal["ok", "warn", "fail"]
Lines = Mapping[str, tuple[str, ...]]
"""By the program whose configuration they belong to: ``nginx``, ``Caddy``, ``redis.conf`` and so on."""


@dataclass(frozen=True)
class Finding:
    """``check``: what was looked at, such as ``websocket: opens``. ``advice``: what to do, empty where all is well."""

    check: str
    result: Result
    found: str
    advice: str = ""
    lines: Lines = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)
