"""The dict that is the same in every process; here every bus stands for a process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from messagebus import BackendUnavailable, Bus, InvalidData, Message
from messagebus.distributed_cache import BACKLOG_SIZE, DistributedCache
from messagebus.hub.subscriber import Identity

from .eventually import eventually

MakeCache = Callable[..., DistributedCache]


@pytest.fixture
def make_cache(redis_url: str) -> Iterator[MakeCache]:
    """Makes caches, each on a bus of its own."""
    buses = []

    def make(name: str = "frogs", **options: str) -> DistributedCache:
        buses.append(Bus(url=redis_url))
        buses[-1].start()  # a reset that comes before the feed stands is one that nobody notices
        return DistributedCache(name, bus=buses[-1], **options)

    yield make
    for bus in buses:
        bus.close()


def test_a_change_reaches_every_process(make_cache: MakeCache) -> None:
    first, second = make_cache(), make_cache()
    assert "frogs" not in second
    first["frogs"] = 5
    first["names"] = {"Kermit", "Jeremiah"}
    assert first == {"frogs": 5, "names": {"Kermit", "Jeremiah"}}
    eventually(lambda: second == first)
    del second["frogs"]
    eventually(lambda: "frogs" not in first)
    first.clear()
    assert first == {}
    eventually(lambda: second == {})


def test_a_process_that_begins_later_has_everything_and_nobody_sends_it_anything(make_cache: MakeCache) -> None:
    first = make_cache()
    for number in range(3):
        first[str(number)] = number
    published = first._bus.newest_global_id()
    for _ in range(20):
        assert make_cache() == {"0": 0, "1": 1, "2": 2}
    assert first._bus.newest_global_id() == published


def test_changes_far_beyond_the_backlog_lose_nothing(make_cache: MakeCache) -> None:
    first, second = make_cache(), make_cache()
    assert len(second) == 0
    first["oldest"] = "still here"
    for number in range(BACKLOG_SIZE + 500):
        first[str(number % 20)] = number
    first.pop("7")
    assert make_cache() == first
    assert first["oldest"] == "still here"
    eventually(lambda: second == first)


def test_all_processes_agree_in_the_end(make_cache: MakeCache) -> None:
    caches = [make_cache() for _ in range(4)]

    def change(cache: DistributedCache, start: int) -> None:
        for number in range(50):
            cache["same"] = start + number
            if number % 10 == 0:
                cache.pop("same", None)

    threads = [threading.Thread(target=change, args=(cache, 1000 * i)) for i, cache in enumerate(caches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = caches[0]._bus.last_id("/distributed-cache/frogs")
    eventually(lambda: all(cache._position == last for cache in caches))
    assert all(cache == caches[0] for cache in caches)


def test_names_versions_and_sites_are_apart(make_cache: MakeCache) -> None:
    caches = [
        make_cache("a"),
        make_cache("b"),
        make_cache("a", app_version="2"),
        make_cache("a", site_id="one"),
    ]
    for number, cache in enumerate(caches):
        cache["key"] = number
    assert [cache["key"] for cache in caches] == [0, 1, 2, 3]


def test_a_reset_store_empties_the_cache(make_cache: MakeCache) -> None:
    first, second = make_cache(), make_cache()
    first["old"] = 1
    eventually(lambda: second == {"old": 1})
    first._bus.reset()
    first._bus.publish("/else", 1)
    second["new"] = 2
    eventually(lambda: first == second == {"new": 2})


def test_an_own_change_that_a_new_beginning_of_the_store_swallowed_is_gone() -> None:
    with contextlib.closing(Bus(url="memory://")) as bus:
        cache = DistributedCache("frogs", bus=bus)
        assert cache == {}
        held, release = threading.Event(), threading.Event()

        @bus.subscribe("/hold")
        def hold(message: Message) -> None:
            held.set()
            release.wait(5)

        bus.publish("/hold", 1)
        assert held.wait(30)
        cache["old"] = 1  # nothing of it is heard before the store is reset
        bus.reset()
        DistributedCache("frogs", bus=bus)["new"] = 2
        release.set()
        eventually(lambda: cache == {"new": 2})


def test_what_json_cannot_express_is_refused_and_changes_nothing(make_cache: MakeCache) -> None:
    cache = make_cache()
    for value in (b"bytes", object(), {"nested": {1}}):
        with pytest.raises(InvalidData):
            cache["key"] = value
    with pytest.raises(TypeError):
        cache[5] = 1  # type: ignore[index]
    with pytest.raises(KeyError):
        del cache["key"]
    assert cache == {}


def test_web_pages_get_nothing_of_it(make_cache: MakeCache) -> None:
    cache = make_cache()
    cache["secret"] = 1
    (message,) = cache._bus.backlog("/distributed-cache/frogs")
    assert not any(Identity(client_id).may_see(message) for client_id in ("a", "0", "-"))


def test_a_store_that_is_gone_at_the_first_use_is_asked_again(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_cache()["frog"] = 1
    cache = make_cache()

    def gone(*arguments: object) -> list[Message]:
        raise BackendUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(cache._bus, "backlog", gone)
        with pytest.raises(BackendUnavailable):
            len(cache)
    assert cache == {"frog": 1}


def test_a_closed_cache_starts_again_with_its_next_use(make_cache: MakeCache) -> None:
    first, second = make_cache(), make_cache()
    first["a"] = 1
    first.close()
    second["a"] = 2
    assert first == {"a": 2}


FOREIGN = [
    "text",
    None,
    [1],
    {"nothing": 1},
    {"op": "set"},
    {"op": "set", "key": 5, "value": 1},
    {"op": "set", "key": "k", "set": [[1]]},
    {"op": "delete"},
    {"op": "snapshot", "as_of": "x", "values": {}},
    {"op": "snapshot", "as_of": 1, "values": {"k": 1}},
    {"op": ["clear"]},
]


def test_messages_that_are_no_changes_are_left_out_and_logged_once(
    make_cache: MakeCache, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_cache()
    first["a"] = 1
    for foreign in FOREIGN:
        first._bus.publish("/distributed-cache/frogs", foreign)
    first["b"] = 2
    second = make_cache()
    assert second == {"a": 1, "b": 2}
    second["c"] = 3
    eventually(lambda: first == {"a": 1, "b": 2, "c": 3})
    assert caplog.text.count("no change of a cache") == 2


def test_a_store_that_is_away_when_messages_were_missed_is_asked_again_by_the_next_use(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("messagebus.distributed_cache.RETRY_SECONDS", 0.05)
    first, second = make_cache(), make_cache()
    first["a"] = 1
    eventually(lambda: second == {"a": 1})
    asked = threading.Event()

    def gone(*arguments: object) -> list[Message]:
        asked.set()
        raise BackendUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(second._bus, "backlog", gone)
        second._position = 0  # as if it had missed some
        first["b"] = 2
        assert asked.wait(30)
        assert second == {"a": 1}, "it keeps what it has"
    eventually(lambda: second == {"a": 1, "b": 2})
    assert "Traceback" not in caplog.text


def test_changes_while_the_bus_is_off_are_gone_when_it_is_on_again(make_cache: MakeCache) -> None:
    first, second = make_cache(), make_cache()
    first["a"] = 1
    eventually(lambda: second == {"a": 1})
    first._bus.off()
    first["a"] = 2
    first["b"] = 2
    assert first == {"a": 2, "b": 2}
    assert second == {"a": 1}
    first._bus.on()
    assert first == second == {"a": 1}
