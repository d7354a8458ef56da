"""Frames over memory that later frames use again, for the rounds of recorded segments."""

from collections.abc import Callable

import numpy as np
from xxhash import xxh3_64_intdigest, xxh32_intdigest

from parties.transport.connection import Connection, Stalled
from parties.transport.frame import FIELDS, HEADER, HEADER_BYTES, NUMBERS, Damaged, Unexpected

_RECORD = np.dtype([("length", ">u8"), ("number", ">u4"), ("payload", ">u8"), ("check", ">u4")])  # as `HEADER`


class FixedFrames:
    """A frame in each direction, of the same length, in memory that later frames use again.

    Args:
        size: Length of the payloads in bytes.
        make: Returns writable memory of so many bytes.

    Attributes:
        size: Length of a frame.
        outgoing: The frame to send.
        incoming: The frame that is received.
        payload: Payload to send.
        received: Payload that was received.
    """

    def __init__(self, size: int, make: Callable[[int], bytearray | memoryview] = bytearray) -> None:
        self.size = HEADER_BYTES + size
        self.outgoing, self.incoming = (memoryview(make(self.size)) for _ in range(2))
        self.payload, self.received = self.outgoing[HEADER_BYTES:], self.incoming[HEADER_BYTES:]
        self._fields, self._their_fields = self.outgoing[: FIELDS.size], self.incoming[: FIELDS.size]
        self._header = np.frombuffer(self.outgoing, _RECORD, 1)
        self._header["length"] = size

    def swap(self, connection: Connection, number: int, expected: int) -> None:
        """Sends the payload and concurrently receives one; all in one function, since recorded rounds are many.

        Args:
            connection: The connection.
            number: Number of the frame to send, counted from 0.
            expected: Number of the frame to receive.

        Raises:
            Stalled, Damaged, OSError: As in `Connection.move`.
            Unexpected: The peer sends a frame of another length or number.
        """
        header, sock, size, left, received, checksum = self._header, connection.socket, self.size, self.size, 0, 0
        header["number"], header["payload"] = number % NUMBERS, xxh3_64_intdigest(self.payload)
        header["check"] = xxh32_intdigest(self._fields)
        while received < size or left:
            if left:
                try:
                    count = sock.sendmsg([self.outgoing[size - left :]])
                except BlockingIOError:
                    count = 0
                left -= count
                connection.sent_bytes += count
            if received == size:
                connection.wait(sending=True, receiving=False)
                continue
            try:
                count = sock.recv_into(self.incoming[received:])
            except BlockingIOError:
                if left:
                    connection.wait(sending=True, receiving=True)
                elif not connection.arrivals.poll(connection.timeout_s * 1000):
                    raise Stalled from None
                continue
            if count == 0:
                raise ConnectionResetError
            connection.received_bytes += count
            received += count
            if received - count < HEADER_BYTES <= received:
                length, found, checksum, check = HEADER.unpack_from(self.incoming)
                if xxh32_intdigest(self._their_fields) != check:
                    raise Damaged("header")
                if length != size - HEADER_BYTES or found != expected % NUMBERS:
                    raise Unexpected(length, found)
        if xxh3_64_intdigest(self.received) != checksum:
            raise Damaged("payload")
