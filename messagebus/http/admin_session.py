"""Who has signed in to the admin page: a cookie, which holds no key and needs no memory of any worker.

It says when it ends, and is signed with the key that was shown (HMAC-SHA256). So every worker can check it, and it ends
with its key.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from werkzeug.http import dump_cookie
from werkzeug.wrappers import Request

from ..options import Options

COOKIE = "messagebus_admin"
LASTS_SECONDS = 8 * 3600


def find_admin_key(shown: str, options: Options) -> str | None:
    """The one of ``admin_keys`` that is shown. All are compared, whichever fits."""
    token, found = shown.encode(errors="replace"), None
    for key in options.admin_keys:
        if hmac.compare_digest(key.encode(), token):
            found = key
    return found


def is_signed_in(request: Request, options: Options) -> bool:
    """Whether the request's cookie was signed with one of the keys that count now, and has not ended."""
    until, _, signature = request.cookies.get(COOKIE, "").partition(".")
    fits = [hmac.compare_digest(_sign(key, until).encode(), signature.encode()) for key in options.admin_keys]
    return True in fits and until.isascii() and until.isdigit() and time.time() < int(until)


def sign_in(request: Request, key: str) -> str:
    """The ``Set-Cookie`` for who has shown ``key``."""
    until = str(int(time.time()) + LASTS_SECONDS)
    return _cookie(request, f"{until}.{_sign(key, until)}", LASTS_SECONDS)


def sign_out(request: Request) -> str:
    """The ``Set-Cookie`` that ends it in this browser."""
    return _cookie(request, "", 0)


def _cookie(request: Request, value: str, seconds: int) -> str:
    # Not for the admin page alone: below it are the places that the page asks.
    path = request.root_path + request.path.rpartition("/")[0]
    return dump_cookie(
        COOKIE, value, max_age=seconds, path=path, secure=request.is_secure, httponly=True, samesite="Strict"
    )


def _sign(key: str, until: str) -> str:
    return hmac.new(key.encode(), f"messagebus admin until {until}".encode(), hashlib.sha256).hexdigest()
