"""What one worker knows of itself: a part of its report to the others, every two seconds at most."""

from __future__ import annotations

from typing import Any

from ..hub.node import Node
from ..limit_counts import SERVER

COUNTED = ("published", "dispatched", "delivered", "bytes", "catch_ups", "gaps", "slow")
"""Since the worker began."""
MEASURED = ("subscribers", "channels", "waiting_bytes", "window_bytes", "queued_publishes")
"""At the moment."""


def worker_facts(node: Node) -> dict[str, Any]:
    """The numbers of this process: those of ``COUNTED`` and ``MEASURED``, ``by_transport``, ``limits`` and
    ``store_seconds``. Cheap; from any thread."""
    hub = node.hub
    limits = {**hub.refused.as_dict()}
    for name, times in SERVER.as_dict().items():
        limits[name] = limits.get(name, 0) + times
    return {
        "subscribers": len(hub.membership),
        "by_transport": {name: number for name, number in dict(hub.membership.by_transport).items() if number},
        "channels": hub.membership.channels,
        "waiting_bytes": hub.outboxes.size,
        "window_bytes": hub.windows.size,
        "queued_publishes": len(node.publisher.queue),
        "published": node.publisher.published,
        **hub.counters.as_dict(),
        "limits": limits,
        "store_seconds": round(node.workers.store_seconds, 6),
    }
