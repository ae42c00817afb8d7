"""All that a process has of channel classes once it listens: who is subscribed, and how they end. No wire."""

from __future__ import annotations

import logging
import queue
import threading
import time

from ..http.channel_commands import ChannelCalls
from ..hub.node import Node
from .classes import ChannelClasses
from .encoding import Streams
from .pings import Pings
from .recovery import Recovery
from .subscription import Publish, Subscription
from .times import Times
from .turns import Call, Turns

logger = logging.getLogger("messagebus.cable")

SINCE = "cable-since"
"""Asked with a moment: to which global id the bus had come then."""


class Cable:
    """See the module. Its methods are for the reactor's loop, unless they say otherwise."""

    def __init__(self, node: Node, classes: ChannelClasses, publish: Publish) -> None:
        hub = node.hub
        self.node = node
        self.classes = classes
        self.publish = publish
        self.streams = Streams(lambda name: hub.windows.epoch_for((name,)))
        self.pings = Pings(node.reactor)
        self.recovery = Recovery(node)
        self.times = Times(node.reactor, hub.windows.reached, hub.epochs, lambda: node.following.learn(node.away))
        self.calls: ChannelCalls
        """For the bus's own clients."""
        self._subscriptions: set[Subscription] = set()
        self._is_empty = threading.Event()
        self._is_empty.set()
        self._exiting = False
        self._left: queue.SimpleQueue[Call] = queue.SimpleQueue()
        """The calls of a process that ends: no job runs any more."""

        node.workers.on_question(SINCE, self._at)

    def start(self) -> None:
        """From any thread."""
        self.node.reactor.call_soon(self.times.start)

    def turns(self) -> Turns:
        """Those of one more client."""
        return Turns(self._start, self.node.reactor.call_soon)

    def add(self, subscription: Subscription) -> None:
        self._subscriptions.add(subscription)
        self._is_empty.clear()

    def remove(self, subscription: Subscription) -> None:
        """Its last call has returned."""
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            self._is_empty.set()

    def _start(self, call: Call) -> None:
        if not self._exiting:
            try:
                self.node.command_jobs.start(call)
                return
            except RuntimeError:
                pass  # the interpreter ends, and no thread begins any more
        self._left.put(call)

    def _leave_all(self) -> None:
        for subscription in [*self._subscriptions]:
            subscription.leave()

    def _at(self, asked: object) -> int | None:
        """``asked``: a moment, with a partition where that is not the first."""
        moment, partition = asked if isinstance(asked, list) and len(asked) == 2 else (asked, 0)
        if isinstance(moment, (int, float)) and partition in range(self.node.store.partitions):
            return self.times.at(float(moment), partition)
        return None

    def global_id_at(self, moment: float, name: str) -> int | None:
        """The last global id in the partition of a channel, by its stored name, at a moment (seconds since 1970), or a
        little earlier; ``None``: no process knows. From any thread but the loop's; blocks where another process has to
        be asked."""
        partition = self.node.store.partition_of(name)
        found = self.times.at(moment, partition)
        if found is None:
            asked = [moment, partition] if partition else moment
            answers = [answer.value for answer in self.node.workers.ask(SINCE, asked)]
            found = min([value for value in answers if isinstance(value, int)], default=None)
        return found

    # --- from other threads, when the process ends ---

    def finish(self, timeout: float) -> None:
        """End what is left of all subscriptions, and wait until ``unsubscribed`` has returned for each, up to
        ``timeout`` seconds."""
        self.node.reactor.call_soon(self._leave_all)
        done = threading.Event()
        self.node.reactor.call_soon(done.set)
        if not (done.wait(timeout) and self._is_empty.wait(timeout)):
            logger.warning("%d channels are still busy with their end after %g s", len(self._subscriptions), timeout)

    def finish_here(self, timeout: float) -> None:
        """The same where jobs can run no more, as when the interpreter ends: the calls are made in this thread."""
        if self._is_empty.is_set():
            return
        deadline = time.monotonic() + timeout
        self._exiting = True
        self.node.reactor.call_soon(self._leave_all)
        while not self._is_empty.is_set() and time.monotonic() < deadline:
            try:
                self._left.get(timeout=0.05)()
            except queue.Empty:
                continue
