"""Which threads a test has started: others may come and go in the same process, whatever their names."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def started_threads() -> Iterator[list[threading.Thread]]:
    """The threads that begin in this block, in order: those that the calling thread starts, and that they start in
    turn. Afterwards the list no longer grows."""
    caller = threading.current_thread()
    started: list[threading.Thread] = []
    original = threading.Thread.start

    def start(self: threading.Thread, *args: Any, **options: Any) -> None:
        if threading.current_thread() in (caller, *started):
            started.append(self)  # first: it may start others at once
        original(self, *args, **options)

    threading.Thread.start = start  # type: ignore[method-assign]
    try:
        yield started
    finally:
        threading.Thread.start = original  # type: ignore[method-assign]


def alive(threads: list[threading.Thread]) -> list[threading.Thread]:
    """Those that have not ended, in the same order."""
    return [thread for thread in threads if thread.is_alive()]
