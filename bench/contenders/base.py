"""What a contender has to offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from ..processes import Process
from ..publishers import Publisher
from ..wires import Wire


class Server:
    """One on a port, in processes of its own, on the server's core."""

    name: str
    port: int
    process: Process

    def stop(self) -> None:
        self.process.stop()


class Contender(Server, ABC):
    """A server that delivers what is published."""

    wires: Mapping[str, Wire]
    """Transport -> how to subscribe."""

    @abstractmethod
    def publisher(self) -> Publisher:
        """A new one; the caller closes it."""


class Entry(NamedTuple):
    """A contender on one transport: a row of a table."""

    contender: Contender
    transport: str

    @property
    def wire(self) -> Wire:
        return self.contender.wires[self.transport]

    @property
    def name(self) -> str:
        return f"{self.contender.name}, {self.transport}"
