"""Clients that check what they are given: of each channel each number once and in order, or a gap before it; and who
publishes these numbers."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from messagebus import Bus, Client
from messagebus.client import ClientMessage, Gap
from messagebus.client.types import Transport
from messagebus.errors import BackendUnavailable, NotDurable

TRANSPORTS: tuple[Transport, ...] = ("websocket", "eventsource", "streaming", "long-polling", "polling")


class CheckingClient:
    """Follows channels, on which numbers are published that begin at 0 and have no hole."""

    def __init__(self, url: str, transport: Transport, channels: Sequence[str]) -> None:
        self.name = f"{transport} on {url}"
        self.next = dict.fromkeys(channels, 0)
        """Channel -> the number that comes next."""
        self.gaps: list[Gap] = []
        self.faults: list[str] = []
        self._begins_again: set[str] = set()
        self._client = Client(
            url, transports=(transport, "polling"), on_gap=self._gap, callback_interval=0.1, min_poll_interval=0.05
        )
        for channel in channels:
            self._client.subscribe(channel, self._take, 0)
        self._client.start()

    def _take(self, message: ClientMessage) -> None:
        channel, number = message.channel, message.data
        expected = self.next[channel]
        # Behind a gap of another epoch comes all that is kept, known or not.
        known = channel in self._begins_again and number < expected
        self._begins_again.discard(channel)
        if number != expected and not known:
            self.faults.append(f"{channel}: {number} came in the place of {expected}")
        self.next[channel] = number + 1

    def _gap(self, gap: Gap) -> None:
        self.gaps.append(gap)
        if gap.after is None:
            self._begins_again.add(gap.channel)
        else:
            self.faults.append(f"{gap} though all is kept")

    def close(self) -> None:
        self._client.stop()


def checking_clients(urls: Sequence[str], count: int, channels: Sequence[str]) -> list[CheckingClient]:
    """So many, on all transports and all servers alike."""
    ways = itertools.cycle(itertools.product(TRANSPORTS, urls))
    return [CheckingClient(url, transport, channels) for transport, url in itertools.islice(ways, count)]


class Load:
    """Publishes numbers on channels, about so many a second, each time a few that are safe on replicas before the next
    ones. A context manager."""

    def __init__(self, bus: Bus, channels: Sequence[str], rate: int, replicas: int) -> None:
        self.replicas = replicas
        self.sent = dict.fromkeys(channels, 0)
        """Channel -> the number that comes next."""
        self._bus = bus
        self._pause = 2 * len(channels) / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.error: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for turn in itertools.count():
                if self._stop.wait(self._pause):
                    return
                batch = [(channel, number + more) for more in (0, 1) for channel, number in self.sent.items()]
                self._until_it_is_safe(lambda batch=batch, turn=turn: self._publish(batch, f"turn {turn}"))  # type: ignore[misc]
                for channel in self.sent:
                    self.sent[channel] += 2
        except BaseException as error:
            self.error = error

    def _publish(self, batch: Sequence[tuple[str, int]], key: str) -> None:
        self._bus.publish_many(batch, durable=self.replicas, idempotency_key=key)

    def _until_it_is_safe(self, publish: Callable[[], None]) -> None:
        while True:
            try:
                return publish()
            except (BackendUnavailable, NotDurable):
                if self._stop.wait(0.02):
                    raise
