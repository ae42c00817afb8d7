"""What ``publish`` is given is checked alike on every store, before anything is written."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import sys
import uuid
from typing import Any

import flask
import pytest
from flask.json.provider import DefaultJSONProvider

from messagebus import Bus, InvalidChannel, InvalidData, InvalidOption, InvalidSite, InvalidTargets, MessageBusError


class LikeNumpy:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.fixture
def bus(bus_on_each_store: Bus) -> Bus:
    return bus_on_each_store


NO_NUMBERS = [86400.0, 1.5, True, False, "7", b"7", decimal.Decimal(7), float("nan"), float("inf"), [7], object()]
OUT_OF_RANGE = [0, -1, 10**16, sys.maxsize, 2**63, 10**400]
BAD: list[tuple[dict[str, Any], type[MessageBusError], str]] = [
    *(({name: value}, InvalidOption, name) for name in ("max_backlog_age", "max_backlog_size") for value in NO_NUMBERS),
    *(
        ({name: value}, InvalidOption, name)
        for name in ("max_backlog_age", "max_backlog_size")
        for value in OUT_OF_RANGE
    ),
    ({"site_id": 7}, InvalidSite, "expected a string, not int"),
    ({"site_id": ""}, InvalidSite, "site"),
    ({"user_ids": []}, InvalidTargets, "user_ids"),
    ({"user_ids": [[7]]}, InvalidTargets, "list"),
    ({"group_ids": "admins"}, InvalidTargets, "group_ids"),
    ({"client_ids": [7]}, InvalidTargets, "client_ids"),
    ({"client_ids": ["a b"]}, InvalidTargets, "client_ids"),
    ({"exclude_client_ids": ["a b"]}, InvalidTargets, "exclude_client_ids"),
    ({"exclude_client_ids": "abc"}, InvalidTargets, "exclude_client_ids"),
    ({"sender": ""}, InvalidTargets, "sender"),
    ({"sender": 7}, InvalidTargets, "sender"),
    ({"sender": "a b"}, InvalidTargets, "sender"),
    ({"queue_in_memory": "no"}, InvalidOption, "queue_in_memory"),
    ({"queue_in_memory": None}, InvalidOption, "queue_in_memory"),
    ({"idempotency_key": 7}, InvalidOption, "idempotency_key"),
    ({"idempotency_key": ""}, InvalidOption, "idempotency_key"),
    ({"idempotency_key": "x" * 256}, InvalidOption, "idempotency_key"),
    ({"idempotency_key": "a\0b"}, InvalidOption, "idempotency_key"),
]


def test_what_is_wrong_is_said_and_nothing_is_written_or_waits(bus: Bus) -> None:
    bus.publish("/a", 1)
    for options, error, words in BAD:
        for publish in (
            lambda options: bus.publish("/a", 2, **options),
            lambda options: bus.publish_many([("/a", 2), ("/b", 3)], **options),
        ):
            with pytest.raises(error) as caught:
                publish(options)
            assert words in str(caught.value), options
    assert bus.newest_global_id() == 1
    assert bus.publish("/b", 4) == 1
    assert len(bus._publisher_now().queue) == 0


def test_a_global_channelʼs_site_is_checked_as_well(bus: Bus) -> None:
    with pytest.raises(InvalidSite):
        bus.publish("/global/a", 1, site_id=7)  # type: ignore[arg-type]
    with pytest.raises(InvalidChannel):
        bus.publish_many([(["/a"], 1)])  # type: ignore[list-item]


def test_the_edges_of_the_range_are_taken(bus: Bus) -> None:
    for size, age in ((1, 1), (2**31 - 1, 100 * 365 * 86_400), (LikeNumpy(5), LikeNumpy(50))):
        bus.publish("/a", 1, max_backlog_size=size, max_backlog_age=age)  # type: ignore[arg-type]
    bus.publish("/a", 1, client_ids=[uuid.UUID(int=7), "abc.DEF_~-1"])
    assert [message.message_id for message in bus.backlog("/a")] == [1, 2, 3, 4]


def test_programs_read_who_has_sent_a_message_and_clients_do_not(bus: Bus) -> None:
    bus.publish("/a", 1, sender="abc.DEF_~-1")
    bus.publish("/a", 2)
    messages = bus.backlog("/a")
    assert [message.sender for message in messages] == ["abc.DEF_~-1", None]
    assert b"abc" not in messages[0].json


def test_an_argument_that_does_not_exist_is_refused(bus: Bus) -> None:
    with pytest.raises(TypeError, match=r"user_id; it takes .*user_ids"):
        bus.publish("/a", 1, user_id=7)  # type: ignore[call-arg]
    assert bus.newest_global_id() == 0


@pytest.mark.parametrize("name", ["max_backlog_size", "max_backlog_age", "clear_every", "max_global_backlog_size"])
@pytest.mark.parametrize("value", [10**16, 0, 1.0, True, "7"])
def test_options_have_the_same_limits(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption) as caught:
        Bus(**{name: value})
    assert caught.value.option == name


# --- data, in an app ---


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date


EVERYTHING = {
    "date": datetime.date(2026, 1, 1),
    "time": datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.timezone.utc),
    "decimal": decimal.Decimal("1.50"),
    "uuid": uuid.UUID(int=7),
    "point": Point(1, datetime.date(2026, 1, 2)),
    "tuple": (1, "ü"),
}


def test_in_an_app_whatever_jsonify_takes_is_published_as_jsonify_has_it(bus: Bus) -> None:
    app = flask.Flask(__name__)
    app.config["MESSAGEBUS_URL"] = bus.options.url
    with pytest.raises(InvalidData):
        bus.publish("/a", EVERYTHING)
    app.register_blueprint(bus.blueprint)
    bus.publish("/a", EVERYTHING)  # also outside of a request
    with app.test_request_context():
        bus.publish_many([("/a", EVERYTHING)])
        expected = flask.jsonify(EVERYTHING).get_json()
    assert [message.data for message in bus.backlog("/a")] == [expected, expected]
    for wrong in (object(), {"x": float("nan")}, {"when": datetime.date(2026, 1, 1), "x": float("inf")}, {1, 2}):
        with pytest.raises(InvalidData):
            bus.publish("/a", wrong)
    assert bus.last_id("/a") == 2


def test_an_appʼs_own_provider_is_asked(bus: Bus) -> None:
    class Provider(DefaultJSONProvider):
        @staticmethod
        def default(value: Any) -> Any:
            return sorted(value) if isinstance(value, set) else DefaultJSONProvider.default(value)

    app = flask.Flask(__name__)
    app.config["MESSAGEBUS_URL"] = bus.options.url
    app.register_blueprint(bus.blueprint)
    app.json = Provider(app)
    bus.publish("/a", {"b", "a"})
    assert bus.backlog("/a")[0].data == ["a", "b"]
