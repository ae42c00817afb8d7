"""Exactly the allowed clients get a message, in order: any channel, any data, any mix of targets. No sockets."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from messagebus.errors import InvalidChannel
from messagebus.hub.history import Cursor, view_of_page
from messagebus.hub.hub import Hub
from messagebus.hub.joining import join_when_ready
from messagebus.hub.permissions import Access
from messagebus.hub.subscribe_request import SubscriptionPlan
from messagebus.hub.subscriber import Identity, Subscriber
from messagebus.loop.reactor import Reactor
from messagebus.message import Ids, Message, decode_stored, encode_data, encode_envelope, encode_stored, id_key
from messagebus.names import check_channel
from messagebus.options import Options
from messagebus.stores import BacklogPage, StoreState
from messagebus.transports import EVENT_SOURCE

from .planning import StubPlanner, request_for
from .recording_writer import RecordingWriter


class World:
    """A hub with nobody behind it: its loop does not run, its methods are called as the loop would."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.hub = Hub(Options(), self.reactor, 10_000, Access(), lambda error, where: None)
        self.hub.start(StoreState(0, "epoch"))

    def connect(self, identity: Identity, channel: str, backlog: list[Message]) -> RecordingWriter:
        subscriber = Subscriber(self.hub, EVENT_SOURCE, identity, b"", None)
        writer = subscriber.writer = RecordingWriter()
        self.hub.windows.enter(channel)
        page = view_of_page(BacklogPage(backlog, 0, len(backlog), len(backlog), 1), self.reactor.clock())
        cursor = Cursor(channel, channel, 0)
        plan = SubscriptionPlan(request_for(cursor), [cursor], {channel: page}, [])
        join_when_ready(StubPlanner(self.hub, lambda: plan), subscriber, plan)
        return writer

    def close(self) -> None:
        self.reactor.abandon()


ids = st.one_of(st.integers(0, 3), st.sampled_from(["0", "1", "a", "ü"]), st.booleans())
data = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
targets = st.none() | st.lists(ids, min_size=1, max_size=3)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map("/".__add__)
people = st.lists(st.tuples(st.none() | ids, st.frozensets(ids, max_size=3)), min_size=1, max_size=5)


def equal(one: object, other: object) -> bool:
    """Whether two ids are the same JSON value, other than in Python, where 1 == True."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def allowed(person: tuple[Any, frozenset[Any]], client_id: str, message: dict[str, Any]) -> bool:
    user_id, group_ids = person
    if message["client_ids"] is not None and client_id not in message["client_ids"]:
        return False
    if client_id in (message["exclude_client_ids"] or ()):
        return False
    if message["user_ids"] is None and message["group_ids"] is None:
        return True
    by_user = user_id is not None and any(equal(user_id, u) for u in message["user_ids"] or ())
    return by_user or any(equal(g, t) for g in group_ids for t in message["group_ids"] or ())


publications = st.lists(
    st.fixed_dictionaries(
        {
            "data": data,
            "user_ids": targets,
            "group_ids": targets,
            "exclude_client_ids": st.none() | st.lists(st.sampled_from(["c0", "c1", "c2"]), min_size=1, max_size=2),
            "client_ids": st.none() | st.lists(st.sampled_from(["c0", "c1", "c2"]), min_size=1, max_size=2),
        }
    ),
    max_size=12,
)


@given(channel=names, everybody=people, published=publications, joins=st.data())
@settings(max_examples=200, deadline=None)
def test_exactly_the_allowed_clients_get_every_message_in_order(
    channel: str, everybody: list[tuple[Any, frozenset[Any]]], published: list[dict[str, Any]], joins: st.DataObject
) -> None:
    try:
        check_channel(channel)
    except InvalidChannel:
        return
    world = World()
    try:
        messages = []
        for number, publication in enumerate(published, 1):
            envelope = encode_envelope(
                encode_data(publication["data"], 10**6),
                publication["user_ids"],
                publication["group_ids"],
                publication["client_ids"],
                exclude_client_ids=publication["exclude_client_ids"],
            )
            messages.append(decode_stored(encode_stored(Ids(number, number), channel, envelope)))
        # Some are there from the beginning, others come later and are given the backlog.
        when = [joins.draw(st.integers(0, len(messages))) for _ in everybody]
        writers: dict[int, RecordingWriter] = {}
        for moment in range(len(messages) + 1):
            for number, (user_id, group_ids) in enumerate(everybody):
                if when[number] == moment:
                    user = None if user_id is None else id_key(user_id)
                    identity = Identity(f"c{number}", user, frozenset(map(id_key, group_ids)))
                    writers[number] = world.connect(identity, channel, messages[:moment])
            if moment < len(messages):
                world.hub.dispatch([messages[moment]])
        for number, person in enumerate(everybody):
            got = [(m["message_id"], m["channel"], m["data"]) for m in writers[number].messages()]
            due = [
                (i, channel, publication["data"])
                for i, publication in enumerate(published, 1)
                if allowed(person, f"c{number}", publication)
            ]
            assert got == due
    finally:
        world.close()
