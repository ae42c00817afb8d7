"""The queue between a client's thread and a loop over its messages."""

from __future__ import annotations

import math
import threading
import time

from messagebus.client.mailbox import Mailbox
from messagebus.client.types import ClientMessage

from .eventually import eventually


def message(number: int) -> ClientMessage:
    return ClientMessage("/chat", None, number, number)


def test_what_was_put_is_taken_in_order() -> None:
    mailbox = Mailbox(5)
    for number in range(3):
        mailbox.put(message(number))
    assert [mailbox.take(30) for _ in range(3)] == [message(0), message(1), message(2)]


def test_taking_waits_for_the_timeout_and_no_longer() -> None:
    started = time.monotonic()
    assert Mailbox(1).take(0.05) is None
    assert 0.04 < time.monotonic() - started < 20


def test_a_full_one_makes_putting_wait_until_there_is_room() -> None:
    mailbox = Mailbox(2)
    done = []

    def put() -> None:
        for number in range(5):
            mailbox.put(message(number))
            done.append(number)

    thread = threading.Thread(target=put)
    thread.start()
    eventually(lambda: done == [0, 1])
    assert mailbox.take(math.inf) == message(0)
    eventually(lambda: done == [0, 1, 2])
    assert [mailbox.take(30) for _ in range(4)] == [message(number) for number in range(1, 5)]
    thread.join(30)


def test_closing_ends_both_waits_and_what_is_in_it_can_still_be_taken() -> None:
    mailbox = Mailbox(1)
    mailbox.put(message(1))
    thread = threading.Thread(target=mailbox.put, args=[message(2)])
    thread.start()
    mailbox.close()
    thread.join(30)
    assert not thread.is_alive()
    assert mailbox.take(math.inf) == message(1)
    assert mailbox.take(math.inf) is None
    mailbox.put(message(3))
    assert mailbox.take(math.inf) is None
