"""Whether a feed of the SQLite store has to look at its file again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from messagebus.options import Options
from messagebus.stores import Store, open_store, sqlite_channel_feed, sqlite_feed, sqlite_stillness
from messagebus.stores.sqlite_stillness import COARSE_STEP, FINE_STEP, LONGEST, Stillness

from .eventually import eventually
from .interested import Interested
from .store_helpers import listen, publish

WRITTEN = 1_000_000


class World:
    """A file with its log, written to at ``WRITTEN``, and the clocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal = path.with_name(path.name + "-wal")
        for each in (self.path, self.wal):
            self.write(each, "before")
        self.now = WRITTEN + 60.0
        self.stillness = Stillness(str(path), lambda: self.now, lambda: self.now)

    def write(self, path: Path, text: str, at: float = WRITTEN) -> None:
        path.write_text(text)
        os.utime(path, (at, at))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "bus.db")


def test_a_file_that_nobody_writes_to_is_still_for_a_while(world: World) -> None:
    assert not world.stillness.lasts(), "it was not looked at"
    world.stillness.begin_look()
    assert world.stillness.lasts()
    world.now += LONGEST - 0.1
    assert world.stillness.lasts()
    world.now += 0.2
    assert not world.stillness.lasts()


def test_a_file_or_log_that_was_written_to_replaced_or_deleted_is_not(world: World) -> None:
    def replace() -> None:
        other = world.path.with_name("other")
        world.write(other, "before")
        other.rename(world.path)

    changes: list[Callable[[], object]] = [
        lambda: world.write(world.wal, "before and after"),
        lambda: world.write(world.wal, "after ", WRITTEN + 1),
        lambda: world.write(world.path, "after ", WRITTEN + 1),
        replace,
        world.wal.unlink,
        world.path.unlink,
    ]
    for change in changes:
        world.stillness.begin_look()
        assert world.stillness.lasts()
        change()
        assert not world.stillness.lasts()


@pytest.mark.parametrize(("written", "step"), [(WRITTEN, COARSE_STEP), (WRITTEN + 0.5, FINE_STEP)])
def test_a_file_that_was_written_to_a_moment_before_the_look_may_have_been_written_to_since(
    world: World, written: float, step: float
) -> None:
    for each in (world.path, world.wal):
        world.write(each, "before", written)
    world.now = written + 0.9 * step
    world.stillness.begin_look()
    assert not world.stillness.lasts()
    world.now = written - 10.0  # the clock was set back
    world.stillness.begin_look()
    assert not world.stillness.lasts()
    world.now = written + 1.1 * step
    world.stillness.begin_look()
    assert world.stillness.lasts()


@pytest.mark.parametrize("begin", [listen, lambda store: Interested(store, "/a")], ids=["everything", "by channel"])
def test_a_feed_does_not_look_into_a_file_that_is_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Store], object]
) -> None:
    looks: list[Stillness] = []
    still: list[Stillness] = []
    begin_look, lasts = Stillness.begin_look, Stillness.lasts

    def noted_look(self: Stillness) -> None:
        looks.append(self)
        begin_look(self)

    def noted_stillness(self: Stillness) -> bool:
        if lasts(self):
            still.append(self)
            return True
        return False

    monkeypatch.setattr(Stillness, "begin_look", noted_look)
    monkeypatch.setattr(Stillness, "lasts", noted_stillness)
    monkeypatch.setattr(sqlite_stillness, "LONGEST", 600.0)
    for module in (sqlite_feed, sqlite_channel_feed):
        monkeypatch.setattr(module, "QUIET", 0.01)
    with contextlib.closing(open_store(Options(url=f"sqlite:///{tmp_path}/bus.db"))) as store:
        publish(store, "/a", 1)
        begin(store)
        eventually(lambda: len(still) > 5)
        before = len(looks)
        eventually(lambda: len(still) > 50)
        assert len(looks) == before
        publish(store, "/a", 2)
        eventually(lambda: len(looks) > before)
