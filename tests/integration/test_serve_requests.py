"""``messagebus serve`` reads requests as gevent's own server does, and refuses what has two meanings."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ..apps.echo import LARGE, PARTS
from ..raw_http import AFTERWARDS, Answered, exchange, head
from ..servers import Server

APP = "tests.apps.echo:app"
THEIR_OWN = {"SERVER_PORT", "REMOTE_PORT", "SERVER_NAME", "SERVER_SOFTWARE"}
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKS = b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n"


@pytest.fixture(scope="module")
def ours() -> Iterator[Server]:
    with contextlib.closing(Server("serve", APP)) as server:
        server.start()
        yield server
        assert "Traceback" not in server.output(), server.output()[-5000:]


@pytest.fixture(scope="module")
def gevents() -> Iterator[Server]:
    with contextlib.closing(Server("pywsgi", APP)) as server:
        server.start()
        yield server


def comparable(answered: Answered) -> tuple[int, list[tuple[str, str]], Any]:
    # That the connection ends, ours says where gevent only closes it.
    headers = [header for header in answered.headers if header[0] not in ("content-length", "connection")]
    if answered.status in (400, 414):
        return answered.status, [], b""  # what the server itself says
    if answered.header("content-type") != "application/json" or not answered.body:
        return answered.status, headers, answered.body
    said = answered.json
    said["environ"] = {name: value for name, value in said["environ"].items() if name not in THEIR_OWN}
    del said["input"]
    return answered.status, headers, said


ALIKE = {
    "plain": head("GET /a HTTP/1.1", "Host: x", "User-Agent: y", "Accept: */*"),
    "no fields at all": head("GET /a HTTP/1.1"),
    "percent-encoded path": head("GET /%C3%A9/%2F%zz%?x HTTP/1.1", "Host: x"),
    "query": head("GET /a?b=%20c&d=%C3%A9&e?f HTTP/1.1", "Host: x"),
    "fragment": head("GET /a#b?c HTTP/1.1", "Host: x"),
    "repeated fields": head("GET /a HTTP/1.1", "X-A: 1", "x-a: 2", "Accept: a", "Accept: b"),
    "repeated cookies": head("GET /a HTTP/1.1", "Cookie: a=1", "Cookie: b=2; c=3", "X-Cookie: d", "X-Cookie: e"),
    "repeated content type": head("POST /a HTTP/1.1", "Content-Type: a/b", "Content-Type: c/d", "Content-Length: 0"),
    "underscores": head("GET /a HTTP/1.1", "X_A: 1", "X-A: 2", "X-Forwarded_For: 3", "Content_Length: 4"),
    "blanks around values": head("GET /a HTTP/1.1", "A:", "B:  ", "C: \t c\tc \t", "D:d"),
    "UTF-8 value": head("GET /a HTTP/1.1", "X-A: \xc3\xa9\xff"),
    "body": head("POST /a HTTP/1.1", "Content-Length: 5", "Content-Type: text/plain", body=b"a\0\r\n\xff"),
    "zeros before the length": head("POST /a HTTP/1.1", "Content-Length: 005", body=b"abcde"),
    "empty body": head("POST /a HTTP/1.1", "Content-Length: 0"),
    "body of a GET": head("GET /a HTTP/1.1", "Content-Length: 5", body=b"abcde"),
    "body that nobody reads": head("POST /unread HTTP/1.1", "Content-Length: 5", body=b"abcde"),
    "chunks": head("POST /a HTTP/1.1", "Transfer-Encoding: Chunked", body=CHUNKS),
    "chunks that nobody reads": head("POST /unread HTTP/1.1", "Transfer-Encoding: chunked", body=CHUNKS),
    "expects to go on": head("POST /a HTTP/1.1", "Content-Length: 5", "Expect: 100-continue", body=b"abcde"),
    "expects and is not read": head("POST /unread HTTP/1.1", "Content-Length: 2", "Expect: 100-continue", body=b"ab"),
    "HTTP/1.0": head("GET /a HTTP/1.0", "Host: x"),
    "HTTP/1.0 kept": head("GET /a HTTP/1.0", "Connection: keep-alive"),
    "HTTP/1.0 kept, with a body": head("POST /a HTTP/1.0", "Connection: Keep-Alive", "Content-Length: 2", body=b"ab"),
    "HTTP/1.1 kept": head("GET /a HTTP/1.1", "Connection: keep-alive"),
    "HTTP/1.1 closed": head("GET /a HTTP/1.1", "Connection: close"),
    "HTTP/1.1 closed, with a body": head("POST /a HTTP/1.1", "Connection: Close", "Content-Length: 2", body=b"ab"),
    "two at once": head("GET /a HTTP/1.1") + head("GET /b HTTP/1.1"),
    "two with bodies": head("POST /a HTTP/1.1", "Content-Length: 2", body=b"ab") * 2,
    "two with chunks": head("POST /a HTTP/1.1", "Transfer-Encoding: chunked", body=CHUNKS) * 2,
    "one closed before the next": head("GET /a HTTP/1.1", "Connection: close") + head("GET /b HTTP/1.1"),
    "head of 9 KB": head("GET /a HTTP/1.1", *[f"X-{number}: {'y' * 1000}" for number in range(9)]),
    "field of 20 KB": head("GET /a HTTP/1.1", f"Cookie: {'y' * 20_000}", "X: 1"),
    "longest request line": head(f"GET /{'a' * 8174} HTTP/1.1", "Host: x"),
    "request line too long": head(f"GET /{'a' * 8192} HTTP/1.1", "Host: x"),
    "target with two slashes": head("GET //other/a HTTP/1.1", "Host: x"),
    "asterisk": head("OPTIONS * HTTP/1.1", "Host: x"),
    "upgrade among others": head("GET /a HTTP/1.1", "Connection: keep-alive, Upgrade", "Upgrade: h2c"),
    "method of WebDAV": head("PROPFIND /a HTTP/1.1", "Host: x"),
    "method not allowed": head("DELETE /hello HTTP/1.1", "Host: x"),
    "stream": head("GET /stream HTTP/1.1", "Host: x"),
    "large": head("GET /large HTTP/1.1", "Host: x"),
    "204": head("GET /empty/204 HTTP/1.1", "Host: x"),
    "304": head("GET /empty/304 HTTP/1.1", "Host: x"),
    "the app closes": head("GET /close HTTP/1.1", "Host: x"),
    # refused by both
    "negative length": head("POST /a HTTP/1.1", "Content-Length: -5", body=b"abcde"),
    "length in hex": head("POST /a HTTP/1.1", "Content-Length: 0x5", body=b"abcde"),
    "length without a number": head("POST /a HTTP/1.1", "Content-Length:", body=b"abcde"),
    "length as a list": head("POST /a HTTP/1.1", "Content-Length: 5, 5", body=b"abcde"),
    "blank in the target": head("GET /a b HTTP/1.1", "Host: x"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": head("GET /a HTTP/x.y", "Host: x"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_request_is_read_and_answered_as_by_gevent(ours: Server, gevents: Server, name: str) -> None:
    expected, answered = (
        [comparable(each) for each in exchange(server, ALIKE[name] + AFTERWARDS)] for server in (gevents, ours)
    )
    assert answered == expected
    assert answered, "something is answered to everything"


@pytest.mark.parametrize("path", ["/a", "/empty/204", "/hello", "/large"])
def test_head_is_answered_as_by_gevent(ours: Server, gevents: Server, path: str) -> None:
    request = head(f"HEAD {path} HTTP/1.1", "Host: x") + AFTERWARDS
    first, second = (exchange(server, request, to_head=True) for server in (gevents, ours))
    assert [each.status for each in first] == [each.status for each in second]
    assert [dict(each.headers).keys() for each in first] == [
        dict(each.headers).keys() - {"connection"} for each in second
    ]


def test_no_end_of_a_body_is_sent_in_answer_to_head(ours: Server) -> None:
    """gevent sends the last chunk, which the client takes for the next response."""
    streamed, last = exchange(ours, head("HEAD /stream HTTP/1.1") + AFTERWARDS, to_head=True)
    assert streamed.header("transfer-encoding") == "chunked"
    assert last.body == b"hello"


@pytest.mark.parametrize("name", ["plain", "body", "chunks", "HTTP/1.0 kept", "two at once", "repeated fields"])
def test_a_request_that_comes_byte_by_byte_is_the_same_request(ours: Server, name: str) -> None:
    request = ALIKE[name] + AFTERWARDS
    whole = exchange(ours, request)
    pieces = exchange(ours, *[request[index : index + 1] for index in range(len(request))])
    assert [comparable(each) for each in pieces] == [comparable(each) for each in whole]


def test_what_is_written_is_what_the_app_gave(ours: Server) -> None:
    stream, large, last = exchange(ours, head("GET /stream HTTP/1.1"), head("GET /large HTTP/1.1"), AFTERWARDS)
    assert stream.body == b"".join(PARTS)
    assert large.body == LARGE
    assert last.body == b"hello"


REFUSED = {
    # A proxy that goes by the one, and a server that goes by the other, see different requests.
    "length and chunks": head(
        "POST /a HTTP/1.1", f"Content-Length: {5 + len(SMUGGLED)}", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "chunks and length": head("POST /a HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n"),
    "host with a blank": head("GET /a HTTP/1.1", "Host: a b"),
    "host with a path": head("GET /a HTTP/1.1", "Host: a/b"),
    "host with a user": head("GET /a HTTP/1.1", "Host: a@b"),
    "two hosts in one": head("GET /a HTTP/1.1", "Host: a, b"),
    "two hosts": head("GET /a HTTP/1.1", "Host: x", "Host: y"),
    "two lengths": head("POST /a HTTP/1.1", "Content-Length: 0", f"Content-Length: {len(SMUGGLED)}"),
    "the same length twice": head("POST /a HTTP/1.1", "Content-Length: 0", "Content-Length: 0"),
    # gevent would take it for a request without a body.
    "unknown encoding": head("POST /a HTTP/1.1", "Transfer-Encoding: identity"),
    "two encodings": head("POST /a HTTP/1.1", "Transfer-Encoding: gzip, chunked"),
    "chunks twice": head("POST /a HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "encoding behind a control character": head("POST /a HTTP/1.1", "Transfer-Encoding: \x0bchunked"),
    "blank before the colon": head("POST /a HTTP/1.1", "Transfer-Encoding : chunked"),
    "folded encoding": head("POST /a HTTP/1.1", "Transfer-Encoding:", " chunked", body=b"0\r\n\r\n"),
    # Python's int() reads these, other programs do not.
    "length with a sign": head("POST /a HTTP/1.1", "Content-Length: +0"),
    "length with an underscore": head("POST /a HTTP/1.1", "Content-Length: 0_0"),
    # To gevent the app's next step: a failure to allocate so much.
    "huge length": head("POST /a HTTP/1.1", "Content-Length: 9999999999999999999"),
    "length beyond 64 bits": head("POST /a HTTP/1.1", "Content-Length: 99999999999999999999999"),
    # RFC 9112 leaves these to the server: refusing leaves no doubt about where a line ends.
    "lone LF": b"GET /a HTTP/1.1\nHost: x\n\n",
    "lone LF among others": b"GET /a HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "lone LF at the end": b"GET /a HTTP/1.1\r\nHost: x\r\n\n",
    "lone CR": b"POST /a HTTP/1.1\r\nX: a\rContent-Length: 5\r\n\r\n",
    "folded field": head("GET /a HTTP/1.1", "X-A: 1", " 2"),
    "folded first field": head("GET /a HTTP/1.1", " X-A: 1"),
    # gevent stops reading fields here, and does not see the length.
    "no colon": head("POST /a HTTP/1.1", "Broken", f"Content-Length: {len(SMUGGLED)}"),
    "empty name": head("GET /a HTTP/1.1", ": x"),
    "blank in a name": head("GET /a HTTP/1.1", "X A: x"),
    "NUL": head("GET /a HTTP/1.1", "X-A: a\0b"),
    "line of a mailbox": head("GET /a HTTP/1.1", "From x"),
    # Methods that llhttp does not know; to CONNECT there is nobody who would take what follows.
    "method of one's own": head("BREW /a HTTP/1.1", "Host: x"),
    "CONNECT": head("CONNECT other:443 HTTP/1.1", "Host: other:443"),
    "target that is no path": head("GET a HTTP/1.1", "Host: x"),
    "target with another scheme": head("GET ftp://x/a HTTP/1.1", "Host: x"),
    "HTTP/0.9": b"GET /a\r\n\r\n",
    "a tab in the first line": head("GET\t/a\tHTTP/1.1", "Host: x"),
    "lower-case method": head("get /a HTTP/1.1", "Host: x"),
    "chunks of HTTP/1.0": head("POST /a HTTP/1.0", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "half a version": head("GET /a HTTP/1", "Host: x"),
    "a version that is not": head("GET /a HTTP/1.2", "Host: x"),
}


@pytest.mark.parametrize("split", [False, True], ids=["", "in two packets"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_head_that_has_two_meanings_is_refused_and_nothing_behind_it_is_answered(
    ours: Server, name: str, split: bool
) -> None:
    request = REFUSED[name] + SMUGGLED + AFTERWARDS
    packets = [request[:20], request[20:]] if split else [request]
    assert [answered.status for answered in exchange(ours, *packets)] == [400]


TOO_LARGE = {
    "field of 70 KB": (head("GET /a HTTP/1.1", f"X: {'y' * 70_000}"), 431),
    "too many fields": (head("GET /a HTTP/1.1", *[f"X-{number}: y" for number in range(120)]), 431),
    "target of 9 KB": (head(f"GET /{'a' * 9000} HTTP/1.1"), 414),
    "head without an end": (b"GET /a HTTP/1.1\r\n" + b"X: y\r\n" * 50_000, 431),
    "body": (head("POST /a HTTP/1.1", "Content-Length: 40000000", body=b"x" * 100_000), 413),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_is_larger_than_it_may_be_is_refused_and_the_connection_closed(ours: Server, name: str) -> None:
    request, status = TOO_LARGE[name]
    (answered,) = exchange(ours, request + SMUGGLED + AFTERWARDS)
    assert answered.status == status
    assert answered.header("connection") == "close"
    assert b"at most" in answered.body


CHUNKED = head("POST /unread HTTP/1.1", "Transfer-Encoding: chunked")
BROKEN_CHUNKS = {
    "no number": b"zz\r\n",
    "no size": b"\r\n",
    "negative": b"-1\r\n",
    "lone LF behind the size": b"1\nx\r\n0\r\n\r\n",
    "lone LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "lone LF behind the data": b"1\r\nx\n0\r\n\r\n",
    "more than announced": b"3\r\nabcdef\r\n0\r\n\r\n",
    "trailer with a blank": b"0\r\nBad Trailer: x\r\n\r\n",
    "trailer without a colon": b"0\r\nBad\r\n\r\n",
    "size beyond 64 bits": b"f" * 17 + b"\r\n",
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_broken_chunks_are_answered_with_400_and_nothing_behind_them(ours: Server, name: str) -> None:
    answered = exchange(ours, CHUNKED + BROKEN_CHUNKS[name] + SMUGGLED + AFTERWARDS)
    assert [each.status for each in answered] == [400]


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_chunks_that_break_when_the_app_has_begun_to_read_end_the_connection(ours: Server, name: str) -> None:
    begun = b"20000\r\n%b\r\n" % bytes(0x20000)  # more than the server reads ahead
    for path, body in (("/unread", b"unread"), ("/tried", b"broken")):
        lines = (f"POST {path} HTTP/1.1", "Transfer-Encoding: chunked")
        answered = exchange(ours, head(*lines) + begun + BROKEN_CHUNKS[name] + SMUGGLED + AFTERWARDS)
        assert [each.body for each in answered] == [body]


@pytest.mark.parametrize(
    "request_",
    [
        head("POST /a HTTP/1.1", "Content-Length: 10", body=b"abc"),
        head("POST /a HTTP/1.1", "Transfer-Encoding: chunked", body=b"5\r\nab"),
        head("POST /a HTTP/1.1", "Content-Length: 200000", body=bytes(100_000)),
    ],
    ids=["length", "chunks", "while the app reads"],
)
def test_a_body_that_ends_early_is_answered_with_400_to_a_client_that_still_listens(
    ours: Server, request_: bytes
) -> None:
    with ours.connect() as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answered = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert answered.count(b"HTTP/1.1") == 1


def test_bytes_of_a_target_that_should_have_been_encoded_are_understood(ours: Server) -> None:
    for request in (
        head("GET /\xc3\xa9?d=\xe7 HTTP/1.1", "Host: \xff", "Connection: close"),
        head("GET /%C3%A9?d=%E7 HTTP/1.1", "Host: \xff", "Connection: close"),
    ):
        (answered,) = exchange(ours, request[:5], request[5:6], request[6:])
        environ = answered.json["environ"]
        assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/\xc3\xa9", "d=%E7")
        assert environ["HTTP_HOST"] == "\xff"


def test_a_target_with_scheme_and_host_is_the_path_of_that_host(ours: Server) -> None:
    for target, host, path in (
        ("http://other/a?b=c", "other", "/a"),
        ("HTTP://other:80", "other:80", "/"),
        ("http://other?b", "other", "/"),
    ):
        (answered,) = exchange(ours, head(f"GET {target} HTTP/1.1", "Host: x", "Connection: close"))
        environ = answered.json["environ"]
        assert (environ["HTTP_HOST"], environ["PATH_INFO"]) == (host, path)


def test_an_answer_without_a_length_to_http_1_0_ends_with_its_connection(ours: Server) -> None:
    request = head("GET /stream HTTP/1.0", "Connection: keep-alive")
    (answered,) = exchange(ours, request + AFTERWARDS)
    assert answered.body == b"".join(PARTS)
    assert answered.header("connection") == "close"


OFFERS = {
    "an upgrade to nothing": ("Connection: Upgrade",),  # what a widespread configuration of nginx sends with everything
    "HTTP/2": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
    "something unknown": ("Connection: upgrade", "Upgrade: irc"),
}


@pytest.mark.parametrize("name", OFFERS)
def test_a_request_that_offers_another_protocol_keeps_its_body_and_the_next_one_its_beginning(
    ours: Server, name: str
) -> None:
    bodies = (
        (f"Content-Length: {len(SMUGGLED)}", SMUGGLED),
        ("Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    )
    for framing, body in bodies:
        request = head("POST /a HTTP/1.1", "Host: x", framing, *OFFERS[name], body=body)
        for packets in ((request + AFTERWARDS,), (request[:-5], request[-5:] + AFTERWARDS)):
            first, last = exchange(ours, *packets)
            assert first.json["body"] == SMUGGLED.decode()
            assert last.body == b"hello"
    first, last = exchange(ours, head("GET /a HTTP/1.1", "Host: x", *OFFERS[name]) + AFTERWARDS)
    assert (first.status, last.body) == (200, b"hello")
    poll = head(
        *("POST /message-bus/x/poll?dlp=t HTTP/1.1", "Host: x", "Content-Length: 5", *OFFERS[name]),
        "Content-Type: application/x-www-form-urlencoded",
        body=b"/a=-1",
    )
    first, last = exchange(ours, poll + AFTERWARDS)
    assert first.json[0]["channel"] == "/__status"
    assert last.body == b"hello"


def test_ours_is_more_exact_where_gevent_reads_an_e_mail(ours: Server, gevents: Server) -> None:
    # The last byte of "à" in UTF-8 is a blank to Python's str.strip().
    request = head("GET /a HTTP/1.1", "X-A: \xc3\xa0", "Connection: close")
    assert exchange(ours, request)[0].json["environ"]["HTTP_X_A"] == "\xc3\xa0"
    assert exchange(gevents, request)[0].json["environ"]["HTTP_X_A"] == "\xc3"
    # One wish of several is one as well (RFC 9112, section 9.6).
    request = head("GET /a HTTP/1.1", "Connection: TE, close")
    assert len(exchange(ours, request + AFTERWARDS)) == 1
    assert len(exchange(gevents, request + AFTERWARDS)) == 2
    # Empty lines before a request are to be passed over (section 2.2).
    request = b"\r\n\r\n\r\n" + head("GET /a HTTP/1.1")
    assert [each.status for each in exchange(ours, request + AFTERWARDS)] == [200, 200]
    assert [each.status for each in exchange(gevents, request + AFTERWARDS)] == [400]
    # A HEAD may have a body, which is read and left alone.
    request = head("HEAD /unread HTTP/1.1", "Content-Length: 2", body=b"ab")
    assert [each.status for each in exchange(ours, request + AFTERWARDS, to_head=True)] == [200, 200]
    assert [each.status for each in exchange(gevents, request + AFTERWARDS, to_head=True)] == [400]


def test_a_head_that_is_cut_off_is_not_served(ours: Server) -> None:
    with ours.connect() as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\nAuthor")
        connection.shutdown(1)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_what_is_refused_is_logged_rarely_without_a_traceback_or_bytes_of_the_client() -> None:
    with contextlib.closing(Server("serve", APP)) as server:
        server.start()
        before = len(server.output())
        for _ in range(20):
            exchange(server, b"GET /\x1b[31m\x9b HTTP/1.1\r\nH\x1b: x\r\n\r\n")
        (line,) = server.output()[before:].splitlines()
    assert "WARNING messagebus.serve: a request from 127.0.0.1 was refused: malformed head" in line
    assert line.isprintable()


def test_a_view_that_reads_the_body_does_not_wait_for_one_behind_an_upgrade(ours: Server) -> None:
    request = head("GET /tried HTTP/1.1", "Connection: Upgrade", "Upgrade: irc")
    with ours.connect() as connection:
        connection.sendall(request)
        assert connection.recv(1000).endswith(b"read")
