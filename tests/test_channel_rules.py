"""What holds for the channels of a pattern."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest

from messagebus import Bus, InvalidOption, MessageTooLarge, Options
from messagebus.serve.config import ConfigError, read_config

from .eventually import eventually

RULES: dict[str, dict[str, Any]] = {
    "/chat/short": {"max_backlog_size": 1},
    "/chat/*": {"max_backlog_size": 2, "max_message_size": 10},
    "/audit/*": {"subscribe": "nobody"},
}


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", channels=RULES, secret_key="a secret for tests")
    yield bus
    bus.close()


def test_the_first_rule_that_matches_says_how_long_a_backlog_is(bus: Bus) -> None:
    for channel, kept in (("/chat/short", 1), ("/chat/long", 2), ("/other", 3)):
        for number in range(3):
            bus.publish(channel, number)
        assert len(bus.backlog(channel)) == kept, channel


def test_a_publish_says_it_before_the_rule(bus: Bus) -> None:
    bus.publish_many([("/chat/a", number) for number in range(5)], max_backlog_size=4)
    assert len(bus.backlog("/chat/a")) == 4


def test_messages_of_one_publish_follow_the_rule_of_their_channel_each(bus: Bus) -> None:
    bus.publish_many([(channel, number) for number in range(3) for channel in ("/chat/a", "/other")])
    assert (len(bus.backlog("/chat/a")), len(bus.backlog("/other"))) == (2, 3)


def test_a_message_may_be_as_large_as_its_channel_takes(bus: Bus) -> None:
    with pytest.raises(MessageTooLarge):
        bus.publish("/chat/a", "x" * 20)
    assert bus.publish("/other", "x" * 20) == 1
    assert bus.last_id("/chat/a") == 0


def test_nobody_subscribes_where_the_rule_says_so_not_even_with_a_grant(bus: Bus) -> None:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    client = app.test_client()
    heard: list[str] = []
    bus.subscribe("/audit/a", lambda message: heard.append(message.data), last_id=0)
    bus.publish("/audit/a", "secret")
    grant = bus.grant("/audit/a")
    refused = client.post("/message-bus/me/poll?dlp=t", data={"/audit/a": 0, "__grants": grant})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (403, "/audit/a")
    assert client.post("/message-bus/me/poll?dlp=t", data={"/chat/a": 0}).status_code == 200
    eventually(lambda: heard == ["secret"])


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ({"chat": {}}, "starts with"),
        ({"/a*b": {}}, "at the end"),
        ({7: {}}, "string"),
        ({"/a": 7}, "table"),
        ({"/a": {"size": 7}}, "size"),
        ({"/a": {"pattern": "/b"}}, "pattern"),
        ({"/a": {"max_backlog_size": 0}}, "max_backlog_size"),
        ({"/a": {"max_backlog_age": "7"}}, "max_backlog_age"),
        ({"/a": {"subscribe": "some"}}, "subscribe"),
        (["/a"], "patterns"),
    ],
)
def test_a_malformed_rule_is_refused(rules: Any, word: str) -> None:
    with pytest.raises(InvalidOption, match=word) as refused:
        Options(channels=rules)
    assert refused.value.option == "channels"


def test_a_file_has_options_keys_and_rules(tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    page = (Path(__file__).parent.parent / "docs/channel-rules.md").read_text()
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    options = Options(**read_config(path))
    assert (options.url, options.max_channels) == ("redis://127.0.0.1:6379/0", 50)
    assert options.publisher_keys[0].channels == ("/chat/*",)
    assert options.channels[0].max_backlog_age == 3600


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("# first\nmax_chanels = 7\n", 2, "max_channels"),
        ("\n\nmax_channels = 0\n", 3, "max_channels"),
        ("url = 7", 1, "url"),
        ("[channels.'/a']\nmax_backlog_size = 7\n\n[channels.'/b']\nmax_backlog_size = 0\n", 5, "max_backlog_size"),
        ("[channels.'/a']\nmax_backlog_size = 7\nsize = 7", 3, "size"),
        ("[channels]\n'/a' = {size = 7}\n", 2, "size"),
        ("max_channels = 7\n[channels.a]\n", 2, "starts with"),
        ("max_channels = 7\n[[publisher_keys]]\nkey = 'short'", 2, "publisher_keys"),
        ("[limits]\n", 1, "limits"),
        ("max_channels = \n", 1, ""),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, text: str, line: int, word: str) -> None:
    path = tmp_path / "bus.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_config(path)
    assert f"line {line}" in str(refused.value)
    assert word in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    with pytest.raises(ConfigError, match="No such file"):
        read_config(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_config(path)
