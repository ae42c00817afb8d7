"""Publishes for some seconds, and prints messages per second as JSON.

``python -m bench.servers.publishing WAY URL SECONDS [ANNOUNCE]``, with a store's URL and the option
``redis_announce``. WAY: ``script`` for Redis's script alone,
through redis-py; ``bus``; ``listening`` for a bus with a subscriber in the process. Each has a process of its own: a
bus hears what anybody publishes, and would take time from the others.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import count as count_from

import redis

from messagebus import Bus
from messagebus.message import encode_envelope, encode_json
from messagebus.options import Options
from messagebus.stores.base import Publication, PublicationId
from messagebus.stores.redis import RedisStore
from messagebus.stores.redis_scripts import PUBLISH

from ..wires import payload

CHANNELS = 10
HUNDRED = 100


def main(way: str, url: str, seconds: float, announce: str = "together") -> None:
    texts = [(f"/publish-{i % CHANNELS}", payload(i)) for i in range(HUNDRED)]
    if way == "script":
        client = redis.Redis.from_url(url, protocol=2)
        script = client.register_script(PUBLISH.text)
        options = Options(url=url)
        store = RedisStore(options)
        messages = [
            Publication(channel, encode_envelope(encode_json(text)), options.max_backlog_size, options.max_backlog_age)
            for channel, text in texts
        ]
        numbers = count_from(int(time.time() * 1000))  # above those of a run before

        def bare(count: int) -> None:
            """What the script needs and no more."""
            number, *rest = store.publish_arguments(messages[:count], PublicationId("bench", next(numbers)))
            script(keys=rest[:number], args=rest[number:])

        print(json.dumps(_rates(lambda: bare(1), lambda: bare(HUNDRED), seconds)))
        return
    bus = Bus(url=url, redis_announce=announce)
    if way == "listening":
        bus.subscribe(texts[0][0], lambda message: None)
    print(json.dumps(_rates(lambda: bus.publish(*texts[0]), lambda: bus.publish_many(texts), seconds)))
    bus.close()


def _rates(one: Callable[[], object], many: Callable[[], object], seconds: float) -> dict[str, float]:
    """Messages per second, one by one and in hundreds, for so many seconds each."""
    rates = {}
    for name, publish, count in (("one", one, 1), ("many", many, HUNDRED)):
        publish()
        published, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            publish()
            published += count
        rates[name] = published / (time.perf_counter() - began)
    return rates


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
