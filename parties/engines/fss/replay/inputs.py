"""The memory that recorded segments share, since they run one after the other."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from parties.engines.fss.randomness.frames import FrameReader
from parties.engines.fss.randomness.streams import Stream
from parties.engines.fss.recording.memory import Arena
from parties.engines.fss.recording.tape import Recording
from parties.engines.fss.replay.pieces import Pieces
from parties.engines.keystream import Keystream

PIECE_BYTES = 1 << 28
"""Randomness of one kind for which there is memory in one piece; what is not used is not touched."""
MOST_BYTES = 1 << 30
"""Randomness of one kind that a recorded segment may take."""
MOST_CHECKS = 1 << 13


@dataclass
class Drawn:
    """The randomness of a segment.

    Attributes:
        own: Bytes of each keystream, by piece of memory.
        dealt: Bytes that the dealer sends, by piece of memory.
    """

    own: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    dealt: list[int] = field(default_factory=list)


class Inputs:
    """Memory that recordings that run one after the other share: randomness, checks, and intermediate results.

    Args:
        keeps_rows: Whether rows that a segment leaves in a cache stay where they are until it is replayed again, for
            the next segment to read them there. The dealer, which goes back to earlier tokens, needs copies.

    Attributes:
        keeps_rows: As given.
        staged: Whether what is opened is copied to memory of the host and back.
        most_bytes: Randomness of one kind that a recorded segment may take.
        streams: Keystreams of the party; the dealer expands two.
        dealt: What the dealer sends; at the dealer itself, what it is about to send.
        failed: Results of the checks; `failed_array` is the same memory.
        arena: Intermediate results.
    """

    staged = False
    most_bytes = MOST_BYTES

    def __init__(self, *, keeps_rows: bool = False) -> None:
        self.keeps_rows = keeps_rows
        make = partial(torch.empty, dtype=torch.uint8)
        self.streams: Sequence[Pieces] = [Pieces(make, PIECE_BYTES) for _ in range(2)]
        self.dealt = Pieces(make, PIECE_BYTES)
        self._threads = ThreadPoolExecutor(1, "keystream")  # of the dealer's second stream
        self._rows: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.failed = torch.zeros(MOST_CHECKS, dtype=torch.bool)
        self.failed_array = self.failed.numpy()
        self.arena = Arena()

    def place(self, numbers: Tensor) -> Tensor:
        """Returns memory of the host that tapes may read and write, with these numbers."""
        return numbers.clone(memory_format=torch.contiguous_format)

    def recording(self, drawn: Drawn) -> Callable[..., Any]:  # noqa: ARG002 - a replay on the CPU finds it expanded
        """Returns what makes the recording of a segment; see `Tracer.finish`."""
        return Recording

    def fill(self, drawn: Drawn, streams: Sequence[Stream], frames: FrameReader | None, epoch: int) -> None:  # noqa: ARG002
        """Expands and receives the randomness of a segment.

        Args:
            drawn: How much it takes.
            streams: The keystreams; the epoch has begun.
            frames: The dealer's stream; None at the dealer.
            epoch: The epoch.
        """
        first, *others = streams
        later = [self._threads.submit(self._expand, drawn, k, stream) for k, stream in enumerate(others, 1)]
        self._expand(drawn, 0, first)
        for filled in later:
            filled.result()
        if frames is not None:
            for piece, size in zip(self.dealt.made, drawn.dealt, strict=False):
                frames.fill(piece[:size].numpy())

    def _expand(self, drawn: Drawn, index: int, stream: Stream) -> None:
        assert isinstance(stream, Keystream)  # noqa: S101 - the memory is on the CPU
        for piece, size in zip(self.streams[index].made, drawn.own[index], strict=False):
            stream.fill(piece.numpy().data, size)

    def release(self) -> None:
        """Frees the memory; no recording is kept that uses it."""
        for pieces in (*self.streams, self.dealt):
            pieces.made.clear()
        self.arena.memory = self.arena.memory.new_empty(0)

    def lasts(self, tensor: Tensor) -> bool:
        """Tells whether a tensor is one of rows that stay where they are."""
        return tensor in self._rows

    def left(self, rows: Sequence[Tensor]) -> None:
        """Takes tensors of rows that stay where they are."""
        for tensor in rows:
            self._rows[tensor] = True

    def take(self, moves: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Copies what a segment reads to where its tapes read it: pairs of a place there and a tensor."""
        for here, there in moves:
            here.copy_(there)

    def drop_turn(self) -> None:
        """Lets go of what still waits for a round, after a segment that failed."""
