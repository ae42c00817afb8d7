"""The sequencer of a stream that brings some channels: of these no hole, no duplicate, or said to be lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from messagebus.message import Message
from messagebus.stores import StoreState, Trace
from messagebus.stores.base import BacklogPage
from messagebus.stores.channel_sequencer import ChannelSequencer, Item, Snapshot

from .recorder import Recorder

A, B = b"/a", b"/b"
CHANNELS = (A, B)


class Store:
    """A store in lists that keeps some messages of each channel; and a feed of it, whose stream a test drives."""

    def __init__(self, keeps: int = 1000) -> None:
        self.keeps = keeps
        self.life = 1
        self.epoch = "1"
        self.global_id = 0
        self.last_ids: dict[bytes, int] = {}
        self.kept: dict[bytes, list[Message]] = {}
        self.subscribed: set[bytes] = set()
        self.stream: list[Item | Snapshot] = []
        """What the connection has not brought yet."""
        self.recorder = Recorder()
        self.sequencer = ChannelSequencer(self, self.recorder)

    # --- what the sequencer asks ---

    def named_state(self) -> StoreState:
        return StoreState(self.global_id, self.epoch)

    def renew_epoch(self, epoch: str | None) -> StoreState:
        if epoch == self.epoch:
            self.epoch += "+"
        return self.named_state()

    def contradicts(self, traces: Sequence[Trace]) -> bool:
        found = {(m.name, m.message_id): Trace.of(m) for kept in self.kept.values() for m in kept}
        return any(
            found.get((trace.name, trace.message_id), trace) != trace
            or self.last_ids.get(trace.name.encode(), 0) < trace.message_id
            for trace in traces
        )

    def pages(self, after: Mapping[bytes, int]) -> dict[bytes, BacklogPage]:
        pages = {}
        for channel, begin in after.items():
            kept, last_id = self.kept.get(channel, []), self.last_ids.get(channel, 0)
            first_id = kept[0].message_id if kept else last_id + 1
            pages[channel] = BacklogPage([m for m in kept if m.message_id > begin], begin, last_id, last_id, first_id)
        return pages

    # --- what happens ---

    def publish(self, channel: bytes, heard: bool = True) -> None:
        self.global_id += 1
        message_id = self.last_ids[channel] = self.last_ids.get(channel, 0) + 1
        message = Message(self.global_id, message_id, channel.decode(), b"%d" % self.life)
        self.kept[channel] = [*self.kept.get(channel, []), message][-self.keeps :]
        if heard and channel in self.subscribed:
            self.stream.append(Item(channel, self.global_id, message_id, message))

    def snapshot(self, *channels: bytes) -> Snapshot:
        return Snapshot(self.global_id, self.epoch, {each: self.last_ids.get(each) for each in channels})

    def connect(self, *channels: bytes) -> None:
        """The connection is made, or made again: what it had not brought is gone."""
        self.subscribed, self.stream = set(channels), []
        self.sequencer.resume(self.snapshot(*channels))

    def follow(self, *channels: bytes) -> None:
        self.subscribed |= {*channels}
        self.stream.append(self.snapshot(*channels))

    def unfollow(self, channel: bytes) -> None:
        self.subscribed.discard(channel)
        self.sequencer.unfollow([channel])

    def reset(self) -> None:
        self.life += 1
        self.epoch = f"{self.life}"
        self.global_id, self.last_ids, self.kept = 0, {}, {}

    def read(self) -> None:
        """The stream brings all that it has."""
        items: list[Item] = []
        for each in self.stream:
            if isinstance(each, Item):
                items.append(each)
            else:
                self.sequencer.received(items)
                items = []
                self.sequencer.checked(each)
        self.sequencer.received(items)
        self.stream = []

    def ids(self, channel: bytes) -> list[int]:
        return [m.message_id for m in self.recorder.messages if m.channel == channel.decode()]


def test_a_feed_begins_where_the_store_stands_and_brings_what_is_followed() -> None:
    store = Store()
    store.publish(A)
    store.connect(A)
    for channel in (B, A, B, A):
        store.publish(channel)
    store.read()
    assert store.recorder.told("started") == [StoreState(1, "1")]
    assert [(m.channel, m.message_id) for m in store.recorder.messages] == [("/a", 2), ("/a", 3)]


def test_what_was_missed_between_two_connections_comes_once_and_in_the_order_of_publishing() -> None:
    store = Store()
    store.connect(A, B)
    store.publish(A)
    store.read()
    for channel in (B, A, A, B):
        store.publish(channel)
    store.connect(A, B)
    store.publish(A)
    store.read()
    assert store.recorder.ids == [1, 2, 3, 4, 5, 6]
    assert store.recorder.told("resync") == []


def test_what_was_missed_and_is_no_longer_kept_is_said_to_be_lost() -> None:
    store = Store(keeps=2)
    store.connect(A, B)
    store.publish(A)
    store.read()
    for _ in range(3):
        store.publish(A)
    store.connect(A, B)
    assert store.ids(A) == [1]
    assert store.recorder.told("resync") == [StoreState(4, "1")]
    store.publish(A)
    store.read()
    assert store.ids(A) == [1, 5]


def test_strangers_messages_are_no_loss_however_many() -> None:
    store = Store(keeps=1)
    store.connect(A)
    for _ in range(100):
        store.publish(B)
    store.connect(A)
    store.publish(A)
    store.read()
    assert store.recorder.ids == [101]
    assert store.recorder.told("resync") == []


def test_a_message_that_the_stream_left_out_comes_with_the_next_one() -> None:
    store = Store()
    store.connect(A)
    store.publish(A)
    store.publish(A, heard=False)
    store.publish(A)
    store.read()
    assert store.ids(A) == [1, 2, 3]


def test_a_message_that_the_stream_left_out_comes_with_the_next_snapshot() -> None:
    store = Store()
    store.connect(A, B)
    store.publish(A)
    store.publish(A, heard=False)
    store.follow(A)
    store.read()
    assert store.ids(A) == [1, 2]


def test_a_channel_that_the_store_had_forgotten_goes_on_higher_and_nothing_is_lost() -> None:
    store = Store()
    store.publish(B)
    store.connect(A, B)
    store.publish(A)
    store.read()
    for _ in range(5):
        store.publish(B)
    store.last_ids[A] = store.global_id  # as publish.lua does: it goes on at the global id
    store.kept[A] = []
    store.publish(A)
    store.read()
    assert store.ids(A) == [1, 8]
    assert store.recorder.told("resync") == []


def test_nothing_comes_of_a_channel_that_is_no_longer_followed() -> None:
    store = Store()
    store.connect(A)
    store.publish(A)
    store.unfollow(A)
    store.publish(A)
    store.read()
    assert store.recorder.messages == []
    store.follow(A)
    store.publish(A)
    store.read()
    assert store.ids(A) == [3]


def test_a_reset_shows_at_once_where_ids_go_back_and_is_another_life() -> None:
    store = Store()
    store.connect(A)
    store.publish(A)
    store.publish(A)
    store.read()
    store.reset()
    store.publish(A)
    store.read()
    assert store.recorder.told("resync") == [StoreState(0, "2")]
    assert store.ids(A) == [1, 2, 1]


def test_an_older_copy_of_the_data_is_another_life_even_where_ids_have_passed_what_was_delivered() -> None:
    store = Store()
    store.connect(A)
    for _ in range(3):
        store.publish(A)
    store.read()
    store.global_id, store.last_ids[A], store.kept[A], store.life = 1, 1, store.kept[A][:1], 9
    for _ in range(3):
        store.publish(A, heard=False)
    store.connect(A)
    assert store.recorder.told("resync") == [StoreState(4, "1+")]


def test_a_message_that_cannot_be_decoded_is_no_loss() -> None:
    store = Store()
    store.connect(A)
    store.publish(A)
    store.publish(A)
    store.stream[0] = store.stream[0]._replace(message=None)  # type: ignore[call-arg]
    store.read()
    assert store.ids(A) == [2]
    assert store.recorder.told("resync") == []


ACTIONS = st.lists(
    st.sampled_from(["a", "b", "a lost", "read", "follow a", "unfollow a", "follow b", "unfollow b", "cut", "reset"]),
    max_size=60,
)


@settings(max_examples=300)
@given(ACTIONS, st.integers(1, 5))
def test_whatever_happens_each_channel_has_no_hole_and_no_duplicate_or_is_said_to_be_lost(
    actions: list[str], keeps: int
) -> None:
    store = Store(keeps)
    wanted: set[bytes] = {A}
    store.connect(*wanted)
    for action in actions:
        channel = A if action.endswith("a") else B
        if action == "a lost":
            store.publish(A, heard=False)
        elif action in ("a", "b"):
            store.publish(channel)
        elif action == "read":
            store.read()
        elif action.startswith("follow"):
            wanted.add(channel)
            store.follow(channel)
        elif action.startswith("unfollow"):
            wanted.discard(channel)
            store.unfollow(channel)
            store.recorder.events.append(("unfollowed", channel.decode()))
        elif action == "cut":
            store.connect(*wanted)
        else:
            store.reset()
    store.follow(*wanted)
    store.read()
    follows: dict[str, tuple[int, int] | None] = {}
    global_id = 0
    for kind, value in store.recorder.events:
        if kind == "resync":
            follows, global_id = {}, 0
        elif kind == "unfollowed":
            follows.pop(str(value), None)
        elif isinstance(value, Message):
            life = int(value.raw)
            before = follows.get(value.channel)
            if before is not None:
                assert value.message_id == before[1] + 1, "a hole, or a duplicate"
                assert life == before[0], "another life, and nobody was told"
            follows[value.channel] = life, value.message_id
            # What a stream has left out comes later than it was published; that is all.
            assert value.global_id > global_id or "a lost" in actions
            global_id = value.global_id
    for channel in wanted:
        last = follows.get(channel.decode())
        assert last is None or last == (store.life, store.last_ids.get(channel)), "the end is missing"
