"""Publishes for some seconds in each way, and prints messages per second as JSON.

``python -m bench.servers.publishing REDIS_URL SECONDS``
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import redis

import messagebus
from messagebus import Bus

from ..wires import payload

CHANNELS = 10
HUNDRED = 100
ROUNDS = 4
"""Turns that each way gets; they take turns, so that a slow moment meets all of them."""


def main(url: str, seconds: float) -> None:
    client = redis.Redis.from_url(url, protocol=2)
    script = client.register_script((Path(messagebus.__file__).parent / "backends" / "publish.lua").read_text())
    bus, listening = Bus(url=url), Bus(url=url)
    texts = [(f"/publish-{i % CHANNELS}", payload(i)) for i in range(HUNDRED)]

    def bare(count: int) -> None:
        """What the script needs and no more."""
        keys = ["__mb_global_id_n", "__mb_global_backlog_n", "__mb_epoch"]
        arguments: list[str | int] = [2000, 1, "_message_bus_5", "e"]
        for channel, text in texts[:count]:
            keys += [f"__mb_backlog_id_n_{channel}", f"__mb_backlog_n_{channel}"]
            envelope = f'{{"data":"{text}","user_ids":null,"group_ids":null,"client_ids":null}}'
            arguments += [channel, channel, envelope, 604_800, 2_419_200, 1000]
        script(keys=keys, args=arguments)

    listening.subscribe(texts[0][0], lambda message: None)
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "script": (1, lambda: bare(1)),
        "one": (1, lambda: bus.publish(*texts[0])),
        "many_script": (HUNDRED, lambda: bare(HUNDRED)),
        "many": (HUNDRED, lambda: bus.publish_many(texts)),
    }
    rates = _rates(ways, seconds)
    bus.close()
    rates |= _rates({"one_listening": (1, lambda: listening.publish(*texts[0]))}, seconds)
    listening.close()
    print(json.dumps(rates))


def _rates(ways: dict[str, tuple[int, Callable[[], object]]], seconds: float) -> dict[str, float]:
    published, spent = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)
    for _, way in ways.values():
        way()
    for _ in range(ROUNDS):
        for name, (count, way) in ways.items():
            began = time.perf_counter()
            until = began + seconds / ROUNDS
            while time.perf_counter() < until:
                way()
                published[name] += count
            spent[name] += time.perf_counter() - began
    return {name: published[name] / spent[name] for name in ways}


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
