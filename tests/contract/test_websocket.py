"""What WebSocket promises beyond the stories that all transports share: commands, frames and close codes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from ..clients import EventSource, Refused, WebSocket, request
from ..redis_server import RedisServer
from .conftest import World, run

FRAME_LIMIT = 2000


@pytest.fixture(scope="module", params=["flask", "serve"])
def open_world(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    """Servers where clients may publish, within narrow limits."""
    yield from run(
        request.param,
        redis_server,
        messagebus_client_publish="/chat-*,/exact",
        messagebus_max_frame_size=str(FRAME_LIMIT),
        messagebus_max_channels="5",
        messagebus_max_commands="40",
    )


@pytest.fixture
def client(open_world: World) -> Iterator[WebSocket]:
    """A client without channels."""
    with WebSocket.connect(open_world.url, {}) as client:
        client.next_batch()
        yield client


def positions(client: WebSocket, **channels: int | str) -> dict[str, int | str]:
    client.positions.update(channels)
    return channels


# --- commands ---


def test_the_subprotocol_is_agreed_on(client: WebSocket) -> None:
    assert client.ws.subprotocol == "messagebus.v1"


def test_subscribe_brings_a_channel_from_a_position(open_world: World, client: WebSocket) -> None:
    channel, other = open_world.channel(), open_world.channel()
    open_world.publish(channel, 1, 2, 3)
    assert client.ask({"subscribe": positions(client, **{channel: 1, other: -1})}) == {"ok": {}}
    assert client.data(2) == [2, 3]
    open_world.publish(other, "o")
    open_world.publish(channel, 4)
    assert client.data(2) == ["o", 4]


def test_subscribe_without_an_id_is_carried_out_without_an_answer(open_world: World, client: WebSocket) -> None:
    channel = open_world.channel()
    open_world.publish(channel, 1)
    client.send({"subscribe": positions(client, **{channel: 0})})
    assert client.data(1) == [1]
    assert client.ask({"ping": 1}) == {"ok": {"pong": 1}}  # and not the answer to the subscribe


def test_subscribe_again_moves_the_position_and_delivers_nothing_twice(open_world: World, client: WebSocket) -> None:
    channel = open_world.channel()
    open_world.publish(channel, 1, 2)
    client.ask({"subscribe": positions(client, **{channel: 0})})
    assert client.data(2) == [1, 2]
    client.ask({"subscribe": {channel: 1}})
    assert client.data(1) == [2]
    open_world.publish(channel, 3, 4)
    assert client.data(2) == [3, 4]


def test_subscribe_while_messages_are_published_misses_and_repeats_nothing(open_world: World) -> None:
    channel = open_world.channel()
    with WebSocket.connect(open_world.url, {}) as client:
        for number in range(12):  # three commands each, of the 40 that are allowed
            open_world.publish(channel, 2 * number)
            client.send({"subscribe": positions(client, **{channel: client.positions.get(channel, 0)})})
            open_world.publish(channel, 2 * number + 1)
            assert client.data(2) == [2 * number, 2 * number + 1]
            client.send({"unsubscribe": [channel]})
            assert client.ask({"ping": number}) == {"ok": {"pong": number}}
        assert [message["message_id"] for message in client.received] == list(range(1, 25))


def test_unsubscribe_ends_a_channel_and_leaves_the_others(open_world: World, client: WebSocket) -> None:
    channel, other = open_world.channel(), open_world.channel()
    client.ask({"subscribe": positions(client, **{channel: 0, other: 0})})
    assert client.ask({"unsubscribe": [channel, "/never-asked-for"]}) == {"ok": {}}
    open_world.publish(channel, "not this")
    open_world.publish(other, "this")
    assert client.data(1) == ["this"]


def test_publish_is_answered_with_the_id_of_the_message(open_world: World, client: WebSocket) -> None:
    channel = open_world.channel()
    with EventSource.connect(open_world.url, {channel: 0}) as reader:
        for number in (1, 2):
            answer = client.ask({"publish": {"channel": channel, "data": {"text": "ü", "n": number}}})
            assert answer == {"ok": {"message_id": number}}
        assert reader.data(2) == [{"text": "ü", "n": 1}, {"text": "ü", "n": 2}]
    assert client.ask({"publish": {"channel": "/exact", "data": None}})["ok"]["message_id"] > 0


@pytest.mark.parametrize("channel", ["/other", "/exact/not", "/cha", "/global/chat-1"])
def test_publish_where_it_is_not_allowed_is_forbidden(client: WebSocket, channel: str) -> None:
    assert client.ask({"publish": {"channel": channel, "data": 1}})["error"]["code"] == "forbidden"


def test_publish_is_forbidden_everywhere_by_default(world: World) -> None:
    with WebSocket.connect(world.url, {}) as client:
        assert client.ask({"publish": {"channel": "/chat-1", "data": 1}})["error"]["code"] == "forbidden"


def test_ping_is_answered(client: WebSocket) -> None:
    client.send({"ping": 1})
    assert client.answer() == {"ok": {"pong": 1}}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"dance": 1}, "bad_request"),
        ({}, "bad_request"),
        ({"ping": 1, "subscribe": {}}, "bad_request"),
        ({"subscribe": ["/a"]}, "bad_request"),
        ({"subscribe": {"a": 1}}, "invalid_channel"),
        ({"subscribe": {"/__status": 1}}, "invalid_channel"),
        ({"subscribe": {"/a": "x"}}, "invalid_position"),
        ({"subscribe": {"/a": None}}, "invalid_position"),
        ({"subscribe": {"/a": True}}, "invalid_position"),
        ({"subscribe": {"/a": 1e300}}, "invalid_position"),
        ({"subscribe": {f"/{number}": 0 for number in range(6)}}, "too_many_channels"),
        ({"unsubscribe": "/a"}, "bad_request"),
        ({"unsubscribe": [1]}, "invalid_channel"),
        ({"unsubscribe": [["/a"]]}, "invalid_channel"),
        ({"publish": "/exact"}, "bad_request"),
        ({"publish": {"channel": "/exact"}}, "bad_request"),
        ({"publish": {"channel": "/exact", "data": 1, "user_ids": [1]}}, "bad_request"),
        ({"publish": {"channel": 5, "data": 1}}, "invalid_channel"),
    ],
)
def test_a_wrong_command_is_answered_with_an_error_and_changes_nothing(
    open_world: World, client: WebSocket, command: dict[str, object], code: str
) -> None:
    answer = client.ask(command)
    assert answer["error"]["code"] == code
    assert answer["error"]["message"]
    channel = open_world.channel()
    client.ask({"subscribe": positions(client, **{channel: 0})})
    open_world.publish(channel, "still served")
    assert client.data(1) == ["still served"]


def test_json_that_is_no_object_is_answered_with_an_error(client: WebSocket) -> None:
    for text in ("[]", "1", "null", '"subscribe"'):
        client.ws.send(text)
        assert client.answer()["error"]["code"] == "bad_request"


def test_an_error_says_to_which_command_it_belongs_even_where_that_has_no_id(client: WebSocket) -> None:
    client.send({"dance": 1, "id": "x"})
    assert client.answer()["id"] == "x"
    client.send({"dance": 1})
    assert "id" not in client.answer()


# --- frames ---


def test_a_command_in_fragments_with_a_ping_between_them_is_one_command(client: WebSocket) -> None:
    client.ws.send(iter(['{"pi', "ng", '": 5, ', '"id": 1}']))
    assert client.answer() == {"id": 1, "ok": {"pong": 5}}


def test_ping_frames_are_answered(client: WebSocket) -> None:
    assert client.ws.ping().wait(30)
    assert client.ws.ping(b"twice").wait(30)


def test_a_close_is_answered(client: WebSocket) -> None:
    client.ws.close(1000)
    assert client.ws.close_code == 1000


@pytest.mark.parametrize("text", ["{bad", "", "{} {}", '{"a": \ud7ff', '{"ping": 1}x', "[" * 1900])
def test_malformed_json_closes_with_1007(client: WebSocket, text: str) -> None:
    client.ws.send(text)
    assert client.closed() == 1007


def test_text_that_is_not_utf8_closes_with_1007(client: WebSocket) -> None:
    client.ws.send(b'{"ping": "\xff"}', text=True)
    assert client.closed() == 1007


def test_a_binary_frame_closes_with_1003(client: WebSocket) -> None:
    client.ws.send(b'{"ping": 1}')
    assert client.closed() == 1003


def test_a_frame_over_the_limit_closes_with_1009(client: WebSocket) -> None:
    client.ws.send(json.dumps({"ping": "x" * FRAME_LIMIT}))
    assert client.closed() == 1009


def test_fragments_that_are_together_over_the_limit_close_with_1009(client: WebSocket) -> None:
    # The second one is too much already, so that the rest may find the connection closed.
    with contextlib.suppress(ConnectionClosed):
        client.ws.send(iter(["x" * 900] * 3))
    assert client.closed() == 1009


def test_a_frame_at_the_limit_is_served(client: WebSocket) -> None:
    command = '{"ping": "%s"}'
    client.ws.send(command % ("x" * (FRAME_LIMIT - len(command % ""))))
    assert len(client.answer()["ok"]["pong"]) > FRAME_LIMIT - 20


def test_too_many_commands_close_with_1008(client: WebSocket) -> None:
    with contextlib.suppress(ConnectionClosed):
        for number in range(60):
            client.send({"ping": number})
    assert client.closed() == 1008


def test_frames_that_are_no_commands_count_as_well(client: WebSocket) -> None:
    client.ws.socket.sendall(b"\x8a\x80\0\0\0\0" * 60)  # pongs that nobody asked for
    assert client.closed() == 1008


def test_a_close_whose_reason_is_not_utf8_closes_with_1002(client: WebSocket) -> None:
    client.ws.socket.sendall(b"\x88\x83\0\0\0\0\x03\xe8\xff")
    assert client.closed() == 1002


def test_frames_without_a_mask_close_with_1002(client: WebSocket) -> None:
    client.ws.socket.sendall(b"\x81\x02{}")
    assert client.closed() == 1002


def test_a_continuation_of_nothing_closes_with_1002(client: WebSocket) -> None:
    client.ws.socket.sendall(b"\x80\x80\0\0\0\0")
    assert client.closed() == 1002


def test_a_new_message_within_a_fragmented_one_closes_with_1002(client: WebSocket) -> None:
    client.ws.socket.sendall(b"\x01\x80\0\0\0\0" * 2)
    assert client.closed() == 1002


# --- the handshake ---


@pytest.mark.parametrize(("origin", "status"), [("https://evil.example", 403), ("null", 403)])
def test_a_foreign_page_is_refused_before_the_handshake(world: World, origin: str, status: int) -> None:
    with pytest.raises(Refused) as refused, WebSocket.connect(world.url, {}, headers={"Origin": origin}):
        pass
    assert refused.value.status == status
    assert refused.value.error["field"] == "Origin"


def test_a_page_of_the_same_host_is_let_in(world: World) -> None:
    with WebSocket.connect(world.url, {}, headers={"Origin": world.url}) as client:
        assert client.ask({"ping": 1}) == {"ok": {"pong": 1}}


def test_a_request_without_upgrade_is_answered_with_426(world: World) -> None:
    with request(world.url, "GET", "/message-bus/c/ws") as response:
        assert response.status == 426
        assert response.getheader("Upgrade") == "websocket"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-WebSocket-Version": "13"},
        {"Sec-WebSocket-Key": "short", "Sec-WebSocket-Version": "13"},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "12"},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13", "Connection": "keep-alive"},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13", "Content-Length": "4"},
    ],
    ids=["no key", "a short key", "another version", "no upgrade", "a body"],
)
def test_a_bad_handshake_is_answered_with_400(world: World, headers: dict[str, str]) -> None:
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", **headers}
    body = b"body" if "Content-Length" in headers else None
    with request(world.url, "GET", "/message-bus/c/ws", body, headers=upgrade) as response:
        assert response.status == 400
        assert json.load(response)["error"]["code"] == "bad_handshake"


def test_the_reason_arrives_even_where_the_client_goes_on_sending(world: World) -> None:
    # More than the socket's buffers hold: the server has not read all of it when it says goodbye.
    for _ in range(5):
        with WebSocket.connect(world.url, {}) as client:
            client.next_batch()
            with contextlib.suppress(ConnectionClosed):
                client.ws.send("x" * 4_000_000)
            assert client.closed() == 1009
