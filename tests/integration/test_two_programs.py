"""One Redis, and another program beside ours that keeps to the same layout: both publish, both listen."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import redis

from messagebus.options import Options
from messagebus.stores.redis import RedisStore
from tests.eventually import eventually
from tests.recorder import Recorder
from tests.servers import ROOT

pytestmark = pytest.mark.redis

COUNT = 400
CHANNEL = "/shared"


def publish_from_processes(url: str, kinds: list[str]) -> dict[str, list[int]]:
    """Each kind publishes from a process of its own, all at the same time; the message ids they were given."""
    processes = {}
    for kind in kinds:
        command = [sys.executable, "-m", "tests.integration.publisher", kind, url, CHANNEL, str(COUNT)]
        processes[kind] = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        with redis.Redis.from_url(url) as client:
            eventually(lambda: client.info("clients")["blocked_clients"] == len(kinds))
            client.rpush("go", *kinds)
        outputs = {kind: process.communicate(timeout=30)[0] for kind, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert all(process.returncode == 0 for process in processes.values())
    return {kind: json.loads(output) for kind, output in outputs.items()}


def test_two_programs_publish_at_the_same_time_and_both_hear_everything_without_a_hole(redis_url: str) -> None:
    store = RedisStore(Options(url=redis_url))
    recorder = Recorder()
    store.listen(recorder)
    try:
        eventually(lambda: recorder.told("started"))
        with redis.Redis.from_url(redis_url) as client, client.pubsub() as other:
            other.subscribe("_message_bus_0")
            eventually(lambda: client.pubsub_numsub("_message_bus_0")[0][1] == 2)
            ids = publish_from_processes(redis_url, ["ours", "other"])
            everything = list(range(1, 2 * COUNT + 1))

            # What they were given, taken together, has no hole, and neither was given an id twice.
            assert sorted(ids["ours"] + ids["other"]) == everything

            # We hear both, in the order of the ids, and read the same from the store.
            eventually(lambda: len(recorder.messages) == len(everything))
            heard = recorder.messages
            assert [message.global_id for message in heard] == [message.message_id for message in heard] == everything
            for kind in ids:
                assert [message.data[1] for message in heard if message.data[0] == kind] == list(range(COUNT))
                assert [message.message_id for message in heard if message.data[0] == kind] == ids[kind]
            assert [m.data for m in store.backlog(CHANNEL).messages] == [m.data for m in heard]
            assert recorder.told("resync") == []

            # So does the other, in the form it knows.
            received = [m["data"] for m in iter(lambda: other.get_message(timeout=1), None) if m["type"] == "message"]
            parts = [stored.split(b"|", 3) for stored in received]
            assert [int(part[0]) for part in parts] == [int(part[1]) for part in parts] == everything
            assert {part[2] for part in parts} == {CHANNEL.encode()}
            assert [json.loads(part[3])["data"] for part in parts] == [message.data for message in heard]
            assert all(set(json.loads(p[3])) == {"data", "user_ids", "group_ids", "client_ids"} for p in parts)
    finally:
        store.close()
