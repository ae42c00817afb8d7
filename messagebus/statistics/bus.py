"""The numbers of a whole bus: the sum of its workers' reports, and what the store knows of its channels."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..channel_rules import is_stored
from ..errors import BackendUnavailable
from ..hub.audience import Audience
from ..hub.node import Node
from ..names import split_name
from ..stores import BacklogPage, BacklogQuery, Store
from .reachable import PATIENCE, ask_reachable, with_away
from .worker import COUNTED, MEASURED, worker_facts

MAX_COUNTED_CHANNELS = 10_000
"""Channels that are counted; where there are more, this number is given."""
COUNTED_PAGES = 50
"""Pages that are looked through for them: a page of a Redis that is full of other programs' keys may have none."""
PAGE = 1000
"""Channels of one page, at most."""


class ChannelStats(NamedTuple):
    """The numbers of one channel."""

    channel: str
    site: str | None
    published_messages: int
    """Over the channel's life: its last message id."""
    stored_messages: int
    subscribers: int
    """Over all workers."""
    last_requested: int | None
    """Seconds since a client last asked for it; ``None``: not within the workers' memory."""


class ChannelStatsPage(NamedTuple):
    """Some channels, and where the next page begins."""

    channels: list[ChannelStats]
    cursor: str
    """Empty: this is the last page."""
    away: Sequence[int] = ()
    """Partitions that gave no answer: their channels are on no page, or not all of them."""


def workers_of(node: Node) -> dict[str, dict[str, Any]]:
    """What each worker has last reported, by its name; this one's as of now, and alone where the store is away."""
    try:
        found = node.workers.reports()
    except BackendUnavailable:
        found = {}
    found[node.workers.id] = {**node.workers.own_facts(), **worker_facts(node)}
    return found


def bus_stats(node: Node) -> dict[str, Any]:
    """The numbers of the whole bus, as ``docs/statistics.md`` describes them. Blocks.

    Raises:
        BackendUnavailable: The store gives no answer.
    """
    return stats_of(node.store, workers_of(node), node.away)


def stats_of(
    store: Store, reports: Mapping[str, Mapping[str, Any]], known_away: Collection[int] = ()
) -> dict[str, Any]:
    """The same for a process that is no worker itself. ``reports``: of the workers; ``known_away``: partitions that are
    not asked."""
    now = time.time()
    published, round_trip, away = _ask_partitions(store, known_away)
    channels, away = (None, away) if away else _count_channels(store)
    return {
        "hostname": socket.gethostname(),
        "time": _time(now),
        "uptime": max((_uptime(report, now) for report in reports.values()), default=0),
        "workers": len(reports),
        "channels": channels,
        "published_messages": published,
        **with_away(away),
        "store_round_trip": round(round_trip, 6),
        **sums(reports.values()),
        "by_worker": [
            {
                "worker": name,
                "pid": report.get("pid"),
                "hostname": report.get("host"),
                "uptime": _uptime(report, now),
                **{key: report.get(key, 0) for key in (*MEASURED, *COUNTED)},
                "by_transport": report.get("by_transport", {}),
                "limits": report.get("limits", {}),
                "store_seconds": report.get("store_seconds", 0.0),
            }
            for name, report in sorted(reports.items(), key=lambda item: str(item[1].get("since", "")))
        ],
    }


def _ask_partitions(store: Store, known_away: Collection[int]) -> tuple[int, float, Sequence[int]]:
    """How many messages were published, the seconds that one partition took to say so, and the partitions that do not.

    Raises:
        BackendUnavailable: None of them gives an answer.
    """
    published, round_trip, lost = 0, 0.0, 0.0
    away = {*known_away} if store.partitions > 1 else set()
    trouble = BackendUnavailable("no partition of the store gives an answer")
    for partition in range(store.partitions):
        if partition in away:
            continue
        if lost > PATIENCE:
            away.add(partition)
            continue
        began = time.perf_counter()
        try:
            published += store.state(partition).global_id // store.partitions
            round_trip = time.perf_counter() - began
        except BackendUnavailable as error:
            away.add(partition)
            lost += time.perf_counter() - began
            trouble = error
    if len(away) == store.partitions:
        raise trouble
    return published, round_trip, sorted(away)


