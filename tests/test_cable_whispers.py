"""AnyCable's whispers and presence: each only where the program has said so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from messagebus import Bus, Channel, Member

from .cable_client import EXTENDED, JSON, CableClient, identifier_of, served
from .eventually import eventually

GRACE = 0.2


@pytest.fixture
def bus() -> Bus:
    bus = Bus(url="memory://", presence_grace=GRACE, max_publishes_per_client=5)

    @bus.channel
    class RoomChannel(Channel):
        def subscribed(self) -> None:
            self.stream_from("/news")
            self.stream_from("/rooms/7", whisper=self.params.get("whisper", True))

        def stop(self) -> None:
            self.stop_stream_from("/rooms/7")

    @bus.channel
    class NewsChannel(Channel):
        def subscribed(self) -> None:
            self.stream_from("/news")

    @bus.presence.member("/rooms/*")
    def who(request: Any, channel: str) -> Member | None:
        name = request.headers.get("X-User")
        return None if name is None else Member(name, {"name": name.title()})

    return bus


@pytest.fixture
def url(bus: Bus) -> Iterator[str]:
    with served(bus) as url:
        yield url


ROOM = identifier_of("RoomChannel")
NEWS = identifier_of("NewsChannel")


def connect(url: str, protocol: str = EXTENDED, channel: str = "RoomChannel", **headers: str) -> CableClient:
    client = CableClient(url, protocol, **headers)
    client.until(type="welcome")
    client.confirmed(channel)
    return client


# --- whispers ---


@pytest.mark.parametrize("protocol", [JSON, EXTENDED])
def test_a_whisper_reaches_the_others_alone_and_is_not_kept(url: str, bus: Bus, protocol: str) -> None:
    with connect(url, protocol) as ann, connect(url, protocol) as bob:
        ann.say(command="whisper", identifier=ROOM, data={"event": "typing"})
        assert bob.next()["message"] == {"event": "typing"}
        bus.publish("/rooms/7", "said")
        for client in (ann, bob):
            assert client.next()["message"] == "said"
    assert [message.data for message in bus.backlog("/rooms/7")] == ["said"]


def test_a_whisper_moves_no_position(url: str, bus: Bus) -> None:
    with connect(url) as ann, connect(url) as bob:
        bus.publish("/rooms/7", "one")
        assert bob.next()["offset"] == 1
        ann.say(command="whisper", identifier=ROOM, data="typing")
        assert bob.next()["offset"] == 1


def test_where_no_stream_is_for_whispers_they_are_refused(url: str) -> None:
    with connect(url, channel="NewsChannel") as ann:
        ann.say(command="whisper", identifier=NEWS, data="typing")
        told = ann.next()["error"]
        assert (told["code"], told["command"]) == ("forbidden", "whisper")
        assert told["message"] == "NewsChannel: the server lets no client whisper here"
        ann.say(command="whisper", identifier=ROOM, data="typing")
        assert ann.next()["error"]["code"] == "not_subscribed"
    with connect(url) as ann:
        ann.perform(ROOM, "stop")
        ann.say(command="whisper", identifier=ROOM, data="typing")
        assert ann.next()["error"]["code"] == "forbidden"


def test_whispers_count_against_the_rate_of_publishes(url: str) -> None:
    with connect(url) as ann:
        for _ in range(8):
            ann.say(command="whisper", identifier=ROOM, data="typing")
        told = ann.next()["error"]
        assert (told["code"], told["field"]) == ("too_many_publishes", "max_publishes_per_client")
        assert told["retry_after"] >= 1


# --- presence ---


def info(client: CableClient, identifier: str = ROOM) -> dict[str, Any]:
    client.say(command="presence", identifier=identifier, data={})
    told: dict[str, Any] = client.until(type="presence", identifier=identifier)["message"]
    return told


def record(name: str) -> dict[str, Any]:
    return {"id": name, "info": {"name": name.title()}}


def test_who_is_there_is_told_and_who_comes_and_goes_from_then_on(url: str) -> None:
    with connect(url, X_User="ann") as ann:
        assert info(ann) == {"type": "info", "records": [record("ann")], "total": 1}
        with connect(url, X_User="bob"):
            assert ann.until(type="presence")["message"] == {"type": "join", **record("bob")}
            assert sorted(each["id"] for each in info(ann)["records"]) == ["ann", "bob"]
        assert ann.until(type="presence")["message"] == {"type": "leave", "id": "bob"}


def test_the_rule_says_who_joins_whatever_the_client_says(url: str, bus: Bus) -> None:
    with connect(url, X_User="ann") as ann, connect(url) as unseen:
        ann.say(command="join", identifier=ROOM, presence={"id": "root", "info": {"name": "Root"}})
        assert ann.until(type="presence")["message"]["records"] == [record("ann")]
        unseen.say(command="join", identifier=ROOM, presence={"id": "root"})
        assert unseen.until(type="presence")["message"]["records"] == [record("ann")]
    with CableClient(url, EXTENDED, X_User="eve") as eve:
        eve.until(type="welcome")
        eve.say(command="subscribe", identifier=ROOM, presence={"id": "eve"})
        # Among those who are there, or as one who enters: whichever comes first.
        eventually(lambda: '"eve"' in json.dumps(eve.until(type="presence")["message"]))


def test_who_leaves_follows_the_stream_and_may_join_again(url: str, bus: Bus) -> None:
    with connect(url, X_User="ann") as ann, connect(url, X_User="bob") as bob:
        info(bob)
        ann.say(command="leave", identifier=ROOM)
        assert bob.until(type="presence")["message"] == {"type": "leave", "id": "ann"}
        bus.publish("/rooms/7", "still")
        ann.until(message="still")
        ann.say(command="join", identifier=ROOM, presence={"id": "ann"})
        assert bob.until(type="presence")["message"] == {"type": "join", **record("ann")}


def test_where_no_rule_names_members_it_is_an_error_that_the_client_understands(url: str) -> None:
    with connect(url, channel="NewsChannel", X_User="ann") as ann:
        for command in ("presence", "join", "leave"):
            ann.say(command=command, identifier=NEWS)
            told = ann.until(type="presence", identifier=NEWS)["message"]
            assert (told["type"], told["error"]["code"]) == ("error", "forbidden")
            assert told["error"]["message"].startswith("NewsChannel: no rule of the server")


def test_actioncables_protocol_has_no_presence(url: str) -> None:
    with connect(url, JSON) as ann:
        ann.say(command="presence", identifier=ROOM)
        assert ann.next()["error"]["code"] == "bad_request"
