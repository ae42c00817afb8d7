"""What a process remembers of channels: without a hole, for as long as the store does, and within its bounds."""

from __future__ import annotations

import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from messagebus.hub.history import Cursor, covers, view_of_page
from messagebus.hub.window import ChannelWindow
from messagebus.hub.windows import Windows
from messagebus.message import Message
from messagebus.options import Options
from messagebus.stores import BacklogPage

NAME = "/chat"


class Clock:
    def __init__(self) -> None:
        self.now = 0.5

    def __call__(self) -> float:
        return self.now


def message(number: int, size: int = 1) -> Message:
    return Message(number, number, NAME, b"1" * size)


class Remembered:
    """Windows, and a store beside them that keeps messages for some seconds after the last one."""

    def __init__(self, **options: int) -> None:
        self.clock = Clock()
        self.options = Options(**options)  # type: ignore[arg-type]
        self.windows = Windows(self.options, self.clock)
        self.kept: list[Message] = []
        self.last_id = 0
        self.until = 0.0

    def publish(self, age: float, size: int = 1, keep: int = 1000) -> None:
        """Publish, and dispatch what was published."""
        if self.clock.now >= self.until:
            self.kept = []
        self.last_id += 1
        published = message(self.last_id, size)
        self.kept = [*self.kept, published][-keep:]
        self.until = self.clock.now + age
        self.windows.reached[0] = self.last_id
        window = self.windows.find(NAME)
        if window is not None:
            self.windows.size += window.append(
                [published], self.clock.now, self.options.window_size, self.windows.share
            )

    def read(self, after: int, most: int = 1000) -> None:
        """Read from the store, as a request does."""
        self.windows.enter(NAME)
        if self.clock.now >= self.until:
            self.kept = []
        messages = [each for each in self.kept if each.message_id > after][:most]
        through = messages[-1].message_id if len(messages) == most else self.last_id
        first_id = self.kept[0].message_id if self.kept else self.last_id + 1
        left = self.until - self.clock.now if self.kept else float("inf")
        page = BacklogPage(messages, after, through, self.last_id, first_id, left)
        self.windows.absorb(NAME, view_of_page(page, self.clock.now))

    def knows(self, position: int) -> bool:
        return self.windows.knows(Cursor(NAME, NAME, position))

    def ids(self, position: int = 0) -> list[int]:
        view = self.windows.covering(Cursor(NAME, NAME, position))
        assert view is not None
        return [each.message_id for each in view.messages if each.message_id > position]


def test_what_has_expired_in_the_store_is_not_served() -> None:
    remembered = Remembered()
    remembered.read(0)
    for _ in range(5):
        remembered.publish(age=1)
    assert remembered.knows(2), "a moment ago"
    remembered.clock.now += 8
    assert not remembered.knows(2), "it has to ask how long it lasts"
    remembered.read(5)
    assert remembered.knows(0)
    assert remembered.ids() == []
    for _ in range(3):
        remembered.publish(age=1)
    assert remembered.ids() == [6, 7, 8]


def test_what_expired_before_the_next_message_is_not_served_after_it_either() -> None:
    remembered = Remembered()
    remembered.read(0)
    remembered.publish(age=1)
    remembered.clock.now += 8
    remembered.publish(age=100)
    remembered.clock.now += 0.1
    assert not remembered.knows(0), "nobody has asked in between, so it may still be kept or not"
    remembered.read(remembered.last_id)
    assert remembered.ids() == [2]


def test_one_reading_tells_until_when_everything_lasts() -> None:
    remembered = Remembered()
    remembered.read(0)
    for _ in range(3):
        remembered.publish(age=60)
    remembered.clock.now += 30
    assert not remembered.knows(1)
    remembered.read(3)
    assert remembered.knows(1)
    remembered.clock.now += 29
    assert remembered.knows(1)
    remembered.clock.now += 2
    assert not remembered.knows(1)


def test_what_newer_messages_have_pushed_out_of_the_store_a_window_may_still_have() -> None:
    remembered = Remembered()
    remembered.read(0)
    for _ in range(50):
        remembered.publish(age=60, keep=5)
    remembered.read(50)
    assert remembered.ids(10) == list(range(11, 51))


