"""``bus.presence``, as programs use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from messagebus import Bus, InvalidChannel, InvalidMember, InvalidSite, Member, PresenceFull
from messagebus.hub import attendance
from messagebus.stores.base import MAX_ANNOUNCEMENT
from messagebus.stores.sqlite import SqliteStore

from .eventually import eventually


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", presence_grace=0.1)
    yield bus
    bus.close()


@pytest.fixture
def buses(tmp_path: Path) -> Iterator[tuple[Bus, Bus]]:
    """Two workers on one store."""
    pair = Bus(url=f"sqlite:///{tmp_path}/bus.db"), Bus(url=f"sqlite:///{tmp_path}/bus.db")
    yield pair
    for bus in pair:
        bus.close()


def ids(bus: Bus, channel: str = "/room", **options: Any) -> list[Any]:
    return sorted(member.id for member in bus.presence.members(channel, **options))


def test_whom_the_program_has_join_is_there_at_once_until_it_says_otherwise(bus: Bus) -> None:
    bus.presence.join("/room", 7, {"name": "Ann"})
    assert bus.presence.members("/room") == [Member(7, {"name": "Ann"})]
    assert (bus.presence.count("/room"), bus.presence.count("/other")) == (1, 0)
    bus.presence.join("/room", 7, "another info")
    eventually(lambda: bus.presence.members("/room") == [Member(7, "another info")])
    bus.presence.leave("/room", "7")  # another one
    bus.presence.leave("/room", 7)
    eventually(lambda: bus.presence.members("/room") == [])


def test_with_a_ttl_it_ends_by_itself(bus: Bus) -> None:
    bus.presence.join("/room", 7, ttl=0.2)
    eventually(lambda: bus.presence.count("/room") == 0)


def test_each_site_has_members_of_its_own(bus: Bus) -> None:
    for channel in ("/room", "/global/room"):
        bus.presence.join(channel, 1, site_id="one")
        assert (ids(bus, channel, site_id="one"), ids(bus, channel), ids(bus, channel, site_id="two")) == ([1], [], [])


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("room", 1), {}, InvalidChannel),
        (("/__presence/room", 1), {}, InvalidChannel),
        (("/room", None), {}, InvalidMember),
        (("/room", 1, {1, 2}), {}, InvalidMember),
        (("/room", 1), {"site_id": ""}, InvalidSite),
        (("/room", 1), {"ttl": 0}, ValueError),
        (("/room", 1), {"ttl": True}, ValueError),
        (("/room", 1), {"ttl": float("nan")}, ValueError),
        (("/room", 1), {"ttl": "5"}, ValueError),
    ],
)
def test_wrong_arguments_are_typed_errors_and_change_nothing(
    bus: Bus, arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        bus.presence.join(*arguments, **options)
    assert bus.presence.count("/room") == 0


def test_a_wrong_pattern_is_an_error_where_it_is_registered(bus: Bus) -> None:
    for register in (bus.presence.member, bus.presence.on_join, bus.presence.on_leave):
        with pytest.raises(InvalidChannel):
            register("rooms/*")


def test_a_process_holds_a_bounded_number_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "MAX_MEMBERS", 2)
    bus = Bus(url="memory://")
    try:
        bus.presence.join("/room", 1)
        bus.presence.join("/other", 1)
        with pytest.raises(PresenceFull):
            bus.presence.join("/room", 2)
        assert ids(bus) == [1]
    finally:
        bus.close()


def test_several_workers_have_one_member_and_any_of_them_may_end_it(buses: tuple[Bus, Bus]) -> None:
    one, other = buses
    one.presence.join("/room", 1, "of the first")
    other.presence.join("/room", 2)
    eventually(lambda: ids(one) == ids(other) == [1, 2])
    other.presence.join("/room", 1, "of the second")
    eventually(lambda: Member(1, "of the second") in one.presence.members("/room"))
    one.presence.leave("/room", 1)
    one.presence.leave("/room", 2)
    eventually(lambda: ids(one) == ids(other) == [])


def test_a_worker_tells_of_its_members_once_its_report_is_in_the_store(
    buses: tuple[Bus, Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = buses
    done: list[str] = []
    told = threading.Event()
    report, announce = SqliteStore.report, SqliteStore.announce

    def report_late(self: SqliteStore, worker: str, text: str) -> None:
        told.wait(1)  # as long as nothing is told
        report(self, worker, text)
        done.append("reported")

    def announce_at_once(self: SqliteStore, text: str) -> None:
        done.append("told")
        told.set()
        announce(self, text)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "report", report_late)
        patch.setattr(SqliteStore, "announce", announce_at_once)
        one.presence.join("/room", 1)
        eventually(lambda: "told" in done)
    eventually(lambda: ids(other) == [1])
    assert done[:2] == ["reported", "told"]


def test_hooks_are_called_once_for_each_that_comes_and_goes_in_order(buses: tuple[Bus, Bus]) -> None:
    called: list[tuple[str, str, Any]] = []
    for bus in buses:

        @bus.presence.on_join("/room*")
        def joined(channel: str, member: Member) -> None:
            called.append(("joined", channel, member.id))

        @bus.presence.on_leave("/room*")
        def left(channel: str, member: Member) -> None:
            called.append(("left", channel, member.id))

        bus.start()
    threads = [threading.Thread(target=bus.presence.join, args=("/room", who)) for bus in buses for who in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: len(called) >= 20)
    buses[0].presence.join("/elsewhere", 1)
    for who in range(20):
        buses[who % 2].presence.leave("/room", who)
    eventually(lambda: len(called) >= 40)
    buses[0].presence.join("/rooms", "last")
    eventually(lambda: ("joined", "/rooms", "last") in called)
    assert sorted(called[:20]) == [("joined", "/room", who) for who in range(20)]
    assert sorted(called[20:40]) == [("left", "/room", who) for who in range(20)]
    assert len(called) == 41


def test_a_hook_that_fails_is_reported_and_the_next_is_called() -> None:
    errors: list[str] = []
    called: list[Any] = []
    bus = Bus(url="memory://", on_error=lambda error, where: errors.append(where))

    @bus.presence.on_join("/room")
    def broken(channel: str, member: Member) -> None:
        raise RuntimeError("mine")

    @bus.presence.on_join("/*")
    def other(channel: str, member: Member) -> None:
        called.append(member.id)

    try:
        bus.presence.join("/room", 1)
        bus.presence.join("/room", 2)
        eventually(lambda: called == [1, 2])
        assert errors == [f"the on_join function of /room, member {who}" for who in (1, 2)]
    finally:
        bus.close()


def test_a_worker_that_begins_later_learns_who_is_there_however_many_they_are(buses: tuple[Bus, Bus]) -> None:
    one, other = buses
    for number in range(300):
        one.presence.join("/room", f"{number:03}", "x" * 100)
    assert 5 * MAX_ANNOUNCEMENT < 300 * 100
    eventually(lambda: len(ids(other)) == 300)
    assert other.presence.count("/room") == 300


def test_the_members_of_a_worker_that_ends_in_order_are_kept_for_the_grace(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"
    stays, ends = Bus(url=url, presence_grace=1.5), Bus(url=url)
    try:
        ends.presence.join("/room", "goes")
        ends.presence.join("/room", "moves")
        eventually(lambda: ids(stays) == ["goes", "moves"])
        ends.close()
        assert ids(stays) == ["goes", "moves"]
        stays.presence.join("/room", "moves")
        eventually(lambda: ids(stays) == ["moves"])
    finally:
        ends.close()
        stays.close()
