"""Why somebody did not get a message."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import flask
import pytest

from messagebus import Bus, Message
from messagebus.errors import InvalidChannel
from messagebus.statistics.why import read_user_id

KEY = "an-admins-key-0123"


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(
        url="memory://",
        statistics=True,
        admin_keys=[KEY],
        user_id_lookup=lambda environ: int(environ["HTTP_X_USER"]) if "HTTP_X_USER" in environ else None,
    )
    bus.start()
    yield bus
    bus.close()


@pytest.fixture
def client(bus: Bus) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    return app.test_client()


def poll(client: Any, user: int | None = None, client_id: str = "abc", **positions: int) -> None:
    form = {f"/{name}": position for name, position in positions.items()}
    headers = {} if user is None else {"X-User": str(user)}
    assert client.post(f"/message-bus/{client_id}/poll?dlp=t", data=form, headers=headers).status_code == 200


def codes(bus: Bus, message_id: int = 1, channel: str = "/orders", **whom: Any) -> list[str]:
    return [finding.code for finding in bus.why(channel, message_id, **(whom or {"user_id": 7}))]


def test_a_message_that_was_never_published_is_named_so(bus: Bus) -> None:
    [finding] = bus.why("/orders", 3, user_id=7)
    assert (finding.code, finding.text) == (
        "not_published",
        "/orders has no message 3 yet: there has been none",
    )
    bus.publish("/orders", 1)
    assert "the last one is 1" in bus.why("/orders", 3, user_id=7)[0].text


def test_a_message_for_others_names_the_rule(bus: Bus) -> None:
    bus.publish("/orders", 1, user_ids=[8])
    bus.publish("/orders", 2, client_ids=["other"])
    bus.publish("/orders", 3, exclude_client_ids=["abc"])
    assert codes(bus, 1) == ["not_for_them"]
    assert "user_ids has others" in bus.why("/orders", 1, user_id=7)[0].text
    assert codes(bus, 1, user_id=8) == ["not_connected"]
    assert codes(bus, 1, user_id="8") == ["not_for_them"]
    assert "client_ids has others" in bus.why("/orders", 2, client_id="abc")[0].text
    assert "exclude_client_ids has that client" in bus.why("/orders", 3, client_id="abc")[0].text
    assert codes(bus, 3, client_id="other") == ["not_connected"]


def test_a_filter_that_withholds_a_message_is_named(bus: Bus) -> None:
    def keep(message: Message) -> bool:
        return bool(message.data != "secret")

    bus.register_client_message_filter("/orders", keep)
    bus.publish("/orders", "secret")
    bus.publish("/orders", "open")
    [finding] = bus.why("/orders", 1, user_id=7)
    assert (finding.code, "the filter of /orders" in finding.text) == ("filtered", True)
    assert codes(bus, 2) == ["not_connected"]


def test_a_message_that_is_no_longer_kept_is_named_so(bus: Bus) -> None:
    bus.publish("/orders", 1)
    bus.forget("/orders")
    assert codes(bus) == ["not_kept", "not_connected"] or {*codes(bus)} == {"not_kept", "not_connected"}


def test_who_was_not_connected_or_not_subscribed_is_told_so(bus: Bus, client: Any) -> None:
    bus.publish("/orders", 1)
    assert codes(bus) == ["not_connected"]
    poll(client, user=7, other=0)
    assert codes(bus) == ["not_subscribed", "not_remembered"]


def test_who_came_later_was_given_it_and_acknowledges_it_with_the_next_position(bus: Bus, client: Any) -> None:
    bus.publish("/orders", 1)
    poll(client, user=7, orders=0)
    assert codes(bus)[0] == "given_later"
    poll(client, user=7, orders=1)
    assert codes(bus)[:2] == ["acknowledged", "given_later"]
    assert codes(bus, client_id="abc")[0] == "acknowledged"
    assert "acknowledged" not in codes(bus, user_id=8)


def test_a_client_is_whoever_its_connection_was(bus: Bus, client: Any) -> None:
    bus.publish("/orders", "for eight", user_ids=[8])
    bus.publish("/orders", "for a group", group_ids=["staff"])
    poll(client, user=7, orders=0)
    poll(client, client_id="guest", orders=0)
    for message_id in (1, 2):
        for client_id in ("abc", "guest"):
            assert codes(bus, message_id, client_id=client_id)[0] == "not_for_them"
    poll(client, user=8, client_id="eight", orders=0)
    assert codes(bus, 1, client_id="eight")[0] == "given_later"
    assert codes(bus, 2, user_id=8)[0] == "not_for_them"


def test_who_asks_for_new_messages_only_is_not_given_an_old_one(bus: Bus, client: Any) -> None:
    bus.publish("/orders", 1)
    poll(client, user=7, orders=-1)
    assert codes(bus) == ["new_only", "not_remembered"]


def test_nothing_is_remembered_where_the_trail_is_off() -> None:
    with contextlib.closing(Bus(url="memory://", trail_size=0)) as bus:
        app = flask.Flask(__name__)
        app.register_blueprint(bus.blueprint)
        bus.publish("/orders", 1)
        poll(app.test_client(), orders=0)
        assert codes(bus, client_id="abc") == ["not_connected"]


def test_only_the_newest_connections_are_remembered() -> None:
    with contextlib.closing(Bus(url="memory://", trail_size=3)) as bus:
        app = flask.Flask(__name__)
        app.register_blueprint(bus.blueprint)
        bus.publish("/orders", 1)
        for number in range(5):
            poll(app.test_client(), client_id=f"c{number}", orders=0)
        assert codes(bus, client_id="c0") == ["not_connected"]
        assert codes(bus, client_id="c4")[0] == "given_later"


def test_what_is_asked_wrongly_is_refused(bus: Bus) -> None:
    with pytest.raises(ValueError, match="give one of them"):
        bus.why("/orders", 1)
    with pytest.raises(ValueError, match="give one of them"):
        bus.why("/orders", 1, user_id=1, client_id="a")
    with pytest.raises(ValueError, match="message_id"):
        bus.why("/orders", 0, user_id=1)
    with pytest.raises(InvalidChannel):
        bus.why("orders\n", 1, user_id=1)


def test_it_is_answered_over_http_to_those_with_a_key(bus: Bus, client: Any) -> None:
    bus.publish("/orders", 1, user_ids=[8])
    bearer = {"Authorization": f"Bearer {KEY}"}
    asked = "/message-bus/why?channel=/orders&id=1"
    assert client.get(f"{asked}&user=7").status_code == 401
    [finding] = client.get(f"{asked}&user=7", headers=bearer).get_json()["findings"]
    assert finding["code"] == "not_for_them"
    [finding] = client.get(f"{asked}&user=8", headers=bearer).get_json()["findings"]
    assert finding["code"] == "not_connected"
    for query, field in (
        (asked, "user"),
        (f"{asked}&user=7&client=a", "user"),
        ("/message-bus/why?channel=/orders&id=0&user=7", "id"),
        ("/message-bus/why?channel=/orders&user=7", "id"),
        ("/message-bus/why?id=1&user=7", "channel"),
        (f"{asked}&user=7&site=%00", "site"),
    ):
        refused = client.get(query, headers=bearer)
        assert (refused.status_code, refused.get_json()["error"]["field"]) == (400, field), query


@pytest.mark.parametrize("text", ["[" * 100_000, '"\\ud800"', "[1]", "true"], ids=["deep", "surrogate", "list", "true"])
def test_a_user_that_is_no_id_in_json_is_a_text(text: str) -> None:
    assert read_user_id(text) == text
