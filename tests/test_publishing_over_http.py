"""Publishing over HTTP, with Flask's test client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import flask
import pytest

from messagebus import BackendUnavailable, Bus, InvalidOption, Options
from messagebus.publishing.rate_limits import MOST_PUBLISHERS, PublishLimits

KEY = "a-key-for-all-channels"
CHAT_KEY = "a-key-for-chats-alone"
BEARER = {"Authorization": f"Bearer {KEY}"}
URL = "/message-bus/publish?channel=/chat"


@pytest.fixture
def bus() -> Iterator[Bus]:
    bus = Bus(
        url="memory://",
        http_publishing=True,
        publisher_keys=[KEY, {"key": CHAT_KEY, "channels": ["/chat", "/chats/*"]}],
        max_message_size=1000,
    )
    yield bus
    bus.close()


@pytest.fixture
def client(bus: Bus) -> Any:
    return client_of(bus)


def client_of(bus: Bus) -> Any:
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint)
    return app.test_client()


def stored(bus: Bus, channel: str = "/chat") -> list[Any]:
    return [message.data for message in bus.backlog(channel)]


@pytest.mark.parametrize(
    ("path", "channel"),
    [
        ("publish?channel=/chat", "/chat"),
        ("publish?channel=%2Fchat", "/chat"),
        ("publish?id=chat", "/chat"),
        ("channels/chat", "/chat"),
        ("channels/%2Fchat", "/chat"),
        ("channels//chat", "/chat"),
        ("channels/chat/%C3%BC", "/chat/ü"),
        ("channels/poll", "/poll"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_channel_is_named_by_the_path_or_by_the_query(
    bus: Bus, client: Any, path: str, channel: str, method: str
) -> None:
    response = client.open(f"/message-bus/{path}", method=method, data=b"hello", headers=BEARER)
    assert response.status_code == 202
    assert response.get_json()["channel"] == channel
    assert stored(bus, channel) == ["hello"]


@pytest.mark.parametrize(
    ("kind", "body", "data"),
    [
        ("text/plain", 'a = "b"', 'a = "b"'),
        ("text/plain; charset=utf-8", "ü".encode(), "ü"),
        ("application/octet-stream", "x", "x"),
        ("", "x", "x"),
        ("application/json", '{"a": [1, null]}', {"a": [1, None]}),
        ("application/json", '"text"', "text"),
        ("application/x-www-form-urlencoded", "hello", "hello"),
        ("application/x-www-form-urlencoded", "data=a+b%3D", "a b="),
    ],
)
def test_a_body_is_stored_by_its_media_type(bus: Bus, client: Any, kind: str, body: str, data: object) -> None:
    response = client.post(URL, data=body, headers=BEARER, content_type=kind or None)
    assert response.status_code == 202, response.text
    assert stored(bus) == [data]


@pytest.mark.parametrize(
    ("kind", "query", "body"),
    [
        ("application/json", "&many=1", '["a", {"b": 1}]'),
        ("application/x-ndjson", "", '"a"\n{"b": 1}\n'),
    ],
)
def test_many_messages_are_published_at_once(bus: Bus, client: Any, kind: str, query: str, body: str) -> None:
    response = client.post(URL + query, data=body, headers=BEARER, content_type=kind)
    [report] = response.get_json()["channels"]
    assert (report["message_id"], report["stored_messages"]) == (2, 2)
    assert stored(bus) == ["a", {"b": 1}]


def test_many_messages_may_name_their_channels(bus: Bus, client: Any) -> None:
    lines = '{"channel": "/chat", "data": 1}\n{"channel": "/b", "data": 2}'
    response = client.post("/message-bus/publish", data=lines, headers=BEARER, content_type="application/x-ndjson")
    assert [report["channel"] for report in response.get_json()["channels"]] == ["/chat", "/b"]
    assert (stored(bus), stored(bus, "/b")) == ([1], [2])


def test_one_forbidden_channel_among_many_forbids_all(bus: Bus, client: Any) -> None:
    lines = '{"channel": "/chat", "data": 1}\n{"channel": "/b", "data": 2}'
    headers = {"Authorization": f"Bearer {CHAT_KEY}"}
    response = client.post("/message-bus/publish", data=lines, headers=headers, content_type="application/x-ndjson")
    assert response.status_code == 403
    assert bus.newest_global_id() == 0


def test_a_report_tells_what_the_channel_has(bus: Bus, client: Any) -> None:
    client.post(URL, data=b"1", headers=BEARER)
    published = client.post(URL, data=b"2", headers=BEARER).get_json()
    assert published == {
        "channel": "/chat",
        "message_id": 2,
        "global_id": 2,
        "stored_messages": 2,
        "published_messages": 2,
        "subscribers": 0,
        "last_requested": None,
        "queued": False,
    }
    client.post("/message-bus/me/poll?dlp=t", data={"/chat": 0})
    seen = client.get(URL, headers=BEARER)
    assert seen.status_code == 200
    assert seen.get_json()["last_requested"] == 0
    assert seen.get_json()["global_id"] is None
    assert bus.last_id("/chat") == 2


def test_a_report_of_a_channel_that_never_was_is_empty(client: Any) -> None:
    report = client.get("/message-bus/channels/none", headers=BEARER).get_json()
    assert (report["message_id"], report["stored_messages"], report["published_messages"]) == (0, 0, 0)


def test_a_report_comes_in_the_form_that_is_accepted(client: Any) -> None:
    def report(kind: str, status: int = 202) -> str:
        response = client.post(URL, data=b"x", headers={**BEARER, "Accept": kind})
        assert response.status_code == status
        assert response.mimetype == (kind if status == 202 else "application/json")
        return str(response.text)

    assert report("text/plain") == (
        "queued messages: 1\nlast requested: never\nactive subscribers: 0\nlast message id: 1\n"
    )
    root = ElementTree.fromstring(report("application/xml"))
    assert (root.tag, root.findtext("name"), root.findtext("message_id")) == ("channel", "/chat", "2")
    assert 'name: "/chat"\nmessage_id: 3\n' in report("application/yaml")
    assert json.loads(report("application/json"))["message_id"] == 4
    assert json.loads(report("image/png", 406))["error"]["field"] == "Accept"


@pytest.mark.parametrize("by", ["query", "header", "form"])
def test_a_message_is_for_those_that_are_named(bus: Bus, client: Any, by: str) -> None:
    given = {"user_ids": '7,"7",ann', "group_ids": "staff", "client_ids": "a,b"}
    data: Any = b"x"
    headers, query = dict(BEARER), {"channel": "/chat"}
    if by == "query":
        query.update(given)
    elif by == "header":
        headers.update({f"X-MessageBus-{name.replace('_', '-')}": value for name, value in given.items()})
    else:
        data = {"data": "x", **given}
    response = client.post("/message-bus/publish", query_string=query, headers=headers, data=data)
    assert response.status_code == 202, response.text
    [message] = bus.backlog("/chat")
    assert (message.user_ids, message.group_ids, message.client_ids) == ((7, "7", "ann"), ("staff",), ("a", "b"))


def test_the_backlog_size_is_taken_from_the_query(bus: Bus, client: Any) -> None:
    for text in ("1", "2", "3"):
        client.post(URL + "&max_backlog_size=2&max_backlog_age=60", data=text, headers=BEARER)
    assert stored(bus) == ["2", "3"]


@pytest.mark.parametrize("by_header", [True, False])
def test_a_transient_message_is_not_stored(bus: Bus, client: Any, by_header: bool) -> None:
    client.post(URL, data="kept", headers=BEARER)
    if by_header:
        headers = {**BEARER, "X-MessageBus-Transient": "1", "X-MessageBus-Key": "typing"}
        response = client.post(URL, data="typing", headers=headers)
    else:
        response = client.post(f"{URL}&transient=1&key=typing", data="typing", headers=BEARER)
    report = response.get_json()
    assert (response.status_code, report["queued"], report["stored_messages"]) == (202, False, 1)
    assert stored(bus) == ["kept"]


@pytest.mark.parametrize(
    ("query", "field"),
    [("transient=yes", "transient"), ("key=k", "key"), ("transient=1&idempotency_key=k", "idempotency_key")],
)
def test_options_of_transient_messages_that_make_no_sense_are_named(
    bus: Bus, client: Any, query: str, field: str
) -> None:
    response = client.post(f"{URL}&{query}", data="1", headers=BEARER)
    assert (response.status_code, response.get_json()["error"]["field"]) == (400, field)
    assert stored(bus) == []


def test_a_repeated_publish_with_an_idempotency_key_is_one(bus: Bus, client: Any) -> None:
    headers = {**BEARER, "Idempotency-Key": "order-7"}
    ids = [client.post(URL, data=b"x", headers=headers).get_json()["message_id"] for _ in range(2)]
    assert ids == [1, 1]
    assert stored(bus) == ["x"]


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "field"),
    [
        (URL + "&users=7", {}, b"x", 400, "users"),
        (URL + "&user_ids=", {}, b"x", 400, "user_ids"),
        (URL + "&user_ids=7,", {}, b"x", 400, "user_ids"),
        (URL + "&user_ids=7&user_ids=8", {}, b"x", 400, "user_ids"),
        (URL + "&client_ids=a%20b", {}, b"x", 400, "client_ids"),
        (URL + "&max_backlog_size=0", {}, b"x", 400, "max_backlog_size"),
        (URL + "&max_backlog_size=many", {}, b"x", 400, "max_backlog_size"),
        (URL + "&many=yes", {}, b"[]", 400, "many"),
        (URL + "&many=1", {}, b"x", 400, "body"),
        (URL + "&id=chat", {}, b"x", 400, "id"),
        ("/message-bus/channels/chat?channel=/a", {}, b"x", 400, "channel"),
        ("/message-bus/publish", {}, b"x", 400, "channel"),
        ("/message-bus/publish?channel=chat", {}, b"x", 400, "channel"),
        ("/message-bus/channels/__status", {}, b"x", 400, "channel"),
        (URL, {"X-MessageBus-Users": "7"}, b"x", 400, "users"),
        (URL + "&user_ids=7", {"X-MessageBus-User-Ids": "8"}, b"x", 400, "X-MessageBus-User-Ids"),
        (URL, {"Content-Type": "application/json"}, b"{", 400, "body"),
        (URL, {"Content-Type": "application/json"}, b"NaN", 400, "body"),
        (URL, {"Content-Type": "application/x-www-form-urlencoded"}, b"text=x&user_ids=7", 400, "data"),
        (URL, {"Content-Type": "application/x-www-form-urlencoded"}, b"data=x&users=7", 400, "users"),
        (URL, {"Content-Type": "image/png"}, b"x", 415, "Content-Type"),
        (URL, {"Content-Type": "text/plain; charset=latin-1"}, b"x", 415, "Content-Type"),
        (URL, {"Content-Encoding": "gzip"}, b"x", 415, "Content-Encoding"),
        (URL, {}, b"\xff", 400, "body"),
        (URL, {}, b"x" * 1001, 413, "body"),
        (URL, {}, b"x" * 999, 413, "body"),
        ("/message-bus/channels/", {}, b"x", 404, "channel"),
        ("/message-bus/publish/chat", {}, b"x", 404, "channel"),
        (URL, {"Origin": "https://evil.example"}, b"x", 403, "Origin"),
    ],
)
def test_what_is_not_understood_is_refused_and_publishes_nothing(
    bus: Bus, client: Any, path: str, headers: dict[str, str], body: bytes, status: int, field: str
) -> None:
    response = client.post(path, data=body, headers={**BEARER, **headers})
    assert (response.status_code, response.get_json()["error"].get("field")) == (status, field)
    assert bus.newest_global_id() == 0


def test_a_channels_own_rule_says_how_large_its_messages_may_be(bus: Bus, client: Any) -> None:
    bus.configure(channels={"/large": {"max_message_size": 5000}, "/small": {"max_message_size": 5}})
    sent = {
        name: client.post(f"/message-bus/channels/{name}", data=b"x" * 4000, headers=BEARER) for name in ("large", "a")
    }
    assert [sent["large"].status_code, sent["a"].status_code] == [202, 413]
    assert client.post("/message-bus/channels/small", data=b"x" * 6, headers=BEARER).status_code == 413


def test_a_path_that_is_not_utf_8_is_refused(bus: Bus, client: Any) -> None:
    environ = {"PATH_INFO": "/message-bus/channels/\xff"}
    response = client.post("/message-bus/channels/x", data=b"x", headers=BEARER, environ_overrides=environ)
    assert (response.status_code, response.get_json()["error"]["field"]) == (400, "channel")
    assert bus.newest_global_id() == 0


def test_a_key_is_for_its_channels(bus: Bus, client: Any) -> None:
    headers = {"Authorization": f"Bearer {CHAT_KEY}"}
    assert client.post("/message-bus/channels/chats/1", data=b"x", headers=headers).status_code == 202
    refused = client.post("/message-bus/channels/orders", data=b"x", headers=headers)
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (403, "channel")
    assert client.get("/message-bus/channels/orders", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "shown", [None, "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", f"Bearer {KEY[1:]}", "Bearer \xe7"]
)
def test_without_one_of_the_keys_nobody_publishes(bus: Bus, client: Any, shown: str | None) -> None:
    headers = {"Authorization": shown} if shown else {}
    for method in ("POST", "PUT", "GET"):
        response = client.open(URL, method=method, data=b"x", headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert KEY not in response.text
    assert bus.newest_global_id() == 0


def test_where_no_key_is_set_the_refusal_says_how_to_set_one() -> None:
    bus = Bus(url="memory://", http_publishing=True)
    try:
        response = client_of(bus).post(URL, data=b"x", headers=BEARER)
        assert response.status_code == 403
        for word in ("publisher_keys", "--allow-anonymous-publish"):
            assert word in response.get_json()["error"]["message"]
    finally:
        bus.close()


def test_anonymous_publishing_takes_no_key_but_refuses_a_wrong_one() -> None:
    bus = Bus(url="memory://", http_publishing=True, anonymous_publish=True)
    try:
        client = client_of(bus)
        assert client.post(URL, data=b"x").status_code == 202
        assert client.post(URL, data=b"x", headers=BEARER).status_code == 401
    finally:
        bus.close()


def test_an_app_that_does_not_turn_it_on_has_no_such_routes() -> None:
    bus = Bus(url="memory://", publisher_keys=[KEY])
    try:
        client = client_of(bus)
        assert client.post(URL, data=b"x", headers=BEARER).status_code == 404
        assert client.post("/message-bus/channels/chat", data=b"x", headers=BEARER).status_code == 404
        assert bus.newest_global_id() == 0
    finally:
        bus.close()


def test_options_and_other_methods_are_answered(client: Any) -> None:
    allowed = client.options("/message-bus/channels/chat")
    assert (allowed.status_code, allowed.headers["Allow"]) == (204, "GET, POST, PUT, DELETE, OPTIONS")
    refused = client.patch("/message-bus/channels/chat", headers=BEARER)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, POST, PUT, DELETE, OPTIONS")


def test_a_deleted_channel_is_empty_and_its_ids_go_on(bus: Bus, client: Any) -> None:
    for number in range(3):
        bus.publish("/chat", number)
    refused = client.delete(URL)
    assert refused.status_code == 401
    assert stored(bus) == [0, 1, 2]
    answer = client.delete(URL, headers=BEARER)
    assert answer.status_code == 200
    assert (answer.json["stored_messages"], answer.json["published_messages"]) == (0, 3)
    assert stored(bus) == []
    assert client.post(URL, data=b"x", headers=BEARER).json["message_id"] == 4
    assert client.delete("/message-bus/channels/never", headers=BEARER).json["published_messages"] == 0
    assert client.delete("/message-bus/publish", headers=BEARER).status_code == 400
    assert client.delete(f"{URL}&user_ids=1", headers=BEARER).status_code == 400


def test_what_is_stored_is_no_failure_where_the_store_goes_away_before_the_report(
    bus: Bus, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise BackendUnavailable("it has gone")

    monkeypatch.setattr(bus._running_node().store, "backlogs", gone)
    response = client.post(URL, data="x", headers=BEARER)
    told = response.get_json()
    assert (response.status_code, told["message_id"], told["published_messages"]) == (202, 1, 1)
    assert told["stored_messages"] is None
    text = client.post(URL, data="x", headers={**BEARER, "Accept": "text/plain"}).text
    assert text.startswith("queued messages: -\n")
    assert client.get(URL, headers=BEARER).status_code == 503
    assert (
        client.post("/message-bus/publish?many=1", json=[{"channel": "/a", "data": 1}], headers=BEARER).status_code
        == 202
    )


def test_a_bus_that_is_off_takes_no_messages(bus: Bus, client: Any) -> None:
    bus.off()
    assert client.post(URL, data=b"x", headers=BEARER).status_code == 503
    bus.on()
    assert bus.newest_global_id() == 0


@pytest.mark.parametrize(("option", "headers"), [("max_publishes_per_key", BEARER), ("max_publishes_per_client", {})])
def test_more_than_a_publisher_may_is_refused_with_429(option: str, headers: dict[str, str]) -> None:
    limit: Any = {option: 2}
    bus = Bus(url="memory://", http_publishing=True, publisher_keys=[KEY], anonymous_publish=True, **limit)
    bus.start()
    try:
        client = client_of(bus)
        bus._running_node().publish_limits = PublishLimits(clock=lambda: 0.0)
        assert [client.post(URL, data=b"x", headers=headers).status_code for _ in range(2)] == [202, 202]
        refused = client.post(URL, data=b"x", headers=headers)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert refused.get_json()["error"]["field"] == option
        assert KEY not in refused.text
        assert bus.last_id("/chat") == 2
    finally:
        bus.close()


def test_a_large_batch_is_paid_for_afterwards() -> None:
    now = 0.0
    limits = PublishLimits(clock=lambda: now)
    assert limits.take("a", 50, 10) == 0
    assert limits.take("a", 1, 10) == 5
    assert limits.take("b", 1, 10) == 0
    now = 4.2
    assert limits.take("a", 1, 10) == 0


def test_only_so_many_publishers_are_remembered() -> None:
    limits = PublishLimits(clock=lambda: 0.0)
    for number in range(MOST_PUBLISHERS + 5):
        limits.take(str(number), 1, 1)
    assert len(limits._buckets) == MOST_PUBLISHERS


@pytest.mark.parametrize(
    "keys",
    [
        ("short",),
        ("with a space in it, so not visible",),
        (7,),
        ({"channels": ["/a"]},),
        ({"key": KEY, "channel": "/a"},),
        ({"key": KEY, "channels": []},),
        ({"key": KEY, "channels": "/a"},),
        ({"key": KEY, "channels": ["a"]},),
    ],
)
def test_a_malformed_key_is_refused_and_not_shown(keys: Any) -> None:
    with pytest.raises(InvalidOption) as refused:
        Options(publisher_keys=keys)
    assert refused.value.option == "publisher_keys"
    assert KEY not in str(refused.value)
    assert KEY not in repr(Options(publisher_keys=(KEY,)))  # type: ignore[arg-type]
