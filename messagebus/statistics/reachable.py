"""Asks a store for channels of many partitions, and goes on without the partitions that give no answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ..errors import BackendUnavailable
from ..stores import Store

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that partitions which give no answer may take in all; those after them count as away, unasked."""


def ask_reachable(
    store: Store, names: Sequence[str], ask: Callable[[Sequence[str]], Sequence[T]]
) -> tuple[dict[str, T], list[int]]:
    """What ``ask`` finds for each name, without those of partitions that give no answer; and these partitions. ``ask``
    gets names, and returns something for each.

    Raises:
        BackendUnavailable: The store has no partitions, or it is no matter of waiting.
    """
    try:
        return dict(zip(names, ask(names), strict=True)), []
    except BackendUnavailable as error:
        if store.partitions == 1 or error.reason == "forbidden":
            raise
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault(store.partition_of(name), []).append(name)
    found: dict[str, T] = {}
    away, lost = [], 0.0
    for partition, some in sorted(groups.items()):
        began = time.monotonic()
        if lost > PATIENCE:
            away.append(partition)
            continue
        try:
            found |= zip(some, ask(some), strict=True)
        except BackendUnavailable:
            away.append(partition)
            lost += time.monotonic() - began
    return {name: found[name] for name in names if name in found}, away


def with_away(away: Iterable[int]) -> dict[str, list[int]]:
    """What is told of a bus beside its numbers: the partitions of which they tell nothing, where there are some."""
    return {"partitions_away": found} if (found := sorted({*away})) else {}
