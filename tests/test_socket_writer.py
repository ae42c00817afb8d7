"""One connection's way out, over a real pair of sockets: order, the bound, and its end."""

from __future__ import annotations

import _socket
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from messagebus.limit_counts import LimitCounts
from messagebus.loop.blocking_writer import BlockingWriter
from messagebus.loop.outboxes import Outboxes
from messagebus.loop.reactor import Reactor
from messagebus.loop.socket_writer import SocketWriter


class WriterOwner:
    """Notes what its connection tells it."""

    def __init__(self) -> None:
        self.data = b""
        self.slow = 0
        self.closed = 0
        self.deadlines = 0
        self.drained = 0
        self.when_slow: Callable[[], object] = lambda: None
        self.when_drained: Callable[[], object] = lambda: None

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_deadline(self) -> None:
        self.deadlines += 1

    def on_slow(self) -> None:
        self.slow += 1
        self.when_slow()

    def on_drained(self) -> None:
        self.drained += 1
        self.when_drained()

    def on_closed(self) -> None:
        self.closed += 1


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """A loop that turns when the test says so."""
    reactor = Reactor()
    yield reactor
    reactor.abandon()


class Pair:
    """A connection and its peer."""

    def __init__(self, reactor: Reactor, limit: int, outboxes: Outboxes | None = None) -> None:
        mine, self.peer = socket.socketpair()
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.peer.settimeout(30)
        self.owner = WriterOwner()
        self.reactor = reactor
        self.outboxes = Outboxes(1_000_000_000, reactor.clock) if outboxes is None else outboxes
        sock = _socket.socket(fileno=mine.detach())
        self.connection = SocketWriter(sock, reactor, self.owner, limit, self.outboxes)

    def turn(self, count: int = 1) -> None:
        for _ in range(count):
            self.reactor.turn(0)

    def read(self, size: int) -> bytes:
        """So many bytes at the peer, with as many turns as that takes."""
        received = b""
        self.peer.setblocking(False)
        for _ in range(100_000):
            self.turn()
            try:
                data = self.peer.recv(min(5000, size - len(received)))
            except BlockingIOError:
                continue
            received += data
            if not data or len(received) == size:
                return received
        raise AssertionError(f"{len(received)} of {size} bytes")


@pytest.fixture
def pair(reactor: Reactor) -> Iterator[Pair]:
    pair = Pair(reactor, limit=1_000_000)
    yield pair
    pair.connection.abort()
    pair.peer.close()


def test_what_is_put_in_one_turn_leaves_in_order_when_the_turn_is_over(pair: Pair) -> None:
    for number in range(10):
        pair.connection.put(b"%d" % number)
    pair.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        pair.peer.recv(100)
    pair.turn()
    assert pair.peer.recv(100) == b"0123456789"


@pytest.mark.parametrize("size", [1, 300, 9_000, 120_000])
def test_what_the_peer_does_not_take_at_once_follows_when_it_reads(pair: Pair, size: int) -> None:
    pieces = [bytes([number]) * size for number in range(1, 8)]
    for piece in pieces:
        pair.connection.put(piece)
    pair.turn(3)
    # More, while some of it waits.
    pair.connection.put(b"and more")
    expected = b"".join(pieces) + b"and more"
    assert pair.read(len(expected)) == expected
    assert pair.owner.slow == 0


@pytest.mark.parametrize("size", [1, 100_000, 900_000])
def test_one_piece_arrives_whole_before_what_is_put_in_later_turns(pair: Pair, size: int) -> None:
    pair.connection.put(b"x" * size)
    pair.turn()
    pair.connection.put(b"later")
    pair.turn()
    pair.connection.put(b"and more")
    expected = b"x" * size + b"later" + b"and more"
    assert pair.read(len(expected)) == expected
    assert pair.owner.slow == 0


@pytest.mark.parametrize("size", [1, 900_000])
def test_a_connection_that_is_finished_sends_its_one_piece_and_closes(pair: Pair, size: int) -> None:
    pair.connection.put(b"x" * size)
    pair.connection.finish()
    assert pair.read(size + 1) == b"x" * size
    assert pair.owner.closed == 1


def test_one_piece_that_is_too_much_for_the_socket_and_the_bound_is_told_to_the_owner(pair: Pair) -> None:
    pair.connection.put(b"x" * 1_500_000)
    pair.turn()
    assert pair.owner.slow == 1


def test_one_piece_for_a_peer_that_has_gone_ends_the_connection(pair: Pair) -> None:
    pair.peer.close()
    pair.connection.put(b"x")
    pair.connection.flush()
    assert (pair.connection.closed, pair.owner.closed) == (True, 1)


