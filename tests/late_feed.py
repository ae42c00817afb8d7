"""A process in which everything happens when a test says so: the feed, and the turns of the loop. No sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from messagebus.hub.callbacks import Callbacks
from messagebus.hub.history import Cursor
from messagebus.hub.joining import join_when_ready
from messagebus.hub.node import Node
from messagebus.hub.permissions import Access
from messagebus.hub.subscribe_request import SubscriptionPlan
from messagebus.hub.subscriber import Identity, Subscriber
from messagebus.message import Message, encode_envelope
from messagebus.options import Options
from messagebus.publishing.publisher import Publisher
from messagebus.stores import Listener, StoreState
from messagebus.transports import Transport
from messagebus.transports.event_ids import EventId

from .planning import StubPlanner, request_for

NAME = "/chat"


class Plain(Transport):
    """A batch as it is."""

    name = "plain"

    def encode(self, batch: bytes, event_id: EventId) -> bytes:
        return batch


class RecordingClient:
    """A writer that keeps the batches which the client would get."""

    waiting = 0

    def __init__(self) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.finished = False
        self.tick = 0
        self.on_drained: Callable[[], object] = lambda: None

    is_behind = False

    def tell_when_sent(self) -> None: ...

    def put(self, data: bytes) -> None:
        self.batches.append(json.loads(data))

    def put_piece(self, parts: Sequence[bytes]) -> None:
        self.put(b"".join(parts))
        self.on_drained()

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None: ...

    def abandon(self) -> None: ...

    def on_deadline(self) -> None: ...

    def told(self, channel: str) -> list[Any]:
        return [m["data"] for batch in self.batches for m in batch if m["channel"] == channel]

    @property
    def ids(self) -> list[int]:
        return [m["message_id"] for batch in self.batches for m in batch if m["channel"] == NAME]

    @property
    def global_ids(self) -> list[int]:
        return [m["global_id"] for batch in self.batches for m in batch if m["channel"] == NAME]


class LateFeed(Listener):
    """A process whose feed comes when the test says so, over a store that others publish to."""

    def __init__(self, kept: int, window: int) -> None:
        self.node = Node(Publisher(Options(window_size=window)), Callbacks(), Access())
        self.node.reactor.spawn = self._at_once  # type: ignore[method-assign]
        self.node.command_jobs.start = self._at_once  # type: ignore[method-assign]
        self.kept = kept
        self.global_ids: list[int] = []
        """Of the messages on the channel."""
        self._late: list[Message] = []
        self.node.store.listen(self)

    def _at_once(self, call: Callable[[], object]) -> None:
        call()

    def started(self, state: StoreState) -> None:
        self.node.hub.start(state)

    def received(self, messages: Sequence[Message]) -> None:
        self._late += messages

    def resync(self, state: StoreState) -> None:
        raise AssertionError("nothing is lost here")

    def renewed(self, state: StoreState) -> None:
        self.node.renewed(state)

    def healthy(self, healthy: bool, partition: int = 0) -> None: ...

    def do(self, actions: str) -> None:
        """``p`` publishes on the channel, ``o`` on another one, ``d`` dispatches the feed's next message, ``t`` is a
        turn of the loop."""
        for action in actions:
            if action == "d":
                if self._late:
                    self.dispatch(1)
            elif action == "t":
                self.node.reactor.turn(0)
            else:
                name = NAME if action == "p" else "/other"
                ids = self.node.store.publish(
                    name, encode_envelope(b"1"), max_backlog_size=self.kept, max_backlog_age=100
                )
                if action == "p":
                    self.global_ids.append(ids.global_id)

    def dispatch(self, count: int) -> None:
        messages, self._late = self._late[:count], self._late[count:]
        self.node.seen[0] = messages[-1].global_id
        self.node.hub.dispatch(messages)

    def subscribe(self, want: Cursor, between: str) -> RecordingClient:
        """A subscriber; ``between`` happens after what it needs was read, and before it is let in."""
        plan = self.plan(want)
        self.do(between)
        return self.open(plan)

    def plan(self, *wants: Cursor) -> SubscriptionPlan:
        return self.node.plan(request_for(*wants))

    def open(self, plan: SubscriptionPlan, plan_again: Callable[[], SubscriptionPlan] | None = None) -> RecordingClient:
        """A subscriber that is let in with what was read for it; ``plan_again``: what it gets where that no longer
        suffices."""
        client = RecordingClient()
        subscriber = Subscriber(self.node.hub, Plain(), Identity("c"), b"", None)
        subscriber.writer = client
        client.on_drained = lambda: self.node.reactor.call_soon(subscriber.on_drained)
        # In the loop, after whatever the reading has handed over to it.
        self.node.reactor.call_soon(
            join_when_ready, StubPlanner(self.node.hub, plan_again) if plan_again else self.node, subscriber, plan
        )
        self.settle()
        return client

    def finish(self, client: RecordingClient) -> None:
        """The feed catches up with the store, and a subscriber that has waited for it is let in."""
        while self._late:
            self.dispatch(3)
        self.settle()
        assert not client.finished, "sent back"

    def settle(self) -> None:
        """As many turns as it takes until nothing is left to do."""
        for _ in range(8):
            self.node.reactor.turn(0)


@contextmanager
def late_feed(kept: int, window: int) -> Iterator[LateFeed]:
    feed = LateFeed(kept, window)
    try:
        yield feed
    finally:
        feed.node.reactor.abandon()
        feed.node.store.close()
