"""The numbers of a bus: in Python, as JSON, by nginx-push-stream's names, and for Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from prometheus_client.parser import text_string_to_metric_families

from messagebus import Bus
from messagebus.errors import InvalidOption
from messagebus.limit_counts import SERVER
from messagebus.statistics.bus import sums
from messagebus.statistics.prometheus import render_metrics

KEY = "an-admins-key-0123"
OTHER_KEY = "the-next-key-01234"
BEARER = {"Authorization": f"Bearer {KEY}"}
BOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "messagebus.json"


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", statistics=True, admin_keys=[KEY, OTHER_KEY])
    yield bus
    bus.close()


@pytest.fixture
def client(bus: Bus) -> Any:
    return client_of(bus)


def client_of(bus: Bus) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    return app.test_client()


def poll(client: Any, **positions: int) -> list[Any]:
    form = {f"/{name}": position for name, position in positions.items()}
    found: list[Any] = client.post("/message-bus/abc/poll?dlp=t", data=form).get_json()
    return found


# --- in Python ---


def test_a_new_bus_has_nothing_but_its_worker(bus: Bus) -> None:
    stats = bus.stats()
    assert (stats["workers"], len(stats["by_worker"])) == (1, 1)
    for name in ("channels", "published_messages", "subscribers", "delivered", "gaps", "slow", "queued_publishes"):
        assert stats[name] == 0, name
    assert stats["by_transport"] == {}
    assert stats["limits"] == SERVER.as_dict()  # the server in this process refuses for all its buses


def test_what_is_published_and_what_polls_are_given_is_counted(bus: Bus, client: Any) -> None:
    for number in range(3):
        bus.publish("/chat", {"n": number})
    bus.publish("/other", 1)
    assert len([message for message in poll(client, chat=0, other=0) if message["message_id"] > 0]) == 4
    stats = bus.stats()
    assert (stats["published_messages"], stats["published"], stats["channels"]) == (4, 4, 2)
    assert (stats["delivered"], stats["catch_ups"]) == (4, 1)
    assert stats["bytes"] > 0


def test_a_gap_is_counted(bus: Bus, client: Any) -> None:
    for number in range(20):
        bus.publish("/chat", number, max_backlog_size=2)
    poll(client, chat=1)
    assert bus.stats()["gaps"] == 1


def test_a_channels_numbers_are_its_own(bus: Bus, client: Any) -> None:
    for number in range(5):
        bus.publish("/chat", number)
    bus.publish("/chat", "x", site_id="one")
    bus.forget("/chat")
    bus.publish("/chat", 6)
    [chat, never] = bus.channel_stats("/chat", "/never")
    assert chat[:5] == ("/chat", None, 6, 1, 0)
    assert never[:5] == ("/never", None, 0, 0, 0)
    assert bus.channel_stats("/chat", site_id="one")[0][:4] == ("/chat", "one", 1, 1)


def test_the_sum_counts_what_some_workers_do_not_know_as_nothing() -> None:
    found = sums(
        [
            {"subscribers": 2, "delivered": 5, "by_transport": {"websocket": 2}, "limits": {"max_channels": 1}},
            {"subscribers": 3, "by_transport": {"websocket": 1, "eventsource": 2}},
            {},
        ]
    )
    assert (found["subscribers"], found["delivered"], found["gaps"]) == (5, 5, 0)
    assert found["by_transport"] == {"websocket": 3, "eventsource": 2}
    assert found["limits"] == {"max_channels": 1}


# --- over HTTP ---


@pytest.mark.parametrize("place", ["stats", "channels-stats", "metrics"])
def test_numbers_are_for_those_who_show_a_key(client: Any, place: str) -> None:
    for key in (KEY, OTHER_KEY):
        assert client.get(f"/message-bus/{place}", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"Authorization": "Bearer \xff"}):
        refused = client.get(f"/message-bus/{place}", headers=headers)
        assert (refused.status_code, refused.get_json()["error"]["field"]) == (401, "Authorization")
        assert KEY not in refused.text
    assert client.post(f"/message-bus/{place}", headers=BEARER).status_code == 405


def test_without_a_key_that_is_set_nobody_sees_them_and_the_refusal_says_how() -> None:
    bus = Bus(url="memory://", statistics=True)
    try:
        refused = client_of(bus).get("/message-bus/stats", headers=BEARER)
        assert refused.status_code == 403
        assert "admin_keys (MESSAGEBUS_ADMIN_KEYS)" in refused.get_json()["error"]["message"]
    finally:
        bus.close()


def test_an_app_that_does_not_turn_them_on_has_no_such_routes() -> None:
    bus = Bus(url="memory://", admin_keys=[KEY])
    try:
        for place in ("stats", "channels-stats", "metrics"):
            assert client_of(bus).get(f"/message-bus/{place}", headers=BEARER).status_code == 404
    finally:
        bus.close()


@pytest.mark.parametrize("keys", [["short"], "x" * 300, [7], ["with a space in it"]])
def test_a_malformed_key_is_refused(keys: Any) -> None:
    with pytest.raises(InvalidOption, match="admin_keys"):
        Bus(admin_keys=keys)


def test_stats_are_what_python_says(bus: Bus, client: Any) -> None:
    bus.publish("/chat", 1)
    answer = client.get("/message-bus/stats", headers=BEARER)
    assert answer.headers["Content-Type"] == "application/json"
    assert "no-cache" in answer.headers["Cache-Control"] or "max-age=0" in answer.headers["Cache-Control"]
    assert answer.get_json().keys() == bus.stats().keys()
    assert client.get("/message-bus/stats?channel=/chat", headers=BEARER).get_json() == {
        "channel": "/chat",
        "site": None,
        "published_messages": 1,
        "stored_messages": 1,
        "subscribers": 0,
        "last_requested": None,
    }


def test_channels_come_in_pages(bus: Bus, client: Any) -> None:
    for number in range(25):
        bus.publish(f"/a/{number}", 1)
    bus.publish("/b", 1)
    found, cursor = [], ""
    for _ in range(10):
        page = client.get(f"/message-bus/stats?channels=/a/*&limit=10&cursor={cursor}", headers=BEARER).get_json()
        found += [each["channel"] for each in page["channels"]]
        cursor = page["cursor"]
        if not cursor:
            break
    assert sorted(found) == sorted(f"/a/{number}" for number in range(25))
    everything = client.get("/message-bus/stats?channels=*", headers=BEARER).get_json()
    assert len(everything["channels"]) == 26


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("stats?chanel=/a", "chanel"),
        ("stats?channel=chat%0a", "channel"),
        ("stats?channels=/a", "channels"),
        ("stats?channels=*a*", "channels"),
        ("stats?channels=*&limit=0", "limit"),
        ("stats?channels=*&limit=x", "limit"),
        ("stats?channels=*&limit=1001", "limit"),
        ("stats?channels=*&limit=%C2%B2", "limit"),
        ("stats?channels=*&limit=0000001001", "limit"),
        (f"stats?channels=*&limit=000000001{'1' * 5000}", "limit"),
        ("stats?" + "&".join(["channel=/a"] * 30), "query"),
        ("channels-stats?id=a%00", "id"),
        ("why?channel=/a&user=7&id=1000000000000000000", "id"),
        ("why?channel=/a&user=7&id=0", "id"),
        ("channels-stats?x=1", "x"),
        ("metrics?x=1", "x"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_name(client: Any, query: str, field: str) -> None:
    refused = client.get(f"/message-bus/{query}", headers=BEARER)
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (400, field)


def test_channels_stats_have_the_names_of_nginx_push_stream(bus: Bus, client: Any) -> None:
    for number in range(3):
        bus.publish("/chat", number)
    whole = client.get("/message-bus/channels-stats", headers=BEARER).get_json()
    assert {*whole} == {
        *("hostname", "time", "channels", "wildcard_channels", "published_messages", "stored_messages", "uptime"),
        *("messages_in_trash", "channels_in_delete", "channels_in_trash", "subscribers", "by_worker"),
    }
    assert (whole["channels"], whole["published_messages"], whole["stored_messages"]) == (1, 3, 3)
    assert {*whole["by_worker"][0]} == {"pid", "subscribers", "uptime"}
    one = {"channel": "/chat", "published_messages": 3, "stored_messages": 3, "subscribers": 0}
    assert client.get("/message-bus/channels-stats?id=chat", headers=BEARER).get_json() == one
    assert client.get("/message-bus/channels-stats?id=/chat", headers=BEARER).get_json() == one
    assert client.get("/message-bus/channels-stats?id=ALL", headers=BEARER).get_json()["infos"] == [one]


# --- for Prometheus ---


def samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("transport") or sample.labels.get("limit") or sample.labels.get("pid", "")): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_what_prometheus_reads(bus: Bus, client: Any) -> None:
    bus.publish("/chat", 1)
    answer = client.get("/message-bus/metrics", headers=BEARER)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = samples(answer.text)
    pid = str(bus.stats()["by_worker"][0]["pid"])
    assert found["messagebus_published_messages_total", pid] == 1
    assert found["messagebus_workers", ""] == found["messagebus_feed_up", ""] == 1


def test_each_workers_metrics_stand_beside_the_others() -> None:
    reports = {
        "a": {"pid": 1, "host": "h", "delivered": 5, "by_transport": {"websocket": 2}},
        "b": {"pid": 2, "host": 'a"b', "delivered": 7, "limits": {"max_channels": 3}},
    }
    found = samples(render_metrics(reports, True).decode())
    assert (found["messagebus_delivered_messages_total", "1"], found["messagebus_delivered_messages_total", "2"]) == (
        5,
        7,
    )
    assert found["messagebus_subscribers", "websocket"] == 2
    assert found["messagebus_limits_met_total", "max_channels"] == 3


def test_two_buses_of_one_process_have_metrics_of_their_own() -> None:
    alike = {"pid": 1, "host": "h", "by_transport": {"websocket": 2}, "limits": {"max_channels": 3}}
    lines = render_metrics({"a": alike, "b": alike}, True).decode().splitlines()
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(series) == len(set(series))


@pytest.mark.parametrize("path", ["stats?channels=*&cursor=x", "stats?channels=*&cursor=%00"])
def test_a_cursor_that_no_page_has_is_refused_by_name(bus: Bus, client: Any, path: str) -> None:
    answer = client.get(f"/message-bus/{path}", headers=BEARER)
    if answer.status_code != 200:  # a name that no channel has is where the memory's next page may begin
        assert (answer.status_code, answer.get_json()["error"]["field"]) == (400, "cursor")


def test_the_board_for_grafana_asks_for_metrics_that_there_are() -> None:
    board = json.loads(BOARD.read_text())
    names = {
        name
        for name, _ in samples(
            render_metrics({"a": {"pid": 1, "by_transport": {"websocket": 1}, "limits": {"x": 1}}}, True).decode()
        )
    }
    asked = {
        name
        for panel in board["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"messagebus_\w+", target["expr"])
    }
    assert asked
    assert asked <= names
