"""A strict client that reads by itself, and keeps all that it hears."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from .clients import Client, Ended, EventSource, Refused

END = "end"
"""The data of a channel's last message."""


class Reader:
    """A client in a thread of its own, until it has heard the end of each of its channels. It comes back when it is
    ended or refused, and notes that."""

    def __init__(self, kind: type[Client], url: str, channels: Sequence[str], partitions: int = 1) -> None:
        self.client = kind(url, dict.fromkeys(channels, 0), epoch="", timeout=60.0)
        self.client.partitions = partitions
        self.kind = kind
        self.data: dict[str, list[object]] = {channel: [] for channel in channels}
        self.ended: list[int | None] = []
        self.refused: list[int] = []
        self.trouble: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=f"{kind.transport} {channels}")
        self.thread.start()

    def _run(self) -> None:
        try:
            with self.client as client:
                is_connected = False
                while not all(heard[-1:] == [END] for heard in self.data.values()):
                    try:
                        if not is_connected:
                            client.reconnect()
                            is_connected = True
                        client.next_batch()
                    except Ended as ended:
                        self.ended.append(ended.code)
                        is_connected = False
                    except Refused as refused:
                        self.refused.append(refused.status)
                        is_connected = False
                        time.sleep(0.1)
                    received, client.received = client.received, []
                    for message in received:
                        self.data[message["channel"]].append(message["data"])
        except BaseException as error:
            self.trouble = error


class Browser(EventSource):
    """As a browser has it: with the same URL each time, without an epoch, and with the id of the last event."""

    def reconnect(self) -> None:
        positions, self.positions = self.positions, dict.fromkeys(self.positions, 0)
        epoch, self.epoch = self.epoch, None
        super().reconnect()
        self.positions, self.epoch = positions, epoch