def test_who_is_beyond_the_backlog_is_known_without_the_store_where_the_window_has_all_that_is_kept() -> None:
    remembered = Remembered()
    for _ in range(20):
        remembered.publish(age=60, keep=5)
    assert not remembered.knows(3)
    remembered.read(3)
    assert remembered.knows(3)
    assert remembered.knows(0)
    assert remembered.ids(0) == [16, 17, 18, 19, 20]
    remembered.publish(age=60, keep=5)
    assert remembered.knows(0), "one more pushes one out, and the window still has all"


def test_pages_become_part_of_the_window_where_they_touch() -> None:
    remembered = Remembered()
    for _ in range(100):
        remembered.publish(age=60)
    for after in (0, 30, 60):
        remembered.read(after, most=30)
        assert remembered.windows.find(NAME).state is None  # type: ignore[union-attr]
    assert remembered.ids(40) == list(range(41, 61)), "from a page"
    remembered.read(90)
    remembered.read(60, most=30)
    assert remembered.ids(0) == list(range(1, 101))
    assert remembered.knows(0)


def test_older_pages_are_forgotten_where_there_is_no_room_for_all() -> None:
    remembered = Remembered(window_bytes=100_000)
    for _ in range(200):
        remembered.publish(age=60, size=5000)
    remembered.windows.enter(NAME)
    for after in range(0, 200, 5):
        remembered.read(after, most=5)
        assert remembered.windows.size + remembered.windows._pages_size <= 130_000
    assert not remembered.knows(2)
    assert remembered.knows(196)


def test_a_window_counts_what_its_messages_take_of_the_memory() -> None:
    remembered = Remembered(window_bytes=1_000_000)
    remembered.read(0)
    for _ in range(1000):
        remembered.publish(age=60, size=160)
    window = remembered.windows.find(NAME)
    assert window is not None
    assert window.state is not None
    held = 0
    for each in window.state.log:
        assert each.json  # as after a delivery
        parts = (each, each.raw, each._json, each.global_id, each.message_id)
        held += sum(map(sys.getsizeof, parts))
    assert 0.8 * held < window.size < 1.3 * held


def test_a_window_that_was_begun_after_a_page_was_read_does_not_take_it_in() -> None:
    remembered = Remembered()
    for _ in range(5):
        remembered.publish(age=60)
    page = BacklogPage([*remembered.kept], 0, 5, 5, 1, 60.0)
    view = view_of_page(page, remembered.clock.now)
    remembered.clock.now += 1
    remembered.publish(age=60)  # nobody follows the channel: it is dispatched to nobody
    remembered.clock.now += 1
    remembered.windows.enter(NAME)
    assert remembered.windows.absorb(NAME, view) is None
    assert not remembered.knows(2)


def test_a_window_claims_no_message_that_was_dispatched_while_it_was_begun() -> None:
    """The loop's thread may dispatch at any point of a request's."""
    windows = Windows(Options(), Clock())
    windows.reached[0] = 6

    class Table(dict[str, ChannelWindow]):
        def __setitem__(self, name: str, window: ChannelWindow) -> None:
            windows.reached[0] = 7  # a message on the channel, which finds no window
            assert windows.find(name) is None
            super().__setitem__(name, window)

    table = windows._by_name = Table()
    windows.find = table.get
    window = windows.enter(NAME)
    assert window.entered == 7
    window.append([Message(9, 3, NAME, b"1")], 0.0, 1000, 1000)
    assert windows.knows(Cursor(NAME, NAME, after=7))
    assert not windows.knows(Cursor(NAME, NAME, after=6))


