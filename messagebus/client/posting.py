"""A publish by a request of its own, where no WebSocket is open; and what it says on either way."""

from __future__ import annotations

import json
import secrets
from typing import Any

import h11

from ..message import encode_data
from ..names import check_channel
from .connector import OWN_HEADERS, Endpoint
from .http11 import HttpConnection
from .types import PublishError
from .waiting import Waiter

PAUSE = 0.5
"""Seconds between two attempts."""
MAX_ANSWER = 65_536
"""Bytes of an answer that are read."""


def publish_value(channel: str, data: Any, transient: bool, key: str | None) -> dict[str, Any]:
    """What the command ``publish`` says. A message that is kept has a key of ours, by which the server knows it again.

    Raises:
        InvalidChannel, InvalidData: It is not a channel, or data that JSON cannot express.
        ValueError: There is a key for a message that is kept.
    """
    check_channel(channel)
    encode_data(data, 1 << 62)
    if not transient:
        if key is not None:
            raise ValueError("key: only a transient message has one")
        return {"channel": channel, "data": data, "key": secrets.token_hex(16)}
    value = {"channel": channel, "data": data, "transient": True}
    return value if key is None else {**value, "key": key}


def message_id_of(answer: object) -> int | None:
    return answer.get("message_id") if isinstance(answer, dict) else None


def may_have_been_lost(error: PublishError, value: dict[str, Any]) -> bool:
    """Whether a publish that failed so may be sent again: it did not go out, or no answer came and it is known by its
    key."""
    return error.code == "unsupported" or (error.code == "disconnected" and "transient" not in value)


async def publish_by_request(endpoint: Endpoint, waiter: Waiter, value: dict[str, Any], deadline: float) -> Any:
    """Publish, again and again where no answer comes or the store is away. Returns the server's answer.

    Raises:
        PublishError: Nothing else came by the deadline, or it is a refusal.
    """
    while True:
        try:
            return await _post(endpoint, waiter, value, deadline)
        except PublishError as error:
            again_at = waiter.clock() + PAUSE
            if error.code not in ("disconnected", "unavailable") or "transient" in value or again_at > deadline:
                raise
            while waiter.clock() < again_at:
                await waiter.wait(again_at)


async def _post(endpoint: Endpoint, waiter: Waiter, value: dict[str, Any], deadline: float) -> Any:
    connection = HttpConnection(waiter, endpoint.address, endpoint.context)
    headers = {**OWN_HEADERS, **await endpoint.headers(), "Content-Type": "application/json"}
    body = b""
    try:
        target = f"{endpoint.base}publish"
        await connection.request("POST", target, headers, json.dumps(value).encode(), deadline)
        while not isinstance(event := await connection.read(deadline), h11.EndOfMessage):
            if event is None and waiter.clock() >= deadline:
                raise TimeoutError
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            if len(body) > MAX_ANSWER:
                raise ValueError("the answer is too long")
        answer = json.loads(body)
        error = answer.get("error")
        if error is None:
            return answer["ok"]
        raise PublishError(str(error["code"]), str(error["message"]), error.get("field"), error.get("retry_after"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, h11.ProtocolError) as error:
        # A proxy's page as well: whether the server has had the message is not known.
        code = "timeout" if waiter.clock() >= deadline else "disconnected"
        raise PublishError(code, f"no answer came; it may or may not have been published: {error}") from None
    finally:
        connection.close()
