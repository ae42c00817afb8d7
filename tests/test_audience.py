"""How many listen to a channel, over all workers."""

from __future__ import annotations

import contextlib
from pathlib import Path

from messagebus import Bus
from messagebus.hub.audience import Audience
from messagebus.names import MAX_CHANNEL_LENGTH

from .eventually import eventually


def test_a_page_of_the_longest_names_is_asked_for(tmp_path: Path) -> None:
    names = [f"/{number:04}{'🎈' * MAX_CHANNEL_LENGTH}"[:MAX_CHANNEL_LENGTH] for number in range(1000)]
    url = f"sqlite:///{tmp_path}/bus.db"
    with contextlib.closing(Bus(url=url)) as one, contextlib.closing(Bus(url=url)) as other:
        one.start()
        other.start()
        eventually(lambda: len(one._running_node().workers.reports()) == 2)
        assert one._running_node().audiences.of(names) == [Audience(0, None)] * len(names)
