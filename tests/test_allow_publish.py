"""What hooks, rules and options together let clients publish."""

from __future__ import annotations

from typing import Any

import flask
import pytest

from messagebus import Bus, InvalidChannel
from messagebus.http.command import Caller, CommandError
from messagebus.http.commands import read_command
from messagebus.hub.subscriber import Identity

RULES: dict[str, dict[str, Any]] = {
    "/anyone": {"publish": "anyone"},
    "/nobody": {"publish": "nobody"},
    "/keys": {"publish": ["shop"]},
}


def publish(bus: Bus, channel: str, data: Any = 1, **options: Any) -> Any:
    app = flask.Flask(__name__)
    with app.test_request_context("/"):
        caller = Caller(bus._running_node(), Identity("me"), None, request=flask.request)
        return read_command(caller, {"publish": {"channel": channel, "data": data, **options}}).perform()


@pytest.fixture
def bus() -> Any:
    bus = Bus(url="memory://", client_publish=("/open",), channels=RULES)
    yield bus
    bus.close()


@pytest.mark.parametrize("channel", ["/open", "/anyone", "/hooked"])
def test_a_hook_is_asked_however_the_channel_was_opened(bus: Bus, channel: str) -> None:
    bus.allow_publish(channel)(lambda request, channel, data: [channel, data])
    assert publish(bus, channel) == {"message_id": 1}
    assert [message.data for message in bus.backlog(channel)] == [[channel, 1]]


@pytest.mark.parametrize("channel", ["/nobody", "/keys"])
def test_no_hook_opens_what_a_rule_keeps_for_others(bus: Bus, channel: str) -> None:
    asked: list[str] = []
    bus.allow_publish("/*")(lambda request, channel, data: asked.append(channel))
    with pytest.raises(CommandError, match="lets no client") as refused:
        publish(bus, channel)
    assert (refused.value.code, asked) == ("forbidden", [])


def test_a_message_says_which_client_has_sent_it(bus: Bus) -> None:
    publish(bus, "/open")
    bus.publish("/open", 2)
    assert [message.sender for message in bus.backlog("/open")] == ["me", None]


def test_a_hook_that_asks_is_told_whether_a_message_is_kept(bus: Bus) -> None:
    told: list[Any] = []

    @bus.allow_publish("/chat")
    def keyword(request: Any, channel: str, data: Any, *, transient: bool) -> Any:
        told.append(transient)
        return data

    @bus.allow_publish("/chat")
    def positional(request: Any, channel: str, data: Any, transient: bool = False) -> Any:
        told.append(transient)
        return data

    bus.allow_publish("/chat")(lambda request, channel, data: data)
    bus.allow_publish("/chat")(max)  # has no signature; refuses what it cannot compare
    with pytest.raises(CommandError, match="TypeError"):
        publish(bus, "/chat", transient=True)
    with pytest.raises(CommandError, match="TypeError"):
        publish(bus, "/chat")
    assert told == [True, True, False, False]


def test_after_a_refusal_no_further_hook_is_asked(bus: Bus) -> None:
    asked: list[Any] = []
    bus.allow_publish("/chat")(lambda request, channel, data: None)
    bus.allow_publish("/*")(lambda request, channel, data: asked.append(data))
    with pytest.raises(CommandError, match="does not take"):
        publish(bus, "/chat")
    assert asked == []


def test_a_mistake_of_a_hook_is_reported(bus: Bus) -> None:
    told: list[tuple[str, str]] = []
    bus.configure(on_error=lambda error, where: told.append((str(error), where)))

    @bus.allow_publish("/chat")
    def broken(request: Any, channel: str, data: Any) -> Any:
        raise LookupError("a mistake")

    with pytest.raises(CommandError, match="/chat: LookupError"):
        publish(bus, "/chat")
    assert told == [("a mistake", "the allow_publish hook of '/chat'")]


def test_a_connection_that_is_older_than_the_first_hook_is_refused(bus: Bus) -> None:
    bus.allow_publish("/chat")(lambda request, channel, data: data)
    caller = Caller(bus._running_node(), Identity("me"), None)
    with pytest.raises(CommandError, match="connect again"):
        read_command(caller, {"publish": {"channel": "/chat", "data": 1}}).perform()


def test_a_pattern_that_is_none_is_refused_at_once(bus: Bus) -> None:
    with pytest.raises(InvalidChannel):
        bus.allow_publish("chat")
