"""Publishes numbers into a Redis: ``python -m tests.integration.publisher ours|other URL CHANNEL COUNT``.

``other`` is a program that knows nothing of this package and keeps to the layout that the Ruby gem has: one Lua script
for each message, with the age limit on the id key as well and no epoch. Begins when something is pushed to ``go``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import redis

from messagebus import Bus

SCRIPT = """
local message, age, size, global_size, channel = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local global_id_key, id_key, backlog_key, global_backlog_key, pubsub_channel = unpack(KEYS)
local global_id = redis.call("INCR", global_id_key)
local id = redis.call("INCR", id_key)
local stored = string.format("%i|%i|%s", global_id, id, message)
redis.call("ZADD", backlog_key, id, stored)
redis.call("EXPIRE", backlog_key, age)
redis.call("ZADD", global_backlog_key, global_id, string.format("%i|%s", id, channel))
redis.call("EXPIRE", global_backlog_key, age)
redis.call("PUBLISH", pubsub_channel, stored)
redis.call("EXPIRE", id_key, age)
if id > size then redis.call("ZREMRANGEBYSCORE", backlog_key, 1, id - size) end
if global_id > global_size then redis.call("ZREMRANGEBYSCORE", global_backlog_key, 1, global_id - global_size) end
return id
"""


def publisher(kind: str, url: str, channel: str) -> Callable[[object], object]:
    if kind == "ours":
        bus = Bus(url=url)
        return lambda data: bus.publish(channel, data)
    client = redis.Redis.from_url(url)
    script = client.register_script(SCRIPT)
    keys = ["__mb_global_id_n", f"__mb_backlog_id_n_{channel}", f"__mb_backlog_n_{channel}", "__mb_global_backlog_n"]

    def publish(data: object) -> object:
        envelope = json.dumps({"data": data, "user_ids": None, "group_ids": None, "client_ids": None})
        return script([*keys, "_message_bus_0"], [f"{channel}|{envelope}", 604_800, 1000, 2000, channel])

    return publish


def main(kind: str, url: str, channel: str, count: str) -> None:
    publish = publisher(kind, url, channel)
    with redis.Redis.from_url(url) as client:
        assert client.blpop(["go"], 20), "nobody said go"
    ids = [publish([kind, number]) for number in range(int(count))]
    json.dump(ids, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
