"""Nothing but a loop of ``send``: what the load generator takes. ``python -m bench.servers.sender PORT CLIENTS``.

Waits for so many connections. Then each line of two numbers on the first connection, rounds and pieces, has it send
``pieces`` copies of a message in one write to every other connection, ``rounds`` times.
"""

from __future__ import annotations

import selectors
import socket
import sys

from ..wires import payload


def main(port: int, clients: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    sockets: list[socket.socket] = []
    while len(sockets) < clients + 2:  # the first one only asks whether anybody listens, the second one commands
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(sock)
        if len(sockets) > 2:
            sock.recv(65_536)
            sock.sendall(b"ready")
            sock.setblocking(False)
    orders = sockets[1].makefile("rb")
    number = 0
    for line in orders:
        rounds, pieces = map(int, line.split())
        for _ in range(rounds):
            data = b"".join(b"xx" + payload(number + i + 1).encode() for i in range(pieces))
            number += pieces
            for sock in sockets[2:]:
                _send(sock, data)


def _send(sock: socket.socket, data: bytes) -> None:
    while True:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_WRITE)
                selector.select()
        if not data:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
