"""A message through the queue that stands before a store, as a bus publishes it."""

from __future__ import annotations

from messagebus.message import Ids, encode_envelope
from messagebus.publishing.publish_queue import PublishQueue
from messagebus.stores import Publication


def publication(number: int, channel: str = "/a") -> Publication:
    return Publication(channel, encode_envelope(b"%d" % number), 1000, 604_800)


def publish(queue: PublishQueue, number: int, channel: str = "/a", *, queue_in_memory: bool = True) -> Ids | None:
    """Its ids, or ``None`` where it waits."""
    return queue.publish_many((publication(number, channel),), queue_in_memory=queue_in_memory)[0]
