"""The client's files over HTTP: versioned URLs, caching, compression."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import brotli
import flask
import pytest
from flask.testing import FlaskClient

from messagebus import Bus
from messagebus.http import static_files

FILES = Path(__file__).parents[1] / "static" / "js"
SCRIPT = (FILES / "messagebus.js").read_bytes()


@pytest.fixture
def app() -> Iterator[flask.Flask]:
    bus = Bus(url="memory://")
    app = flask.Flask(__name__)
    app.register_blueprint(bus.blueprint, url_prefix="/app")
    app.add_url_rule("/page", "page", lambda: flask.render_template_string("{{ message_bus() }}"))
    yield app
    bus.close()


@pytest.fixture
def client(app: flask.Flask) -> FlaskClient:
    return app.test_client()


def versioned(client: FlaskClient) -> str:
    """The URL that the template's helper prints."""
    found = re.search('src="([^"]+)"', client.get("/page").text)
    assert found is not None
    return found.group(1)


def test_a_template_loads_the_client_from_an_url_with_a_version_and_keeps_it_for_ever(client: FlaskClient) -> None:
    url = versioned(client)
    assert re.fullmatch(r"/app/message-bus/static/[0-9a-f]{16}/messagebus\.js", url)
    assert 'data-base-url="/app/"' in client.get("/page").text
    response = client.get(url)
    assert response.data == SCRIPT
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response.content_type == "text/javascript; charset=utf-8"


def test_without_a_version_it_is_kept_for_an_hour_and_has_an_etag(client: FlaskClient) -> None:
    response = client.get("/app/message-bus/static/messagebus.js")
    assert response.data == SCRIPT
    assert response.headers["Cache-Control"] == "public, max-age=3600"
    again = client.get("/app/message-bus/static/messagebus.js", headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == response.headers["ETag"]


def test_a_version_of_another_deployment_is_answered_but_not_to_be_kept(client: FlaskClient) -> None:
    response = client.get("/app/message-bus/static/0123456789abcdef/messagebus.js")
    assert response.data == SCRIPT
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br", "br"),
        ("gzip", "gzip"),
        ("br;q=0.1, gzip;q=0.9", "gzip"),
        ("br;q=0, gzip;q=0", None),
        ("zstd", None),
        ("", None),
    ],
)
def test_it_is_compressed_as_the_browser_asks(client: FlaskClient, accepted: str, coding: str | None) -> None:
    response = client.get(versioned(client), headers={"Accept-Encoding": accepted})
    assert response.headers.get("Content-Encoding") == coding
    assert response.headers["Vary"] == "Accept-Encoding"
    unpack = {"br": brotli.decompress, "gzip": gzip.decompress, None: bytes}[coding]
    assert unpack(response.data) == SCRIPT
    assert int(response.headers["Content-Length"]) == len(response.data)
    if coding is not None:
        assert len(response.data) < len(SCRIPT) / 2


def test_each_coding_has_an_etag_of_its_own(client: FlaskClient) -> None:
    tags = {
        client.get(versioned(client), headers={"Accept-Encoding": coding}).headers["ETag"]
        for coding in ("br", "gzip", "identity")
    }
    assert len(tags) == 3


def test_without_the_brotli_library_gzip_is_left(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_files, "brotli", None)
    static_files._read.cache_clear()
    try:
        response = client.get(versioned(client), headers={"Accept-Encoding": "gzip, br"})
        assert response.headers["Content-Encoding"] == "gzip"
    finally:
        static_files._read.cache_clear()


def test_head_tells_the_length_and_sends_nothing(client: FlaskClient) -> None:
    response = client.head(versioned(client), headers={"Accept-Encoding": "gzip"})
    assert (response.status_code, response.data) == (200, b"")
    assert int(response.headers["Content-Length"]) == len(gzip.compress(SCRIPT, 9, mtime=0))


@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir() if path.is_file()))
def test_every_built_file_is_served_as_what_it_is(client: FlaskClient, name: str) -> None:
    response = client.get(versioned(client).replace("messagebus.js", name))
    assert response.data == (FILES / name).read_bytes()
    kind = {"js": "text/javascript", "mjs": "text/javascript", "cjs": "text/javascript", "map": "application/json"}
    assert response.mimetype == kind.get(name.rpartition(".")[2], "text/plain")


@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "",
        "src/bus.js",
        "0123456789abcdef/",
        "0123456789abcdef/src/bus.js",
        "../../setup.cfg",
        "x/../messagebus.js",
        "%2e%2e/messagebus.js",
        ".hidden",
        "messagebus.js/",
        "x/y/messagebus.js",
        "messagebus.js%00",
    ],
)
def test_nothing_else_is(client: FlaskClient, path: str) -> None:
    assert client.get(f"/app/message-bus/static/{path}").status_code in (301, 308, 404)


def test_a_version_changes_with_any_of_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(static_files, "FOLDER", tmp_path)
    versions = []
    for text in ("one", "two"):
        (tmp_path / "messagebus.js").write_text(text)
        static_files._directory.cache_clear()
        versions.append(static_files.version())
    static_files._directory.cache_clear()
    assert versions[0] != versions[1]
