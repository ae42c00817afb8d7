"""Who may follow a pattern, and what it has of the store's backlog."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest

from messagebus import Bus, InvalidOption, Message, Options
from messagebus.channel_rules import ChannelRules, strictest
from messagebus.hub.patterns import Pattern, PatternBacklogs, PatternMessage
from messagebus.message import encode_envelope
from messagebus.names import split_name, subscription_name
from messagebus.option_kinds import overlaps
from messagebus.stores import BacklogQuery, Store, open_store

MakeBus = Callable[..., Bus]


@pytest.mark.parametrize(
    ("pattern", "channel", "both"),
    [
        ("/a/b", "/a/b", True),
        ("/a/*", "/a/b", True),
        ("/a/b", "/a/*", True),
        ("/a/b", "/a/b*", True),
        ("/a/b/*", "/a/*", True),
        ("/a/*", "/a/b/*", True),
        ("/*", "/a/*", True),
        ("/a/*", "/*", True),
        ("/a", "/a/*", False),
        ("/a/*", "/b/*", False),
        ("/ab/*", "/a/*", False),
        ("/b", "/a*", False),
    ],
)
def test_a_pattern_overlaps_what_shares_a_channel_with_it(pattern: str, channel: str, both: bool) -> None:
    assert overlaps(pattern, channel) is both


def test_a_patterns_name_is_no_channels_and_keeps_its_site() -> None:
    name = subscription_name("/news/*", "site")
    assert not name.startswith("/")
    assert split_name(name) == ("/news/*", "site")
    assert Pattern.of(name) == ("/news/", "site")
    assert Pattern.of(subscription_name("/news", "site")) is None


def test_a_message_of_a_pattern_is_delivered_as_it_is() -> None:
    for raw in (b'"x"', b'"%b"' % (b"x" * 5000)):
        message = Message(9, 2, "/news/a", raw)
        other = PatternMessage.of(message)
        assert (other.message_id, other.json, b"".join(other.parts)) == (9, message.json, message.json)


@pytest.mark.parametrize("option", [("/news",), ("news/*",), ("/a*/b*",)])
def test_only_patterns_can_be_allowed(option: tuple[str, ...]) -> None:
    with pytest.raises(InvalidOption):
        Options(wildcard_subscriptions=option)


@pytest.mark.parametrize(
    ("rules", "who"),
    [
        ({}, "anyone"),
        ({"/other/*": "nobody"}, "anyone"),
        ({"/news/secret": "nobody"}, "nobody"),
        ({"/news/a": "granted", "/news/b/*": "signed-in"}, "granted"),
        ({"/news/*": "anyone", "/*": "nobody"}, "anyone"),
        ({"/news/a": "anyone", "/*": "signed-in"}, "signed-in"),
    ],
)
def test_of_the_rules_of_a_patterns_channels_the_strictest_counts(rules: dict[str, str], who: str) -> None:
    checked = ChannelRules().check({pattern: {"subscribe": whom} for pattern, whom in rules.items()})
    assert strictest(checked, "/news/*") == who


@pytest.fixture
def make_bus() -> Iterator[MakeBus]:
    made: list[Bus] = []

    def make(**options: Any) -> Bus:
        made.append(Bus(url="memory://", wildcard_subscriptions=("/news/*", "/*"), secret_key="for tests", **options))
        return made[-1]

    yield make
    for bus in made:
        bus.close()


def client_of(bus: Bus) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    return app.test_client()


def status_of(bus: Bus, pattern: str, **form: str) -> int:
    return int(client_of(bus).post("/message-bus/me/poll?dlp=t", data={pattern: "0", **form}).status_code)


def test_a_protected_channel_protects_every_pattern_that_has_it(make_bus: MakeBus) -> None:
    bus = make_bus(protected_channels=("/news/secret",))
    assert [status_of(bus, pattern) for pattern in ("/news/*", "/*")] == [403, 403]
    assert status_of(bus, "/news/*", __grants=bus.grant("/news/secret")) == 403
    assert status_of(bus, "/*", __grants=bus.grant("/news/*")) == 403
    assert status_of(bus, "/news/*", __grants=bus.grant("/news/*")) == 200


def test_a_hook_for_some_of_a_patterns_channels_is_asked_with_the_pattern(make_bus: MakeBus) -> None:
    bus = make_bus()
    asked = []

    @bus.authorize("/news/members/*")
    def members(request: Any, channel: str) -> bool:
        asked.append(channel)
        return channel == "/news/*"

    assert [status_of(bus, "/news/*"), status_of(bus, "/*"), status_of(bus, "/other")] == [200, 403, 200]
    assert asked == ["/news/*", "/*"]


def test_messages_for_others_and_filtered_ones_are_not_in_a_pattern_either(make_bus: MakeBus) -> None:
    bus = make_bus(user_id_lookup=lambda environ: environ.get("HTTP_X_USER"))
    asked = []

    def keep(message: Message) -> bool:
        asked.append(message.data)
        return bool(message.data != "dirty")

    bus.register_client_message_filter("/news/", keep)
    bus.publish("/news/a", "for ann", user_ids=["ann"])
    for data in ("clean", "dirty"):
        bus.publish("/news/a", data)
    bus.publish("/news/a", "of a site", site_id="site")
    client = client_of(bus)

    def told(user: str) -> list[Any]:
        found = client.post("/message-bus/me/poll?dlp=t", data={"/news/*": 0}, headers={"X-User": user}).get_json()
        return [message["data"] for message in found if message["channel"] == "/news/a"]

    assert (told("ann"), told("bob")) == (["for ann", "clean"], ["clean"])
    assert sorted(set(asked)) == ["clean", "dirty", "for ann"]


@pytest.fixture
def store() -> Iterator[Store]:
    store = open_store(Options(max_global_backlog_size=10))
    yield store
    store.close()


def publish(store: Store, *names: str) -> None:
    for name in names:
        store.publish(name, encode_envelope(b"1"), max_backlog_size=100, max_backlog_age=100)


def test_a_patterns_backlog_is_what_the_global_one_has_of_it(store: Store) -> None:
    publish(store, "/a", "/news/a", "/b", "/news/b", "/news/a", "/c")
    name = subscription_name("/news/*", None)
    queries = [BacklogQuery(name, 0), BacklogQuery("/a", 0), BacklogQuery(name, 4), BacklogQuery(name, -3)]
    everything, channel, later, newest = PatternBacklogs(store).backlogs(queries, 1000)
    assert [message.message_id for message in everything.messages] == [2, 4, 5]
    assert [message.message_id for message in channel.messages] == [1]
    assert [message.message_id for message in later.messages] == [5]
    # Of the newest three of the whole store.
    assert [message.message_id for message in newest.messages] == [4, 5]
    assert {(page.last_id, page.first_id, page.through) for page in (everything, later, newest)} == {(6, 1, 6)}


def test_what_is_gone_from_the_global_backlog_is_said_of_the_pattern(store: Store) -> None:
    publish(store, "/news/a", *["/b"] * 11, "/news/b")
    name = subscription_name("/news/*", None)
    [page] = PatternBacklogs(store).backlogs([BacklogQuery(name, 0)], 1000)
    assert [message.message_id for message in page.messages] == [13]
    assert (page.after, page.first_id, page.last_id) == (0, 4, 13)
    [page] = PatternBacklogs(store).backlogs([BacklogQuery(name, 5)], 1000)
    assert (page.after, page.first_id, page.through) == (5, 1, 13)


def test_a_page_of_a_pattern_ends_where_it_is_large_enough(store: Store) -> None:
    publish(store, "/news/a", "/b", "/news/b", "/news/c")
    [page] = PatternBacklogs(store).backlogs([BacklogQuery(subscription_name("/news/*", None), 0)], 2)
    assert ([message.message_id for message in page.messages], page.through, page.last_id) == ([1, 3], 3, 4)
