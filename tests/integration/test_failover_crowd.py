"""24 clients on every transport, through two servers, under load, while sentinels and primaries come and go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from messagebus import Bus
from tests.checking import CheckingClient, Load, checking_clients
from tests.eventually import eventually
from tests.sentinels import SentinelGroup
from tests.servers import Server

pytestmark = pytest.mark.redis
CHANNELS = ("/orders", "/prices", "/chat")
RATE = 500
"""Messages a second."""
DOWN_AFTER = 3000
"""Milliseconds. Less, and a machine that is busy with all this takes a primary for dead that is not."""


class Scene:
    def __init__(self, group: SentinelGroup, clients: list[CheckingClient], load: Load) -> None:
        self.group = group
        self.clients = clients
        self.load = load

    def go_on(self, seconds: float = 1.0) -> None:
        """Everybody is given as many more as that takes."""
        behind = {channel: number + int(seconds * RATE / len(CHANNELS)) for channel, number in self.load.sent.items()}
        self.all_have(behind)

    def all_have(self, wanted: dict[str, int]) -> None:
        for client in self.clients:
            eventually(
                lambda client=client: all(client.next[channel] >= wanted[channel] for channel in wanted),  # type: ignore[misc]
                timeout=60,
                message=f"{client.name} has {client.next} of {wanted}, publisher {self.load.error!r}",
            )

    def check(self) -> None:
        assert self.load.error is None
        for client in self.clients:
            assert client.faults == [], client.name

    def nobody_was_told_a_gap(self) -> None:
        for client in self.clients:
            assert client.gaps == [], client.name


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(SentinelGroup(replicas=2, sentinels=3, down_after=DOWN_AFTER))
        # Longer than everything here may take: nobody gets on by a timeout.
        environment = {"MESSAGEBUS_URL": group.url, "MESSAGEBUS_STORE_TIMEOUT": "30"}
        servers = [stack.enter_context(Server("serve", env=environment)) for _ in range(2)]
        bus = stack.enter_context(contextlib.closing(Bus(url=group.url, store_timeout=30.0)))
        clients = checking_clients([server.url for server in servers], 24, CHANNELS)
        for client in clients:
            stack.callback(client.close)
        scene = Scene(group, clients, stack.enter_context(Load(bus, CHANNELS, RATE, replicas=2)))
        scene.go_on()
        yield scene


def is_followed(scene: Scene) -> float:
    """Seconds until everybody hears what is published from now on."""
    began = time.monotonic()
    scene.all_have({channel: number + 2 for channel, number in scene.load.sent.items()})
    return time.monotonic() - began


def test_a_failover_in_order_under_load_is_noticed_by_nobody(scene: Scene) -> None:
    scene.group.fail_over_without_loss()
    assert is_followed(scene) < 15
    scene.go_on()
    scene.check()
    scene.nobody_was_told_a_gap()


def test_sentinels_that_are_started_again_one_after_the_other_are_noticed_by_nobody(scene: Scene) -> None:
    for sentinel in scene.group.sentinels:
        sentinel.restart()
        scene.go_on(0.3)
    scene.check()
    scene.nobody_was_told_a_gap()
    scene.group.wait_until_complete()


def test_a_primary_that_is_killed_under_load_loses_nothing_that_was_safe(scene: Scene) -> None:
    before = scene.group.primary()
    before.kill()
    scene.load.replicas = 1
    scene.group.wait_for_another(before)
    assert is_followed(scene) < 15
    scene.go_on()
    scene.check()
