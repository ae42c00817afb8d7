"""AnyCable's clients come back with their session: what they get of it, and what nobody else does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask

from messagebus import Bus, Channel
from messagebus.cable import recovery, restoring

from .cable_client import EXTENDED, CableClient, identifier_of, served
from .eventually import eventually


class Doors:
    """What the channel class of a test asks, and what it notes."""

    def __init__(self) -> None:
        self.closed: set[str] = set()
        self.notes: list[str] = []
        self.may_open = threading.Event()
        self.may_open.set()


def make_bus(doors: Doors, url: str = "memory://") -> Bus:
    bus = Bus(url=url, secret_key="of the tests", user_id_lookup=lambda environ: environ.get("HTTP_X_USER"))

    @bus.channel
    class RoomChannel(Channel):
        def subscribed(self) -> None:
            name = self.params["name"]
            doors.may_open.wait(20.0)
            if name in doors.closed:
                self.reject()
                return
            doors.notes.append(f"subscribed {name}")
            self.transmit(f"welcome to {name}")
            self.stream_from(f"/rooms/{name}")

        def unsubscribed(self) -> None:
            if not self.is_rejected:
                doors.notes.append(f"unsubscribed {self.params['name']}")

    @bus.connect
    def connect(request: Any) -> dict[str, Any]:
        return {"plan": request.args.get("plan", "free"), "request": request}

    return bus


@pytest.fixture
def doors() -> Doors:
    return Doors()


@pytest.fixture
def bus(doors: Doors) -> Bus:
    return make_bus(doors)


@pytest.fixture
def url(bus: Bus) -> Iterator[str]:
    with served(bus) as url:
        yield url


def room(name: str) -> str:
    return identifier_of("RoomChannel", name=name)


@contextlib.contextmanager
def back(url: str, sid: str, **headers: str) -> Iterator[tuple[CableClient, dict[str, Any]]]:
    """A client that comes back with a session, and how it is welcomed."""
    with CableClient(url, EXTENDED, path=f"/cable?sid={quote(sid)}", **headers) as client:
        yield client, client.until(type="welcome")


def begin(url: str, *names: str, **headers: str) -> str:
    """A session with subscriptions, whose connection has ended. Its sid."""
    with CableClient(url, EXTENDED, **headers) as client:
        sid: str = client.until(type="welcome")["sid"]
        for name in names:
            client.confirmed("RoomChannel", name=name)
    return sid


def test_a_session_that_comes_back_has_its_subscriptions_and_misses_nothing(url: str, bus: Bus, doors: Doors) -> None:
    with CableClient(url, EXTENDED) as client:
        sid = client.until(type="welcome")["sid"]
        for name in ("a", "b"):
            client.confirmed("RoomChannel", name=name)
        bus.publish("/rooms/a", 1)
        seen = client.until(stream_id="/rooms/a")
    eventually(lambda: len(doors.notes) == 4)
    bus.publish("/rooms/a", 2)
    with back(url, sid) as (client, welcome):
        assert welcome["restored"] is True
        assert sorted(welcome["restored_ids"]) == [room("a"), room("b")]
        assert welcome["sid"] != sid
        told = sorted((client.next()["identifier"], client.seen[-1]["message"]) for _ in range(2))
        assert told == [(room("a"), "welcome to a"), (room("b"), "welcome to b")]
        position = {"epoch": seen["epoch"], "offset": seen["offset"]}
        bus.publish("/rooms/a", 3)
        client.say(command="history", identifier=room("a"), history={"since": 0, "streams": {"/rooms/a": position}})
        client.until(type="confirm_history")
        bus.publish("/rooms/a", 4)
        client.until(message=4)
        assert [frame["message"] for frame in client.seen if "stream_id" in frame] == [2, 3, 4]
        assert not any(frame.get("type") == "confirm_subscription" for frame in client.seen)
    # The class was asked again, and has heard of each end.
    eventually(
        lambda: (
            sorted(doors.notes) == sorted(2 * [f"{word} {n}" for word in ("subscribed", "unsubscribed") for n in "ab"])
        )
    )


def test_a_session_that_comes_back_before_its_connection_is_known_to_have_ended_is_restored(url: str) -> None:
    with CableClient(url, EXTENDED) as client:
        sid = client.until(type="welcome")["sid"]
        client.confirmed("RoomChannel", name="a")
        with back(url, sid) as (_, welcome):
            assert welcome["restored_ids"] == [room("a")]


def test_who_asks_for_no_history_gets_what_is_new(url: str, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "HISTORY_SECONDS", 0.1)
    sid = begin(url, "a")
    for asks in (True, False):
        with back(url, sid) as (client, _):
            assert client.next()["message"] == "welcome to a"
            if asks:
                client.say(command="history", identifier=room("a"))
            bus.publish("/rooms/a", "new")
            assert client.next()["message"] == "new"


def test_what_is_no_longer_allowed_is_not_restored_and_refused_when_it_is_asked_for(url: str, doors: Doors) -> None:
    sid = begin(url, "a", "b")
    doors.closed.add("a")
    with back(url, sid) as (client, welcome):
        assert welcome["restored_ids"] == [room("b")]
        client.subscribe("RoomChannel", name="a")
        client.until(type="reject_subscription", identifier=room("a"))
    doors.closed.add("b")
    with back(url, sid) as (_, welcome):
        assert "restored" not in welcome


def test_nobody_else_is_given_a_session_and_nobody_can_guess_one(url: str) -> None:
    sid = begin(url, "a", X_User="ann")
    for headers in ({}, {"X_User": "bob"}):
        with back(url, sid, **headers) as (_, welcome):
            assert "restored" not in welcome
    for wrong in ("", ".", sid[:-1], sid.partition(".")[0], "x" * 5000, sid + "\0", f"elsewhere.{sid}"):
        with back(url, wrong, X_User="ann") as (_, welcome):
            assert "restored" not in welcome
    with CableClient(url, EXTENDED, path=f"/cable?sid={sid}&plan=paid", X_User="ann") as client:
        assert "restored" not in client.until(type="welcome")
    with back(url, sid, X_User="ann") as (_, welcome):
        assert welcome["restored_ids"] == [room("a")]
    secret = sid.partition(".")[2]
    assert len(secret) >= 24


def test_who_was_told_to_go_has_no_session_any_more(url: str, bus: Bus) -> None:
    with CableClient(url, EXTENDED, X_User="ann") as client:
        sid = client.until(type="welcome")["sid"]
        client.confirmed("RoomChannel", name="a")
        bus.disconnect(user_ids=["ann"], reason="bye", reconnect=True)
        client.until(type="disconnect")
    with back(url, sid, X_User="ann") as (_, welcome):
        assert "restored" not in welcome


def test_a_class_that_takes_its_time_holds_up_the_welcome_for_seconds_only(
    url: str, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "SECONDS", 0.2)
    sid = begin(url, "a")
    doors.may_open.clear()
    with back(url, sid) as (_, welcome):
        assert "restored" not in welcome
        doors.may_open.set()


def test_sessions_are_forgotten_by_time_and_by_number(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MAX_SESSIONS", 2)
    sids = [begin(url, "a") for _ in range(3)]

    def restored(sid: str) -> bool:
        with back(url, sid) as (_, welcome):
            return "restored" in welcome

    # Each of these is a session as well, but none whose client may come back: it has nothing.
    monkeypatch.setattr(recovery.Recovery, "end", lambda *_: None)
    assert [restored(sid) for sid in sids] == [False, True, True]
    monkeypatch.undo()
    monkeypatch.setattr(recovery, "KEPT_SECONDS", 0.0)
    assert not restored(begin(url, "a"))
    assert begin(url)  # without a subscription there is nothing to be kept


def test_a_session_comes_back_in_another_worker(doors: Doors, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/bus.db"
    with served(make_bus(doors, store)) as one, served(make_bus(doors, store), Flask("other")) as other:
        with CableClient(other, EXTENDED) as client:
            client.until(type="welcome")
        sid = begin(one, "a")
        with back(other, sid) as (_, welcome):
            assert welcome["restored_ids"] == [room("a")]
        with back(other, sid, X_User="bob") as (_, welcome):
            assert "restored" not in welcome
