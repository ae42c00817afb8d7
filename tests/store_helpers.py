"""What tests of any store do with a backend."""

from __future__ import annotations

from typing import Any

from messagebus.message import Ids, encode_envelope
from messagebus.stores import Store
from tests.eventually import eventually
from tests.recorder import Recorder

LIMITS: dict[str, Any] = {"max_backlog_size": 1000, "max_backlog_age": 604_800}


def publish(store: Store, name: str, data: int) -> Ids:
    return store.publish(name, encode_envelope(b"%d" % data), **LIMITS)


def listen(store: Store) -> Recorder:
    """A recorder that the feed has begun to tell."""
    recorder = Recorder()
    store.listen(recorder)
    eventually(lambda: recorder.told("started"))
    return recorder


def check_all(store: Store) -> None:
    """Every kind of connection works: the pool's and the feed's."""
    recorder = listen(store)
    assert publish(store, "/a", 1) == Ids(1, 1)
    eventually(lambda: recorder.data == [1])
    assert [message.data for message in store.backlog("/a").messages] == [1]
