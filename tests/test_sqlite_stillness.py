"""Whether a feed of the SQLite store has to look at its file again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from messagebus.stores.sqlite_stillness import LONGEST, STEP, Stillness

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


def test_a_file_that_was_written_to_a_moment_before_the_look_may_have_been_written_to_since(world: World) -> None:
    world.now = WRITTEN + STEP - 0.1
    world.stillness.begin_look()
    assert not world.stillness.lasts()
    world.now = WRITTEN - 10.0  # the clock was set back
    world.stillness.begin_look()
    assert not world.stillness.lasts()
    world.now = WRITTEN + STEP + 0.1
    world.stillness.begin_look()
    assert world.stillness.lasts()
