"""A message that comes whole is read the same as one that comes byte by byte, which the library's parser reads."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode

from messagebus.http.frame_reader import FrameReader

LIMIT = 70_000


def read(pieces: Iterable[bytes], limit: int | None = LIMIT) -> list[tuple[Opcode, bytes, bool]]:
    reader = FrameReader(limit)
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (frame := reader.take()) is not None:
            found.append((frame.opcode, bytes(frame.data), frame.fin))
    assert reader.is_between_frames
    return found


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 300, 65_535, 65_536])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_a_message_of_any_size_is_the_same_whole_and_in_bytes(opcode: Opcode, size: int) -> None:
    message = bytes(index % 251 for index in range(size))
    data = Frame(opcode, message).serialize(mask=True)
    assert read([data]) == read(one_by_one(data)) == [(opcode, message, True)]


def test_frames_of_all_kinds_in_one_piece_are_the_same_as_in_bytes() -> None:
    frames = [
        Frame(Opcode.TEXT, b"first"),
        Frame(Opcode.PING, b"there?"),
        Frame(Opcode.TEXT, b"in ", fin=False),
        Frame(Opcode.PONG, b""),
        Frame(Opcode.CONT, b"two"),
        Frame(Opcode.BINARY, b"x" * 200),
        Frame(Opcode.CLOSE, b"\x03\xe8"),
    ]
    data = b"".join(frame.serialize(mask=True) for frame in frames)
    assert read([data]) == read(one_by_one(data)) == [(frame.opcode, frame.data, frame.fin) for frame in frames]


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_message_that_comes_in_two_pieces_is_whole_with_the_second(cut: int) -> None:
    data = Frame(Opcode.TEXT, b"hello").serialize(mask=True)
    assert read([data[:cut], data[cut:]]) == [(Opcode.TEXT, b"hello", True)]


@pytest.mark.parametrize("size", [100, 200])
def test_a_message_above_the_limit_is_refused_however_it_comes(size: int) -> None:
    data = Frame(Opcode.TEXT, b"x" * size).serialize(mask=True)
    for pieces in ([data], one_by_one(data)):
        with pytest.raises(PayloadTooBig):
            read(pieces, size - 1)
    assert read([data], size) == [(Opcode.TEXT, b"x" * size, True)]


@pytest.mark.parametrize(
    "data",
    [
        Frame(Opcode.TEXT, b"hello").serialize(mask=False),
        b"\xc1\x80\0\0\0\0",  # a reserved bit
        b"\x83\x80\0\0\0\0",  # no opcode
        b"\x09\x80\0\0\0\0",  # a ping in fragments
    ],
)
def test_a_frame_against_the_protocol_is_refused_however_it_comes(data: bytes) -> None:
    for pieces in ([data], one_by_one(data)):
        with pytest.raises(ProtocolError):
            read(pieces)
