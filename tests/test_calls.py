"""Commands of clients that have no WebSocket, with Flask's test client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import flask
import pytest

from messagebus import Bus

URL = "/message-bus/me/publish"
CHAT = {"channel": "/chat", "data": "hi"}


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", client_publish=("/chat", "/chats/*"), max_message_size=100, max_publishes_per_client=3)
    yield bus
    bus.close()


@pytest.fixture
def client(bus: Bus) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    return app.test_client()


def stored(bus: Bus, channel: str = "/chat") -> list[Any]:
    return [message.data for message in bus.backlog(channel)]


def test_a_client_publishes_by_a_request(bus: Bus, client: Any) -> None:
    response = client.post(URL, json=CHAT)
    assert (response.status_code, response.get_json()) == (200, {"ok": {"message_id": 1}})
    assert response.headers["Cache-Control"].startswith("must-revalidate")
    assert stored(bus) == ["hi"]


def test_what_is_sent_again_under_its_key_is_stored_once(bus: Bus, client: Any) -> None:
    first, again = [client.post(URL, json={**CHAT, "key": "k1"}).get_json() for _ in range(2)]
    assert first == again == {"ok": {"message_id": 1}}
    assert stored(bus) == ["hi"]


def test_the_same_key_of_another_client_is_another_publish(bus: Bus, client: Any) -> None:
    for client_id in ("me", "you"):
        client.post(f"/message-bus/{client_id}/publish", json={**CHAT, "key": "k1"})
    assert stored(bus) == ["hi", "hi"]


@pytest.mark.parametrize(
    ("value", "status", "code", "field"),
    [
        ({"channel": "/secret", "data": 1}, 403, "forbidden", "channel"),
        ({"channel": "chat", "data": 1}, 400, "invalid_channel", None),
        ({"channel": "/chat"}, 400, "bad_request", None),
        ({**CHAT, "user_ids": [7]}, 400, "bad_request", None),
        ({**CHAT, "key": ""}, 400, "bad_request", "key"),
        ({**CHAT, "key": "k" * 65}, 400, "bad_request", "key"),
        ({**CHAT, "key": 7}, 400, "bad_request", "key"),
        ([], 400, "bad_request", None),
        ({"channel": "/chat", "data": "x" * 200}, 413, "invalid_data", "max_message_size"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_stored(
    bus: Bus, client: Any, value: Any, status: int, code: str, field: str | None
) -> None:
    response = client.post(URL, json=value)
    error = response.get_json()["error"]
    assert (response.status_code, error["code"], error.get("field")) == (status, code, field)
    assert error["message"]
    assert stored(bus) == []


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"data": '{"channel": "/chat", "data": 1}', "content_type": "text/plain"}, 415, "unsupported_media_type"),
        ({"data": {"channel": "/chat", "data": "1"}}, 415, "unsupported_media_type"),
        ({"data": "{", "content_type": "application/json"}, 400, "malformed"),
        ({"data": "[" * 100_000, "content_type": "application/json"}, 413, "too_large"),
        ({"json": CHAT, "headers": {"Origin": "https://evil.example"}}, 403, "forbidden_origin"),
        ({"json": CHAT, "method": "GET"}, 405, "method_not_allowed"),
        ({"json": CHAT, "method": "PUT"}, 405, "method_not_allowed"),
    ],
)
def test_a_request_that_a_foreign_page_could_send_is_refused(
    bus: Bus, client: Any, request_: dict[str, Any], status: int, code: str
) -> None:
    bus.configure(max_frame_size=1000)
    response = client.open(URL, **{"method": "POST", **request_})
    assert (response.status_code, response.get_json()["error"]["code"]) == (status, code)
    assert stored(bus) == []


def test_a_page_of_an_allowed_origin_may_call(bus: Bus, client: Any) -> None:
    bus.configure(allowed_origins=("https://friend.example",))
    headers = {"Origin": "https://friend.example", "Access-Control-Request-Headers": "content-type"}
    asked = client.open(URL, method="OPTIONS", headers=headers)
    assert asked.headers["Access-Control-Allow-Headers"] == "content-type"
    answered = client.post(URL, json=CHAT, headers=headers)
    assert answered.status_code == 200
    assert answered.headers["Access-Control-Allow-Origin"] == "https://friend.example"


def test_who_publishes_too_often_is_told_when_to_come_back(bus: Bus, client: Any) -> None:
    statuses = [client.post(URL, json=CHAT).status_code for _ in range(3)]
    response = client.post(URL, json=CHAT)
    assert (statuses, response.status_code) == ([200] * 3, 429)
    error = response.get_json()["error"]
    assert (error["code"], error["field"], error["retry_after"]) == (
        "too_many_publishes",
        "max_publishes_per_client",
        1,
    )
    assert response.headers["Retry-After"] == "1"
    assert len(stored(bus)) == 3


def test_an_address_publishes_no_more_under_many_ids(bus: Bus, client: Any) -> None:
    bus.configure(max_publishes_per_address=2, trusted_proxies=1)

    def publish(client_id: str, address: str) -> Any:
        return client.post(f"/message-bus/{client_id}/publish", json=CHAT, headers={"X-Forwarded-For": address})

    statuses = [publish(f"c{number}", "203.0.113.7").status_code for number in range(2)]
    refused = publish("c3", "203.0.113.7")
    assert (statuses, refused.status_code) == ([200, 200], 429)
    assert refused.get_json()["error"]["field"] == "max_publishes_per_address"
    assert publish("c4", "203.0.113.8").status_code == 200


def test_the_same_key_of_another_user_is_another_publish(bus: Bus, client: Any) -> None:
    bus.configure(user_id_lookup=lambda environ: environ["HTTP_X_USER"])
    for user in ("ann", "bob", "ann"):
        client.post(URL, json={**CHAT, "key": "k1"}, headers={"X-User": user})
    assert stored(bus) == ["hi", "hi"]


@pytest.mark.parametrize("verb", ["subscribe", "unsubscribe", "ping", "publish/x", "Publish"])
def test_only_commands_that_need_no_connection_are_there(client: Any, verb: str) -> None:
    assert client.post(f"/message-bus/me/{verb}", json={}).status_code == 404


def test_a_bus_that_is_off_takes_no_commands(bus: Bus, client: Any) -> None:
    bus.off(disable_publish=False)
    response = client.post(URL, json=CHAT)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert stored(bus) == []


def test_a_message_goes_to_the_site_of_its_client(bus: Bus, client: Any) -> None:
    bus.configure(site_id_lookup=lambda environ: environ["HTTP_X_SITE"])
    client.post(URL, json=CHAT, headers={"X-Site": "one"})
    assert [len(bus.backlog("/chat", site_id=site)) for site in ("one", "two")] == [1, 0]
