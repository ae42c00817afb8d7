"""The client that a request belongs to."""

from __future__ import annotations

from typing import Any

import flask
import pytest

from messagebus import Bus


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, None),
        ({"headers": {"X-MessageBus-Client-Id": "a1"}}, "a1"),
        ({"query_string": {"messagebus_client_id": "b.2"}}, "b.2"),
        ({"method": "POST", "data": {"messagebus_client_id": "c-3"}}, "c-3"),
        ({"method": "POST", "data": {"messagebus_client_id": "not one"}}, None),
        ({"headers": {"X-MessageBus-Client-Id": "x" * 129}}, None),
        ({"method": "POST", "json": {"messagebus_client_id": "c-3"}}, None),
        ({"path": "/mounted/message-bus/d4/publish", "headers": {"X-MessageBus-Client-Id": "a1"}}, "d4"),
    ],
)
def test_it_is_what_the_page_shows_or_what_the_path_says(request_: dict[str, Any], expected: str | None) -> None:
    bus, app = Bus(url="memory://"), flask.Flask(__name__)
    with app.test_request_context(**request_):
        assert bus.client_id() == bus.client_id(flask.request) == expected


def test_without_a_request_there_is_nothing_to_ask() -> None:
    with pytest.raises(RuntimeError, match="outside of request context"):
        Bus(url="memory://").client_id()