def sums(reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the workers' numbers come to. ``followed_channels`` is what they follow together, each channel once for each
    worker."""
    total: dict[str, Any] = dict.fromkeys((*MEASURED, *COUNTED), 0)
    total |= {"by_transport": {}, "limits": {}}
    for report in reports:
        for key in (*MEASURED, *COUNTED):
            total[key] += report.get(key, 0)
        for key in ("by_transport", "limits"):
            for name, number in report.get(key, {}).items():
                total[key][name] = total[key].get(name, 0) + number
    total["followed_channels"] = total.pop("channels")
    return total


def _count_channels(store: Store) -> tuple[int | None, Sequence[int]]:
    """The channels with stored messages, ``MAX_COUNTED_CHANNELS`` at most, and those found in ``COUNTED_PAGES``;
    ``None``, and which, where a partition gives no answer."""
    cursor, number = "", 0
    for _ in range(COUNTED_PAGES):
        names, cursor, away = store.channels(cursor, PAGE)
        if away:
            return None, away
        number += len(names)
        if not cursor or number >= MAX_COUNTED_CHANNELS:
            break
    return min(number, MAX_COUNTED_CHANNELS), ()


def channels_page(node: Node, prefix: str = "", cursor: str = "", limit: int = PAGE) -> ChannelStatsPage:
    """The numbers of up to about ``limit`` channels with stored messages whose names begin with ``prefix``. A page may
    have none, and not be the last. Goes on without the partitions that give no answer. Blocks.

    Raises:
        ValueError: No page has that ``cursor``.
        BackendUnavailable: The store gives no answer.
    """
    names, cursor, away = node.store.channels(cursor, min(limit, PAGE))
    found, more = reachable_channel_stats(node, [name for name in names if name.startswith(prefix)])
    return ChannelStatsPage(found, cursor, sorted({*away, *more}))


def reachable_channel_stats(node: Node, names: Sequence[str]) -> tuple[list[ChannelStats], list[int]]:
    """The numbers of those channels whose partitions give an answer, and the partitions that do not."""
    pages, away = ask_reachable(node.store, names, newest_page(node.store))
    return _channel_stats(node, [*pages], [*pages.values()]), away


def newest_page(store: Store) -> Callable[[Sequence[str]], list[BacklogPage]]:
    """Reads of each name what its backlog says of itself, with the newest message alone."""
    return lambda names: store.backlogs([BacklogQuery(name, -1) for name in names], 1)


def channel_stats(node: Node, names: Sequence[str]) -> list[ChannelStats]:
    """The numbers of these channels, as the store names them.

    Raises:
        BackendUnavailable: The store gives no answer for one of them.
    """
    return _channel_stats(node, names, newest_page(node.store)(names))


def _channel_stats(node: Node, names: Sequence[str], pages: Sequence[BacklogPage]) -> list[ChannelStats]:
    found = []
    for name, page, audience in zip(names, pages, _audiences(node, names), strict=True):
        channel, site = split_name(name)
        stored = page.last_id - page.first_id + 1 if is_stored(node.options.channels, channel) else 0
        asked_for = None if audience.asked_for is None else int(audience.asked_for)
        found.append(ChannelStats(channel, site, page.last_id, max(0, stored), audience.subscribers, asked_for))
    return found


def _audiences(node: Node, names: Sequence[str]) -> list[Audience]:
    """Those of this worker alone where nobody knows who the others are."""
    try:
        return node.audiences.of(names)
    except BackendUnavailable:
        return node.audiences.own(names)


def _uptime(report: Mapping[str, Any], now: float) -> int:
    return max(0, int(now - float(report.get("since", now))))


def _time(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + "Z"
