"""What all tests share. The fixtures are in the modules named here, each beside what it is made of."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.eventually import eventually
from tests.threads import alive, started_threads

# The same examples in every run, so that a run that fails fails again; others each time with
# --hypothesis-profile=default. No deadline for one example: a busy machine is no fault.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

pytest_plugins = ["tests.fixtures_stores", "tests.fixtures_servers", "tests.chromium"]


def pytest_configure() -> None:
    # Settings of the bus that whoever runs the tests happens to have.
    for name in [name for name in os.environ if name.startswith("MESSAGEBUS_") or name == "REDIS_URL"]:
        del os.environ[name]
    # A run that is ended from outside ends as by Ctrl-C does, through the fixtures: no server stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell has what it starts in the background ignore Ctrl-C, and so would all programs that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    # What buses have to say at the end of the process would stand behind the summary.
    logging.getLogger("messagebus").setLevel(logging.CRITICAL)


def _of_a_bus(threads: list[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threads if thread.name.startswith("messagebus-")]


def pytest_collection_finish() -> None:
    running = _of_a_bus(threading.enumerate())
    assert not running, "a module of the tests imports an app whose bus runs: start it as a server"


@pytest.fixture(autouse=True)
def threads_of_test() -> Iterator[list[threading.Thread]]:
    """The threads that the test has started. The test that leaves a bus running is the one that fails, and not a later
    one that meets its threads."""
    with started_threads() as started:
        yield started

    def ended() -> bool:
        left = sorted(thread.name for thread in _of_a_bus(alive(started)))
        assert not left, f"threads of a bus run on: {', '.join(left)}"
        return True

    eventually(ended)
