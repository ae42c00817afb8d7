"""Of messages that a window no longer holds, it knows whom they were for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from messagebus.hub.forgotten import MOST_TARGETS, Forgotten, forget
from messagebus.hub.subscriber import Identity
from messagebus.message import Message, id_key

NAME = "/chat"
ids = st.lists(st.sampled_from([1, 2, "1"]), min_size=1, max_size=2).map(tuple)
messages = st.builds(
    lambda users, groups, clients, kept, excluded: Message(
        0, 0, NAME, b"1", None, users, groups, clients, kept, excluded
    ),
    st.none() | ids,
    st.none() | ids,
    st.none() | st.sampled_from([("c",), ("d", "c"), ("e",)]),
    st.sampled_from([None, True, False]),
    st.none() | st.sampled_from([("c",), ("d",), ("d", "c")]),
)


@given(
    history=st.lists(messages, max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    user=st.sampled_from([None, 1, "1"]),
    groups=st.frozensets(st.sampled_from([1, 2]), max_size=2),
    position=st.integers(0, 30),
)
def test_a_reader_has_missed_something_only_if_a_message_was_for_it(
    history: list[Message], cuts: list[int], user: int | str | None, groups: frozenset[int], position: int
) -> None:
    reader = Identity("c", None if user is None else id_key(user), frozenset(map(id_key, groups)))
    for number, message in enumerate(history, 1):
        message.message_id = number
    forgotten: Forgotten | None = None
    floor = 0
    for cut in sorted({*cuts, len(history)}):
        forgotten = forget(forgotten, floor, history[floor:cut])
        floor = min(cut, len(history))
    if forgotten is None:
        return
    theirs = [m for m in history[position:] if m.kept is not False and (not m.targeted or reader.may_see(m))]
    had = forgotten.had_any_for(reader, position)
    assert had or not theirs, "nothing is lost silently"
    # Where a message is for some, and not for others, only the first is remembered.
    exact = [
        m
        for m in history
        if (m.client_ids is None or "c" not in m.client_ids)
        and (m.exclude_client_ids is None or m.user_ids is m.group_ids is m.client_ids is None)
    ]
    if len(exact) == len(history):
        assert had is bool(theirs)


def test_what_came_before_the_window_was_begun_may_have_been_for_anybody() -> None:
    forgotten = forget(None, 5, [Message(6, 6, NAME, b"1", user_ids=(2,))])
    assert forgotten is not None
    reader = Identity("c", id_key(1))
    assert forgotten.had_any_for(reader, 4)
    assert not forgotten.had_any_for(reader, 5)


def test_for_too_many_targets_nothing_is_kept_but_that_there_were_messages() -> None:
    history = [Message(n, n, NAME, b"1", user_ids=(n,)) for n in range(1, MOST_TARGETS + 2)]
    forgotten = forget(None, 0, history)
    assert forgotten is not None
    assert forgotten.targets == {}
    assert forgotten.had_any_for(Identity("c"), 5)
    assert not forgotten.had_any_for(Identity("c"), MOST_TARGETS + 1)
