"""Publishing many messages at once, and what ends them, as programs call it."""

from __future__ import annotations

import pytest

from messagebus import (
    BackendUnavailable,
    Bus,
    BusClosed,
    InvalidChannel,
    InvalidData,
    InvalidTargets,
    Message,
    PublishQueueFull,
)

from .eventually import eventually


@pytest.fixture
def bus(bus_on_each_store: Bus) -> Bus:
    return bus_on_each_store


def test_pairs_of_channel_and_data_are_published_in_order_and_their_ids_returned(bus: Bus) -> None:
    heard: list[Message] = []
    bus.subscribe("/a", heard.append)
    bus.publish("/a", 0)
    assert bus.publish_many([("/a", 1), ("/b", {"x": [None]}), ("/a", "ü")]) == [2, 1, 3]
    assert bus.publish_many(iter([("/a", number) for number in range(3)])) == [4, 5, 6]
    assert bus.publish_many([]) == []
    eventually(lambda: [message.data for message in heard] == [0, 1, "ü", 0, 1, 2])
    assert [(m.channel, m.data) for m in bus.global_backlog()][1:4] == [("/a", 1), ("/b", {"x": [None]}), ("/a", "ü")]


def test_the_options_hold_for_all_of_the_messages(bus: Bus) -> None:
    ids = (number for number in (1, 2))
    given = bus.publish_many(
        [("/a", 1), ("/a", 2), ("/b", 3)],
        user_ids=ids,
        group_ids=["g"],
        client_ids=["c"],
        site_id="s",
        max_backlog_size=1,
        max_backlog_age=50,
    )
    assert given == [1, 2, 1]
    assert bus.global_backlog() == []
    messages = bus.global_backlog(site_id="s")
    assert [(message.message_id, message.data) for message in messages] == [(2, 2), (1, 3)]
    for message in messages:
        assert (message.user_ids, message.group_ids, message.client_ids) == ((1, 2), ("g",), ("c",))


@pytest.mark.parametrize(
    ("bad", "options", "error"),
    [
        (("no-channel", 1), {}, InvalidChannel),
        (("/a", object()), {}, InvalidData),
        (("/a", 1), {"user_ids": []}, InvalidTargets),
        (("/a", 1), {"user_ids": "ab"}, InvalidTargets),
        (("/global/a", 1), {"client_ids": ["c"]}, InvalidTargets),
    ],
)
def test_all_are_checked_before_the_first_is_published(
    bus: Bus, bad: tuple[str, object], options: dict[str, list[str]], error: type[Exception]
) -> None:
    with pytest.raises(error):
        bus.publish_many([("/a", 0), bad], **options)  # type: ignore[arg-type]
    assert bus.last_id("/a") == 0
    assert bus.newest_global_id() == 0


def test_while_the_store_is_gone_all_wait_or_none() -> None:
    bus = Bus(url="redis://127.0.0.1:1/0", publish_queue_size=3, store_timeout=0.5)
    with pytest.raises(BackendUnavailable):
        bus.publish_many([("/a", 1)], queue_in_memory=False)
    with pytest.raises(PublishQueueFull):
        bus.publish_many([("/a", number) for number in range(4)])
    assert bus.publish_many([("/a", 1), ("/a", 2)]) == [None, None]
    bus.close()


def test_a_bus_that_is_off_publishes_nothing(bus: Bus) -> None:
    bus.off()
    assert bus.publish_many([("/a", 1), ("/a", 2)]) == [None, None]
    bus.on()
    assert bus.last_id("/a") == 0


def test_expired_backlogs_are_gone_and_the_ids_go_on(bus: Bus) -> None:
    bus.publish_many([("/a", 1), ("/a", 2)])
    bus.expire_all_backlogs()
    assert bus.backlog("/a") == []
    assert bus.last_id("/a") == 2
    assert bus.publish("/a", 3) == 3


def test_a_destroyed_bus_is_closed_and_its_store_keeps_the_messages(redis_url: str) -> None:
    bus = Bus(url=redis_url)
    bus.publish("/a", 1)
    bus.destroy()
    with pytest.raises(BusClosed):
        bus.publish_many([("/a", 2)])
    bus.configure()
    assert [message.data for message in bus.backlog("/a")] == [1]
    bus.close()
