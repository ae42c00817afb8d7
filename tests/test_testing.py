"""The help that users get for their own tests."""

from __future__ import annotations

import threading

import pytest

from messagebus import Bus, MessageBus
from messagebus.testing import message_bus, published, temporary_store, wait_for_message

__all__ = ["message_bus"]  # the fixture, as a user's conftest.py has it


def test_the_fixture_is_the_ready_made_bus_with_an_empty_store(message_bus: Bus) -> None:
    assert message_bus is MessageBus
    assert message_bus.options.url == "memory://"
    assert message_bus.newest_global_id() == 0
    message_bus.publish("/left", "behind")


def test_the_next_test_finds_nothing_of_the_one_before(message_bus: Bus) -> None:
    assert message_bus.newest_global_id() == 0


def test_a_temporary_store_gives_the_bus_its_own_back() -> None:
    bus = Bus(url="redis://localhost:1/0")
    with temporary_store(bus):
        assert bus.publish("/a", 1) == 1
    assert bus.options.url == "redis://localhost:1/0"


def test_published_has_what_was_published_in_the_block_and_nothing_else(message_bus: Bus) -> None:
    message_bus.publish("/orders", "before")
    with published("/orders") as orders, published() as everything:
        assert len(orders) == 0
        message_bus.publish("/orders", 1)
        assert orders.data == [1]
        message_bus.publish("/else", 2, site_id="one")
    message_bus.publish("/orders", "after")
    assert [message.data for message in orders] == [1]
    assert everything.data == [1, 2]
    assert everything[-1].site_id == "one"


def test_waiting_for_a_message_returns_the_first_that_fits(message_bus: Bus) -> None:
    message_bus.publish("/a", {"n": 1})
    thread = threading.Thread(target=lambda: message_bus.publish("/a", {"n": 2}))
    thread.start()
    assert wait_for_message("/a", lambda message: message.data["n"] == 2).message_id == 2
    assert wait_for_message("/a").data == {"n": 1}
    thread.join()


def test_a_wait_that_times_out_lists_the_messages_that_came(message_bus: Bus) -> None:
    message_bus.publish("/a", "something")
    with pytest.raises(AssertionError, match=r"no such message on /a within 0.1 s; there came \['something'\]"):
        wait_for_message("/a", lambda message: False, timeout=0.1)
