"""Has an app of the tests publish; see ``tests/apps/common.py``."""

from __future__ import annotations

import json
from typing import Any

from .clients import request


def publish(url: str, channel: str, *data: Any, **options: Any) -> list[int]:
    """Messages, one after the other; their ids. ``url``: the server's."""
    body = json.dumps({"channel": channel, "data": data, **options})
    with request(url, "POST", "/publish", body, {"Content-Type": "application/json"}) as response:
        assert response.status == 200, response.read()
        ids: list[int] = json.loads(response.read())["ids"]
        return ids
