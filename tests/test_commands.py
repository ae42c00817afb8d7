"""Commands without a WebSocket: the registry, and the queue that keeps their order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from messagebus import Bus
from messagebus.errors import BackendUnavailable, InvalidChannel
from messagebus.http.commands import COMMANDS, MAX_UNANSWERED, Caller, CommandError, CommandQueue, read_command
from messagebus.hub.subscriber import Identity


@pytest.fixture
def caller() -> Iterator[Caller]:
    bus = Bus(url="memory://", client_publish=("/open",))
    yield Caller(bus._running_node(), Identity("c"), None)
    bus.close()


def test_who_has_no_connection_may_publish_and_ping(caller: Caller) -> None:
    assert read_command(caller, {"publish": {"channel": "/open", "data": 1}, "id": 7}).perform() == {"message_id": 1}
    assert read_command(caller, {"ping": "x"}).perform() == {"pong": "x"}


@pytest.mark.parametrize(
    "command",
    [
        None,
        [],
        "ping",
        {},
        {"id": 1},
        {"ping": 1, "publish": 1},
        {"_ping": 1},
        {"__init__": 1},
        {"subscribe": {"/a": 0}},
        {"unsubscribe": ["/a"]},
        {"publish": []},
        {"publish": {"channel": "/open"}},
        {"publish": {"channel": "/open", "data": 1, "more": 1}},
    ],
)
def test_what_is_no_command_of_a_caller_is_a_bad_request(caller: Caller, command: Any) -> None:
    with pytest.raises(CommandError) as refused:
        read_command(caller, command)
    assert refused.value.code == "bad_request"


def test_a_channel_that_clients_may_not_publish_to_is_forbidden(caller: Caller) -> None:
    with pytest.raises(CommandError) as refused:
        read_command(caller, {"publish": {"channel": "/closed", "data": 1}})
    assert refused.value.code == "forbidden"
    with pytest.raises(InvalidChannel):
        read_command(caller, {"publish": {"channel": 7, "data": 1}})


def test_every_verb_leads_to_its_command() -> None:
    assert {verb: kind.verb for verb, kind in COMMANDS.items()} == {verb: verb for verb in COMMANDS}


def test_an_error_of_ours_is_told_as_its_type_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert CommandError.of(BackendUnavailable("away")).code == "unavailable"
    assert caplog.records == []
    told = CommandError.of(ZeroDivisionError("a secret"))
    assert (told.code, str(told)) == ("internal", "ZeroDivisionError")
    assert len(caplog.records) == 1


class Work:
    """Carries out commands of a queue: those with ``later`` take until ``finish``."""

    def __init__(self) -> None:
        self.queue = CommandQueue(idle=True)
        self.begun: list[str] = []

    def carry_out(self, command: str) -> None:
        self.begun.append(command)
        if "later" not in command:
            self.queue.done(self.carry_out)

    def push(self, *commands: str) -> None:
        for command in commands:
            assert self.queue.push(command, self.carry_out)

    def finish(self) -> None:
        self.queue.done(self.carry_out)


def test_commands_run_in_order_and_wait_for_a_slow_one() -> None:
    work = Work()
    work.push("1", "2 later", "3", "4 later", "5")
    assert work.begun == ["1", "2 later"]
    assert not work.queue.idle
    work.finish()
    assert work.begun == ["1", "2 later", "3", "4 later"]
    work.finish()
    assert work.begun == ["1", "2 later", "3", "4 later", "5"]
    assert work.queue.idle


def test_before_the_connection_is_live_everything_waits() -> None:
    work = Work()
    work.queue = CommandQueue(idle=False)
    work.push("1", "2")
    assert work.begun == []
    work.finish()
    assert work.begun == ["1", "2"]


def test_a_queue_takes_so_many_commands_and_no_more() -> None:
    work = Work()
    work.push("later", *map(str, range(MAX_UNANSWERED)))
    assert not work.queue.push("one too many", work.carry_out)
    work.finish()
    assert work.begun == ["later", *map(str, range(MAX_UNANSWERED))]