def test_many_small_pieces_that_wait_are_sent_in_order(pair: Pair) -> None:
    expected = b""
    for turn in range(50):
        for number in range(20):
            piece = b"<%d.%d>" % (turn, number) * 10
            expected += piece
            pair.connection.put(piece)
        pair.turn()
    assert pair.read(len(expected)) == expected


def test_past_the_bound_the_owner_is_told(reactor: Reactor) -> None:
    pair = Pair(reactor, limit=50_000)
    pair.owner.when_slow = pair.connection.abort
    for _ in range(200):
        pair.connection.put(b"x" * 1000)
        pair.turn()
    assert pair.owner.slow == pair.owner.closed == 1
    assert pair.connection.closed
    pair.peer.close()


def test_a_piece_of_the_backlog_does_not_count_against_the_bound_and_the_owner_is_told_when_it_has_left(
    reactor: Reactor,
) -> None:
    pair = Pair(reactor, limit=50_000)
    for _ in range(3):
        pair.connection.put(b"before")
        pair.connection.put_piece([b"x" * 200_000, b"y", b"z" * 100_000])
        pair.connection.put(b"a" * 20_000)
        assert pair.read(320_007) == b"before" + b"x" * 200_000 + b"y" + b"z" * 100_000 + b"a" * 20_000
        pair.turn()
    assert pair.owner.drained == 3
    assert pair.owner.slow == 0
    assert pair.outboxes.size == len(pair.outboxes) == 0
    pair.connection.put(b"x" * 300_000)
    pair.turn()
    assert pair.owner.slow == 1, "what is no piece counts as before"
    pair.connection.abort()
    pair.peer.close()


def test_a_piece_that_fits_the_socket_is_followed_by_the_next_in_the_next_turn(pair: Pair) -> None:
    pieces = [b"%d," % number for number in range(5)]

    def put_next() -> None:
        if pieces:
            pair.connection.put_piece([pieces.pop(0)])

    pair.owner.when_drained = put_next
    put_next()
    for _ in range(6):
        pair.reactor.turn(5)  # not in vain: it knows that there is more to send
    assert pair.peer.recv(100) == b"0,1,2,3,4,"
    assert pair.owner.drained == 5


def waiting(reactor: Reactor, outboxes: Outboxes, data: bytes) -> Pair:
    """A connection whose peer takes nothing, or next to nothing, of that."""
    pair = Pair(reactor, 1_000_000_000, outboxes)
    pair.connection.put(data)
    pair.turn()
    return pair


def test_what_waits_for_many_is_counted_once(reactor: Reactor) -> None:
    outboxes = Outboxes(10_000_000, reactor.clock)
    shared = b"x" * 1_000_000
    pairs = [waiting(reactor, outboxes, shared) for _ in range(20)]
    assert len(outboxes) == 20
    assert 1_000_000 <= outboxes.size < 1_001_000
    for pair in pairs[1:]:
        pair.connection.abort()
    assert 1_000_000 <= outboxes.size < 1_001_000
    assert pairs[0].read(1_000_000) == shared
    assert outboxes.size == len(outboxes) == 0
    for pair in pairs:
        pair.connection.abort()
        pair.peer.close()


def test_past_the_bound_of_all_those_that_have_taken_nothing_for_the_longest_are_closed(reactor: Reactor) -> None:
    refused = LimitCounts()
    outboxes = Outboxes(3_000_000, reactor.clock, refused)
    pairs = [waiting(reactor, outboxes, bytes([number]) * 900_000) for number in range(3)]
    pairs[0].read(300_000)  # it takes something, so that it is not the first to go
    more = waiting(reactor, outboxes, b"m" * 900_000)
    assert [pair.connection.closed for pair in pairs] == [False, True, False]
    assert not more.connection.closed
    assert outboxes.size < 3_000_000
    assert refused.as_dict() == {"max_outbox_total": 1}
    for pair in (*pairs, more):
        pair.connection.abort()
        pair.peer.close()
    assert outboxes.size == len(outboxes) == 0


def test_who_takes_nothing_for_too_long_is_closed_and_who_takes_a_little_is_not(reactor: Reactor) -> None:
    now = 0.0
    refused = LimitCounts()
    outboxes = Outboxes(100_000_000, lambda: now, refused)
    slow, stalled = waiting(reactor, outboxes, b"s" * 900_000), waiting(reactor, outboxes, b"t" * 900_000)
    for _ in range(4):
        now += 10.0
        slow.read(50_000)
        outboxes.end_stalled(30.0)
    assert stalled.connection.closed
    assert not slow.connection.closed
    assert refused.as_dict() == {"write_timeout": 1}
    for pair in (slow, stalled):
        pair.connection.abort()
        pair.peer.close()


