"""Messages between a party and its worker: JSON with a length, then the bytes of tensors. Nothing is pickled."""

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]
_LENGTH = struct.Struct("!Q")
_PART = 1 << 26  # bytes per call of the kernel


class Closed(Exception):  # noqa: N818 - a condition, not a fault: the other end has gone
    """The other end of the socket has closed it."""


def send(sock: socket.socket, message: Message, blobs: Sequence[memoryview] = ()) -> None:
    """Sends a message and the bytes that belong to it.

    Args:
        sock: A connected stream socket.
        message: Plain values.
        blobs: Contiguous memory; the receiver gets the same number of buffers.

    Raises:
        Closed: The other end has gone.
    """
    text = json.dumps({"message": message, "sizes": [blob.nbytes for blob in blobs]}).encode()
    try:
        sock.sendall(_LENGTH.pack(len(text)) + text)
        for blob in blobs:
            octets = blob.cast("B")
            for start in range(0, len(octets), _PART):
                sock.sendall(octets[start : start + _PART])
    except OSError as error:
        raise Closed from error


def receive(sock: socket.socket) -> tuple[Message, list[bytearray]]:
    """Receives a message and the bytes that belong to it.

    Raises:
        Closed: The other end has gone.
    """
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    given = json.loads(_exactly(sock, length))
    return given["message"], [_exactly(sock, size) for size in given["sizes"]]


def _exactly(sock: socket.socket, count: int) -> bytearray:
    octets = bytearray(count)
    view, done = memoryview(octets), 0
    while done < count:
        try:
            got = sock.recv_into(view[done:], min(_PART, count - done))
        except OSError as error:
            raise Closed from error
        if not got:
            raise Closed
        done += got
    return octets
