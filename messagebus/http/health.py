"""Answers to load balancers and supervisors: whether this process lives, and whether it can serve. No key is asked for:
the answers say nothing that a page could not find out by subscribing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..hub.node import Node
from .refusals import unavailable


def live(node: Node) -> dict[str, object]:
    """It answers, so it lives, whatever became of the store: restarting this process would not mend that."""
    return {"live": True}


def ready(node: Node) -> dict[str, object]:
    """Whether to send clients here: it is not about to end, its feed brings new messages, and the store answers. Of a
    store with partitions one that works suffices: what the others lack, clients would lack elsewhere as well.

    May block for ``store_timeout``.

    Raises:
        BackendUnavailable, HTTPRefusal: It is not ready, and why.
    """
    if node.hub.is_ending:
        raise unavailable("this process is about to end")
    away = sorted(node.away)
    if len(away) == node.store.partitions:
        raise unavailable("the store's feed is down")
    works = [number for number, started in enumerate(node.hub.started) if started.is_set() and number not in away]
    if not works:
        raise unavailable("the store's feed has not started yet")
    node.store.state(works[0])
    return {"ready": True, "partitions_away": away} if away else {"ready": True}


RESOURCES: Mapping[str, Callable[[Node], dict[str, object]]] = {"health/live": live, "health/ready": ready}
"""What is at ``/message-bus/...`` for any client: what a ``GET`` is answered with."""
