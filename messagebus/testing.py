"""Helpers for testing programs that use the bus. The fixture needs pytest; the functions do not.

In ``conftest.py``: ``pytest_plugins = ["messagebus.testing"]``. Then::

    def test_an_order_is_announced(message_bus):
        with published("/orders") as messages:
            place_order(7)
        assert [message.data for message in messages] == [{"order": 7}]
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

from . import MessageBus
from .bus import Bus
from .message import Message

try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def message_bus() -> Iterator[Bus]:
        """The ready-made bus on an empty memory store, for one test."""
        with temporary_store() as bus:
            yield bus


@contextmanager
def temporary_store(bus: Bus = MessageBus) -> Iterator[Bus]:
    """Put a bus on an empty memory store for a ``with`` block, and back on its own store afterwards."""
    url = bus.options.url
    bus.configure(url="memory://")
    try:
        yield bus
    finally:
        bus.close()
        bus.configure(url=url)


class Published(Sequence[Message]):
    """The messages published since the ``with`` block began, by global id (of a store with partitions: one after the
    other); after the block, those published within it."""

    def __init__(self, bus: Bus, channel: str | None) -> None:
        self._bus = bus
        self._channel = channel
        store = bus._publisher_now().store
        self._after = [store.state(partition).global_id for partition in range(store.partitions)]
        self._messages: list[Message] | None = None

    def _now(self) -> list[Message]:
        if self._messages is not None:
            return self._messages
        store = self._bus._publisher_now().store
        messages = [message for after in self._after for message in store.global_backlog(after)]
        return [message for message in messages if self._channel in (None, message.channel)]

    def _freeze(self) -> None:
        self._messages = self._now()

    def __len__(self) -> int:
        return len(self._now())

    @overload
    def __getitem__(self, index: int) -> Message: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...

    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        return self._now()[index]

    @property
    def data(self) -> list[Any]:
        """The messages' data alone."""
        return [message.data for message in self]


@contextmanager
def published(channel: str | None = None, *, bus: Bus = MessageBus) -> Iterator[Published]:
    """Collect the messages published in a ``with`` block, on one channel or on all, on any site, by any process."""
    messages = Published(bus, channel)
    yield messages
    messages._freeze()


def wait_for_message(
    channel: str,
    predicate: Callable[[Message], bool] = lambda message: True,
    *,
    last_id: int = 0,
    timeout: float = 5.0,
    bus: Bus = MessageBus,
    site_id: str | None = None,
) -> Message:
    """The first message on a channel after ``last_id`` that ``predicate`` accepts, waiting up to ``timeout`` seconds
    for it.

    Raises:
        AssertionError: No such message arrived; the text lists those that did.
    """
    seen: list[Any] = []
    found: list[Message] = []
    done = threading.Event()

    def look(message: Message) -> None:
        if found:
            return
        seen.append(message.data)
        if predicate(message):
            found.append(message)
            done.set()

    bus.subscribe(channel, look, last_id, site_id)
    try:
        done.wait(timeout)
    finally:
        bus.unsubscribe(channel, look, site_id)
    if not found:
        raise AssertionError(f"no such message on {channel} within {timeout:g} s; there came {seen[:20]!r}")
    return found[0]
