"""The files of the JavaScript client: with a version in the URL for ever, without one for an hour, and compressed.

They are read and compressed once per process, on first use.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from werkzeug.wrappers import Request, Response

from .refusals import HTTPRefusal

try:
    import brotli
except ImportError:
    brotli = None

FOLDER = Path(__file__).parents[1] / "static" / "js"
FOR_EVER = "public, max-age=31536000, immutable"
FOR_AN_HOUR = "public, max-age=3600"
# During a deployment a page of the new version may reach a worker of the old one, whose file must not be cached.
NOT_TO_BE_KEPT = "no-cache"
# Explicit: systems differ in what they know, and browsers refuse a module of another type.
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".cjs": "text/javascript", ".map": "application/json"}

_VERSION = re.compile("[0-9a-f]{16}")


class StaticFile(NamedTuple):
    """A file, ready to be sent."""

    content_type: str
    encodings: Mapping[str, bytes]
    """Content coding (RFC 9110, section 8.4.1) -> the bytes, the preferred first; ``identity`` is always there."""
    etag: str


def version() -> str:
    """Changes with any of the files; part of the URLs that may be cached for ever."""
    return _directory()[0]


def respond(request: Request, path: str) -> Response:
    """The answer to a GET or HEAD of ``path``: a name, or a version and a name.

    Raises:
        HTTPRefusal: The file does not exist.
    """
    first, slash, name = path.partition("/")
    current, names = _directory()
    if not slash:
        name, kept = first, FOR_AN_HOUR
    else:
        kept = FOR_EVER if first == current else NOT_TO_BE_KEPT
    if name not in names or (slash and not _VERSION.fullmatch(first)):
        raise HTTPRefusal(HTTPStatus.NOT_FOUND, "not_found", f"there is no file {path[:100]}")
    file = _read(name)
    coding = request.accept_encodings.best_match(file.encodings, default="identity")
    response = Response(file.encodings[coding], content_type=file.content_type)
    response.headers["Cache-Control"] = kept
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if coding != "identity":
        response.headers["Content-Encoding"] = coding
    response.set_etag(f"{file.etag}-{coding}")
    return response.make_conditional(request.environ)


@cache
def _directory() -> tuple[str, frozenset[str]]:
    files = sorted(path for path in FOLDER.iterdir() if path.is_file() and not path.name.startswith("."))
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16], frozenset(path.name for path in files)


@cache
def _read(name: str) -> StaticFile:
    path = FOLDER / name
    plain = path.read_bytes()
    encodings = {"gzip": gzip.compress(plain, 9, mtime=0), "identity": plain}
    if brotli is not None:
        encodings = {"br": brotli.compress(plain, mode=brotli.MODE_TEXT), **encodings}
    content_type = TYPES.get(path.suffix, "text/plain")
    return StaticFile(f"{content_type}; charset=utf-8", encodings, hashlib.sha256(plain).hexdigest()[:20])
