"""The ways of a deployment, in a process of their own: what the clients do must not slow down what the servers say."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType

from .cutter import Cutter


class Way:
    """One of them; see :class:`Cutter`. Its methods block for a moment."""

    def __init__(self, ask: Callable[[int, str, tuple[object, ...]], int], number: int) -> None:
        self._ask = ask
        self._number = number
        self.port = 0

    def open(self) -> None:
        self.port = self._ask(self._number, "open", ())

    def close(self) -> None:
        self._ask(self._number, "close", ())

    def cut(self) -> None:
        self._ask(self._number, "cut", ())

    def stall(self, stalled: bool = True) -> None:
        self._ask(self._number, "stall", (stalled,))


class Ways:
    """All of them. For one thread at a time."""

    def __enter__(self) -> Ways:
        self._connection, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._count = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join()

    def to(self, upstream: int) -> Way:
        """A new one, which is open."""
        self._count += 1
        way = Way(self._ask, self._count)
        self._ask(self._count, "make", (upstream,))
        way.open()
        return way

    def _ask(self, number: int, verb: str, arguments: tuple[object, ...]) -> int:
        self._connection.send((number, verb, arguments))
        port: int = self._connection.recv()
        return port


def _serve(connection: Connection) -> None:
    asyncio.run(_run(connection))


async def _run(connection: Connection) -> None:
    cutters: dict[int, Cutter] = {}
    while True:
        try:
            number, verb, arguments = await asyncio.to_thread(connection.recv)
        except EOFError:
            return
        if verb == "make":
            cutters[number] = Cutter(*arguments)
        elif verb == "open":
            await cutters[number].open()
        else:
            getattr(cutters[number], verb)(*arguments)
        connection.send(cutters[number].port)
