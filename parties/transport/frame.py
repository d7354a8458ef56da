"""Frames: a fixed header, then the payload, with as few copies as possible and a checksum over each.

The header is payload length, sequence number, XXH3 of the payload, and XXH32 of those three, so that a damaged length
is detected before it is used. The checksums detect accidental damage, not forgery; only TLS protects against that.
"""

import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest, xxh32_intdigest

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from torch import Tensor

    from parties.transport.tls import TlsSocket

FIELDS = struct.Struct("!QIQ")  # payload length in bytes, sequence number modulo 2^32, checksum of the payload
_CHECK = struct.Struct("!I")
HEADER = struct.Struct("!QIQI")  # both
HEADER_BYTES = FIELDS.size + _CHECK.size
NUMBERS = 1 << 32


class Damaged(Exception):  # noqa: N818 - named after the condition
    """A checksum does not match; the message is the damaged part, `header` or `payload`."""


def bytes_of(buffer: "ReadableBuffer") -> memoryview:
    """The bytes of any buffer, without a copy where it is contiguous."""
    view = memoryview(buffer)
    if view.nbytes and view.c_contiguous:
        return view if view.format == "B" and view.ndim == 1 else view.cast("B")
    return memoryview(view.tobytes())


def tensor_bytes(tensor: "Tensor") -> memoryview:
    """The bytes of a CPU tensor of any dtype and shape, without a copy where it is contiguous."""
    import torch  # takes a second, and a process that sends no tensors does without it

    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data


def header(payload: memoryview | bytes, number: int) -> bytes:
    """The header of a payload that is frame `number` of its direction, counted from 0."""
    fields = FIELDS.pack(len(payload), number % NUMBERS, xxh3_64_intdigest(payload))
    return fields + _CHECK.pack(xxh32_intdigest(fields))


class Unexpected(Exception):  # noqa: N818 - named after the condition
    """A frame has another length or number than the next one; the arguments are what it has."""


class IncomingFrame:
    """A frame that is being received: its header, then its payload into `room`, or into new memory if that is None.

    Args:
        check: Called with the length and number of an undamaged header; raises if they are not those of the next frame.
        room: Buffer for the payload, of the length that `check` requires.

    Attributes:
        payload: The payload, if `room` is None.
    """

    def __init__(self, check: Callable[[int, int], None], room: memoryview | None) -> None:
        self._check = check
        self._room = room
        self._header = bytearray(HEADER_BYTES)
        self._left = memoryview(self._header)
        self._checksum: int | None = None
        self.payload = bytearray()

    def pull(self, sock: "socket.socket | TlsSocket") -> int:
        """Reads the bytes that have arrived; returns their number, 0 if there are none yet.

        Raises:
            ConnectionResetError: The peer has closed the connection.
        """
        try:
            count = sock.recv_into(self._left)
        except BlockingIOError:
            return 0
        if count == 0:
            raise ConnectionResetError
        self._left = self._left[count:]
        return count

    def advance(self) -> bool:
        """Checks a complete header or payload; returns whether the frame is complete.

        Raises:
            Damaged: Header or payload does not match its checksum.
        """
        if not self._left and self._checksum is None:
            self._left = self._begin_payload()
        if self._left or self._room is None:
            return False
        if xxh3_64_intdigest(self._room) != self._checksum:
            raise Damaged("payload")
        return True

    def _begin_payload(self) -> memoryview:
        fields, (check,) = self._header[: FIELDS.size], _CHECK.unpack(self._header[FIELDS.size :])
        if xxh32_intdigest(fields) != check:
            raise Damaged("header")
        length, number, self._checksum = FIELDS.unpack(fields)
        self._check(length, number)
        if self._room is None:
            self.payload = bytearray(length)
            self._room = memoryview(self.payload)
        return self._room
