"""Coroutines in tests. While a browser is up, the main thread counts as running Playwright's loop, so that another one
can run in another thread alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def in_a_thread(call: Callable[[], T]) -> T:
    """Call it in a thread of its own, where it may run a loop."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call).result()


def run(main: Awaitable[Any], timeout: float = 90.0) -> None:
    """Run a coroutine in a loop of its own, for so many seconds at most."""

    async def bounded() -> None:
        await asyncio.wait_for(main, timeout)

    in_a_thread(lambda: asyncio.run(bounded()))
