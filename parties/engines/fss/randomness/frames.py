"""The dealer's stream to one party: words in order, cut into frames, each with the number of its epoch.

A tensor of bytes is filled up to whole words of 8 bytes, so that every tensor of the stream is aligned.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from parties.errors import PartyError

_MARK = struct.Struct("<Q")
MARK_BYTES = _MARK.size
WORD_BYTES = 8
FRAME_BYTES = 1 << 20
_FILLING = memoryview(bytes(WORD_BYTES))
LONGEST_BYTES = MARK_BYTES + FRAME_BYTES
"""Longest frame, with its mark, that a party accepts."""


def in_words(count: int) -> int:
    """Returns the bytes that `count` bytes take in a stream of whole words."""
    return -(-count // WORD_BYTES) * WORD_BYTES


class RandomnessReused(PartyError):  # noqa: N818 - named for what happened
    """Correlated randomness was about to be used a second time, or out of order."""


class RandomnessOutOfStep(PartyError):  # noqa: N818 - named for what happened
    """The dealer's correlated randomness does not match the program that the parties run."""


class FrameWriter:
    """The dealer's end.

    Args:
        send: Called with each frame.

    Attributes:
        size: Bytes that are buffered and not yet sent.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._parts: list[memoryview] = []
        self.size = 0
        self._epoch = 0

    def begin(self, epoch: int) -> None:
        """Starts an epoch; bytes of the previous one that were not flushed are dropped."""
        self._epoch = epoch
        self.drop()

    def drop(self) -> None:
        """Drops the buffered bytes."""
        self._parts, self.size = [], 0

    def put(self, tensor: Tensor, *, stays: bool = False) -> None:
        """Appends the bytes of a tensor on the CPU.

        Args:
            tensor: The tensor.
            stays: Whether it stays as it is until the next flush, so that it is not copied before.
        """
        octets = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        data = octets.data if stays else memoryview(octets.tobytes())
        self._parts += [data, _FILLING[: -len(data) % WORD_BYTES]]
        self.size += in_words(len(data))

    def flush(self) -> None:
        """Sends the buffered bytes in frames of at most FRAME_BYTES, so that a queue of frames has bounded memory."""
        parts, mark, frame, room = self._parts, _MARK.pack(self._epoch), list[memoryview](), FRAME_BYTES
        self._parts, self.size = [], 0
        for part in parts:
            left = part
            while left:
                taken, left = left[:room], left[room:]
                frame.append(taken)
                room -= len(taken)
                if not room:
                    self._send(b"".join([mark, *frame]))
                    frame, room = [], FRAME_BYTES
        if frame:
            self._send(b"".join([mark, *frame]))


class FrameReader:
    """A party's end; frames of abandoned epochs are skipped.

    Args:
        receive: Waits for the next frame and returns it.
    """

    def __init__(self, receive: Callable[[], bytes | bytearray | memoryview]) -> None:
        self._receive = receive
        self._begun = False
        self._epoch = 0
        self._left = memoryview(b"")

    def begin(self, epoch: int) -> None:
        """Starts an epoch.

        Raises:
            RandomnessReused: The epoch, or a later one, was started before.
        """
        if self._begun and epoch <= self._epoch:
            raise RandomnessReused(f"epoch {epoch} of the correlated randomness was begun before; use each epoch once")
        self._begun, self._epoch, self._left = True, epoch, memoryview(b"")

    def take(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Returns the next elements as a new array; waits for them.

        Raises:
            RandomnessOutOfStep: The epoch has no more elements, or a frame is malformed.
        """
        array = np.empty(tuple(shape), dtype=dtype)
        self.fill(array.reshape(-1).view(np.uint8))
        return array

    def fill(self, octets: NDArray[np.uint8]) -> None:
        """Fills an array with the next bytes; waits for them.

        Raises:
            RandomnessOutOfStep: See `take`.
        """
        filled = 0
        while filled < octets.size:
            part = self._part(octets.size - filled)
            octets[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled += len(part)
        self._left = self._left[-octets.size % WORD_BYTES :]

    def copy_to(self, octets: Tensor) -> list[Tensor]:
        """Fills a tensor of bytes on a GPU, in its stream.

        Returns:
            The bytes on the host, to be kept until the stream has come so far.

        Raises:
            RandomnessOutOfStep: See `take`.
        """
        filled, parts = 0, list[Tensor]()
        for octets_part in self.parts(octets.numel()):
            part = torch.frombuffer(octets_part, dtype=torch.uint8)
            octets[filled : filled + len(part)].copy_(part, non_blocking=True)
            filled += len(part)
            parts.append(part)
        return parts

    def parts(self, size: int) -> Iterator[memoryview]:
        """Yields the next bytes where they are, in order.

        Raises:
            RandomnessOutOfStep: See `take`.
        """
        left = size
        while left:
            part = self._part(left)
            left -= len(part)
            yield part
        self._left = self._left[-size % WORD_BYTES :]

    def _part(self, most: int) -> memoryview:
        while not self._left:
            self._next_frame()
        part, self._left = self._left[:most], self._left[most:]
        return part

    def _next_frame(self) -> None:
        frame = memoryview(self._receive())
        if len(frame) <= _MARK.size:
            raise RandomnessOutOfStep(
                f"a frame of {len(frame)} bytes holds no correlated randomness: its epoch alone takes {_MARK.size}; "
                f"check that all parties run the same version"
            )
        (epoch,) = _MARK.unpack(frame[: _MARK.size])
        if epoch > self._epoch:
            raise RandomnessOutOfStep(
                f"the correlated randomness of epoch {self._epoch} is used up, and the dealer has moved on to epoch "
                f"{epoch}; check that all parties run the same version"
            )
        if epoch == self._epoch:
            self._left = frame[_MARK.size :]
