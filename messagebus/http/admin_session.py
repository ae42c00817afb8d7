"""Who has signed in to the admin page: a cookie, which holds no key and needs no memory of any worker.

It names the session and says when that ends, and is signed with the key that was shown (HMAC-SHA256). So every worker
can check it, and it ends with its key. Which sessions were signed out, the workers tell each other.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from werkzeug.http import dump_cookie
from werkzeug.wrappers import Request

from ..admin.feed import Session
from ..options import Options

COOKIE = "messagebus_admin"
LASTS_SECONDS = 8 * 3600
MAX_LENGTH = 200
"""Characters of a cookie that is looked at."""


def find_admin_key(shown: str, options: Options) -> str | None:
    """The one of ``admin_keys`` that is shown. All are compared, whichever fits."""
    token, found = shown.encode(errors="replace"), None
    for key in options.admin_keys:
        if hmac.compare_digest(key.encode(), token):
            found = key
    return found


def find_session(request: Request, options: Options) -> Session | None:
    """The session that the request's cookie is of, if that was signed with one of the keys that count now, and has not
    ended by its time."""
    told, _, signature = request.cookies.get(COOKIE, "")[:MAX_LENGTH].rpartition(".")
    shown = signature.encode(errors="replace")
    fits = [hmac.compare_digest(_sign(key, told).encode(), shown) for key in options.admin_keys]
    until, _, name = told.partition(".")
    if True not in fits or time.time() >= int(until):  # it is a number: we have signed it
        return None
    return Session(name, int(until))


def sign_in(request: Request, key: str) -> str:
    """The ``Set-Cookie`` for who has shown ``key``."""
    told = f"{int(time.time()) + LASTS_SECONDS}.{secrets.token_hex(16)}"
    return _cookie(request, f"{told}.{_sign(key, told)}", LASTS_SECONDS)


def sign_out(request: Request) -> str:
    """The ``Set-Cookie`` that ends it in this browser."""
    return _cookie(request, "", 0)


def _cookie(request: Request, value: str, seconds: int) -> str:
    # Not for the admin page alone: below it are the places that the page asks.
    path = request.root_path + request.path.rpartition("/")[0]
    # Behind a proxy that ends TLS the app may not know that the page is of https. Its browser says so.
    secure = request.is_secure or request.headers.get("Origin", "").startswith("https://")
    return dump_cookie(COOKIE, value, max_age=seconds, path=path, secure=secure, httponly=True, samesite="Strict")


def _sign(key: str, told: str) -> str:
    return hmac.new(key.encode(), f"messagebus admin until {told}".encode(errors="replace"), hashlib.sha256).hexdigest()
