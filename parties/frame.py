"""Frames: a fixed header (payload length, sequence number), then the payload, with as few copies as there can be."""

import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

HEADER = struct.Struct("!QQ")  # payload length in bytes, sequence number


def bytes_of(buffer: "ReadableBuffer") -> memoryview:
    """The bytes of any buffer, without a copy where it is contiguous."""
    view = memoryview(buffer)
    return view.cast("B") if view.nbytes and view.c_contiguous else memoryview(view.tobytes())


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a CPU tensor of any dtype and shape, without a copy where it is contiguous."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data


class IncomingFrame:
    """A frame on its way in: its header, then its payload into `room`, or into new memory if there is none."""

    def __init__(self, check: Callable[[int, int], None], room: memoryview | None) -> None:
        self._check = check
        self._room = room
        self._header = bytearray(HEADER.size)
        self._left = memoryview(self._header)
        self._in_payload = False
        self.payload = bytearray()

    def pull(self, sock: socket.socket) -> int:
        """Reads what has arrived; returns the number of bytes, 0 if there were none yet."""
        try:
            count = sock.recv_into(self._left)
        except BlockingIOError:
            return 0
        if count == 0:
            raise ConnectionResetError
        self._left = self._left[count:]
        return count

    def advance(self) -> bool:
        """Turns from a full header to the payload, if the header is right; returns whether the frame is whole."""
        if not self._left and not self._in_payload:
            length, number = HEADER.unpack(self._header)
            self._check(length, number)
            if self._room is None:
                self.payload = bytearray(length)
                self._room = memoryview(self.payload)
            self._left = self._room
            self._in_payload = True
        return self._in_payload and not self._left
