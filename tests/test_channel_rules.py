"""What holds for the channels of a pattern."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from werkzeug.wrappers import Request

from messagebus import Bus, InvalidOption, MessageTooLarge, Options
from messagebus.http.commands import Caller, CommandError, read_command
from messagebus.http.parsing import read_query
from messagebus.hub.subscriber import Identity
from messagebus.serve.config import ConfigError, read_config

from .eventually import eventually

RULES: dict[str, dict[str, Any]] = {
    "/chat/short": {"max_backlog_size": 1},
    "/chat/*": {"max_backlog_size": 2, "max_message_size": 10},
    "/audit/*": {"subscribe": "nobody"},
}


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(url="memory://", channels=RULES, secret_key="a secret for tests")
    yield bus
    bus.close()


def test_the_first_rule_that_matches_says_how_long_a_backlog_is(bus: Bus) -> None:
    for channel, kept in (("/chat/short", 1), ("/chat/long", 2), ("/other", 3)):
        for number in range(3):
            bus.publish(channel, number)
        assert len(bus.backlog(channel)) == kept, channel


def test_a_publish_says_it_before_the_rule(bus: Bus) -> None:
    bus.publish_many([("/chat/a", number) for number in range(5)], max_backlog_size=4)
    assert len(bus.backlog("/chat/a")) == 4


def test_messages_of_one_publish_follow_the_rule_of_their_channel_each(bus: Bus) -> None:
    bus.publish_many([(channel, number) for number in range(3) for channel in ("/chat/a", "/other")])
    assert (len(bus.backlog("/chat/a")), len(bus.backlog("/other"))) == (2, 3)


def test_a_message_may_be_as_large_as_its_channel_takes(bus: Bus) -> None:
    with pytest.raises(MessageTooLarge):
        bus.publish("/chat/a", "x" * 20)
    assert bus.publish("/other", "x" * 20) == 1
    assert bus.last_id("/chat/a") == 0


def test_nobody_subscribes_where_the_rule_says_so_not_even_with_a_grant(bus: Bus) -> None:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    client = app.test_client()
    heard: list[str] = []
    bus.subscribe("/audit/a", lambda message: heard.append(message.data), last_id=0)
    bus.publish("/audit/a", "secret")
    grant = bus.grant("/audit/a")
    refused = client.post("/message-bus/me/poll?dlp=t", data={"/audit/a": 0, "__grants": grant})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (403, "/audit/a")
    assert client.post("/message-bus/me/poll?dlp=t", data={"/chat/a": 0}).status_code == 200
    eventually(lambda: heard == ["secret"])


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ({"chat": {}}, "starts with"),
        ({"/a*b": {}}, "at the end"),
        ({7: {}}, "string"),
        ({"/a": 7}, "table"),
        ({"/a": {"size": 7}}, "size"),
        ({"/a": {"pattern": "/b"}}, "pattern"),
        ({"/a": {"max_backlog_size": 0}}, "max_backlog_size"),
        ({"/a": {"max_backlog_age": "7"}}, "max_backlog_age"),
        ({"/a": {"subscribe": "some"}}, "signed-in"),
        ({"/a": {"publish": "some"}}, "publish"),
        ({"/a": {"publish": []}}, "publish"),
        ({"/a": {"publish": [7]}}, "publish"),
        ({"/a": {"stored": 0}}, "stored"),
        ({"/a": {"stored": False, "max_backlog_age": 7}}, "max_backlog_age"),
        ({"/a": {"template": 7}}, "template"),
        ({"/a": {"template": "~name~"}}, "~name~ is no field"),
        (["/a"], "patterns"),
    ],
)
def test_a_malformed_rule_is_refused(rules: Any, word: str) -> None:
    with pytest.raises(InvalidOption, match=word) as refused:
        Options(channels=rules)
    assert refused.value.option == "channels"


def test_a_file_has_options_keys_and_rules(tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    page = (Path(__file__).parent.parent / "docs/channel-rules.md").read_text()
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    options = Options(**read_config(path))
    assert (options.url, options.max_channels) == ("redis://127.0.0.1:6379/0", 50)
    assert options.publisher_keys[0].channels == ("/chat/*",)
    assert options.channels[0].max_backlog_age == 3600


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("# first\nmax_chanels = 7\n", 2, "max_channels"),
        ("\n\nmax_channels = 0\n", 3, "max_channels"),
        ("url = 7", 1, "url"),
        ("[channels.'/a']\nmax_backlog_size = 7\n\n[channels.'/b']\nmax_backlog_size = 0\n", 5, "max_backlog_size"),
        ("[channels.'/a']\nmax_backlog_size = 7\nsize = 7", 3, "size"),
        ("[channels]\n'/a' = {size = 7}\n", 2, "size"),
        ("max_channels = 7\n[channels.a]\n", 2, "starts with"),
        ("max_channels = 7\n[[publisher_keys]]\nkey = 'short'", 2, "publisher_keys"),
        ("[limits]\n", 1, "limits"),
        ("[channels.'/a']\nstored = false\nmax_backlog_size = 7\n", 3, "backlog"),
        ("[channels.'/a']\n\ntemplate = '{~id~'\n", 3, "JSON"),
        (
            "[[publisher_keys]]\nkey = 'a-key-of-the-shop'\nname = 'shop'\n[channels.'/a']\npublish = ['shopp']\n",
            5,
            "shopp",
        ),
        ("max_channels = \n", 1, ""),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, text: str, line: int, word: str) -> None:
    path = tmp_path / "bus.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_config(path)
    assert f"line {line}" in str(refused.value)
    assert word in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    with pytest.raises(ConfigError, match="No such file"):
        read_config(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_config(path)


SHOP_KEY, OTHER_KEY = "a-key-of-the-shop", "a-key-of-another-program"
PUBLISHERS: dict[str, dict[str, Any]] = {
    "/open": {"publish": "anyone"},
    "/shut": {"publish": "nobody"},
    "/shop/*": {"publish": ["shop"]},
}


@pytest.fixture
def guarded() -> Iterator[Bus]:
    keys: list[Any] = [{"key": SHOP_KEY, "name": "shop", "channels": ["/shop/*", "/shut"]}, OTHER_KEY]
    bus = Bus(url="memory://", http_publishing=True, publisher_keys=keys, channels=PUBLISHERS, client_publish=("/*",))
    yield bus
    bus.close()


def client_of(bus: Bus) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    return app.test_client()


@pytest.mark.parametrize(
    ("channel", "key", "method", "status"),
    [
        ("open", None, "POST", 202),
        ("open", OTHER_KEY, "POST", 202),
        ("open", "a-key-that-is-none", "POST", 401),
        ("open", None, "GET", 200),
        ("shop/1", SHOP_KEY, "POST", 202),
        ("shop/1", OTHER_KEY, "POST", 403),
        ("shop/1", None, "POST", 401),
        ("shop/1", None, "GET", 401),
        ("shut", SHOP_KEY, "POST", 403),
        ("shut", SHOP_KEY, "GET", 200),
        ("shut", None, "POST", 403),
        ("rest", OTHER_KEY, "POST", 202),
        ("rest", SHOP_KEY, "POST", 403),
        ("rest", None, "POST", 401),
    ],
)
def test_a_rule_says_who_publishes_over_http(
    guarded: Bus, channel: str, key: str | None, method: str, status: int
) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    response = client_of(guarded).open(f"/message-bus/channels/{channel}", method=method, data=b"x", headers=headers)
    assert response.status_code == status
    assert (response.status_code == 202) is bool(guarded.backlog(f"/{channel}"))


def test_many_messages_are_refused_where_one_of_their_channels_is_shut(guarded: Bus) -> None:
    body = [{"channel": "/rest", "data": 1}, {"channel": "/shut", "data": 2}]
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    response = client_of(guarded).post("/message-bus/publish?many=1", json=body, headers=headers)
    assert response.status_code == 403
    assert "/shut" in response.get_json()["error"]["message"]
    assert guarded.backlog("/rest") == []


@pytest.mark.parametrize(("channel", "allowed"), [("/open", True), ("/shut", False), ("/shop/1", False), ("/b", True)])
def test_a_rule_says_whether_clients_publish(guarded: Bus, channel: str, allowed: bool) -> None:
    caller = Caller(guarded._running_node(), Identity("me"), None)
    command = {"publish": {"channel": channel, "data": 1}}
    if allowed:
        assert read_command(caller, command).perform() == {"message_id": 1}
    else:
        with pytest.raises(CommandError, match="lets no client publish") as refused:
            read_command(caller, command)
        assert refused.value.code == "forbidden"


def test_some_channels_are_for_who_is_signed_in_or_has_a_grant() -> None:
    rules = {"/members/*": {"subscribe": "signed-in"}, "/vault/*": {"subscribe": "granted"}}
    bus = Bus(
        url="memory://",
        channels=rules,
        secret_key="a secret for tests",
        user_id_lookup=lambda environ: environ.get("HTTP_X_USER"),
    )
    client = client_of(bus)

    def status(channel: str, **more: Any) -> int:
        grants = {"__grants": bus.grant(more.pop("granted"))} if "granted" in more else {}
        return int(client.post("/message-bus/me/poll?dlp=t", data={channel: 0, **grants}, **more).status_code)

    ann = {"X-User": "ann"}
    assert [status("/members/a"), status("/members/a", headers=ann)] == [403, 200]
    assert [status("/members/a", granted="/members/*"), status("/members/a", granted="/other")] == [200, 403]
    assert [status("/vault/a"), status("/vault/a", headers=ann)] == [403, 403]
    assert [status("/vault/a", granted="/vault/a"), status("/other")] == [200, 200]

    @bus.authorize("/members/b")
    def nobody(request: Any, channel: str) -> bool:
        return False

    assert [status("/members/a", headers=ann), status("/members/b", headers=ann)] == [200, 403]
    bus.close()


@pytest.fixture
def passing() -> Iterator[Bus]:
    bus = Bus(url="memory://", channels={"/cursor": {"stored": False}}, http_publishing=True, anonymous_publish=True)
    yield bus
    bus.close()


def test_of_a_channel_that_is_not_stored_nobody_is_given_what_was_there_before(passing: Bus) -> None:
    for number in range(3):
        passing.publish_many([("/cursor", number), ("/kept", number)])
    client = client_of(passing)

    def told(position: int | str, channel: str = "/cursor", **more: Any) -> list[Any]:
        found = client.post("/message-bus/me/poll?dlp=t", data={channel: position, **more}).get_json()
        return [[m["message_id"], m["data"]] for m in found if m["channel"] in (channel, "/__gap")]

    assert (passing.backlog("/cursor"), passing.last_message("/cursor"), passing.last_id("/cursor")) == ([], None, 3)
    assert [told(position) for position in (0, -1, -3, "")] == [[], [], [], []]
    assert told(0, "/kept") == [[1, 0], [2, 1], [3, 2]]
    # Who comes back has missed nothing: a poll is a connection that breaks each time.
    assert told(2) == told(2, __epoch=passing._running_node().hub.epochs[0] or "") == [[3, 2]]
    report = client.get("/message-bus/channels/cursor").get_json()
    assert (report["stored_messages"], report["published_messages"]) == (0, 3)


def test_a_publish_that_sets_the_backlog_of_what_is_not_stored_is_refused(passing: Bus) -> None:
    for option in ("max_backlog_size", "max_backlog_age"):
        with pytest.raises(InvalidOption, match="not stored") as refused:
            passing.publish("/cursor", 1, **{option: 7})  # type: ignore[arg-type]
        assert refused.value.option == option
    assert passing.last_id("/cursor") == 0


def test_a_plain_subscriber_that_names_no_format_gets_the_one_of_the_channels_rule() -> None:
    rules: Any = {"/item/*": {"template": "<li>~text~</li>"}, "/*": {"max_backlog_size": 5}}
    options = Options(channels=rules, templates={"short": "~id~"})

    def line(query: str, channel: str, kind: str = "stream") -> bytes:
        _, transport = read_query(Request({"QUERY_STRING": query}), options, kind)
        assert transport is not None
        return transport.encode(b'[{"global_id":7,"message_id":1,"channel":"%b","data":"<b>"}]' % channel.encode(), 7)

    assert line("", "/item/1") == b"<li>&lt;b&gt;</li>\n"
    assert line("", "/a") == b'{"global_id":7,"message_id":1,"channel":"/a","data":"<b>"}\n'
    assert line("format=raw", "/item/1") == b"<b>\n"
    assert line("format=short", "/item/1") == b"1\n"
    assert b"data: <li>&lt;b&gt;</li>\n" in line("events=channel", "/item/1", "sse")
    assert line("format=template", "/item/1", "ws").endswith(b"<li>&lt;b&gt;</li>")
    # Without a format these two are for our clients.
    assert read_query(Request({"QUERY_STRING": ""}), options, "sse")[1] is None
    assert read_query(Request({"QUERY_STRING": ""}), options, "ws")[1] is None
