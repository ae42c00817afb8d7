"""What every work is given: how much to do, the Redis of the run, and servers that end with it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from .contenders import Contender, Entry, FlaskSocketIO, MessageBus, Nchan, SocketIO
from .redis_server import RedisServer


@dataclass
class Context:
    redis: RedisServer
    quick: bool = False
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def runs(self) -> int:
        return 1 if self.quick else 3

    def some(self, count: int) -> int:
        """So many; in a quick run a tenth of it."""
        return max(10, count // 10) if self.quick else count

    def channel(self) -> str:
        """A name that was not used before."""
        return f"/bench-{next(self._numbers)}"

    def say(self, text: str) -> None:
        print(f"  {text}", flush=True)

    @contextlib.contextmanager
    def all_entries(self) -> Iterator[list[Entry]]:
        """Every contender on every transport that delivers at once."""
        with self.started(
            Nchan(), SocketIO(self.redis), FlaskSocketIO(self.redis), MessageBus(), MessageBus(self.redis)
        ) as entries:
            yield [entry for entry in entries if entry.transport != "long-polling"]

    @contextlib.contextmanager
    def started(self, *contenders: Contender) -> Iterator[list[Entry]]:
        """Rows of these; they are stopped at the end."""
        try:
            yield [Entry(contender, transport) for contender in contenders for transport in contender.wires]
        finally:
            for contender in contenders:
                contender.stop()
