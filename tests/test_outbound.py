"""One connection's way out, over a real pair of sockets: order, the bound, and its end."""

from __future__ import annotations

import _socket
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from messagebus.loop.outbound import BlockingWriter, SocketWriter
from messagebus.loop.reactor import Reactor


class OutboundListener:
    """Notes what its connection tells it."""

    def __init__(self) -> None:
        self.data = b""
        self.slow = 0
        self.closed = 0
        self.deadlines = 0
        self.when_slow: Callable[[], object] = lambda: None

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_deadline(self) -> None:
        self.deadlines += 1

    def on_slow(self) -> None:
        self.slow += 1
        self.when_slow()

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

    def __init__(self, reactor: Reactor, limit: int) -> None:
        mine, self.peer = socket.socketpair()
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.peer.settimeout(5)
        self.owner = OutboundListener()
        self.reactor = reactor
        self.connection = SocketWriter(_socket.socket(fileno=mine.detach()), reactor, self.owner, limit)

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


def test_one_piece_over_the_bound_is_sent_to_a_peer_that_reads(reactor: Reactor) -> None:
    pair = Pair(reactor, limit=50_000)
    pair.connection.allow(300_000)
    pair.connection.put(b"x" * 300_000)
    assert pair.read(300_000) == b"x" * 300_000
    assert pair.owner.slow == 0
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
    connection = BlockingWriter(reactor, OutboundListener(), 1000)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(connection))
    reader.start()
    for number in range(5):
        connection.put(b"%d" % number)
    connection.finish()
    connection.put(b"too late")
    reader.join(5)
    assert received == [b"0", b"1", b"2", b"3", b"4"]


def test_a_blocking_connection_that_is_not_read_is_slow(reactor: Reactor) -> None:
    owner = OutboundListener()
    connection = BlockingWriter(reactor, owner, 1000)
    connection.put(b"x" * 900)
    assert owner.slow == 0
    connection.put(b"x" * 200)
    assert owner.slow == 1


def test_what_a_blocking_connection_has_given_no_longer_counts(reactor: Reactor) -> None:
    owner = OutboundListener()
    connection = BlockingWriter(reactor, owner, 1000)
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
    owner = OutboundListener()
    BlockingWriter(reactor, owner, 1000).close()
    reactor.turn(0)
    assert owner.closed == 1


def test_a_blocking_connection_that_the_server_closes_is_over(reactor: Reactor) -> None:
    owner = OutboundListener()
    connection = BlockingWriter(reactor, owner, 1000)
    iterator = iter(connection)
    connection.put(b"x")
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    reactor.turn(0)
    assert owner.closed == 1
