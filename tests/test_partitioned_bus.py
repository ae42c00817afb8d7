"""A bus on a store with partitions: what is of a partition is, and what is not does not notice."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from html import unescape
from typing import Any

import flask
import pytest

from messagebus import Bus, InvalidOption
from messagebus.admin.busiest import Busiest
from messagebus.errors import BackendUnavailable, PublishQueueFull
from messagebus.message import Message
from messagebus.stores.partitions import encode_id, partition_of

from .eventually import eventually
from .partitioned import PartitionedStore, name_in, partitioned_bus, stores_of

P = 4
NAMES = [name_in(number, P) for number in range(P)]
"""A channel of each partition."""


class Site:
    """An app on such a bus, and a client."""

    def __init__(self, **options: Any) -> None:
        self.bus = partitioned_bus(P, url="memory://", **options)
        self.app = flask.Flask(__name__)
        self.app.register_blueprint(self.bus.blueprint)
        self.client = self.app.test_client()

    @property
    def store(self) -> PartitionedStore:
        store = self.bus._publisher_now().store
        assert isinstance(store, PartitionedStore)
        return store

    def take_away(self, partition: int) -> None:
        """As a feed and a publisher see a partition whose node has gone."""
        self.store.gone.add(partition)
        self.bus._running_node().healthy(False, partition)

    def bring_back(self, partition: int) -> None:
        self.store.gone.discard(partition)
        self.bus._running_node().healthy(True, partition)

    def poll(self, positions: dict[str, object], **more: str) -> tuple[int, list[dict[str, Any]]]:
        answer = self.client.post("/message-bus/me/poll?dlp=t", data={**positions, **more})
        return answer.status_code, (answer.json or []) if answer.status_code == 200 else []

    def epoch(self, *names: str) -> str:
        status, batch = self.poll(dict.fromkeys(names, -1), __epoch="")
        assert status == 200
        epoch: str = batch[-1]["data"]["__epoch"]
        return epoch


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.bus.close()


def data_of(batch: list[dict[str, Any]], channel: str) -> list[object]:
    return [message["data"] for message in batch if message["channel"] == channel]


def gaps_of(batch: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: gap for message in batch if message["channel"] == "/__gap" for name, gap in message["data"].items()}


# --- publishing ---


def test_messages_of_several_partitions_are_published_at_once_and_get_their_ids_in_order(site: Site) -> None:
    wanted = [NAMES[number % P] for number in range(12)]
    assert site.bus.publish_many([(name, number) for number, name in enumerate(wanted)]) == [1] * P + [2] * P + [3] * P
    assert site.bus.publish_ids(NAMES[2], 1) == (4, encode_id(4, 2, P))
    assert site.bus.last_ids(*NAMES) == {name: 3 + (name == NAMES[2]) for name in NAMES}
    assert site.bus.stats()["published_messages"] == 13
    assert site.bus.stats()["channels"] == P
    assert {message.channel for message in site.bus.global_backlog()} == {*NAMES}
    assert {message.channel for message in site.bus.global_backlog(encode_id(1, 3, P))} == {NAMES[3]}


def test_what_is_for_a_partition_that_is_away_waits_in_order_and_the_others_go_on(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.store.gone.add(1)
    with caplog.at_level(logging.WARNING):
        assert site.bus.publish(NAMES[1], "first") is None
        assert site.bus.publish(NAMES[0], "goes on") == 1
        assert site.bus.publish_many([(NAMES[1], "second"), (NAMES[2], "beside"), (NAMES[1], "third")]) == [
            None,
            1,
            None,
        ]
        assert site.bus.publish(NAMES[1], "fourth") is None
        with pytest.raises(BackendUnavailable, match="partition 1 of the store"):
            site.bus.publish_many([(NAMES[0], 1), (NAMES[1], 2)], queue_in_memory=False)
        assert site.bus.last_id(NAMES[0]) == 1, "nothing of what was refused was stored"
        site.store.gone.clear()
        eventually(lambda: len(site.bus._publisher_now().queue) == 0)
    assert [message.data for message in site.bus.backlog(NAMES[1])] == ["first", "second", "third", "fourth"]
    assert "partition 1 of the store is back" in caplog.text


def test_what_was_stored_beside_a_partition_that_gave_no_answer_is_stored_once(site: Site) -> None:
    site.store.gone.add(3)
    pairs = [(name, number) for number in range(3) for name in NAMES]
    assert site.bus.publish_many(pairs) == [None] * len(pairs)
    for name in NAMES[:3]:
        eventually(lambda name=name: site.bus.last_id(name) == 3)  # type: ignore[misc]
    site.store.gone.clear()
    eventually(lambda: len(site.bus._publisher_now().queue) == 0)
    for name in NAMES:
        assert [message.data for message in site.bus.backlog(name)] == [0, 1, 2], name
    assert site.bus.publish_many(pairs) == [id_ for id_ in (4, 5, 6) for _ in NAMES], (
        "the ids of its lane are not used up"
    )


def test_the_queue_has_one_size_for_all_partitions_and_takes_all_or_nothing() -> None:
    site = Site(publish_queue_size=3)
    site.store.gone |= {0, 1}
    site.bus.publish(NAMES[0], 1)
    site.bus.publish(NAMES[1], 1)
    with pytest.raises(PublishQueueFull):
        site.bus.publish_many([(NAMES[0], 2), (NAMES[1], 2)])
    assert len(site.bus._publisher_now().queue) == 2
    site.store.gone.clear()
    eventually(lambda: len(site.bus._publisher_now().queue) == 0)
    assert [len(site.bus.backlog(name)) for name in NAMES[:2]] == [1, 1]
    site.bus.close()


# --- readers ---


def test_a_poll_of_channels_of_all_partitions_gets_what_it_has_missed_of_each(site: Site) -> None:
    site.bus.publish_many([(name, number) for number in range(3) for name in NAMES])
    status, batch = site.poll(dict.fromkeys(NAMES, 1))
    assert status == 200
    for name in NAMES:
        assert data_of(batch, name) == [1, 2]
        assert {message["global_id"] % P for message in batch if message["channel"] == name} == {partition_of(name, P)}


def test_a_client_is_told_the_epochs_of_its_own_partitions_and_asked_for_one_goes_back_there_alone(site: Site) -> None:
    site.bus.publish_many([(name, 0) for name in NAMES])
    epoch = site.epoch(*NAMES[:3])
    assert re.fullmatch(r"0-[0-9a-f]{8}\.1-[0-9a-f]{8}\.2-[0-9a-f]{8}", epoch)
    assert site.poll(dict.fromkeys(NAMES[:3], 1), __epoch=epoch) == (200, []), "it knows it"
    site.store.parts[1].reset()
    site.bus.publish_many([(NAMES[1], "another life"), (NAMES[2], "the same life")])
    eventually(lambda: site.bus._running_node().hub.windows.reached[1] == encode_id(1, 1, P))
    _status, batch = site.poll(dict.fromkeys(NAMES[:3], 1), __epoch=epoch)
    assert gaps_of(batch) == {NAMES[1]: {"after": None, "before": 1}}
    assert data_of(batch, NAMES[1]) == ["another life"]
    assert data_of(batch, NAMES[2]) == ["the same life"]
    now = batch[-1]["data"]["__epoch"]
    assert [a == b for a, b in zip(now.split("."), epoch.split("."), strict=True)] == [True, False, True]


def test_a_partition_that_an_epoch_does_not_name_is_one_of_which_the_client_knows_none(site: Site) -> None:
    site.bus.publish_many([(name, 0) for name in NAMES])
    epoch = site.epoch(NAMES[0])
    _, batch = site.poll({NAMES[0]: 1, NAMES[1]: 1}, __epoch=epoch)
    assert gaps_of(batch) == {}
    assert batch[-1]["data"]["__epoch"].startswith(f"{epoch}.1-")


@pytest.mark.parametrize(
    "epoch", ["9f2c1a0b7d6e5f40", "0-", "0-x.", "x" * 200, "0-12345678..1-12345678", "99999-aaaaaaaa"]
)
def test_an_epoch_that_this_store_has_not_given_is_of_another_life(site: Site, epoch: str) -> None:
    site.bus.publish_many([(name, 0) for name in NAMES])
    _, batch = site.poll(dict.fromkeys(NAMES, 1), __epoch=epoch)
    assert gaps_of(batch) == {name: {"after": None, "before": 1} for name in NAMES}


def test_a_global_id_of_another_partition_is_no_position(site: Site) -> None:
    for _ in range(3):
        site.bus.publish_many([(name, 0) for name in NAMES])
    for name, other in ((NAMES[1], 2), (NAMES[0], 3)):
        _, batch = site.poll({name: f"@{encode_id(2, other, P)}"})
        assert gaps_of(batch) == {name: {"after": None, "before": 1}}
        assert len(data_of(batch, name)) == 3, "everything, as it may lack all of it"
        _, batch = site.poll({name: f"@{encode_id(2, partition_of(name, P), P)}"})
        assert gaps_of(batch) == {}
        assert len(data_of(batch, name)) == 1
        assert len(data_of(site.poll({name: "@0"})[1], name)) == 3, "before the first message of any partition"


def test_only_what_has_to_be_read_from_a_partition_that_is_away_is_refused(site: Site) -> None:
    site.bus.publish_many([(name, 0) for name in NAMES])
    assert site.poll(dict.fromkeys(NAMES, 0))[0] == 200
    other = name_in(1, P, "/unknown")
    site.take_away(1)
    assert site.poll({other: 0})[0] == 503
    assert site.poll({NAMES[0]: 0, other: 0})[0] == 503
    assert data_of(site.poll({NAMES[0]: 0, name_in(2, P, "/unknown"): 0})[1], NAMES[0]) == [0]
    answer = site.client.get("/message-bus/health/ready")
    assert (answer.status_code, answer.json) == (200, {"ready": True, "partitions_away": [1]})
    assert not site.bus.healthy
    for partition in (0, 2, 3):
        site.take_away(partition)
    assert site.client.get("/message-bus/health/ready").status_code == 503
    for partition in range(P):
        site.bring_back(partition)
    assert site.client.get("/message-bus/health/ready").json == {"ready": True}
    assert site.bus.healthy
    eventually(lambda: site.poll({other: 0})[0] == 200)


def test_statistics_name_the_partitions_that_are_away_and_count_the_others() -> None:
    site = Site(statistics=True, admin_keys=["a" * 32])
    headers = {"Authorization": "Bearer " + "a" * 32}
    try:
        site.bus.publish_many([(name, 0) for name in NAMES])
        whole = site.bus.stats()
        assert (whole["channels"], whole["published_messages"]) == (P, P)
        assert "partitions_away" not in whole
        site.take_away(2)
        site.store.gone.add(3)  # whose feed has not noticed yet
        found: Any = site.client.get("/message-bus/stats", headers=headers).json
        assert (found["channels"], found["published_messages"], found["partitions_away"]) == (None, P - 2, [2, 3])
        for partition in (0, 1):
            site.take_away(partition)
        with pytest.raises(BackendUnavailable):
            site.bus.stats()
    finally:
        site.bus.close()


def test_channels_are_listed_without_the_partitions_that_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(statistics=True, admin_keys=["a" * 32])
    headers = {"Authorization": "Bearer " + "a" * 32}

    def listed() -> tuple[list[str], list[int] | None]:
        page: Any = site.client.get("/message-bus/stats?channels=*", headers=headers).json
        found = [each["channel"] for each in page["channels"]]
        while page["cursor"]:
            query = f"channels=*&cursor={page['cursor']}"
            more: Any = site.client.get(f"/message-bus/stats?{query}", headers=headers).json
            page = {"partitions_away": page.get("partitions_away"), **more}
            found += [each["channel"] for each in page["channels"]]
        return found, page["partitions_away"]

    try:
        site.bus.publish_many([(name, 0) for name in NAMES])
        assert listed() == (NAMES, None)
        site.store.gone.add(2)
        assert listed() == ([NAMES[0], NAMES[1], NAMES[3]], [2])
        site.store.gone.clear()
        # It goes between the two questions: for names, and for their numbers.
        names = site.store.channels

        def channels(cursor: str = "", limit: int = 1000) -> Any:
            site.store.gone.clear()
            found = names(cursor, limit)
            site.store.gone.add(1)
            return found

        monkeypatch.setattr(site.store, "channels", channels)
        assert listed() == ([NAMES[0], NAMES[2], NAMES[3]], [1])
        busiest = Busiest(site.store, "").find(10)
        assert (busiest.names, busiest.away) == (sorted(set(NAMES) - {NAMES[1]}), {1})
        monkeypatch.undo()
        site.store.gone |= {0, 1, 2, 3}
        assert site.client.get("/message-bus/stats?channels=*", headers=headers).status_code == 503
    finally:
        site.store.gone.clear()
        site.bus.close()


def test_a_page_goes_on_in_each_partition_from_where_it_was_rendered() -> None:
    site = Site(site_id_lookup=lambda environ: environ.get("HTTP_X_SITE"))
    app, bus = site.app, site.bus
    shown = NAMES[:3]

    @app.get("/page")
    def page() -> str:
        for name in shown:
            bus.publish(name, "while the page was made", site_id=flask.request.headers.get("X-Site"))
        return flask.render_template_string("{{ message_bus(channels) }}", channels=shown)

    for name in shown:
        for _ in range(partition_of(name, P) + 1):
            bus.publish(name, "before")
            bus.publish(name, "before", site_id="s1")
    bus._running_node()
    for headers in ({}, {"X-Site": "s1"}):
        text = unescape(site.client.get("/page", headers=headers).text)
        positions = json.loads(re.search(r'data-channels="(\{.*?\})"', text)[1])  # type: ignore[index]
        epoch = re.search(r'data-epoch="([^"]*)"', text)[1]  # type: ignore[index]
        answer = site.client.post("/message-bus/me/poll?dlp=t", data={**positions, "__epoch": epoch}, headers=headers)
        batch = answer.json or []
        for name in shown:
            assert data_of(batch, name) == ["while the page was made"]
        assert gaps_of(batch) == {}
        assert batch[-1]["data"]["__epoch"] == epoch, "it had the right one"
    bus.close()


def test_patterns_are_refused_with_the_reason() -> None:
    bus = Bus(url="memory://", wildcard_subscriptions=["/news/*"])
    with stores_of(P), pytest.raises(InvalidOption, match=r"patterns need a store .* has 4 partitions"):
        bus.publish("/a", 1)


def test_what_has_no_meaning_over_all_partitions_is_refused(site: Site) -> None:
    with pytest.raises(ValueError, match="4 partitions"):
        site.bus.newest_global_id()
    with pytest.raises(ValueError, match="4 partitions"):
        site.bus.subscribe(None, lambda message: None, last_id=7)
    seen = site.bus.seen()
    assert seen is not None
    assert seen.epoch is None
    with pytest.raises(ValueError, match="4 partitions"):
        print(seen.global_id)


# --- functions ---


class Heard:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.changed = threading.Event()

    def __call__(self, message: Message) -> None:
        self.messages.append(message)

    def data(self, channel: str) -> list[object]:
        return [message.data for message in self.messages if message.channel == channel]


def test_a_function_on_all_channels_hears_every_partition_and_a_reset_of_one_is_one_of_it_alone(site: Site) -> None:
    everything, one = Heard(), Heard()
    site.bus.publish_many([(name, -number) for number in range(3) for name in NAMES])
    site.bus.subscribe(None, everything, last_id=-2)
    site.bus.subscribe(NAMES[2], one, last_id=0)
    for number in range(10):
        site.bus.publish_many([(name, number) for name in NAMES])
    for name in NAMES:
        eventually(lambda name=name: everything.data(name) == [-2, *range(10)])  # type: ignore[misc]
    eventually(lambda: one.data(NAMES[2]) == [0, -1, -2, *range(10)])
    site.store.parts[2].reset()
    site.bus.publish_many([(name, "after") for name in NAMES])
    for name in NAMES:
        eventually(lambda name=name: everything.data(name) == [-2, *range(10), "after"])  # type: ignore[misc]
    eventually(lambda: one.data(NAMES[2])[-1] == "after")
    assert site.bus.unsubscribe(None, everything)
    assert not site.bus.unsubscribe(None, everything)
    assert site.bus.unsubscribe(NAMES[2], one)


def test_a_function_that_is_slow_reads_the_rest_of_each_partition_from_the_store() -> None:
    site = Site(callback_queue_size=2)
    heard, go_on = Heard(), threading.Event()

    def slow(message: Message) -> None:
        go_on.wait(20)
        heard(message)

    site.bus.subscribe(None, slow)
    for number in range(20):
        site.bus.publish_many([(name, number) for name in NAMES])
    go_on.set()
    for name in NAMES:
        eventually(lambda name=name: heard.data(name) == [*range(20)])  # type: ignore[misc]
    site.bus.close()


def test_a_blocking_subscription_to_everything_ends_when_it_is_unsubscribed(site: Site) -> None:
    heard = Heard()
    thread = threading.Thread(target=site.bus.blocking_subscribe, args=(None, heard))
    thread.start()
    eventually(lambda: bool(site.bus._callbacks))
    site.bus.publish_many([(name, 1) for name in NAMES])
    eventually(lambda: len(heard.messages) == P)
    site.bus.unsubscribe(None, heard)
    thread.join(10)
    assert not thread.is_alive()
