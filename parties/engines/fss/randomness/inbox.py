"""The dealer's stream to one party: bytes in order, cut into frames, each marked with its epoch."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from parties.errors import PartyError

_MARK = struct.Struct("<Q")
MARK_BYTES = _MARK.size
FRAME_BYTES = 1 << 20
LONGEST_BYTES = MARK_BYTES + FRAME_BYTES
"""Of a frame with its mark: a party believes no longer one."""


class MaterialReused(PartyError):  # noqa: N818 - named for what happened
    """Correlated randomness was asked for again, or out of order."""


class MaterialOutOfStep(PartyError):  # noqa: N818 - named for what happened
    """The dealer walked another program than the parties run."""


class Outbox:
    """The dealer's end.

    Args:
        send: takes one frame.

    Attributes:
        size: bytes gathered and not yet sent.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._parts: list[bytes] = []
        self.size = 0
        self._epoch = 0

    def begin(self, epoch: int) -> None:
        """What follows belongs to `epoch`; what was not yet flushed of the one before is dropped."""
        self._epoch = epoch
        self.drop()

    def drop(self) -> None:
        """Forgets what has gathered."""
        self._parts, self.size = [], 0

    def put(self, array: NDArray[Any]) -> None:
        """Appends the bytes of an array."""
        data = array.tobytes()
        self._parts.append(data)
        self.size += len(data)

    def flush(self) -> None:
        """Sends what has gathered, in frames of at most FRAME_BYTES, so that a queue of frames bounds memory."""
        gathered = memoryview(b"".join(self._parts))
        self._parts, self.size = [], 0
        for start in range(0, len(gathered), FRAME_BYTES):
            self._send(_MARK.pack(self._epoch) + gathered[start : start + FRAME_BYTES])


class Inbox:
    """A party's end; frames of epochs that were given up are skipped.

    Args:
        receive: returns the next frame; waits for it.
    """

    def __init__(self, receive: Callable[[], bytes | bytearray]) -> None:
        self._receive = receive
        self._begun = False
        self._epoch = 0
        self._left = memoryview(b"")

    def begin(self, epoch: int) -> None:
        """Expects `epoch` from now on.

        Raises:
            MaterialReused: the epoch was begun before.
        """
        if self._begun and epoch <= self._epoch:
            raise MaterialReused(f"epoch {epoch} of the dealer's material was begun before; use each epoch once")
        self._begun, self._epoch, self._left = True, epoch, memoryview(b"")

    def take(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """The next elements, as an array of its own."""
        array = np.empty(tuple(shape), dtype=dtype)
        room = array.reshape(-1).view(np.uint8)
        filled = 0
        while filled < room.size:
            if not self._left:
                self._next_frame()
                continue
            count = min(room.size - filled, len(self._left))
            room[filled : filled + count] = np.frombuffer(self._left[:count], np.uint8)
            self._left, filled = self._left[count:], filled + count
        return array

    def _next_frame(self) -> None:
        frame = memoryview(self._receive())
        if len(frame) <= _MARK.size:
            raise MaterialOutOfStep(f"a frame of {len(frame)} bytes holds no material: its mark takes {_MARK.size}")
        (epoch,) = _MARK.unpack(frame[: _MARK.size])
        if epoch > self._epoch:
            raise MaterialOutOfStep(f"the dealer's material of epoch {self._epoch} is used up; it went on to {epoch}")
        if epoch == self._epoch:
            self._left = frame[_MARK.size :]