def test_finish_closes_when_everything_has_been_sent(pair: Pair) -> None:
    pair.connection.put(b"x" * 200_000)
    pair.connection.finish()
    pair.turn()
    assert pair.owner.closed == 0
    assert pair.read(200_001) == b"x" * 200_000  # and then the end
    assert pair.owner.closed == 1


def test_finish_with_nothing_to_send_closes_at_once(pair: Pair) -> None:
    pair.connection.finish()
    assert pair.owner.closed == 1
    assert pair.peer.recv(10) == b""


def test_abort_closes_at_once_and_is_told_once(pair: Pair) -> None:
    pair.connection.put(b"never sent")
    pair.connection.abort()
    pair.connection.abort()
    pair.turn()
    assert pair.owner.closed == 1
    assert pair.peer.recv(10) == b""


def test_nothing_can_be_put_after_the_end(pair: Pair) -> None:
    pair.connection.abort()
    pair.connection.put(b"too late")
    pair.turn()
    assert pair.peer.recv(10) == b""


def test_what_the_peer_says_reaches_the_owner(pair: Pair) -> None:
    pair.peer.sendall(b"hello")
    pair.turn()
    assert pair.owner.data == b"hello"


def test_what_the_peer_says_after_the_end_reaches_nobody(pair: Pair) -> None:
    pair.connection.put(b"x" * 500_000)
    pair.connection.finish()
    pair.turn()
    pair.peer.sendall(b"hello")
    pair.turn()
    assert pair.owner.data == b""


def test_a_peer_that_goes_is_noticed(pair: Pair) -> None:
    pair.peer.close()
    pair.turn()
    assert pair.owner.closed == 1


def test_a_peer_that_goes_while_much_waits_for_it_is_noticed(pair: Pair) -> None:
    pair.connection.put(b"x" * 500_000)
    pair.turn()
    pair.peer.close()
    pair.turn(2)
    assert pair.owner.closed == 1


def test_its_deadline_is_the_owners(reactor: Reactor, pair: Pair) -> None:
    reactor.set_deadline(pair.connection, 0)
    reactor.turn(0.5)
    assert pair.owner.deadlines == 1


# --- where the server keeps its sockets ---


def test_a_blocking_connection_yields_what_is_put_until_it_is_finished(reactor: Reactor) -> None:
    connection = BlockingWriter(reactor, WriterOwner(), 1000, Outboxes(10_000, reactor.clock))
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(connection))
    reader.start()
    for number in range(5):
        connection.put(b"%d" % number)
    connection.finish()
    connection.put(b"too late")
    reader.join(30)
    assert received == [b"0", b"1", b"2", b"3", b"4"]


def test_a_blocking_connection_that_is_not_read_is_slow(reactor: Reactor) -> None:
    owner = WriterOwner()
    connection = BlockingWriter(reactor, owner, 1000, Outboxes(10_000, reactor.clock))
    connection.put(b"x" * 900)
    assert owner.slow == 0
    connection.put(b"x" * 200)
    assert owner.slow == 1


def test_what_a_blocking_connection_has_given_no_longer_counts(reactor: Reactor) -> None:
    owner = WriterOwner()
    connection = BlockingWriter(reactor, owner, 1000, Outboxes(10_000, reactor.clock))
    iterator = iter(connection)
    for _ in range(5):
        connection.put(b"x" * 900)
        next(iterator)
        # Taken when the next one is asked for; that is what a reader does.
        connection.put(b"")
        next(iterator)
        reactor.turn(0)
    assert owner.slow == 0


def test_a_blocking_connection_that_the_server_closes_before_it_began_is_over(reactor: Reactor) -> None:
    owner = WriterOwner()
    BlockingWriter(reactor, owner, 1000, Outboxes(10_000, reactor.clock)).close()
    reactor.turn(0)
    assert owner.closed == 1


def test_a_blocking_connection_that_the_server_closes_is_over(reactor: Reactor) -> None:
    owner = WriterOwner()
    connection = BlockingWriter(reactor, owner, 1000, Outboxes(10_000, reactor.clock))
    iterator = iter(connection)
    connection.put(b"x")
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    reactor.turn(0)
    assert owner.closed == 1
