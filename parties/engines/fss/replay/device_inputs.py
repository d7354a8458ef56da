"""The memory of recorded segments on a GPU: what each replay finds at the same place."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from parties.engines.fss.kernels import driver
from parties.engines.fss.kernels.keystream import DeviceKeystream
from parties.engines.fss.randomness.frames import WORD_BYTES, FrameReader
from parties.engines.fss.randomness.streams import Stream
from parties.engines.fss.recording.memory import Arena
from parties.engines.fss.replay import graphs
from parties.engines.fss.replay.inputs import MOST_CHECKS, Drawn, Inputs
from parties.engines.fss.replay.pieces import Pieces
from parties.engines.fss.replay.turns import Turns
from parties.metering.meter import StageMeter

PIECE_BYTES = 1 << 27
MOST_BYTES = 1 << 34  # a GPU that has less memory left refuses the recording


class DeviceInputs(Inputs):
    """See `Inputs`. The first graph of a segment expands the keystream; what was dealt is copied before it begins.

    Args:
        device: A GPU.
        seed: Seed of the party's keystream.
        meter: Counts the time of kernels.
    """

    staged = keeps_rows = True
    most_bytes = MOST_BYTES

    def __init__(self, device: torch.device, seed: bytes, meter: StageMeter) -> None:
        make = partial(torch.empty, dtype=torch.uint8, device=device)
        self.streams, self.dealt = [Pieces(make, PIECE_BYTES)], Pieces(make, PIECE_BYTES)
        self.failed = graphs.pinned(torch.zeros(MOST_CHECKS, dtype=torch.bool))
        self.failed_array = self.failed.numpy()
        self.arena = Arena(device)
        self._keystream = DeviceKeystream(seed, device)
        self._place = torch.zeros(2, dtype=torch.int64, device=device)
        self._clock, self._turns = graphs.KernelClock(meter.add_kernel_seconds), Turns()
        self._epoch = graphs.pinned(torch.zeros(2, dtype=torch.int64))
        self._frames: list[memoryview] = []
        self._rows = WeakTensorKeyDictionary()

    def place(self, numbers: Tensor) -> Tensor:
        """See `Inputs`; pinned."""
        return graphs.pinned(numbers)

    def recording(self, drawn: Drawn) -> Callable[..., Any]:
        """See `Inputs`."""
        before = partial(self._expand_there, drawn)
        return partial(graphs.GraphRecording, before=before, clock=self._clock, turns=self._turns)

    def fill(self, drawn: Drawn, streams: Sequence[Stream], frames: FrameReader | None, epoch: int) -> None:  # noqa: ARG002 - the device has its own
        """See `Inputs`."""
        self._epoch[0] = epoch
        self._frames.clear()  # the graphs of the segment before have waited for them
        if frames is not None:
            for piece, size in zip(self.dealt.made, drawn.dealt, strict=False):
                address = piece.data_ptr()
                for part in frames.parts(size):
                    driver.copy(address, part)
                    address += len(part)
                    self._frames.append(part)

    def _expand_there(self, drawn: Drawn) -> None:
        first, own = 0, drawn.own[0]
        for piece, size in zip(self.streams[0].made, own, strict=False):
            self._place.copy_(self._epoch, non_blocking=True)
            if first:
                self._place[1].fill_(first // WORD_BYTES)
            self._keystream.fill(self._place, piece[:size].view(torch.int64))
            first += size

    def take(self, moves: Sequence[tuple[Tensor, Tensor]]) -> None:
        """See `Inputs`; what lasts is at its place already."""
        super().take([(here, there) for here, there in moves if here.data_ptr() != there.data_ptr()])

    def drop_turn(self) -> None:
        """See `Inputs`."""
        self._turns.drop()