@settings(deadline=None, max_examples=200)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.sampled_from([1, 3, 60])),
            st.tuples(st.just("pass"), st.sampled_from([0, 1, 2, 5])),
            st.tuples(st.just("read"), st.integers(0, 12)),
        ),
        max_size=40,
    ),
    keep=st.sampled_from([2, 5, 1000]),
    window=st.sampled_from([2, 4, 1000]),
)
def test_whatever_happens_what_is_known_is_what_the_store_has_kept_or_has_pushed_out(
    steps: list[tuple[str, int]], keep: int, window: int
) -> None:
    remembered = Remembered(window_size=window)
    lives: list[int] = []  # the first id of each time in which nothing expired
    for step, number in steps:
        if step == "publish":
            if remembered.clock.now >= remembered.until:
                lives.append(remembered.last_id + 1)
            remembered.publish(age=number, keep=keep)
        elif step == "pass":
            remembered.clock.now += number / 2 + 0.01
        else:
            remembered.read(min(number, remembered.last_id))
        kept = remembered.kept if remembered.clock.now < remembered.until else []
        for position in range(remembered.last_id + 1):
            cursor = Cursor(NAME, NAME, position)
            if not remembered.windows.knows(cursor):
                continue
            view = remembered.windows.covering(cursor)
            assert view is not None
            assert covers(view, cursor)
            ids = [each.message_id for each in view.messages if each.message_id > position]
            due = [each.message_id for each in kept if position < each.message_id <= view.through]
            assert ids[len(ids) - len(due) :] == due, "nothing is missing"
            if view.ends:
                assert view.through == remembered.last_id
            alive_from = lives[-1] if kept else remembered.last_id + 1
            assert all(number >= alive_from for number in ids), "nothing has expired"


def test_a_channel_that_the_feed_does_not_bring_yet_remembers_nothing_until_it_does() -> None:
    remembered = Remembered()
    windows = remembered.windows
    changed: list[str] = []
    windows.hear_only(changed.append)
    window = windows.enter(NAME)
    assert changed == [NAME]
    assert windows.enter(NAME) is window
    assert windows.find(NAME) is None
    assert windows.find_any(NAME) is window
    heard = window.heard
    assert heard is not None
    assert not heard.is_set()
    page = BacklogPage([message(1)], 0, 1, 1, 1, 100.0)
    assert windows.absorb(NAME, view_of_page(page, remembered.clock.now)) is None
    remembered.clock.now += 1
    windows.reached[0] = 7
    windows.hear([window], 7, remembered.clock.now)
    assert heard.is_set()
    assert windows.find(NAME) is window
    assert windows.absorb(NAME, view_of_page(page, remembered.clock.now - 1)) is None, "read before it was heard"
    assert windows.absorb(NAME, view_of_page(page, remembered.clock.now)) is not None


def test_whoever_waits_for_a_channel_that_is_forgotten_meanwhile_begins_anew() -> None:
    remembered = Remembered()
    windows = remembered.windows
    changed: list[str] = []
    windows.hear_only(changed.append)
    window = windows.enter(NAME)
    heard = window.heard
    windows.forget_all()
    assert heard is not None
    assert heard.is_set()
    assert changed == [NAME, NAME]
    again = windows.enter(NAME)
    assert again is not window
    windows.hear([window], 1, remembered.clock.now)  # comes too late
    assert windows.find(NAME) is None
    windows.hear([again], 1, remembered.clock.now)
    assert windows.find(NAME) is again


def test_a_channel_that_nobody_asks_for_any_more_is_let_go_whether_it_was_heard_or_not() -> None:
    remembered = Remembered()
    windows = remembered.windows
    changed: list[str] = []
    windows.hear_only(changed.append)
    windows.hear([windows.enter("/heard")], 1, remembered.clock.now)
    windows.enter("/unheard")
    remembered.clock.now += 100
    windows.sweep(lambda name: False)
    assert windows.names() == []
    assert changed == ["/heard", "/unheard", "/heard", "/unheard"]


def test_a_channel_whose_backlog_is_deleted_goes_on_to_be_heard() -> None:
    remembered = Remembered()
    windows = remembered.windows
    changed: list[str] = []
    windows.hear_only(changed.append)
    window = windows.enter(NAME)
    windows.hear([window], 0, remembered.clock.now)
    remembered.publish(age=10)
    windows.forget(NAME)
    assert changed == [NAME]
    found = windows.find(NAME)
    assert found is not None
    assert found.state is None
    assert found.entered == 1
