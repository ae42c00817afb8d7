"""What tests of any store do with a backend."""

from __future__ import annotations

import subprocess
from pathlib import Path
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


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for this machine, signed by itself, and its key."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
