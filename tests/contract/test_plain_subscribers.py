"""What subscribers without our client are promised, by a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from ..client_base import request
from ..redis_server import RedisServer
from .conftest import World, run

TEMPLATES = {"short": '{"id":~id~,"channel":"~channel~","text":"~text~"}'}


@pytest.fixture(scope="module", params=["flask", "serve"])
def plain(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[World]:
    yield from run(request.param, redis_server, messagebus_templates=json.dumps(TEMPLATES))


def test_curl_gets_a_line_for_each_message(plain: World) -> None:
    channel = plain.channel()
    plain.publish(channel, "kept", {"a": 1})
    url = f"{plain.url}/message-bus/any/stream?{channel}=0&format=raw"
    with subprocess.Popen(["curl", "-sN", "--max-time", "60", url], stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        lines = (line.rstrip("\n") for line in curl.stdout if line != "\n")
        assert [next(lines), next(lines)] == ["kept", '{"a":1}']
        plain.publish(channel, "live")
        assert next(lines) == "live"
        curl.kill()


def test_a_websocket_gets_bare_data_of_several_channels(plain: World) -> None:
    first, second = plain.channel(), plain.channel()
    plain.publish(first, "kept")
    url = plain.url.replace("http", "ws")
    with connect(f"{url}/message-bus/any/ws?{first}=0&{second}=-1&format=raw") as socket:
        assert socket.recv(20) == "kept"
        plain.publish(second, 'live "2"')
        assert socket.recv(20) == 'live "2"'
        plain.publish(second, {"b": None}, user_ids=["somebody else"])
        plain.publish(first, {"b": None})
        assert socket.recv(20) == '{"b":null}'


def test_a_template_is_a_format(plain: World) -> None:
    channel = plain.channel()
    [number] = plain.publish(channel, 'say "hi"')
    url = plain.url.replace("http", "ws")
    with connect(f"{url}/message-bus/any/ws?{channel}=0&format=short") as socket:
        assert json.loads(socket.recv(20)) == {"id": number, "channel": channel, "text": 'say "hi"'}


@pytest.mark.parametrize("form", ["format=raw", "format=short", "format=json", "events=channel&format=raw"])
def test_an_event_source_resumes_in_every_format(plain: World, form: str) -> None:
    channel = plain.channel()
    plain.publish(channel, "one")

    def next_event(headers: dict[str, str]) -> tuple[str, str]:
        with request(plain.url, "GET", f"/message-bus/any/sse?{channel}=0&{form}", None, headers) as response:
            identity = ""
            for line in response:
                field, _, value = line.decode().rstrip("\n").partition(": ")
                identity = value if field == "id" else identity
                if field == "data":
                    return identity, value
        raise AssertionError("it ended")

    seen, data = next_event({})
    assert "one" in data
    plain.publish(channel, "two")
    assert "two" in next_event({"Last-Event-ID": seen})[1]


@pytest.mark.parametrize(
    ("path", "field", "known"),
    [
        ("sse?/a=0&format=xml", "format", "raw, data, json, template, short"),
        ("ws?/a=0&format=xml", "format", "raw, data, json, template, short"),
        ("stream?/a=0&format=", "format", "raw, data, json, template, short"),
        ("ws?/a=0&events=channel", "events", "sse"),
        ("sse?/a=0&events=all", "events", "channel"),
        ("iframe?/a=0&format=raw", "format", "sse and stream"),
        ("poll?format=raw", "format", "sse and stream"),
    ],
)
def test_what_there_is_not_is_refused_by_its_name(plain: World, path: str, field: str, known: str) -> None:
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    method, headers = ("POST", {}) if path.startswith("poll") else ("GET", handshake if path[:2] == "ws" else {})
    with request(plain.url, method, f"/message-bus/any/{path}", None, headers) as response:
        assert response.status == 400
        error = json.load(response)["error"]
        assert error["field"] == field
        assert known in error["message"]


@pytest.mark.parametrize("kind", ["waitress", "serve"])
def test_an_iframe_and_a_stream_are_served_whoever_has_the_socket(kind: str, redis_server: RedisServer) -> None:
    for world in run(kind, redis_server):
        channel = world.channel()
        world.publish(channel, "kept")
        with request(world.url, "GET", f"/message-bus/any/iframe?{channel}=0") as response:
            assert response.getheader("X-Frame-Options") == "SAMEORIGIN"
            assert response.readline() == b"<!DOCTYPE html>\n"
            found = next(line for line in response if line.startswith(b"<script>p(") and b"kept" in line)
            assert found.endswith(b"</script>\n")
        with request(world.url, "GET", f"/message-bus/any/stream?{channel}=0&format=raw") as response:
            assert next(line for line in response if line != b"\n") == b"kept\n"
            world.publish(channel, "live")
            assert next(line for line in response if line != b"\n") == b"live\n"
