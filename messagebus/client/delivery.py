"""Calls the program's functions with what the server has sent, in order."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .channels import Channels, Delivery
from .connector import Counters
from .types import Gap, OnGap, OnRefused, Refusal

logger = logging.getLogger("messagebus.client")


@dataclass(frozen=True, slots=True)
class Hooks:
    """Functions of the program; each is looked up when it is called."""

    on_gap: Callable[[], OnGap | None]
    on_refused: Callable[[], OnRefused | None]
    call: Callable[[Callable[[Any], object], Any], Awaitable[None]]
    """Calls one of them, or a callback, with what it is told."""


class Deliverer:
    """Calls callbacks, and moves positions behind them. For one thread, or one loop."""

    def __init__(self, channels: Channels, counters: Counters, hooks: Hooks) -> None:
        self._channels = channels
        self._counters = counters
        self._hooks = hooks

    async def deliver(self, deliveries: list[Delivery]) -> None:
        """Functions that fail are logged, and the next one is called."""
        for channel, value in deliveries:
            if isinstance(value, Gap):
                await self._guard(self._hooks.on_gap(), value, "on_gap")
            elif isinstance(value, Refusal):
                logger.warning("the server refused %s: %s", value.channel, value.message)
                await self._guard(self._hooks.on_refused(), value, "on_refused")
            else:
                self._counters.messages += 1
                message_id = channel.id_of(value)
                for follower in channel.followers:
                    # One that came before may have removed it.
                    if (value.transient or follower.seen < message_id) and follower in channel.followers:
                        await self._guard(follower.callback, value, f"a callback of {value.channel}")
                # Only now: what is given back as a position has been dealt with.
                if not value.transient:
                    self._channels.move(channel, message_id)

    async def _guard(self, function: Callable[[Any], object] | None, value: Any, what: str) -> None:
        try:
            if function is not None:
                await self._hooks.call(function, value)
        except Exception:
            logger.exception("%s failed", what)
