"""What the Python client says of an answer that is not the one it asked for."""

from __future__ import annotations

import h11

from messagebus.client.http11 import SHOWN, failure_of

PAGE = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\x1b[31m\x00" + b"<hr>\r\n" * 1000


def test_a_proxys_page_is_told_on_one_line_and_without_its_end() -> None:
    failure = failure_of(h11.Response(status_code=502, headers=[]), PAGE)
    assert failure.status == 502
    assert failure.message.startswith("502 <html> <head><title>502 Bad Gateway</title></head> <body> [31m <hr>")
    assert failure.message.isprintable()
    assert len(failure.message) <= len("502 ") + SHOWN


def test_an_error_of_the_bus_is_told_with_its_code() -> None:
    body = b'{"error": {"code": "too_large", "message": "body: 9 bytes are the most"}}'
    failure = failure_of(h11.Response(status_code=413, headers=[("Retry-After", "5")]), body)
    assert (failure.code, failure.retry_after) == ("too_large", "5")
    assert failure.message == f"413 {body.decode()}"
