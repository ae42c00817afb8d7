"""The script tag that ``{{ message_bus(...) }}`` prints, where its attributes follow from the bus's options."""

from __future__ import annotations

import re
from typing import Any

import flask
import pytest

from messagebus import Bus


def tag(arguments: str = "", **options: Any) -> str:
    bus = Bus(url="memory://", **options)
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    app.add_url_rule("/page", "page", lambda: flask.render_template_string(f"{{{{ message_bus({arguments}) }}}}"))
    try:
        return app.test_client().get("/page").text
    finally:
        bus.close()


def test_the_client_knows_how_long_a_bus_with_the_defaults_is_silent() -> None:
    assert "heartbeat" not in tag()
    assert "heartbeat" not in tag(heartbeat_interval=5.0, long_polling_interval=10.0)


def test_the_two_way_part_is_a_tag_behind_the_first_where_it_is_asked_for() -> None:
    assert "two-way" not in tag()
    first, second = re.findall(r"<script [^>]*></script>", tag(arguments='two_way=True, nonce="a<b"'))
    [source] = re.findall(r'src="([^"]*)messagebus.js"', first)
    assert second == f'<script src="{source}messagebus-two-way.js" nonce="a&lt;b"></script>'


@pytest.mark.parametrize("option", ["heartbeat_interval", "long_polling_interval"])
def test_a_bus_that_is_silent_for_longer_says_so(option: str) -> None:
    (timeout,) = re.findall(r'data-heartbeat-timeout="(\d+)"', tag("", **{option: 60.0}))
    assert int(timeout) == 75_000
