"""Waiting without guessing how long: ask again until it is true, or fail with what was seen last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout: float = 30.0, interval: float = 0.01, message: str = "") -> T:
    """The condition's first true value; asked every ``interval`` seconds, for ``timeout`` seconds at most.

    An ``AssertionError`` of the condition counts as not yet, and is what the test fails with in the end.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            value = condition()
            if value:
                return value
            failure = AssertionError(f"{message or 'not true'} after {timeout:g} s; the last value was {value!r}")
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure
        time.sleep(interval)
